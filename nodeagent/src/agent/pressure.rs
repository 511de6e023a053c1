//! Watches what pods share, tells the server when it gets short, and evicts one pod after the other until it is not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_schemas::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Pods, Shared};
use crate::{
    pod::{Eviction, is_sidecar},
    pressure::{self, Candidate, Good, Level, Patience, Pressure, Shortage},
    runtime::machine::request,
};

/// How often it is looked: the kubelet's figure.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often the server is told anew, in case it was set back to an older state.
const TELL_EVERY: Duration = Duration::from_secs(300);

/// What a pod had is free only some time after it was evicted: before that nobody else goes.
const RELIEF: Duration = Duration::from_secs(15);

/// What a pod has for its hooks when the node cannot wait. The kubelet's figure.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// From here on priorities are those of pods that the cluster needs.
const CRITICAL: i32 = 2_000_000_000;

/// The annotation of pods that stand for static ones.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What decides whether a pod goes before others.
#[derive(Clone, Debug)]
pub(super) struct Stake {
    priority: i32,
    memory: u64,
    disk: u64,
    critical: bool,
}

impl Stake {
    pub fn of(pod: &Pod) -> Self {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let is_mirror = pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR));
        Self {
            priority,
            memory: requested(pod, "memory"),
            disk: requested(pod, "ephemeral-storage"),
            critical: is_mirror || priority >= CRITICAL,
        }
    }

    fn requested(&self, good: Good) -> u64 {
        match good {
            Good::Memory => self.memory,
            Good::Disk => self.disk,
            Good::Pids => 0,
        }
    }
}

/// All that its containers ask for while they run side by side.
fn requested(pod: &Pod, resource: &str) -> u64 {
    let of = |container: &Container| {
        let asked: Option<Quantity> = request(container.resources.as_ref(), resource);
        asked.and_then(|asked| u64::try_from(asked.units()).ok()).unwrap_or(0)
    };
    let Some(spec) = &pod.spec else { return 0 };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    spec.containers.iter().chain(sidecars).map(of).sum()
}

/// Runs until cancelled; at once over where nothing is measured.
pub(super) async fn keep(shared: Arc<Shared>, pods: Arc<Pods>, cancel: CancellationToken) {
    let (mut pressure, mut patience) = (Pressure::default(), Patience::default());
    let mut told: Option<(Value, Instant)> = None;
    let mut relieved_at = Instant::now();
    let steady = shared.config.clock.steady();
    loop {
        let Some((hard, soft)) = shortages(&shared).await else { return };
        let now = steady.now();
        pressure.note(&[&hard[..], &soft].concat(), now);
        tell(&shared, &pressure, &mut told);
        let overdue = patience.overdue(&shared.config.evict_soft, &soft, now);
        let at_once = hard.first().map(|first| (first, HARD_GRACE));
        let next = at_once.or_else(|| Some((overdue.first()?, shared.config.evict_soft_grace)));
        if let Some((shortage, grace)) = next.filter(|_| Instant::now() >= relieved_at)
            && evict(&shared, &pods, shortage, grace).await
        {
            relieved_at = Instant::now() + RELIEF;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// What is short, by the hard thresholds and by the soft ones.
type Short = (Vec<Shortage>, Vec<Shortage>);

/// The same after images have made room. `None` where nothing is measured.
async fn shortages(shared: &Shared) -> Option<Short> {
    let config = &shared.config;
    let look = async || -> Option<Short> {
        let levels: BTreeMap<Good, Level> = shared.runtime.levels().await;
        let short = || (config.evict_below.shortages(&levels), config.evict_soft.shortages(&levels));
        (!levels.is_empty()).then(short)
    };
    let found = look().await?;
    if !found.0.iter().chain(&found.1).any(|shortage| shortage.good == Good::Disk) {
        return Some(found);
    }
    shared.runtime.make_room().await;
    look().await
}

fn tell(shared: &Shared, pressure: &Pressure, told: &mut Option<(Value, Instant)>) {
    let conditions: Vec<Value> = Good::ALL
        .into_iter()
        .map(|good| {
            let is_short = pressure.is_under(good);
            let (reason, message) = good.words(is_short);
            let status = if is_short { "True" } else { "False" };
            json!({"type": good.condition(), "status": status, "reason": reason, "message": message})
        })
        .collect();
    let news = json!({ "conditions": conditions });
    let is_known = told.as_ref().is_some_and(|(known, at)| *known == news && at.elapsed() < TELL_EVERY);
    if !is_known && let Ok(text) = serde_json::to_vec(&news) {
        shared.outbox.node_status(text);
        *told = Some((news, Instant::now()));
    }
}

/// Ends one pod. Whether there was one.
async fn evict(shared: &Shared, pods: &Pods, shortage: &Shortage, grace: Duration) -> bool {
    let mut candidates = Vec::new();
    for (uid, stake) in pods.stakes().into_iter().filter(|(_, stake)| !stake.critical) {
        let used = shared.runtime.usage(&uid, shortage.good).await;
        let requested = stake.requested(shortage.good);
        candidates.push(Candidate { uid, priority: stake.priority, requested, used });
    }
    let Some(victim) = pressure::victim(shortage.good, &candidates) else {
        tracing::warn!(good = shortage.good.name(), "the node is short of it, and no pod can go");
        return false;
    };
    tracing::warn!(pod = victim.uid, good = shortage.good.name(), used = victim.used, "a pod is evicted");
    pods.evict(&victim.uid, Eviction { why: pressure::message(shortage, victim), grace }).await;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_asks_for_what_runs_side_by_side_and_the_cluster_keeps_what_it_needs() {
        let pod = |priority: i32| -> Pod {
            serde_json::from_value(json!({"spec": {"priority": priority,
                "initContainers": [
                    {"name": "once", "resources": {"requests": {"memory": "1Gi"}}},
                    {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Ki"}}}],
                "containers": [
                    {"name": "a", "resources": {"limits": {"memory": "2Ki"}}},
                    {"name": "b", "resources": {"requests": {"ephemeral-storage": "5"}}}]}}))
            .unwrap()
        };
        let stake = Stake::of(&pod(7));
        assert_eq!((stake.requested(Good::Memory), stake.requested(Good::Disk)), (3072, 5));
        assert!(!stake.critical && Stake::of(&pod(CRITICAL)).critical);
    }
}
