//! Pods nobody will finish any more: those on machines that no longer exist, those deleted before they got a machine,
//! and the oldest of too many finished ones.
//!
//! Must never know: why a machine went away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use claw_client::request::DeleteOptions;
use claw_runtime::{Action, Runtime, readiness::Need};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;
use tracing::{info, warn};

use crate::{pods, sweeps};

/// Between sweeps. Kubernetes' figure.
const SWEEP: Duration = Duration::from_secs(20);

/// A node must be gone for this long before its pods go: the watch may be behind, the node may come back under its
/// name. Kubernetes' figure.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Finished pods kept for people to look at: at about 4 KiB each, 50 MiB of store. Kubernetes' figure.
const FINISHED_MAX: usize = 12_500;

/// Its name among the controllers.
const CONTROLLER: &str = "pod-gc";

/// Sweeps until the runtime is cancelled.
pub async fn run(runtime: Runtime) {
    let (all_pods, all_nodes) = (runtime.caches.of::<Pod>(), runtime.caches.of::<Node>());
    let sweeper = Mutex::new(Sweeper::default());
    let once = || async {
        let nodes: BTreeSet<String> =
            all_nodes.list().iter().filter_map(|node| node.metadata.name.clone()).collect();
        let pods = all_pods.list();
        let missing = sweeper.lock().missing(&pods, &nodes, runtime.env.uptime());
        let gone = really_gone(&runtime, missing).await;
        let mut all_went = true;
        // Side by side would be faster; nobody waits for a sweep.
        for steps in sweep(&pods, &gone, FINISHED_MAX) {
            match runtime.execute(&steps).await {
                Err(failure) if !failure.is_stale() => {
                    warn!(%failure, "a pod was not swept; trying again");
                    all_went = false;
                }
                _ => {}
            }
        }
        all_went
    };
    let needs = vec![Need::of(&all_pods), Need::of(&all_nodes)];
    if runtime.readiness.all(&runtime.env, CONTROLLER, needs).await {
        sweeps::run(&runtime, CONTROLLER, SWEEP, once).await;
    }
}

/// Remembers since when nodes are missing. Losing it only makes a sweep later.
#[derive(Default)]
struct Sweeper {
    since: BTreeMap<String, Duration>,
}

impl Sweeper {
    /// Nodes that pods are bound to and that have been missing for long enough.
    fn missing(&mut self, pods: &[Arc<Pod>], nodes: &BTreeSet<String>, now: Duration) -> BTreeSet<String> {
        let bound: BTreeSet<&str> =
            pods.iter().filter_map(|pod| node_of(pod)).filter(|name| !nodes.contains(*name)).collect();
        self.since.retain(|name, _| bound.contains(name.as_str()));
        for name in bound {
            self.since.entry(name.to_owned()).or_insert(now);
        }
        let long = self.since.iter().filter(|(_, since)| now.saturating_sub(**since) >= QUARANTINE);
        long.map(|(name, _)| name.clone()).collect()
    }
}

/// Asks the server itself: pods are not deleted on a cache's word.
async fn really_gone(runtime: &Runtime, missing: BTreeSet<String>) -> BTreeSet<String> {
    let nodes = runtime.client.all::<Node>();
    let mut gone = BTreeSet::new();
    for name in missing {
        match nodes.find(&name).await {
            Ok(None) => {
                info!(node = name, "the node is gone; its pods go");
                gone.insert(name);
            }
            Ok(Some(_)) => {}
            Err(error) => warn!(node = name, %error, "cannot tell whether the node is gone; its pods stay"),
        }
    }
    gone
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// What to do about each pod that nobody will finish.
fn sweep(all: &[Arc<Pod>], gone: &BTreeSet<String>, finished_max: usize) -> Vec<Vec<Action>> {
    let mut steps: Vec<Vec<Action>> = Vec::new();
    for pod in all {
        match node_of(pod) {
            Some(node) if gone.contains(node) => steps.push(fail_and_delete(pod, node)),
            None if pods::is_terminating(pod) => steps.push(vec![delete_now(pod)]),
            _ => {}
        }
    }
    let mut finished: Vec<_> =
        all.iter().filter(|pod| pods::is_finished(pod) && !pods::is_terminating(pod)).collect();
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let excess = finished.len().saturating_sub(finished_max);
    steps.extend(finished.into_iter().take(excess).map(|pod| vec![delete_now(pod)]));
    steps
}

/// Whoever watches the pod learns that it failed before it disappears.
fn fail_and_delete(pod: &Pod, node: &str) -> Vec<Action> {
    let mut steps = Vec::new();
    if !pods::is_finished(pod) {
        let message = format!("PodGC: node {node} no longer exists");
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
        });
        let patch = json!({"status": {"phase": "Failed", "conditions": [condition]}});
        steps.push(Action::strategic(pod, patch).in_status());
    }
    steps.push(delete_now(pod));
    steps
}

fn delete_now(pod: &Pod) -> Action {
    Action::delete_with(pod, DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() })
}

#[cfg(test)]
mod tests {
    use claw_runtime::action::describe;

    use super::*;
    use crate::pods::build::pod;

    fn on(node: &str) -> serde_json::Value {
        json!({"spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running"}})
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn swept(pods: Vec<Pod>, gone: &[&str], finished_max: usize) -> Vec<String> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        describe(&sweep(&pods, &names(gone), finished_max).concat())
    }

    #[test]
    fn pods_of_a_node_that_is_gone_fail_and_go() {
        let actions = swept(vec![pod("a", on("n1")), pod("b", on("n2"))], &["n1"], 10);
        assert_eq!(actions.len(), 2);
        assert!(
            actions[0].starts_with("patch pods default/a") && actions[0].contains("Failed"),
            "{actions:?}"
        );
        assert_eq!(actions[1], "delete pods default/a");
    }

    #[test]
    fn a_node_must_be_missing_for_a_while_and_may_come_back() {
        let pods = vec![Arc::new(pod("a", on("n1")))];
        let mut sweeper = Sweeper::default();
        assert!(sweeper.missing(&pods, &names(&[]), Duration::ZERO).is_empty());
        assert!(sweeper.missing(&pods, &names(&["n1"]), Duration::from_secs(20)).is_empty());
        assert!(sweeper.missing(&pods, &names(&[]), Duration::from_secs(41)).is_empty(), "counted anew");
        let later = Duration::from_secs(41) + QUARANTINE;
        assert_eq!(sweeper.missing(&pods, &names(&[]), later), names(&["n1"]));
    }

    #[test]
    fn a_pod_deleted_before_it_got_a_node_goes_at_once() {
        let deleting = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"}});
        assert_eq!(swept(vec![pod("a", deleting)], &[], 10), ["delete pods default/a"]);
    }

    #[test]
    fn of_too_many_finished_pods_the_oldest_go() {
        let finished = |name: &str, second: u32| {
            let created = format!("1970-01-01T00:00:{second:02}Z");
            pod(name, json!({"metadata": {"creationTimestamp": created}, "status": {"phase": "Succeeded"}}))
        };
        let pods = vec![finished("young", 30), finished("old", 10), finished("middle", 20)];
        assert_eq!(swept(pods, &[], 2), ["delete pods default/old"]);
    }
}
