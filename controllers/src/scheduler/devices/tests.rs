//! Stories of claims and of numbers beside each other: slices, claims, pods in, decisions out.

use std::time::Duration;

use claw_schemas::gpu::RESOURCE;
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::{DeviceClass, ResourceClaim},
};
use serde_json::{Value, json};

use super::{inventory::build::slice, *};
use crate::{
    pods::build::json_patch_merge,
    scheduler::state::{Decision, State},
    taint_rules::build::rule,
};

const SCHEDULER: &str = "default-scheduler";

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

/// Nodes with their GPUs, which are named after them: `n1` has `N1-0`, `N1-1`, ...
fn cluster(nodes: &[(&str, usize)]) -> State {
    let mut state = State::default();
    for (name, gpus) in nodes {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {},
            "status": {"allocatable": {"cpu": "8", "pods": "10", RESOURCE: gpus.to_string()}},
        }))
        .unwrap();
        state.apply_node(&node);
        let uuids: Vec<String> = (0..*gpus).map(|at| format!("{}-{at}", name.to_uppercase())).collect();
        let devices: Vec<(&str, Value)> = uuids.iter().map(|uuid| (uuid.as_str(), json!({}))).collect();
        state.apply_devices(|all| all.apply_slice(&slice(name, &devices)));
    }
    let class: DeviceClass =
        serde_json::from_value(json!({"metadata": {"name": "gpu"}, "spec": {}})).unwrap();
    state.apply_devices(|all| {
        all.apply_class(&class);
        Touched::new()
    });
    state
}

fn claim(name: &str, count: i64, version: &str, status: Value) -> ResourceClaim {
    let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count});
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": version,
        },
        "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}},
        "status": status,
    }))
    .unwrap()
}

fn pod(name: &str, gpus: i64, claims: &[&str], more: &Value) -> Pod {
    let claims: Vec<Value> =
        claims.iter().map(|name| json!({"name": name, "resourceClaimName": name})).collect();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {
            "resourceClaims": claims,
            "containers": [{"name": "c", "resources": {"limits": {RESOURCE: gpus.to_string(), "cpu": "1"}}}],
        },
    });
    json_patch_merge(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn add(state: &mut State, pod: &Pod) {
    state.apply_pod(pod, SCHEDULER, Duration::ZERO);
}

fn show(state: &mut State, claim: &ResourceClaim) {
    state.apply_devices(|all| all.apply_claim(claim));
}

/// A rule about one device of a node, or all of a node's: `example.com/NAME`.
fn taint(state: &mut State, name: &str, node: &str, device: Option<&str>, effect: &str) {
    let rule = rule(name, json!({"driver": DRIVER, "pool": node, "device": device}), effect);
    state.apply_devices(|all| all.apply_rule(&rule));
}

/// `pod → node gpus [claim=devices]`, `pod: reason`, `pod gives back claims`.
fn line(decision: &Decision) -> String {
    match decision {
        Decision::Bind { pod, node, gpus, grants, .. } => {
            let granted: Vec<String> = grants.iter().map(granted).collect();
            format!("{} → {node} {} [{}]", pod.1, gpus.join(","), granted.join(" "))
        }
        Decision::Wait { pod, reason, .. } => format!("{}: {reason}", pod.1),
        Decision::Release { pod, claims, .. } => {
            let names: Vec<&str> = claims.iter().map(|claim| &*claim.key.1).collect();
            format!("{} gives back {}", pod.1, names.join(","))
        }
    }
}

fn granted(grant: &Grant) -> String {
    let devices = grant.allocation.as_ref().map(|one| Allocation::of(one).devices);
    let names = devices.map(|all| all.iter().map(|id| id.name.to_string()).collect::<Vec<_>>().join(","));
    format!("{}={}", grant.key.1, names.unwrap_or_else(|| "reserved".to_owned()))
}

fn decided(state: &mut State, now: u64) -> Vec<String> {
    state.decide(at(now), 100).iter().map(line).collect()
}

/// The claim as the server has it after a grant.
fn written(state: &mut State, decisions: &[Decision], version: &str) -> Vec<ResourceClaim> {
    let mut claims = Vec::new();
    for decision in decisions {
        let Decision::Bind { uid, grants, .. } = decision else { continue };
        for grant in grants {
            let status = json!({
                "allocation": grant.allocation,
                "reservedFor": [{"resource": "pods", "name": "x", "uid": uid}],
            });
            let claim = claim(&grant.key.1, 1, version, status);
            show(state, &claim);
            claims.push(claim);
        }
    }
    claims
}

#[test]
fn claims_and_numbers_never_get_the_same_gpu() {
    let mut state = cluster(&[("n", 3)]);
    show(&mut state, &claim("a", 1, "1", json!({})));
    show(&mut state, &claim("b", 1, "1", json!({})));
    for pod in [
        pod("p1", 0, &["a"], &json!({})),
        pod("p2", 1, &[], &json!({})),
        pod("p3", 0, &["b"], &json!({})),
        pod("p4", 1, &[], &json!({})),
    ] {
        add(&mut state, &pod);
    }
    let all = decided(&mut state, 0);
    assert_eq!(all[..3], ["p1 → n  [a=n-0]", "p2 → n N-1 []", "p3 → n  [b=n-2]"]);
    assert!(all[3].starts_with("p4: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), "{all:?}");
}

#[test]
fn a_pod_waits_in_upstreams_words_until_its_claims_are_there() {
    let mut state = cluster(&[("n", 1)]);
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    let made = json!({"spec": {"resourceClaims": [{"name": "x", "resourceClaimTemplateName": "t"}]}});
    add(&mut state, &pod("q", 0, &[], &made));
    assert_eq!(
        decided(&mut state, 0),
        [
            "p: resourceclaim.resource.k8s.io \"a\" not found",
            "q: pod \"default/q\": ResourceClaim not created yet",
        ]
    );
    show(&mut state, &claim("a", 2, "1", json!({})));
    assert!(
        decided(&mut state, 5)
            .contains(&"p: 0/1 nodes are available: 1 cannot allocate all claims.".to_owned())
    );
    let mut going = claim("a", 1, "2", json!({}));
    going.metadata.deletion_timestamp = serde_json::from_value(json!("1970-01-01T00:00:00Z")).unwrap();
    show(&mut state, &going);
    assert_eq!(decided(&mut state, 20)[0], "p: resourceclaim \"a\" is being deleted");
    let stranger = json!({
        "spec": {"resourceClaims": [{"name": "x", "resourceClaimTemplateName": "t"}]},
        "status": {"resourceClaimStatuses": [{"name": "x", "resourceClaimName": "a"}]},
    });
    add(&mut state, &pod("r", 0, &[], &stranger));
    assert!(decided(&mut state, 20)[0].contains("was not created for pod default/r"));
}

#[test]
fn a_shared_claim_is_allocated_once_and_pins_those_who_share_it() {
    let mut state = cluster(&[("n1", 1), ("n2", 1)]);
    show(&mut state, &claim("a", 1, "1", json!({})));
    add(&mut state, &pod("p1", 0, &["a"], &json!({})));
    add(&mut state, &pod("p2", 0, &["a"], &json!({})));
    let first = state.decide(at(0), 100);
    let lines: Vec<String> = first.iter().map(line).collect();
    assert_eq!(
        lines,
        ["p1 → n1  [a=n1-0]", "p2: resource claim default/a is in the process of being allocated"]
    );
    written(&mut state, &first, "5");
    assert_eq!(decided(&mut state, 5), ["p2 → n1  [a=reserved]"]);
    let elsewhere = json!({"spec": {"nodeSelector": {"kubernetes.io/os": "plan9"}}});
    add(&mut state, &pod("p3", 0, &["a"], &elsewhere));
    assert!(decided(&mut state, 5)[0].contains("2 node(s) didn't match Pod's node affinity/selector"));
    let mut big = pod("p4", 0, &["a"], &json!({}));
    big.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap().limits =
        serde_json::from_value(json!({"cpu": "7"})).unwrap();
    add(&mut state, &big);
    let said = decided(&mut state, 5).remove(0);
    assert!(said.contains("1 Insufficient cpu, 1 resourceclaim not available on the node"), "{said}");
}

/// What a scheduler that died between allocation and binding leaves: another finds the claim allocated to an unbound pod.
#[test]
fn what_was_allocated_before_a_crash_is_used_or_given_back() {
    let left = {
        let mut state = cluster(&[("n1", 1), ("n2", 1)]);
        show(&mut state, &claim("a", 1, "1", json!({})));
        add(&mut state, &pod("p", 0, &["a"], &json!({})));
        let decisions = state.decide(at(0), 100);
        written(&mut state, &decisions, "5").remove(0)
    };
    let mut state = cluster(&[("n1", 1), ("n2", 1)]);
    show(&mut state, &left);
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p → n1  []"], "the claim is the pod's already");

    // The same where the pod cannot go there any more.
    let mut state = cluster(&[("n1", 1), ("n2", 1)]);
    show(&mut state, &left);
    let full = json!({"spec": {"nodeName": "n1", "containers": [{"name": "c", "resources": {"limits": {"cpu": "8"}}}]}});
    add(&mut state, &pod("full", 0, &[], &full));
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p gives back a"]);
    show(&mut state, &claim("a", 1, "6", json!({})));
    assert_eq!(decided(&mut state, 30), ["p → n2  [a=n2-0]"]);
}

#[test]
fn an_allocation_that_failed_is_forgotten_and_one_that_was_written_is_not() {
    let key: ClaimKey = ("default".into(), "a".into());
    let pod_key = ("default".into(), "p".into());
    let start = || {
        let mut state = cluster(&[("n", 1)]);
        show(&mut state, &claim("a", 1, "1", json!({})));
        show(&mut state, &claim("b", 1, "1", json!({})));
        add(&mut state, &pod("p", 0, &["a"], &json!({})));
        assert_eq!(decided(&mut state, 0), ["p → n  [a=n-0]"]);
        add(&mut state, &pod("q", 0, &["b"], &json!({})));
        state
    };
    let mut state = start();
    state.settle(&[(key.clone(), None)]);
    state.forget(&pod_key, at(0));
    assert_eq!(decided(&mut state, 0), ["q → n  [b=n-0]"]);

    // Written, and the binding failed: until the claim is seen, its device is taken.
    let mut state = start();
    state.settle(&[(key.clone(), Some(7))]);
    state.forget(&pod_key, at(0));
    assert!(decided(&mut state, 0)[0].starts_with("q: "));
    show(&mut state, &claim("a", 1, "6", json!({})));
    assert!(decided(&mut state, 9).iter().all(|line| !line.contains("→ n  [b")), "that was before");
    show(&mut state, &claim("a", 1, "7", json!({})));
    assert!(decided(&mut state, 40).iter().any(|line| line.contains('→')), "it came back to nothing");
}

#[test]
fn while_nobody_knows_which_gpus_a_pod_has_none_of_its_node_is_given_to_claims() {
    let mut state = cluster(&[("n", 2)]);
    show(&mut state, &claim("a", 1, "1", json!({})));
    add(&mut state, &pod("forced", 1, &[], &json!({"spec": {"nodeName": "n"}})));
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    let said = decided(&mut state, 0).remove(0);
    assert!(said.contains("1 cannot allocate all claims (a node has not told yet"), "{said}");
    let told = json!({
        "spec": {"nodeName": "n"},
        "status": {"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResourcesStatus": [{"name": RESOURCE, "resources": [{"resourceID": "N-0"}]}],
        }]},
    });
    add(&mut state, &pod("forced", 1, &[], &told));
    assert_eq!(decided(&mut state, 5), ["p → n  [a=n-1]"]);
}

#[test]
fn a_gpu_that_comes_back_from_a_claim_is_given_by_number() {
    let mut state = cluster(&[("n", 1)]);
    show(&mut state, &claim("a", 1, "1", json!({})));
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    let decisions = state.decide(at(0), 100);
    let claims = written(&mut state, &decisions, "5");
    add(&mut state, &pod("q", 1, &[], &json!({})));
    assert!(decided(&mut state, 0)[0].contains("1 Insufficient nvidia.com/gpu"));
    state.apply_devices(|all| all.remove_claim(&claims[0]));
    assert_eq!(decided(&mut state, 5), ["q → n N-0 []"]);
}

#[test]
fn a_pod_that_asks_both_ways_gets_different_gpus_or_waits() {
    let mut state = cluster(&[("n1", 1), ("n2", 2)]);
    show(&mut state, &claim("a", 1, "1", json!({})));
    add(&mut state, &pod("p", 1, &["a"], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p → n2 N2-1 [a=n2-0]"]);
    let mut small = cluster(&[("n1", 1)]);
    show(&mut small, &claim("a", 1, "1", json!({})));
    add(&mut small, &pod("p", 1, &["a"], &json!({})));
    assert_eq!(decided(&mut small, 0), ["p: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."]);
}

#[test]
fn a_gpu_with_a_taint_goes_to_a_claim_that_tolerates_it_and_is_not_given_by_number() {
    let mut state = cluster(&[("n", 2)]);
    let mut tainted = slice("n", &[("N-0", json!({})), ("N-1", json!({}))]);
    let taint = json!([{"key": "gpu.clawbernetes.io/ecc", "effect": "NoSchedule"}]);
    tainted.spec.devices.as_mut().unwrap()[0].taints = serde_json::from_value(taint).unwrap();
    state.apply_devices(|all| all.apply_slice(&tainted));
    let tolerations = json!([{"key": "gpu.clawbernetes.io/ecc", "operator": "Exists"}]);
    let mut tolerant = serde_json::to_value(claim("a", 1, "1", json!({}))).unwrap();
    tolerant["spec"]["devices"]["requests"][0]["exactly"]["tolerations"] = tolerations.clone();
    show(&mut state, &serde_json::from_value(tolerant).unwrap());
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    let decisions = state.decide(at(0), 100);
    let [Decision::Bind { grants, .. }] = decisions.as_slice() else { panic!("{decisions:?}") };
    let results = grants[0].allocation.as_ref().unwrap().devices.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!(results[0].device, "n-0");
    assert_eq!(serde_json::to_value(&results[0].tolerations).unwrap(), tolerations, "as its node reads it");
    add(&mut state, &pod("q", 1, &[], &json!({})));
    assert_eq!(decided(&mut state, 5), ["q → n N-1 []"]);
}

#[test]
fn instances_are_counted_by_their_profile_and_named_like_whole_gpus() {
    let mut state = State::default();
    let small = "nvidia.com/mig-1g.10gb";
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n"}, "spec": {},
        "status": {"allocatable": {"cpu": "8", "pods": "10", RESOURCE: "1", small: "2"}},
    }))
    .unwrap();
    state.apply_node(&node);
    let part = json!({"type": {"string": "mig"}, "profile": {"string": "1g.10gb"}});
    let devices = [("MIG-1", part.clone()), ("N-0", json!({})), ("MIG-2", part)];
    state.apply_devices(|all| all.apply_slice(&slice("n", &devices)));
    let class: DeviceClass = serde_json::from_value(json!({
        "metadata": {"name": "gpu"},
        "spec": {"selectors": [{"cel": {"expression": "device.attributes['gpu.clawbernetes.io'].uuid == 'MIG-1'"}}]},
    }))
    .unwrap();
    state.apply_devices(|all| {
        all.apply_class(&class);
        Touched::new()
    });
    show(&mut state, &claim("a", 1, "1", json!({})));
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p → n  [a=mig-1]"]);
    let asks = |name: &str, resources: Value| {
        let container = json!({"name": "c", "resources": {"requests": resources, "limits": resources}});
        pod(name, 0, &[], &json!({"spec": {"containers": [container]}}))
    };
    add(&mut state, &asks("both", json!({RESOURCE: "1", small: "1"})));
    assert_eq!(decided(&mut state, 1), ["both → n N-0,MIG-2 []"]);
    add(&mut state, &asks("late", json!({small: "1"})));
    assert!(decided(&mut state, 2)[0].contains("Insufficient nvidia.com/mig-1g.10gb"), "a claim counts, too");
}

#[test]
fn a_grant_names_its_node_and_carries_what_the_driver_is_to_be_told() {
    let mut state = cluster(&[("n", 1)]);
    let opaque = json!({"driver": DRIVER, "parameters": {"a": 1}});
    let class: DeviceClass = serde_json::from_value(json!({
        "metadata": {"name": "gpu"}, "spec": {"config": [{"opaque": opaque}]},
    }))
    .unwrap();
    state.apply_devices(|all| {
        all.apply_class(&class);
        Touched::new()
    });
    let mut own = claim("a", 1, "1", json!({}));
    own.spec.devices.as_mut().unwrap().config =
        serde_json::from_value(json!([{"requests": ["r"], "opaque": opaque}])).unwrap();
    show(&mut state, &own);
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    let decision = state.decide(at(0), 1).remove(0);
    let Decision::Bind { grants, .. } = decision else { panic!("{decision:?}") };
    assert_eq!(
        serde_json::to_value(&grants[0].allocation).unwrap(),
        json!({
            "devices": {
                "results": [{"request": "r", "driver": DRIVER, "pool": "n", "device": "n-0"}],
                "config": [
                    {"source": "FromClass", "requests": ["r"], "opaque": opaque},
                    {"source": "FromClaim", "requests": ["r"], "opaque": opaque},
                ],
            },
            "nodeSelector": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
            ]},
        })
    );
}

#[test]
fn a_rule_keeps_its_gpu_from_claims_and_numbers_which_say_why_until_it_is_gone() {
    let mut state = cluster(&[("n", 2)]);
    for name in ["a", "b"] {
        show(&mut state, &claim(name, 1, "1", json!({})));
    }
    taint(&mut state, "hot", "n", Some("n-0"), "NoSchedule");
    taint(&mut state, "remark", "n", None, "None");
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    add(&mut state, &pod("q", 1, &[], &json!({})));
    add(&mut state, &pod("r", 0, &["b"], &json!({})));
    let why = "0/1 nodes are available: 1";
    let taint_of = "untolerated device taint {example.com/hot: yes}";
    assert_eq!(
        decided(&mut state, 0),
        [
            "p → n  [a=n-1]".to_owned(),
            format!("q: {why} Insufficient nvidia.com/gpu, 1 node(s) had {taint_of}."),
            format!("r: {why} cannot allocate all claims ({taint_of})."),
        ]
    );
    // With another effect it is another rule, and gone it is none.
    taint(&mut state, "hot", "n", Some("n-0"), "NoExecute");
    assert!(decided(&mut state, 5).iter().all(|line| line.contains(taint_of)));
    state.apply_devices(|all| all.remove_rule("hot"));
    assert_eq!(
        decided(&mut state, 20),
        ["q → n N-0 []", "r: 0/1 nodes are available: 1 cannot allocate all claims."]
    );
}

#[test]
fn a_claim_that_tolerates_the_taint_of_a_rule_gets_the_gpu_all_the_same() {
    let mut state = cluster(&[("n", 1)]);
    taint(&mut state, "hot", "n", None, "NoExecute");
    let mut tolerant = serde_json::to_value(claim("a", 1, "1", json!({}))).unwrap();
    tolerant["spec"]["devices"]["requests"][0]["exactly"]["tolerations"] = json!([{"operator": "Exists"}]);
    show(&mut state, &serde_json::from_value(tolerant).unwrap());
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p → n  [a=n-0]"]);
    // Who asks by number is told of the taint all the same.
    add(&mut state, &pod("q", 1, &[], &json!({})));
    let why =
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated device taint";
    assert_eq!(decided(&mut state, 10), [format!("q: {why} {{example.com/hot: yes}}.")]);
}

#[test]
fn a_gpu_with_a_taint_of_a_rule_counts_once_whoever_has_it() {
    // Somebody has it by number.
    let mut state = cluster(&[("n", 2)]);
    add(&mut state, &pod("p", 1, &[], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p → n N-0 []"]);
    taint(&mut state, "hot", "n", Some("n-0"), "NoSchedule");
    add(&mut state, &pod("q", 1, &[], &json!({})));
    assert_eq!(decided(&mut state, 0), ["q → n N-1 []"]);
    state.remove_pod(&("default".into(), "p".into()));
    add(&mut state, &pod("r", 1, &[], &json!({})));
    assert!(
        decided(&mut state, 0)[0].contains("1 Insufficient nvidia.com/gpu"),
        "what p gave back is tainted"
    );
    state.apply_devices(|all| all.remove_rule("hot"));
    assert_eq!(decided(&mut state, 5), ["r → n N-0 []"]);

    // A claim has it.
    let mut state = cluster(&[("n", 2)]);
    show(&mut state, &claim("a", 1, "1", json!({})));
    add(&mut state, &pod("p", 0, &["a"], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p → n  [a=n-0]"]);
    taint(&mut state, "hot", "n", Some("n-0"), "NoSchedule");
    add(&mut state, &pod("q", 1, &[], &json!({})));
    assert_eq!(decided(&mut state, 0), ["q → n N-1 []"]);
    add(&mut state, &pod("r", 1, &[], &json!({})));
    assert!(
        decided(&mut state, 0)[0].contains("1 Insufficient nvidia.com/gpu"),
        "what the claim has is not free"
    );
}

/// Nodes know nothing of rules: one that chooses by itself might give the very GPU.
#[test]
fn where_a_gpu_has_a_taint_of_a_rule_no_node_is_left_to_choose() {
    let mut state = cluster(&[("n", 3)]);
    taint(&mut state, "hot", "n", Some("n-2"), "NoSchedule");
    add(&mut state, &pod("forced", 1, &[], &json!({"spec": {"nodeName": "n"}})));
    add(&mut state, &pod("p", 1, &[], &json!({})));
    let said = decided(&mut state, 0).remove(0);
    assert!(said.contains("1 Insufficient nvidia.com/gpu (a node has not told yet"), "{said}");

    let mut state = cluster(&[("n1", 3), ("n2", 1)]);
    taint(&mut state, "hot", "n1", Some("n1-2"), "NoSchedule");
    add(&mut state, &pod("forced", 1, &[], &json!({"spec": {"nodeName": "n1"}})));
    add(&mut state, &pod("p", 1, &[], &json!({})));
    assert_eq!(decided(&mut state, 0), ["p → n2 N2-0 []"]);
}

/// A node says how many GPUs it has before its slice says which.
#[test]
fn where_a_rule_may_mean_gpus_that_nobody_has_named_no_node_is_left_to_choose() {
    let begin = |node: &str, effect: &str| {
        let mut state = cluster(&[("n", 1)]);
        state.apply_devices(|all| all.remove_slice(&format!("n-{DRIVER}")));
        taint(&mut state, "hot", node, None, effect);
        add(&mut state, &pod("p", 1, &[], &json!({})));
        state
    };
    assert_eq!(decided(&mut begin("n", "None"), 0), ["p → n  []"]);
    assert_eq!(decided(&mut begin("other", "NoSchedule"), 0), ["p → n  []"]);
    let mut state = begin("n", "NoSchedule");
    let said = decided(&mut state, 0).remove(0);
    assert!(
        said.contains("Insufficient nvidia.com/gpu (a node has not told yet which GPUs it has)"),
        "{said}"
    );
    state.apply_devices(|all| all.apply_slice(&slice("n", &[("N-0", json!({}))])));
    let said = decided(&mut state, 60).remove(0);
    assert!(said.contains("untolerated device taint {example.com/hot: yes}"), "{said}");
}

/// The same of policies.
#[test]
fn where_a_policy_holds_gpus_back_no_node_is_left_to_choose() {
    let policy = |labels: Value| -> DevicePolicy {
        let spec = json!({"nodeSelector": labels});
        serde_json::from_value(json!({"metadata": {"name": "every", "uid": "u"}, "spec": spec})).unwrap()
    };
    let begin = |policy: &DevicePolicy| {
        let mut state = cluster(&[("n", 1)]);
        state.apply_devices(|all| all.remove_slice(&format!("n-{DRIVER}")));
        state.apply_devices(|all| all.apply_policy(policy));
        add(&mut state, &pod("p", 1, &[], &json!({})));
        state
    };
    assert_eq!(decided(&mut begin(&policy(json!({"other": "node"}))), 0), ["p → n  []"]);
    let mut state = begin(&policy(json!({})));
    let said = decided(&mut state, 0).remove(0);
    assert!(
        said.contains("Insufficient nvidia.com/gpu (a node has not told yet which GPUs it has)"),
        "{said}"
    );
    state.apply_devices(|all| all.apply_slice(&slice("n", &[("N-0", json!({}))])));
    let said = decided(&mut state, 60).remove(0);
    assert!(said.contains("clawbernetes.io/unchecked"), "{said}");
    state.apply_devices(|all| all.remove_policy("every"));
    assert_eq!(decided(&mut state, 120), ["p → n N-0 []"]);
}
