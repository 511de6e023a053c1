//! What becomes of pods and rules, as plans.

use claw_runtime::{Caches, action::describe};
use claw_schemas::gpu::{DRIVER, NAMED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::*;
use crate::{pods::build::pod, taint_rules::build::rule};

/// One machine with two GPUs, `n-0` and `n-1`, and what is on it.
struct Scene {
    pods: Vec<Pod>,
    claims: Vec<ResourceClaim>,
    slices: Vec<ResourceSlice>,
    rules: Vec<DeviceTaintRule>,
}

impl Scene {
    fn new() -> Self {
        let slices = vec![slice(1, &[])];
        Self { pods: Vec::new(), claims: Vec::new(), slices, rules: Vec::new() }
    }

    /// A pod that has a GPU by number.
    fn counter(mut self, name: &str, uuid: &str) -> Self {
        let more =
            json!({"metadata": {"annotations": {NAMED: uuid}}, "spec": {"nodeName": "n", "containers": []}});
        self.pods.push(pod(name, more));
        self
    }

    /// A pod with a claim on a GPU, by a request that tolerates this.
    fn claimer(mut self, name: &str, device: &str, tolerations: Value) -> Self {
        let claims = json!([{"name": "gpu", "resourceClaimName": name}]);
        self.pods
            .push(pod(name, json!({"spec": {"nodeName": "n", "containers": [], "resourceClaims": claims}})));
        let result = json!({
            "request": "r", "driver": DRIVER, "pool": "n", "device": device, "tolerations": tolerations,
        });
        let claim = json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("claim-{name}")},
            "spec": {},
            "status": {
                "allocation": {"devices": {"results": [result]}},
                "reservedFor": [{"resource": "pods", "name": name, "uid": format!("uid-{name}")}],
            },
        });
        self.claims.push(serde_json::from_value(claim).unwrap());
        self
    }

    fn rule(mut self, name: &str, device: &str, effect: &str) -> Self {
        self.rules.push(rule(name, json!({"driver": DRIVER, "pool": "n", "device": device}), effect));
        self
    }

    fn world(&self) -> World {
        let caches = Caches::offline();
        caches.set::<Pod>(self.pods.clone());
        caches.set::<ResourceClaim>(self.claims.clone());
        caches.set::<ResourceSlice>(self.slices.clone());
        caches.set::<DeviceTaintRule>(self.rules.clone());
        caches.world()
    }

    /// What is done about the pods at a second, and when to look again: `NAME goes`, `NAME stays for 3s`.
    fn at(&self, second: i64) -> Vec<String> {
        let now = Timestamp::from_second(second).unwrap();
        let plan = |pod: &Pod| Evictions.plan(&Arc::new(pod.clone()), &self.world(), now);
        let line = |pod: &Pod| {
            let (name, plan) = (pod.metadata.name.clone().unwrap_or_default(), plan(pod));
            match (plan.actions.len(), plan.requeue_after) {
                (0, None) => format!("{name} stays"),
                (0, Some(left)) => format!("{name} stays for {left:?}"),
                _ => format!("{name} goes"),
            }
        };
        self.pods.iter().map(line).collect()
    }

    /// The condition of the first rule after a plan at a second; `None` where it stays what it is.
    fn told(&mut self, second: i64) -> Option<String> {
        let now = Timestamp::from_second(second).unwrap();
        let rule = Arc::new(self.rules[0].clone());
        let status = Rules.plan(&rule, &self.world(), now).status?;
        self.rules[0].status = serde_json::from_value(status).unwrap();
        let conditions: &[Condition] = self.rules[0].status.as_ref()?.conditions.as_deref()?;
        let [one] = conditions else { panic!("{conditions:?}") };
        assert_eq!((one.type_.as_str(), one.last_transition_time.0), ("EvictionInProgress", now));
        Some(format!("{} {}: {}", one.status, one.reason, one.message))
    }
}

fn slice(generation: i64, taints: &[Value]) -> ResourceSlice {
    let device = |at: usize| {
        json!({
            "name": format!("n-{at}"), "attributes": {"uuid": {"string": format!("N-{at}")}},
            "taints": if at == 0 { taints } else { &[] },
        })
    };
    serde_json::from_value(json!({
        "metadata": {"name": format!("n-{DRIVER}")},
        "spec": {
            "driver": DRIVER, "nodeName": "n", "devices": [device(0), device(1)],
            "pool": {"name": "n", "generation": generation, "resourceSliceCount": 1},
        },
    }))
    .unwrap()
}

#[test]
fn a_pod_says_why_it_goes_and_is_deleted() {
    let scene = Scene::new().counter("p", "N-0").rule("hot", "n-0", "NoExecute");
    let now = Timestamp::UNIX_EPOCH;
    let plan = Evictions.plan(&Arc::new(scene.pods[0].clone()), &scene.world(), now);
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByDeviceTaintManager",
        "message": "Device Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    });
    let patch = json!({"status": {"conditions": [condition]}});
    assert_eq!(
        describe(&plan.actions),
        [format!("patch pods default/p {patch}"), "delete pods default/p".into()]
    );
    assert_eq!(plan.actions[0].target.subresource.as_deref(), Some("status"));
    let note = plan.actions[1].on_success.as_ref().unwrap();
    assert_eq!(
        (note.reason.as_str(), note.message.as_str()),
        ("DeviceTaintManagerEviction", "Marking for deletion")
    );

    let mut told = scene.pods[0].clone();
    told.status.get_or_insert_default().conditions = serde_json::from_value(json!([condition])).unwrap();
    let plan = Evictions.plan(&Arc::new(told), &scene.world(), now);
    assert_eq!(describe(&plan.actions), ["delete pods default/p"], "once");
}

#[test]
fn only_who_has_a_device_that_evicts_goes_by_number_and_by_claim() {
    let none = json!([]);
    let scene = Scene::new()
        .counter("counts", "N-0")
        .counter("counts-other", "N-1")
        .claimer("claims", "n-0", none.clone())
        .claimer("claims-other", "n-1", none);
    assert!(scene.at(9).iter().all(|line| line.ends_with(" stays")));
    let hot = scene.rule("hot", "n-0", "NoExecute");
    assert_eq!(hot.at(9), ["counts goes", "counts-other stays", "claims goes", "claims-other stays"]);
    for effect in ["NoSchedule", "None"] {
        let mild = Scene::new().counter("p", "N-0").rule("mild", "n-0", effect);
        assert_eq!(mild.at(9), ["p stays"], "{effect}");
    }
}

#[test]
fn taints_of_slices_evict_too_and_the_newest_slice_counts() {
    let taint = json!({"key": "k", "effect": "NoExecute", "timeAdded": "1970-01-01T00:00:00Z"});
    let mut scene = Scene::new().counter("counts", "N-0").claimer("claims", "n-0", json!([]));
    scene.slices = vec![slice(2, &[taint])];
    assert_eq!(scene.at(0), ["counts goes", "claims goes"]);
    let mut newer = slice(3, &[]);
    newer.metadata.name = Some("newer".into());
    scene.slices.push(newer);
    assert_eq!(scene.at(0)[1], "claims stays");
}

#[test]
fn a_toleration_lasts_for_its_seconds_from_when_the_taint_began() {
    let tolerated = |tolerations: Value, second: i64| {
        let scene = Scene::new().claimer("p", "n-0", tolerations).rule("hot", "n-0", "NoExecute");
        scene.at(second).remove(0)
    };
    let key = "example.com/hot";
    let for_long = |seconds: i64| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds});
    assert_eq!(tolerated(json!([for_long(30)]), 10), "p stays for 20s");
    assert_eq!(tolerated(json!([for_long(30)]), 30), "p goes");
    assert_eq!(tolerated(json!([for_long(30), for_long(15)]), 10), "p stays for 5s");
    assert_eq!(tolerated(json!([for_long(-1)]), 0), "p goes");
    assert_eq!(tolerated(json!([{"key": key, "operator": "Exists"}, for_long(0)]), 99), "p stays");
    assert_eq!(tolerated(json!([{"key": key, "operator": "Equal", "value": "no"}]), 0), "p goes");
    assert_eq!(tolerated(json!([{"operator": "Exists", "effect": "NoSchedule"}]), 0), "p goes");
    assert_eq!(tolerated(json!([{"operator": "Exists", "effect": "NoExecute"}]), 0), "p stays");

    let scene = Scene::new().claimer("p", "n-0", json!([for_long(30)])).rule("hot", "n-0", "NoExecute");
    assert_eq!(scene.rule("cold", "n-0", "NoExecute").at(10), ["p goes"], "of several the strictest counts");
}

#[test]
fn who_has_not_begun_has_ended_or_is_a_namesake_is_let_be() {
    let mut scene = Scene::new()
        .counter("unbound", "N-0")
        .counter("ended", "N-0")
        .claimer("namesake", "n-0", json!([]))
        .rule("hot", "n-0", "NoExecute");
    scene.pods[0].spec.as_mut().unwrap().node_name = None;
    scene.pods[1].status.get_or_insert_default().phase = Some("Succeeded".into());
    scene.pods[2].metadata.uid = Some("another".into());
    assert_eq!(scene.at(9), ["unbound stays", "ended stays", "namesake stays"]);
}

#[test]
fn a_rule_says_how_many_must_go_and_when_none_is_left() {
    let mut scene = Scene::new().rule("hot", "n-0", "NoExecute");
    assert_eq!(scene.told(0).unwrap(), "False NotStarted: ");
    scene = scene.counter("p", "N-0").claimer("q", "n-0", json!([])).claimer("other", "n-1", json!([]));
    assert_eq!(scene.told(5), None, "not so soon");
    let busy = "True PodsPendingEviction: 2 pods need to be evicted in 1 namespace.";
    assert_eq!(scene.told(10).unwrap(), busy);
    assert_eq!(scene.told(30), None, "nothing has changed");
    scene.pods[1].metadata.namespace = Some("elsewhere".into());
    scene.claims[0].metadata.namespace = Some("elsewhere".into());
    assert!(scene.told(40).unwrap().ends_with("2 pods need to be evicted in 2 different namespaces."));
    scene.pods.truncate(1);
    assert_eq!(
        scene.told(50).unwrap(),
        "True PodsPendingEviction: 1 pod needs to be evicted in 1 namespace."
    );
    scene.pods.clear();
    assert_eq!(scene.told(60).unwrap(), "False Completed: ");
    scene.rules[0].spec.taint.effect = "NoSchedule".into();
    scene.rules[0].metadata.generation = Some(2);
    assert_eq!(
        scene.told(61).unwrap(),
        "False OtherEffect: Eviction only happens for the NoExecute effect.",
        "a new generation waits for nothing"
    );
}

#[test]
fn a_rule_without_effect_says_once_what_would_happen() {
    let forever = json!([{"operator": "Exists"}]);
    let mut scene = Scene::new()
        .counter("p", "N-0")
        .claimer("q", "n-1", json!([]))
        .claimer("tolerant", "n-0", forever)
        .rule("maybe", "n-0", "None");
    let would = "if the effect was NoExecute. This information will not be updated again. \
                 Recreate the DeviceTaintRule to trigger an update.";
    assert_eq!(
        scene.told(0).unwrap(),
        format!(
            "False NoEffect: 1 published device selected. 2 allocated devices selected. \
             1 pod would be evicted in 1 namespace {would}"
        )
    );
    scene.pods.clear();
    assert_eq!(scene.told(99), None, "once");
    scene.rules[0].metadata.generation = Some(2);
    scene.rules[0].spec.device_selector = serde_json::from_value(json!({})).unwrap();
    assert_eq!(
        scene.told(99).unwrap(),
        format!(
            "False NoEffect: 2 published devices selected. 2 allocated devices selected. \
             0 pods would be evicted in 0 different namespaces {would}"
        )
    );
}
