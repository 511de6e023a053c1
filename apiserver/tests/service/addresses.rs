//! Addresses of services: no two have the same, and each is free again when its service goes.

use std::collections::BTreeSet;

use claw_apiserver::store;
use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, ListOptions, WriteOptions},
};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use crate::world::{World, world};

fn services() -> ResourceRef {
    ResourceRef::collection("", "v1", "services").in_namespace("default")
}

fn addresses() -> ResourceRef {
    ResourceRef::collection("networking.k8s.io", "v1", "ipaddresses")
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

fn service_at(name: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})
}

fn ip(service: &Value) -> String {
    assert_eq!(service["spec"]["clusterIPs"], json!([service["spec"]["clusterIP"]]));
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

async fn taken(world: &World) -> BTreeSet<String> {
    let list = world.list(addresses(), ListOptions::default()).await.unwrap();
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ip| ip["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_service_is_given_an_address_that_is_free_again_when_it_goes() {
    let world = world().await;
    let made = world.create(services(), &service("web")).await.unwrap();
    assert!(ip(&made).starts_with("10.96."), "{made}");
    let record = world.get(addresses().named(&ip(&made))).await.unwrap();
    assert_eq!(
        record["spec"]["parentRef"],
        json!({"group": "", "resource": "services", "namespace": "default", "name": "web"})
    );
    let stored = world.get(services().named("web")).await.unwrap();
    assert_eq!(stored["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    world.delete(services().named("web"), DeleteOptions::default()).await.unwrap();
    assert_eq!(taken(&world).await, BTreeSet::new());
}

#[tokio::test]
async fn a_server_that_starts_again_keeps_its_address_and_says_where_it_is_now() {
    let world = world().await;
    let slices = ResourceRef::collection("discovery.k8s.io", "v1", "endpointslices").in_namespace("default");
    for place in ["192.0.2.1:6443", "192.0.2.2:7443"] {
        world.service.publish_itself(Some(place.parse().unwrap())).await.unwrap();
        let slice = world.get(slices.clone().named("kubernetes")).await.unwrap();
        let ip = slice["endpoints"][0]["addresses"][0].as_str().unwrap();
        assert_eq!(format!("{ip}:{}", slice["ports"][0]["port"]), place);
        assert_eq!(taken(&world).await, BTreeSet::from(["10.96.0.1".to_owned()]));
    }
}

#[tokio::test]
async fn services_made_at_the_same_time_never_share_an_address() {
    let world = world().await;
    let names: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let made = futures::future::join_all(names.iter().map(|name| {
        let body = service(name);
        let world = &world;
        async move { world.create(services(), &body).await.unwrap() }
    }));
    let given: BTreeSet<String> = made.await.iter().map(ip).collect();
    assert_eq!(given.len(), names.len());
    assert_eq!(taken(&world).await, given);
}

#[tokio::test]
async fn of_many_who_ask_for_one_address_one_gets_it() {
    let world = world().await;
    let made = futures::future::join_all((0..20).map(|n| {
        let (world, body) = (&world, service_at(&format!("s{n}"), "10.96.0.10"));
        async move { world.create(services(), &body).await }
    }));
    let (winners, losers): (Vec<_>, Vec<_>) = made.await.into_iter().partition(Result::is_ok);
    assert_eq!((winners.len(), losers.len()), (1, 19));
    for error in losers.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.reason, Reason::Invalid);
        assert_eq!(error.details.causes[0].field, "spec.clusterIPs");
        assert!(error.message.contains("failed to allocate IP 10.96.0.10: provided IP is already allocated"));
    }
}

#[tokio::test]
async fn an_address_outside_of_the_range_is_refused() {
    let world = world().await;
    for outside in ["10.97.0.1", "10.96.0.0", "10.96.255.255", "192.0.2.1"] {
        let error = world.create(services(), &service_at("web", outside)).await.unwrap_err();
        assert!(error.message.contains("is not in the valid range"), "{outside}: {error}");
    }
    assert_eq!(taken(&world).await, BTreeSet::new());
}

#[tokio::test]
async fn headless_and_external_services_take_no_address() {
    let world = world().await;
    world.create(services(), &service_at("headless", "None")).await.unwrap();
    let external =
        json!({"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "a.b"}});
    let made = world.create(services(), &external).await.unwrap();
    assert_eq!(made["spec"]["clusterIP"], Value::Null);
    assert_eq!(taken(&world).await, BTreeSet::new());
}

#[tokio::test]
async fn a_service_keeps_its_address_until_it_becomes_external() {
    let world = world().await;
    let made = world.create(services(), &service("web")).await.unwrap();
    // A manifest that is replaced says nothing of what was given.
    let mut again = service("web");
    again["spec"]["ports"][0]["port"] = 81.into();
    let replaced = world.update(services().named("web"), &again).await.unwrap();
    assert_eq!(ip(&replaced), ip(&made));
    let moved = world
        .merge(
            services().named("web"),
            &json!({"spec": {"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"]}}),
        )
        .await;
    assert!(moved.unwrap_err().message.contains("may not change once set"));

    let external = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}});
    let external = world.merge(services().named("web"), &external).await.unwrap();
    assert_eq!(external["spec"]["clusterIP"], Value::Null);
    assert_eq!(taken(&world).await, BTreeSet::new());
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    let back = world.merge(services().named("web"), &back).await.unwrap();
    assert_eq!(taken(&world).await, BTreeSet::from([ip(&back)]));
}

#[tokio::test]
async fn an_address_in_use_is_not_deleted_by_itself() {
    let world = world().await;
    let made = world.create(services(), &service("web")).await.unwrap();
    let error = world.delete(addresses().named(&ip(&made)), DeleteOptions::default()).await.unwrap_err();
    assert_eq!(error.reason, Reason::Forbidden);
    assert!(error.message.contains("it is the address of service \"default/web\""), "{error}");
    // One that nobody has is anybody's to give back.
    let spare = json!({"metadata": {"name": "10.96.0.77"}, "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "later"}}});
    world.create(addresses(), &spare).await.unwrap();
    let refused = world.create(services(), &service_at("later", "10.96.0.77")).await.unwrap_err();
    assert!(refused.message.contains("already allocated"));
    world.delete(addresses().named("10.96.0.77"), DeleteOptions::default()).await.unwrap();
    world.create(services(), &service_at("later", "10.96.0.77")).await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_taken_costs_no_address() {
    let world = world().await;
    let made = world.create(services(), &service("web")).await.unwrap();
    let error = world.create(services(), &service("web")).await.unwrap_err();
    assert_eq!(error.reason, Reason::AlreadyExists);
    assert_eq!(taken(&world).await, BTreeSet::from([ip(&made)]));
}

#[tokio::test]
async fn a_dry_run_shows_an_address_and_takes_none() {
    let world = world().await;
    let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let shown = world
        .ask(services(), Verb::Create { body: service("web").to_string().into(), options })
        .await
        .unwrap();
    assert!(ip(&shown).starts_with("10.96."));
    assert_eq!(taken(&world).await, BTreeSet::new());
}

#[tokio::test]
async fn a_finalizer_that_lets_go_frees_the_address() {
    let world = World::on(store::memory()).await;
    let mut held = service("web");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let made = world.create(services(), &held).await.unwrap();
    world.delete(services().named("web"), DeleteOptions::default()).await.unwrap();
    assert_eq!(taken(&world).await, BTreeSet::from([ip(&made)]), "it is still there");
    world.merge(services().named("web"), &json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(taken(&world).await, BTreeSet::new());
}

fn node_ports(service: &Value) -> Vec<u64> {
    let ports = service["spec"]["ports"].as_array().unwrap();
    ports.iter().filter_map(|port| port["nodePort"].as_u64()).collect()
}

fn from_outside(name: &str, ports: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}})
}

fn at_node_port(name: &str, number: u64) -> Value {
    from_outside(name, json!([{"port": 80, "nodePort": number}]))
}

#[tokio::test]
async fn node_ports_are_given_once_and_free_again_when_their_service_has_no_use_for_them() {
    let world = world().await;
    let names: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let made = futures::future::join_all(names.iter().map(|name| {
        let (world, body) = (&world, from_outside(name, ports.clone()));
        async move { world.create(services(), &body).await.unwrap() }
    }));
    let given: Vec<u64> = made.await.iter().flat_map(node_ports).collect();
    assert!(given.iter().all(|number| (30_000..=32_767).contains(number)), "{given:?}");
    assert_eq!((given.len(), given.iter().collect::<BTreeSet<_>>().len()), (100, 100));

    let first = given[0];
    let taken = world.create(services(), &at_node_port("other", first)).await.unwrap_err();
    assert_eq!(taken.details.causes[0].field, "spec.ports[0].nodePort");
    assert!(taken.message.ends_with(&format!("Invalid value: {first}: provided port is already allocated")));
    let inner = json!({"spec": {"type": "ClusterIP"}});
    let inner = world.merge(services().named("s0"), &inner).await.unwrap();
    assert_eq!(node_ports(&inner), Vec::<u64>::new());
    world.create(services(), &at_node_port("other", first)).await.unwrap();
    world.delete(services().named("other"), DeleteOptions::default()).await.unwrap();
    world.create(services(), &at_node_port("another", first)).await.unwrap();
}

#[tokio::test]
async fn a_service_keeps_its_node_ports_and_gets_those_that_it_comes_to_need() {
    let world = world().await;
    world.create(services(), &at_node_port("web", 30_080)).await.unwrap();
    let more = from_outside("web", json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]));
    let more = world.update(services().named("web"), &more).await.unwrap();
    let [first, second] = node_ports(&more)[..] else { panic!("{more}") };
    assert!(first == 30_080 && second != 30_080);
    // One of both protocols on one port is one port of the node.
    let dns = json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    let dns = world.create(services(), &from_outside("dns", dns)).await.unwrap();
    let [tcp, udp] = node_ports(&dns)[..] else { panic!("{dns}") };
    assert_eq!(tcp, udp);
    let outside = world.create(services(), &at_node_port("low", 80)).await.unwrap_err();
    assert!(outside.message.contains("The range of valid ports is 30000-32767"), "{outside}");
    let without = json!({
        "metadata": {"name": "balanced"},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]},
    });
    assert!(node_ports(&world.create(services(), &without).await.unwrap()).is_empty());
}
