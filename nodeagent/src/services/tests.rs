//! Routes and names for pictures of the world.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;

fn service(name: &str, spec: Value) -> Arc<Service> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
            .unwrap(),
    )
}

fn slice(service: &str, more: Value) -> Arc<EndpointSlice> {
    let mut all = json!({
        "metadata": {"name": service, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": [], "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    for (key, value) in more.as_object().unwrap() {
        all[key] = value.clone();
    }
    Arc::new(serde_json::from_value(all).unwrap())
}

fn web() -> Arc<Service> {
    service(
        "web",
        json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}),
    )
}

fn at(address: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "conditions": conditions})
}

fn backends(services: &Services) -> Vec<String> {
    services
        .routes
        .iter()
        .flat_map(|route| &route.backends)
        .map(|((ip, port), weight)| format!("{ip}:{port} x{weight}"))
        .collect()
}

#[test]
fn connections_go_to_what_is_ready_and_else_to_what_still_serves() {
    let ready = at("10.88.0.2", json!({"ready": true}));
    let unready = at("10.88.0.3", json!({"ready": false, "serving": false}));
    let going = at("10.88.0.4", json!({"ready": false, "serving": true, "terminating": true}));
    let of =
        |endpoints: Value| Services::of(&[web()], &[slice("web", json!({"endpoints": endpoints}))], "n1");
    assert_eq!(backends(&of(json!([ready, unready, going]))), ["10.88.0.2:8080 x1"]);
    assert_eq!(backends(&of(json!([unready, going]))), ["10.88.0.4:8080 x1"]);
    let none = of(json!([unready]));
    assert_eq!((none.routes.len(), backends(&none).len()), (1, 0));
}

#[test]
fn a_weight_and_affinity_and_a_local_policy_are_heeded() {
    let spec = json!({
        "clusterIP": "10.96.0.9", "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "externalIPs": ["192.0.2.9"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    });
    let endpoints = json!([
        {"addresses": ["10.88.0.2"], "nodeName": "n1"}, {"addresses": ["10.88.0.3"], "nodeName": "n2"},
    ]);
    let metadata = json!({"name": "web", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}, "annotations": {"clawbernetes.io/weight": "5"}});
    let all = Services::of(
        &[service("web", spec)],
        &[slice("web", json!({"metadata": metadata, "endpoints": endpoints}))],
        "n1",
    );
    assert_eq!(backends(&all), ["10.88.0.2:8080 x5"]);
    assert_eq!(all.routes[0].affinity_s, Some(60));
    assert_eq!(all.routes[0].address, Some(Ipv4Addr::new(10, 96, 0, 9)));
    assert_eq!(all.routes[0].external, [Ipv4Addr::new(192, 0, 2, 9)].into());
}

#[test]
fn what_comes_from_outside_may_stay_on_its_node() {
    let spec = |more: Value| {
        let mut spec = json!({
            "type": "NodePort", "clusterIP": "10.96.0.9",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let endpoints = json!([
        {"addresses": ["10.88.0.2"], "nodeName": "n1"}, {"addresses": ["10.88.0.3"], "nodeName": "n2"},
    ]);
    let of = |more: Value| {
        let service = service("web", spec(more));
        let all = Services::of(&[service], &[slice("web", json!({"endpoints": endpoints}))], "n1");
        let shown =
            |route: &Route| (usize::from(route.address.is_some()), route.node_port, route.backends.len());
        all.routes.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(of(json!({})), [(1, Some(30080), 2)]);
    assert_eq!(of(json!({"externalTrafficPolicy": "Local"})), [(1, None, 2), (0, Some(30080), 1)]);
    let both = json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"});
    assert_eq!(of(both), [(1, Some(30080), 1)]);
    assert_eq!(of(json!({"internalTrafficPolicy": "Local"})), [(1, None, 1), (0, Some(30080), 2)]);
    assert_eq!(of(json!({"type": "ClusterIP"})), [(1, None, 2)], "a type that has none");
}

fn all() -> Services {
    let ready = json!([
        {"addresses": ["10.88.0.2"], "hostname": "first"}, {"addresses": ["10.88.0.3"]},
    ]);
    let headless = service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 8080}]}));
    let alias = service("out", json!({"type": "ExternalName", "externalName": "example.com"}));
    Services::of(&[web(), headless, alias], &[slice("db", json!({"endpoints": ready}))], "n1")
}

fn ip(text: &str) -> Data {
    Data::Address(text.parse().unwrap())
}

#[test]
fn names_are_answered_as_the_specification_has_them() {
    let all = all();
    let found = |data: Vec<Data>| Answer::Found(data);
    for (name, kind, expected) in [
        ("web.shop.svc.cluster.local", Kind::Address, found(vec![ip("10.96.0.9")])),
        ("WEB.shop.svc.Cluster.Local", Kind::Address, found(vec![ip("10.96.0.9")])),
        ("web.shop.svc.cluster.local", Kind::Other, found(vec![])),
        ("db.shop.svc.cluster.local", Kind::Address, found(vec![ip("10.88.0.2"), ip("10.88.0.3")])),
        ("first.db.shop.svc.cluster.local", Kind::Address, found(vec![ip("10.88.0.2")])),
        ("10-88-0-3.db.shop.svc.cluster.local", Kind::Address, found(vec![ip("10.88.0.3")])),
        ("other.db.shop.svc.cluster.local", Kind::Address, Answer::Unknown),
        ("10-88-0-7.shop.pod.cluster.local", Kind::Address, found(vec![ip("10.88.0.7")])),
        ("out.shop.svc.cluster.local", Kind::Address, found(vec![Data::Alias("example.com".to_owned())])),
        ("shop.svc.cluster.local", Kind::Address, found(vec![])),
        ("nobody.shop.svc.cluster.local", Kind::Address, Answer::Unknown),
        ("web.nowhere.svc.cluster.local", Kind::Address, Answer::Unknown),
        ("example.com", Kind::Address, Answer::Elsewhere),
        ("notcluster.local", Kind::Address, Answer::Elsewhere),
        (
            "9.0.96.10.in-addr.arpa",
            Kind::Pointer,
            found(vec![Data::Pointer("web.shop.svc.cluster.local".to_owned())]),
        ),
        (
            "2.0.88.10.in-addr.arpa",
            Kind::Pointer,
            found(vec![Data::Pointer("first.db.shop.svc.cluster.local".to_owned())]),
        ),
        ("1.1.1.1.in-addr.arpa", Kind::Pointer, Answer::Elsewhere),
    ] {
        assert_eq!(all.answer(name, kind), expected, "{name}");
    }
}

#[test]
fn ports_are_found_by_their_names() {
    let all = all();
    let port = |port: u16, host: &str, address: &str| Data::Service {
        port,
        host: host.to_owned(),
        address: address.parse().unwrap(),
    };
    let web = "web.shop.svc.cluster.local";
    assert_eq!(
        all.answer("_http._tcp.web.shop.svc.cluster.local", Kind::Service),
        Answer::Found(vec![port(80, web, "10.96.0.9")])
    );
    assert_eq!(
        all.answer("_http._tcp.db.shop.svc.cluster.local", Kind::Service),
        Answer::Found(vec![
            port(8080, "first.db.shop.svc.cluster.local", "10.88.0.2"),
            port(8080, "10-88-0-3.db.shop.svc.cluster.local", "10.88.0.3"),
        ])
    );
    assert_eq!(all.answer("_http._udp.web.shop.svc.cluster.local", Kind::Service), Answer::Unknown);
}
