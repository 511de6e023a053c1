//! Plans of Deployments: as text for single steps, by simulation for whole rollouts.

use claw_runtime::{action::describe, caches::Caches, conditions};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus, ReplicaSetStatus};
use serde_json::{Value, json};

use super::*;
use crate::pods::build::{json_patch_merge, pod};

const START: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn web(more: Value) -> Deployment {
    let mut base = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-web", "generation": 1},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            },
        },
    });
    json_patch_merge(&mut base, &more);
    serde_json::from_value(base).unwrap()
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn with(mut a: Value, b: Value) -> Value {
    json_patch_merge(&mut a, &b);
    a
}

/// A set as this controller would have made it for that image.
fn set(image_name: &str, revision: i64, replicas: i32, available: i32) -> ReplicaSet {
    let spec = web(image(image_name)).spec.unwrap();
    let hash = template::hash(&spec.template, 0);
    let mut template = spec.template;
    let labels = template.metadata.as_mut().unwrap().labels.as_mut().unwrap();
    labels.insert(template::HASH_LABEL.into(), hash.clone());
    let name = format!("web-{hash}");
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": at(revision).to_string(),
            "labels": labels,
            "annotations": {
                "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": "4",
                "deployment.kubernetes.io/max-replicas": "5",
            },
            "ownerReferences": [owner::reference_to(&web(json!({})))],
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, "minReadySeconds": 0},
        "status": {
            "replicas": replicas, "readyReplicas": available, "availableReplicas": available,
            "observedGeneration": 1,
        },
    }))
    .unwrap()
}

fn name(image_name: &str) -> String {
    set(image_name, 1, 0, 0).metadata.name.unwrap()
}

fn plan_at(now: Timestamp, deployment: &Deployment, sets: Vec<ReplicaSet>, pods: Vec<Pod>) -> Plan {
    let caches = Caches::offline();
    caches.set(vec![deployment.clone()]);
    caches.set(sets);
    caches.set(pods);
    Deployments.plan(&Arc::new(deployment.clone()), &caches.world(), now)
}

fn plan(deployment: &Deployment, sets: Vec<ReplicaSet>) -> Plan {
    plan_at(at(100), deployment, sets, vec![])
}

/// Without the annotations of sizes, which would drown what a test is about.
fn steps(plan: &Plan) -> Vec<String> {
    describe(&plan.actions)
        .into_iter()
        .map(|line| {
            let Some((head, json)) = line.split_once(" {") else { return line };
            let mut patch: Value = serde_json::from_str(&format!("{{{json}")).unwrap();
            let meta = patch.as_object_mut().unwrap().remove("metadata").unwrap_or_default();
            let mut annotations = meta["annotations"].as_object().cloned().unwrap_or_default();
            annotations.retain(|key, _| !key.ends_with("-replicas"));
            if !annotations.is_empty() {
                patch["metadata"] = json!({"annotations": annotations});
            }
            format!("{head} {patch}")
        })
        .collect()
}

fn status_of(plan: &Plan) -> DeploymentStatus {
    serde_json::from_value(plan.status.clone().unwrap()).unwrap()
}

fn progressing(plan: &Plan) -> (String, String) {
    let all = status_of(plan).conditions.unwrap();
    let found = conditions::find(&all, "Progressing").unwrap().clone();
    (found.status, found.reason.unwrap())
}

fn resized(image: &str, replicas: i32) -> String {
    format!("patch replicasets default/{} {{\"spec\":{{\"replicas\":{replicas}}}}}", name(image))
}

fn annotated(revision: i64) -> Value {
    json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": revision.to_string()}}})
}

#[test]
fn a_new_deployment_gets_a_set_of_full_size() {
    let plan = plan(&web(json!({"metadata": {"annotations": {"team": "a"}}})), vec![]);
    assert_eq!(
        steps(&plan),
        [
            format!("create replicasets default/{}", name("i:1")),
            r#"patch deployments default/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}"#
                .to_owned(),
        ]
    );
    let claw_runtime::action::Step::Create(body) = &plan.actions[0].step else { panic!() };
    let hash = template::hash(&web(json!({})).spec.unwrap().template, 0);
    assert_eq!(body["spec"]["replicas"], 4);
    for labels in [
        &body["metadata"]["labels"],
        &body["spec"]["selector"]["matchLabels"],
        &body["spec"]["template"]["metadata"]["labels"],
    ] {
        assert_eq!(labels, &json!({"app": "web", "pod-template-hash": hash}));
    }
    let annotations = &body["metadata"]["annotations"];
    assert_eq!(annotations["team"], "a");
    assert_eq!(annotations["deployment.kubernetes.io/max-replicas"], "5");
    let event = plan.actions[0].on_success.as_ref().unwrap();
    assert_eq!(event.message, format!("Scaled up replica set {} from 0 to 4", name("i:1")));
    assert_eq!(progressing(&plan), ("True".into(), "NewReplicaSetCreated".into()));
}

#[test]
fn an_update_starts_with_what_the_surge_allows_and_what_may_be_away() {
    let plan = plan(&web(with(image("i:2"), annotated(1))), vec![set("i:1", 1, 4, 4)]);
    // 25 % of 4: one more, one less.
    assert_eq!(
        steps(&plan),
        [
            format!("create replicasets default/{}", name("i:2")),
            resized("i:1", 3),
            r#"patch deployments default/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"2"}}}"#
                .to_owned(),
        ]
    );
    let claw_runtime::action::Step::Create(body) = &plan.actions[0].step else { panic!() };
    assert_eq!(body["spec"]["replicas"], 1);
    assert_eq!(body["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    let event = plan.actions[1].on_success.as_ref().unwrap();
    assert_eq!(event.message, format!("Scaled down replica set {} from 4 to 3", name("i:1")));
}

#[test]
fn the_old_set_shrinks_only_as_the_new_one_serves() {
    let deployment = web(with(image("i:2"), annotated(2)));
    let waiting = plan(&deployment, vec![set("i:1", 1, 3, 3), set("i:2", 2, 2, 0)]);
    assert_eq!(steps(&waiting), [""; 0]);
    assert!(matches!(waiting.outcome, Outcome::Wait { .. }));
    let moving = plan(&deployment, vec![set("i:1", 1, 3, 3), set("i:2", 2, 2, 2)]);
    assert_eq!(steps(&moving), [resized("i:1", 1)]);
}

#[test]
fn a_set_that_has_not_lost_its_pods_yet_leaves_no_room_for_new_ones() {
    let deployment = web(with(image("i:2"), annotated(2)));
    let mut old = set("i:1", 1, 3, 4);
    old.status.as_mut().unwrap().replicas = 4;
    assert_eq!(steps(&plan(&deployment, vec![old, set("i:2", 2, 1, 0)])), [""; 0]);
    let gone = plan(&deployment, vec![set("i:1", 1, 3, 3), set("i:2", 2, 1, 0)]);
    assert_eq!(steps(&gone), [resized("i:2", 2)]);
}

#[test]
fn old_pods_that_do_not_serve_go_first() {
    let deployment = web(with(image("i:3"), annotated(3)));
    let sets = vec![set("i:1", 1, 2, 2), set("i:2", 2, 2, 0), set("i:3", 3, 1, 1)];
    // Five pods, three must serve, three do; of the others both may go.
    assert_eq!(steps(&plan(&deployment, sets)), [resized("i:2", 0)]);
}

#[test]
fn a_rollback_takes_the_old_set_up_again_as_the_newest_revision() {
    let deployment = web(annotated(2));
    let plan = plan(&deployment, vec![set("i:1", 1, 0, 0), set("i:2", 2, 4, 4)]);
    let lines = steps(&plan);
    assert!(lines[0].starts_with(&format!("patch replicasets default/{}", name("i:1"))), "{lines:?}");
    assert!(lines[0].contains(r#""deployment.kubernetes.io/revision":"3""#), "{lines:?}");
    assert!(lines[0].contains(r#""deployment.kubernetes.io/revision-history":"1""#), "{lines:?}");
    assert!(lines[0].contains(r#""replicas":1"#), "{lines:?}");
    assert!(
        lines[1].starts_with("patch deployments default/web") && lines[1].contains(r#""3""#),
        "{lines:?}"
    );
}

#[test]
fn a_finished_rollout_costs_nothing_and_forgets_old_history() {
    let mut deployment =
        web(with(with(image("i:9"), annotated(9)), json!({"spec": {"revisionHistoryLimit": 1}})));
    let done = vec![set("i:7", 7, 0, 0), set("i:8", 8, 0, 0), set("i:9", 9, 4, 4)];
    let first = plan(&deployment, done.clone());
    assert_eq!(steps(&first), [""; 0], "complete only by this very status");
    assert_eq!(progressing(&first), ("True".into(), "NewReplicaSetAvailable".into()));
    deployment.status = Some(status_of(&first));
    let second = plan(&deployment, done);
    assert_eq!(steps(&second), [format!("delete replicasets default/{}", name("i:7"))]);
    assert_eq!(status_of(&second), status_of(&first), "nothing new to say");
    assert_eq!(second.outcome, Outcome::Done);
}

#[test]
fn a_taken_name_is_counted_and_another_one_found() {
    let mut stranger = set("i:1", 1, 0, 0);
    stranger.metadata.owner_references.as_mut().unwrap()[0].uid = "somebody".into();
    let mut deployment = web(json!({}));
    let clash = plan(&deployment, vec![stranger.clone()]);
    assert_eq!(steps(&clash), [""; 0]);
    assert_eq!(status_of(&clash).collision_count, Some(1));
    deployment.status = Some(status_of(&clash));
    let other = template::hash(&deployment.spec.as_ref().unwrap().template, 1);
    let next = plan(&deployment, vec![stranger]);
    assert_eq!(steps(&next)[0], format!("create replicasets default/web-{other}"));
    assert_eq!(status_of(&next).collision_count, Some(1));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_proportions() {
    // 4 → 10 with a surge of 25 % (3): 13 in all, shared 3 : 2 as the sets are.
    let deployment = web(with(with(image("i:2"), annotated(2)), json!({"spec": {"replicas": 10}})));
    let plan = plan(&deployment, vec![set("i:1", 1, 3, 3), set("i:2", 2, 2, 0)]);
    assert_eq!(steps(&plan), [resized("i:2", 5), resized("i:1", 8)]);
}

#[test]
fn a_paused_deployment_only_scales() {
    let spec = json!({"spec": {"paused": true, "replicas": 6}});
    let plan = plan(&web(with(with(image("i:2"), annotated(1)), spec)), vec![set("i:1", 1, 4, 4)]);
    assert_eq!(steps(&plan), [resized("i:1", 6)]);
    assert_eq!(progressing(&plan), ("Unknown".into(), "DeploymentPaused".into()));
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let recreate = json!({"spec": {"strategy": {"type": "Recreate"}}});
    let deployment = web(with(with(image("i:2"), annotated(1)), recreate));
    assert_eq!(steps(&plan(&deployment, vec![set("i:1", 1, 4, 4)])), [resized("i:1", 0)]);
    let empty = set("i:1", 1, 0, 0);
    let mut last = pod("last", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    last.metadata.owner_references = Some(vec![owner::reference_to(&empty)]);
    let waiting = plan_at(at(100), &deployment, vec![empty.clone()], vec![last]);
    assert_eq!(steps(&waiting), [""; 0], "it is still shutting down");
    let next = plan(&deployment, vec![empty]);
    assert_eq!(steps(&next)[0], format!("create replicasets default/{}", name("i:2")));
}

#[test]
fn a_rollout_that_stands_still_is_overdue_after_its_deadline_and_says_so_once() {
    let mut deployment =
        web(with(with(image("i:2"), annotated(2)), json!({"spec": {"progressDeadlineSeconds": 60}})));
    let stuck = || vec![set("i:1", 1, 3, 3), set("i:2", 2, 2, 0)];
    let first = plan_at(at(0), &deployment, stuck(), vec![]);
    deployment.status = Some(status_of(&first));
    let early = plan_at(at(59), &deployment, stuck(), vec![]);
    assert_eq!(progressing(&early).0, "True");
    let look = early.requeue_after.expect("it looks again when the deadline has passed");
    assert_eq!(look.as_secs(), 2);
    let late = plan_at(at(62), &deployment, stuck(), vec![]);
    assert_eq!(progressing(&late), ("False".into(), "ProgressDeadlineExceeded".into()));
    deployment.status = Some(status_of(&late));
    let later = plan_at(at(500), &deployment, stuck(), vec![]);
    assert_eq!(status_of(&later), status_of(&late));
    assert_eq!(later.requeue_after, None);
    // Progress after all takes it back.
    let moved = plan_at(at(600), &deployment, vec![set("i:1", 1, 3, 3), set("i:2", 2, 2, 1)], vec![]);
    assert_eq!(progressing(&moved), ("True".into(), "ReplicaSetUpdated".into()));
}

#[test]
fn availability_counts_what_may_be_away() {
    let deployment = web(annotated(1));
    let available = |n| {
        let plan = plan(&deployment, vec![set("i:1", 1, 4, n)]);
        let all: Vec<DeploymentCondition> = status_of(&plan).conditions.unwrap();
        conditions::is_true(&all, "Available")
    };
    assert!(available(4) && available(3), "25 % of 4 may be away");
    assert!(!available(2));
}

#[test]
fn a_deployment_that_is_being_deleted_changes_nothing() {
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let plan = plan(&web(with(image("i:2"), deleting)), vec![set("i:1", 1, 4, 4)]);
    assert_eq!(steps(&plan), [""; 0]);
}

#[test]
fn percentages_round_surge_up_and_unavailable_down_but_leave_some_room() {
    let limits = |replicas: i32, surge: Value, unavailable: Value| {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let spec = json!({"spec": {"replicas": replicas, "strategy": {"rollingUpdate": rolling}}});
        rolling::limits(&web(spec).spec.unwrap())
    };
    let some = |surge, unavailable| Ok(rolling::Limits { surge, unavailable });
    assert_eq!(limits(10, json!("25%"), json!("25%")), some(3, 2));
    assert_eq!(limits(1, json!("25%"), json!("25%")), some(1, 0));
    assert_eq!(limits(10, json!(0), json!("1%")), some(0, 1), "else it could never move");
    assert_eq!(limits(2, json!(1), json!(5)), some(1, 2));
    assert_eq!(limits(3, json!(i32::MAX), json!(0)), some(i32::MAX - 3, 0), "their sum is a number, too");
    assert!(limits(3, json!("much"), json!(0)).unwrap_err().contains("maxSurge"));
}

/// A cluster of sets and pods in which everything happens late and in any order.
struct Simulation {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    seed: u64,
    now: i64,
}

impl Simulation {
    fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    fn plan_once(&mut self) {
        self.now += 1;
        let plan = plan_at(at(self.now), &self.deployment, self.sets.clone(), vec![]);
        for action in &plan.actions {
            use claw_runtime::action::Step;
            match (&action.step, action.target.plural.as_str()) {
                (Step::Create(body), _) => {
                    let mut set: ReplicaSet = serde_json::from_value(body.clone()).unwrap();
                    set.metadata.uid = set.metadata.name.clone();
                    set.metadata.creation_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.now)));
                    set.status = Some(ReplicaSetStatus::default());
                    self.sets.push(set);
                }
                (Step::Patch(_, patch), "replicasets") => {
                    let set =
                        self.sets.iter_mut().find(|set| set.metadata.name == action.target.name).unwrap();
                    merge(set, patch);
                }
                (Step::Patch(_, patch), _) => merge(&mut self.deployment, patch),
                (Step::Delete(_), _) => self.sets.retain(|set| set.metadata.name != action.target.name),
                other => panic!("{other:?}"),
            }
        }
        self.deployment.status = Some(status_of(&plan));
    }

    /// One set makes or loses a pod, or one of its pods starts to serve.
    fn live(&mut self) {
        let count = self.sets.len() as u64;
        if count == 0 {
            return;
        }
        let index = usize::try_from(self.random(count)).unwrap();
        let kind = self.random(3);
        let set = &mut self.sets[index];
        let wanted = set.spec.as_ref().unwrap().replicas.unwrap();
        let status = set.status.as_mut().unwrap();
        let available = status.available_replicas.unwrap_or(0);
        match kind {
            0 if status.replicas < wanted => status.replicas += 1,
            // The pods that do not serve go first.
            1 if status.replicas > wanted => {
                status.replicas -= 1;
                status.available_replicas = Some(available.min(status.replicas));
            }
            2 if available < status.replicas => status.available_replicas = Some(available + 1),
            _ => {}
        }
    }

    fn counts(&self) -> (i32, i32) {
        let status = |set: &ReplicaSet| set.status.clone().unwrap();
        let pods = self.sets.iter().map(|set| status(set).replicas).sum();
        let serving = self.sets.iter().map(|set| status(set).available_replicas.unwrap_or(0)).sum();
        (pods, serving)
    }

    fn is_done(&self) -> bool {
        let status = self.deployment.status.clone().unwrap_or_default();
        status::is_complete(&self.deployment, &status)
    }
}

fn merge<T: serde::Serialize + serde::de::DeserializeOwned>(target: &mut T, patch: &Value) {
    let mut value = serde_json::to_value(&*target).unwrap();
    json_patch_merge(&mut value, patch);
    *target = serde_json::from_value(value).unwrap();
}

#[test]
fn every_rollout_ends_and_never_leaves_its_limits_whatever_the_order_of_things() {
    for seed in 1..=60_u64 {
        let mut sim = Simulation { deployment: web(json!({})), sets: vec![], seed: seed * 7919, now: 0 };
        let replicas = i32::try_from(sim.random(9)).unwrap() + 1;
        let (surge, unavailable) = (sim.random(4), sim.random(4));
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let spec = json!({"spec": {"replicas": replicas, "strategy": {"rollingUpdate": rolling}}});
        merge(&mut sim.deployment, &spec);
        let limits = rolling::limits(sim.deployment.spec.as_ref().unwrap()).unwrap();
        settle(&mut sim, seed, None);
        for version in 2..6 {
            // Sometimes the next version comes before the last one is out, and sometimes it is an old one.
            let version = if sim.random(3) == 0 { 1 } else { version };
            merge(&mut sim.deployment, &image(&format!("i:{version}")));
            let steps = if sim.random(2) == 0 { Some(sim.random(40)) } else { None };
            settle_within(
                &mut sim,
                seed,
                steps,
                Some((replicas + limits.surge, replicas - limits.unavailable)),
            );
        }
        settle(&mut sim, seed, Some((replicas + limits.surge, replicas - limits.unavailable)));
        assert_eq!(sim.counts(), (replicas, replicas), "seed {seed}");
    }
}

fn settle(sim: &mut Simulation, seed: u64, bounds: Option<(i32, i32)>) {
    settle_within(sim, seed, None, bounds);
}

/// Lets things happen until the rollout is complete, or for so many steps.
fn settle_within(sim: &mut Simulation, seed: u64, steps: Option<u64>, bounds: Option<(i32, i32)>) {
    for _ in 0..steps.unwrap_or(20_000) {
        if sim.random(4) == 0 {
            sim.plan_once();
        } else {
            sim.live();
        }
        if let Some((most, fewest)) = bounds {
            let (pods, serving) = sim.counts();
            assert!(pods <= most, "seed {seed}: {pods} pods, {most} allowed");
            assert!(serving >= fewest, "seed {seed}: {serving} serve, {fewest} required");
        }
        if steps.is_none() && sim.is_done() {
            return;
        }
    }
    assert!(steps.is_some(), "seed {seed}: the rollout never ends: {:?}", sim.deployment.status);
}
