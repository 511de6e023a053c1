//! Which endpoints follow from pictures of the world.

use claw_runtime::{action::Step, caches::Caches};
use serde_json::{Value, json};

use super::*;
use crate::pods::build;

fn service(spec: Value) -> Service {
    let mut all = json!({"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]});
    build::json_patch_merge(&mut all, &spec);
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "service", "labels": {"team": "a"}}, "spec": all,
    }))
    .unwrap()
}

fn pod(name: &str, more: Value) -> Pod {
    let mut all = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"podIP": format!("10.88.0.{}", name.trim_start_matches('p'))},
    });
    build::json_patch_merge(&mut all, &more);
    build::ready(build::pod(name, all), 10)
}

struct Picture {
    caches: Caches,
}

impl Picture {
    fn of(pods: Vec<Pod>) -> Self {
        let caches = Caches::offline();
        caches.set(pods);
        caches.set::<EndpointSlice>(Vec::new());
        caches.set::<LegacyEndpoints>(Vec::new());
        Self { caches }
    }

    fn plan(&self, service: Service) -> Plan {
        let mut plan =
            Endpoints.plan(&Arc::new(service), &self.caches.world(), Timestamp::from_second(100).unwrap());
        plan.actions.sort_by_key(ToString::to_string);
        plan
    }

    /// Plans, and takes what is planned for slices as done.
    fn follow(&self, service: Service) -> Vec<EndpointSlice> {
        let plan = self.plan(service);
        let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        for slice in self.caches.of::<EndpointSlice>().list() {
            slices.insert(slice.metadata.name.clone().unwrap(), EndpointSlice::clone(&slice));
        }
        for action in plan.actions.iter().filter(|action| action.target.plural == "endpointslices") {
            match &action.step {
                Step::Create(body) | Step::Update(body) => {
                    let mut slice: EndpointSlice = serde_json::from_value(body.clone()).unwrap();
                    slice.metadata.uid.get_or_insert_with(|| "slice".to_owned());
                    slices.insert(slice.metadata.name.clone().unwrap(), slice);
                }
                Step::Delete(_) => drop(slices.remove(action.target.name.as_deref().unwrap())),
                other => panic!("{other:?}"),
            }
        }
        let slices: Vec<EndpointSlice> = slices.into_values().collect();
        self.caches.set(slices.clone());
        slices
    }
}

fn addresses(slice: &EndpointSlice) -> Vec<String> {
    slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone()).collect()
}

fn bodies(plan: &Plan, plural: &str) -> Vec<Value> {
    let of_kind = plan.actions.iter().filter(|action| action.target.plural == plural);
    of_kind
        .map(|action| match &action.step {
            Step::Create(body) | Step::Update(body) => body.clone(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn pods_that_are_ready_are_endpoints_at_the_port_that_they_name() {
    let unready = build::pod(
        "p4",
        json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"podIP": "10.88.0.4", "phase": "Running"},
        }),
    );
    let other = pod("p5", json!({"metadata": {"labels": {"app": "db"}}}));
    let nowhere = pod("p6", json!({"status": {"podIP": null}}));
    let nameless = pod("p7", json!({"spec": {"containers": [{"name": "c"}]}}));
    let picture =
        Picture::of(vec![pod("p3", json!({})), pod("p2", json!({})), unready, other, nowhere, nameless]);
    let plan = picture.plan(service(json!({})));
    let slices = bodies(&plan, "endpointslices");
    assert_eq!(slices.len(), 1);
    let slice: EndpointSlice = serde_json::from_value(slices[0].clone()).unwrap();
    assert_eq!(addresses(&slice), ["10.88.0.2", "10.88.0.3", "10.88.0.4"]);
    let ready: Vec<_> = slice
        .endpoints
        .iter()
        .flatten()
        .map(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready))
        .collect();
    assert_eq!(ready, [Some(true), Some(true), Some(false)]);
    assert_eq!(slices[0]["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slices[0]["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    let legacy = bodies(&plan, "endpoints");
    let subset = &legacy[0]["subsets"][0];
    assert_eq!(subset["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.88.0.4");
    assert_eq!(subset["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
}

#[test]
fn where_not_all_have_room_who_serves_has_it_first() {
    let pods = |letter: char, third: u32, count: u32| -> Vec<Pod> {
        let ip = |n: u32| json!({"status": {"podIP": format!("10.{third}.{}.{}", n / 200, n % 200)}});
        (0..count).map(|n| pod(&format!("{letter}{n}"), ip(n))).collect()
    };
    let mut all = pods('a', 1, 500);
    for pod in &mut all {
        pod.status.as_mut().unwrap().conditions = None;
    }
    all.extend(pods('b', 2, 700));
    let legacy = bodies(&Picture::of(all).plan(service(json!({}))), "endpoints");
    let subset = &legacy[0]["subsets"][0];
    let count = |list: &str| subset[list].as_array().map_or(0, Vec::len);
    assert_eq!((count("addresses"), count("notReadyAddresses")), (700, 300));
    assert_eq!(legacy[0]["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"], "truncated");
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let picture = Picture::of(vec![pod("p2", json!({}))]);
    picture.follow(service(json!({})));
    let plan = picture.plan(service(json!({})));
    assert_eq!(bodies(&plan, "endpointslices"), Vec::<Value>::new());
}

#[test]
fn a_pod_that_goes_changes_the_slice_it_is_in_and_no_other() {
    let pods = |from: u32| (from..251).map(|n| pod(&format!("p{n}"), json!({}))).collect::<Vec<_>>();
    let picture = Picture::of(pods(2));
    let before = picture.follow(service(json!({})));
    let mut sizes: Vec<usize> = before.iter().map(|slice| addresses(slice).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [49, 100, 100]);
    picture.caches.set(pods(3));
    let plan = picture.plan(service(json!({})));
    assert_eq!(bodies(&plan, "endpointslices").len(), 1);
    // Its place is taken by the next that comes.
    picture.follow(service(json!({})));
    let mut more = pods(3);
    more.push(pod("p251", json!({})));
    picture.caches.set(more);
    let after = picture.follow(service(json!({})));
    assert_eq!(after.len(), 3);
    assert!(after.iter().any(|slice| addresses(slice).contains(&"10.88.0.251".to_owned())));
}

#[test]
fn pods_that_weigh_differently_have_slices_of_their_own() {
    let heavy = pod("p3", json!({"metadata": {"annotations": {"clawbernetes.io/weight": "9"}}}));
    let picture = Picture::of(vec![pod("p2", json!({})), heavy]);
    let slices = picture.follow(service(json!({})));
    let weights: Vec<_> = slices
        .iter()
        .map(|slice| {
            (
                addresses(slice),
                slice.metadata.annotations.as_ref().map(|all| all["clawbernetes.io/weight"].clone()),
            )
        })
        .collect();
    assert_eq!(weights.len(), 2);
    assert!(weights.contains(&(vec!["10.88.0.2".to_owned()], None)), "{weights:?}");
    assert!(weights.contains(&(vec!["10.88.0.3".to_owned()], Some("9".to_owned()))), "{weights:?}");
    // To who does not know weights they are one.
    let legacy = bodies(&picture.plan(service(json!({}))), "endpoints");
    assert_eq!(legacy[0]["subsets"].as_array().unwrap().len(), 1);
}

#[test]
fn pods_of_a_headless_service_keep_their_names_and_one_on_its_way_out_is_not_ready() {
    let named = pod("p2", json!({"spec": {"hostname": "first", "subdomain": "web"}}));
    let going = pod("p3", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    let picture = Picture::of(vec![named, going]);
    let slices = picture.follow(service(json!({"clusterIP": "None"})));
    let endpoints = slices[0].endpoints.as_ref().unwrap();
    assert_eq!(endpoints[0].hostname.as_deref(), Some("first"));
    let conditions = endpoints[1].conditions.as_ref().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
    assert!(slices[0].metadata.labels.as_ref().unwrap().contains_key("service.kubernetes.io/headless"));
}

#[test]
fn services_without_a_selector_are_left_alone() {
    let picture = Picture::of(vec![pod("p2", json!({}))]);
    for spec in [json!({"selector": null}), json!({"type": "ExternalName"})] {
        assert!(picture.plan(service(spec.clone())).actions.is_empty(), "{spec}");
    }
}

#[test]
fn the_word_that_nobody_acts_on_it_goes() {
    let mut service = service(json!({}));
    service.status = serde_json::from_value(json!({"loadBalancer": {}, "conditions": [
        {"type": "ControllerAvailable", "status": "False", "reason": "NoController", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]}))
    .unwrap();
    let picture = Picture::of(Vec::new());
    assert_eq!(picture.plan(service).status, Some(json!({"loadBalancer": {}})));
    assert_eq!(picture.plan(self::service(json!({}))).status, None);
}
