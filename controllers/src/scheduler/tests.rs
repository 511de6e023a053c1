//! Decision tables: clusters and pods in, bindings and reasons out.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::{
    model::is_immaterial,
    state::{Decision, State, Verdict},
};

const SCHEDULER: &str = "default-scheduler";

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn node(name: &str, allocatable: Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": allocatable},
    }))
    .unwrap()
}

fn small(name: &str) -> Node {
    node(name, json!({"cpu": "2", "memory": "4Gi", "pods": "10"}))
}

fn gpu(name: &str, devices: u32) -> Node {
    node(name, json!({"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": devices.to_string()}))
}

fn with(mut node: Node, spec: Value) -> Node {
    node.spec = serde_json::from_value(spec).unwrap();
    node
}

fn pod(name: &str, requests: Value, spec: Value) -> Pod {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "main", "resources": {"requests": requests}}]);
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": spec,
    }))
    .unwrap()
}

fn plain(name: &str, requests: Value) -> Pod {
    pod(name, requests, json!({}))
}

fn cluster(nodes: &[Node], pods: &[Pod]) -> State {
    let mut state = State::default();
    for node in nodes {
        state.apply_node(node);
    }
    for pod in pods {
        state.apply_pod(pod, SCHEDULER, Duration::ZERO);
    }
    state
}

/// `pod → node`, or `pod: reason`, in the order decided.
fn decided(state: &mut State, now: u64) -> Vec<String> {
    state
        .decide(at(now), 1000)
        .into_iter()
        .map(|decision| match decision {
            Decision::Bind { pod, node, .. } => format!("{} → {node}", pod.1),
            Decision::Wait { pod, reason, .. } => format!("{}: {reason}", pod.1),
            Decision::Release { pod, .. } => format!("{} gives back its claims", pod.1),
        })
        .collect()
}

fn one(nodes: &[Node], pod: Pod) -> String {
    decided(&mut cluster(nodes, &[pod]), 0).remove(0)
}

#[test]
fn a_pod_goes_where_most_is_free() {
    let mut state = cluster(&[small("a"), small("b")], &[]);
    let mut busy = plain("busy", json!({"cpu": "1500m"}));
    busy.spec.as_mut().unwrap().node_name = Some("a".to_owned());
    state.apply_pod(&busy, SCHEDULER, Duration::ZERO);
    state.apply_pod(&plain("p", json!({"cpu": "100m"})), SCHEDULER, Duration::ZERO);
    assert_eq!(decided(&mut state, 0), ["p → b"]);
}

#[test]
fn capacity_is_never_exceeded_by_decisions_of_one_batch() {
    let pods: Vec<Pod> = (0..6).map(|i| plain(&format!("p{i}"), json!({"cpu": "1"}))).collect();
    let mut state = cluster(&[small("a"), small("b")], &pods);
    let all = decided(&mut state, 0);
    assert_eq!(all.iter().filter(|line| line.contains('→')).count(), 4, "{all:?}");
    assert!(all[5].starts_with("p5: 0/2 nodes are available: 2 Insufficient cpu."), "{all:?}");
}

#[test]
fn a_verdict_counts_every_obstacle_and_names_the_nearest_miss() {
    let mut taken = plain("taken", json!({"nvidia.com/gpu": "7"}));
    taken.spec.as_mut().unwrap().node_name = Some("gpu-02".to_owned());
    let nodes = [
        gpu("gpu-01", 1),
        gpu("gpu-02", 8),
        with(gpu("gpu-03", 8), json!({"unschedulable": true})),
        with(gpu("gpu-04", 8), json!({"taints": [{"key": "sick", "value": "yes", "effect": "NoSchedule"}]})),
    ];
    let mut state = cluster(&nodes, &[taken, plain("p", json!({"nvidia.com/gpu": "2"}))]);
    assert_eq!(
        decided(&mut state, 0),
        [
            "p: 0/4 nodes are available: 1 node(s) were unschedulable, 1 node(s) had untolerated taint {sick: yes}, \
          2 Insufficient nvidia.com/gpu. Nearest miss: gpu-01 lacks 1 nvidia.com/gpu."
        ]
    );
}

#[test]
fn a_pod_that_no_node_could_ever_hold_is_told_so() {
    let verdict = one(&[small("a")], plain("p", json!({"memory": "8Gi"})));
    assert!(
        verdict.ends_with("No node is large enough: 8192Mi memory requested, the largest has 4096Mi memory."),
        "{verdict}"
    );
    let no_gpu = one(&[small("a")], plain("p", json!({"nvidia.com/gpu": "1"})));
    assert!(no_gpu.ends_with("1 Insufficient nvidia.com/gpu. No node offers nvidia.com/gpu."), "{no_gpu}");
    assert_eq!(one(&[], plain("p", json!({}))), "p: no nodes available to schedule pods");
}

#[test]
fn selectors_affinity_and_taints_decide_where_a_pod_may_go() {
    let term = |operator: &str, values: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": operator, "values": values}]}]}}}})
    };
    let fits = |spec: Value, nodes: &[Node]| one(nodes, pod("p", json!({}), spec)) == "p → a";
    let tainted =
        || with(small("a"), json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}));
    assert!(fits(json!({"nodeSelector": {"kubernetes.io/hostname": "a"}}), &[small("a"), small("b")]));
    assert!(!fits(json!({"nodeSelector": {"kubernetes.io/hostname": "c"}}), &[small("a")]));
    assert!(fits(term("In", json!(["a"])), &[small("a"), small("b")]));
    assert!(fits(term("NotIn", json!(["b"])), &[small("a"), small("b")]));
    assert!(!fits(term("DoesNotExist", Value::Null), &[small("a")]));
    assert!(!fits(json!({}), &[tainted()]));
    for toleration in [
        json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}),
        json!({"key": "k", "operator": "Exists"}),
        json!({"operator": "Exists"}),
    ] {
        assert!(fits(json!({"tolerations": [toleration]}), &[tainted()]), "{toleration}");
    }
    let other_value = json!({"key": "k", "value": "w", "effect": "NoSchedule"});
    assert!(!fits(json!({"tolerations": [other_value]}), &[tainted()]));
}

#[test]
fn a_pod_that_learns_to_tolerate_or_asks_for_less_is_tried_again() {
    let tainted = with(small("a"), json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}));
    let toleration = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    for (node, before, after) in [
        (tainted, plain("p", json!({})), pod("p", json!({}), toleration)),
        (small("a"), plain("p", json!({"cpu": "64"})), plain("p", json!({"cpu": "1"}))),
    ] {
        let mut state = cluster(&[node], &[before]);
        assert!(!decided(&mut state, 0)[0].contains('→'));
        state.apply_pod(&after, SCHEDULER, at(1));
        assert_eq!(decided(&mut state, 1), ["p → a"]);
    }
}

#[test]
fn replicas_of_one_owner_are_spread() {
    let pods: Vec<Pod> = (0..4)
        .map(|i| {
            let mut pod = plain(&format!("p{i}"), json!({"cpu": "100m"}));
            pod.metadata.owner_references = serde_json::from_value(json!([
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs-uid", "controller": true}]))
            .unwrap();
            pod
        })
        .collect();
    let mut state = cluster(&[small("a"), small("b")], &pods);
    let all = decided(&mut state, 0);
    assert_eq!(all.iter().filter(|line| line.ends_with("→ a")).count(), 2, "{all:?}");
}

#[test]
fn device_pods_are_packed_and_plain_pods_stay_off_device_nodes() {
    let mut first = plain("first", json!({"nvidia.com/gpu": "2"}));
    first.spec.as_mut().unwrap().node_name = Some("g2".to_owned());
    let nodes = [gpu("g1", 8), gpu("g2", 8), small("cpu")];
    let mut state =
        cluster(&nodes, &[first, plain("second", json!({"nvidia.com/gpu": "1"})), plain("web", json!({}))]);
    assert_eq!(decided(&mut state, 0), ["second → g2", "web → cpu"]);
}

#[test]
fn higher_priority_goes_first_and_then_the_older_pod() {
    let mut urgent = plain("urgent", json!({"cpu": "2"}));
    urgent.spec.as_mut().unwrap().priority = Some(10);
    let mut old = plain("zz-old", json!({"cpu": "2"}));
    old.metadata.creation_timestamp = serde_json::from_value(json!("1970-01-01T00:00:01Z")).unwrap();
    let mut new = plain("aa-new", json!({"cpu": "2"}));
    new.metadata.creation_timestamp = serde_json::from_value(json!("1970-01-01T00:00:02Z")).unwrap();
    let mut state = cluster(&[small("a")], &[new, old, urgent]);
    let order: Vec<String> =
        decided(&mut state, 0).iter().map(|line| line.split([' ', ':']).next().unwrap().to_owned()).collect();
    assert_eq!(order, ["urgent", "zz-old", "aa-new"]);
}

#[test]
fn a_waiting_pod_is_tried_again_when_room_appears_and_not_before() {
    let mut full = plain("full", json!({"cpu": "2"}));
    full.spec.as_mut().unwrap().node_name = Some("a".to_owned());
    let mut state = cluster(&[small("a")], &[full.clone(), plain("p", json!({"cpu": "1"}))]);
    assert_eq!(decided(&mut state, 0).len(), 1);
    assert!(decided(&mut state, 100).is_empty(), "nothing changed, so nothing is tried");
    full.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    state.apply_pod(&full, SCHEDULER, Duration::ZERO);
    assert_eq!(decided(&mut state, 200), ["p → a"]);
}

#[test]
fn a_pod_that_changes_while_it_is_queued_again_keeps_its_place() {
    let pods = ["p", "q"].map(|name| plain(name, json!({"cpu": "3"})));
    let mut state = cluster(&[small("a")], &pods);
    assert_eq!(decided(&mut state, 0).len(), 2);
    state.apply_node(&small("b"));
    assert_eq!(state.decide(at(100), 1).len(), 1, "both are due, there is room for one decision");
    state.apply_pod(&pods[1], SCHEDULER, Duration::ZERO);
    assert_eq!(state.decide(at(100), 10).len(), 1, "the other has not been tried yet");
}

#[test]
fn an_unchanged_verdict_is_not_written_again() {
    let mut state = cluster(&[small("a")], &[plain("p", json!({"cpu": "3"}))]);
    let verdicts = |decisions: Vec<Decision>| -> Vec<Verdict> {
        decisions
            .into_iter()
            .map(|decision| match decision {
                Decision::Wait { verdict, .. } => verdict,
                Decision::Bind { .. } | Decision::Release { .. } => panic!("it does not fit"),
            })
            .collect()
    };
    assert_eq!(verdicts(state.decide(at(0), 10)), [Verdict::First]);
    state.apply_node(&small("a"));
    assert_eq!(verdicts(state.decide(at(100), 10)), [Verdict::Same]);
    state.apply_node(&small("b"));
    assert_eq!(verdicts(state.decide(at(200), 10)), [Verdict::Changed]);
}

#[test]
fn a_failed_binding_gives_its_room_back() {
    let mut state = cluster(&[small("a")], &[plain("p", json!({"cpu": "2"}))]);
    let Decision::Bind { pod, .. } = state.decide(at(0), 1).remove(0) else { panic!("it fits") };
    state.apply_pod(&plain("q", json!({"cpu": "2"})), SCHEDULER, Duration::ZERO);
    assert!(decided(&mut state, 0)[0].starts_with("q: 0/1"), "the assumed pod holds the room");
    state.forget(&pod, at(0));
    let later = decided(&mut state, 100);
    assert!(later.iter().any(|line| line.ends_with("→ a")), "{later:?}");
}

#[test]
fn only_changes_that_bear_on_room_are_worth_a_look() {
    let mut bound = plain("p", json!({"cpu": "1"}));
    bound.spec.as_mut().unwrap().node_name = Some("a".to_owned());
    let changed = |patch: Value| {
        let mut next = serde_json::to_value(&bound).unwrap();
        crate::pods::build::json_patch_merge(&mut next, &patch);
        serde_json::from_value::<Pod>(next).unwrap()
    };
    for immaterial in [
        json!({"metadata": {"resourceVersion": "9", "labels": {"a": "b"}}}),
        json!({"status": {"phase": "Running", "podIP": "10.0.0.1"}}),
    ] {
        assert!(is_immaterial(&bound, &changed(immaterial.clone())), "{immaterial}");
    }
    for material in [
        json!({"metadata": {"uid": "another"}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "2"}}}]}}),
    ] {
        assert!(!is_immaterial(&bound, &changed(material.clone())), "{material}");
    }
    let waiting = plain("p", json!({"cpu": "1"}));
    assert!(!is_immaterial(&waiting, &bound), "it got its node");
    assert!(!is_immaterial(&waiting, &waiting), "of a pod that waits everything counts");
}

#[test]
fn many_pods_that_wait_cost_nothing_until_they_are_due() {
    let pods: Vec<Pod> = (0..50).map(|i| plain(&format!("p{i}"), json!({"cpu": "3"}))).collect();
    let mut state = cluster(&[small("a")], &pods);
    assert_eq!(decided(&mut state, 0).len(), 50);
    assert_eq!(state.next_due(), None, "nothing changed that could let one in");
    state.apply_node(&small("b"));
    let due = state.next_due().expect("a new node may let them in");
    assert!(due > at(0));
    assert_eq!(state.decide(due, 1000).len(), 50);
    state.remove_pod(&super::model::key_of(&pods[0]));
    state.apply_node(&small("c"));
    assert_eq!(state.decide(at(1000), 1000).len(), 49, "the deleted one is not tried");
}

#[test]
fn constraints_not_evaluated_yet_hold_the_pod_with_a_reason() {
    let spec = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname"}]}}});
    let verdict = one(&[small("a")], pod("p", json!({}), spec));
    assert!(verdict.contains("does not evaluate spec.affinity.podAntiAffinity (required) yet"), "{verdict}");
    let gated = one(&[small("a")], pod("p", json!({}), json!({"schedulingGates": [{"name": "budget"}]})));
    assert_eq!(gated, "p: waiting for scheduling gates: budget");
}

#[test]
fn init_containers_count_by_their_peak_and_sidecars_by_their_sum() {
    let spec = json!({"initContainers": [
        {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
        {"name": "once", "resources": {"requests": {"cpu": "1"}}},
    ]});
    // main 1 + sidecar 0.5 against once 1 + sidecar 0.5
    let info = super::model::PodInfo::new(&pod("p", json!({"cpu": "1"}), spec), SCHEDULER).unwrap();
    assert_eq!(info.requests.get("cpu"), 1500);
    assert_eq!(info.requests.get("pods"), 1);
}

#[test]
fn what_a_pod_asks_for_as_a_whole_goes_before_what_its_containers_ask_for() {
    let spec = json!({"resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "100m"}});
    let info =
        super::model::PodInfo::new(&pod("p", json!({"cpu": "1", "memory": "1Gi"}), spec), SCHEDULER).unwrap();
    assert_eq!(info.requests.get("cpu"), 3100);
    assert_eq!(info.requests.get("memory"), 1 << 30);
}

fn ported(name: &str) -> Pod {
    let mut pod = plain(name, json!({}));
    pod.spec.as_mut().unwrap().containers[0].ports =
        serde_json::from_value(json!([{"containerPort": 80, "hostPort": 8080}])).unwrap();
    pod
}

#[test]
fn a_host_port_that_two_pods_hold_is_free_when_both_have_left() {
    let held = super::model::PodInfo::new(&ported("p"), SCHEDULER).unwrap();
    let mut node = super::model::NodeInfo::new(&small("a"));
    node.take(&held);
    node.take(&held);
    node.give_back(&held);
    assert!(!super::filter::fits(&held, &node), "the other pod still has it");
    node.give_back(&held);
    assert!(super::filter::fits(&held, &node));
}

#[test]
fn two_pods_cannot_share_a_host_port() {
    let mut state = cluster(&[small("a")], &[ported("p"), ported("q")]);
    let all = decided(&mut state, 0);
    assert_eq!(all[0], "p → a");
    assert!(all[1].contains("didn't have free ports"), "{all:?}");
}

#[test]
fn pods_in_the_queue_are_counted_and_how_long_they_waited() {
    let figures = claw_runtime::Figures::default();
    let seen = || figures.seen()["scheduler"];
    let mut state = State::counted(figures.of("scheduler"));
    state.apply_node(&small("n1"));
    let (fits, waits) = (plain("fits", json!({"cpu": "1"})), plain("waits", json!({"cpu": "50"})));
    state.apply_pod(&fits, SCHEDULER, at(0));
    state.apply_pod(&waits, SCHEDULER, at(1));
    // A change of one that waits for its turn makes it neither new nor younger.
    state.apply_pod(&fits, SCHEDULER, at(2));
    assert_eq!((seen().depth, seen().adds, seen().waited.count), (2, 2, 0));
    assert_eq!(decided(&mut state, 3).len(), 2);
    let after = seen();
    assert_eq!((after.depth, after.waited.count, after.waited.sum.as_secs()), (0, 2, 3 + 2));
    state.apply_node(&small("n2"));
    assert_eq!(decided(&mut state, 60).len(), 1, "the change of the cluster is a new try");
    assert_eq!((seen().adds, seen().retries), (3, 0));
    state.forget(&super::model::key_of(&fits), at(61));
    assert_eq!(seen().retries, 1, "a binding that failed is tried again");
}
