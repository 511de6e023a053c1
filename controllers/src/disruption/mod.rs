//! Disruption budgets: how many of the pods that a budget is about may be evicted now.
//!
//! Writes the counts of the status and the condition `DisruptionAllowed`. An eviction takes from `disruptionsAllowed` and
//! notes the pod in `disruptedPods` (the API server does both in one transaction); until the pod is seen to go, it
//! counts as gone here, so that a count made on an old picture allows nothing twice.
//!
//! Must never know: who evicts, and why.

mod counts;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_client::{ObjectKey, Store, api::Object};
use claw_runtime::{
    Controller, Plan, Watches, World,
    conditions::{self, Condition as _, FALSE, TRUE},
};
use claw_schemas::selector::LabelSelector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use self::counts::Expected;
use crate::{claim::selects, pods};

const ALLOWED: &str = "DisruptionAllowed";

/// What budgets carried before anybody acted on them.
const UNATTENDED: &str = "ControllerAvailable";

/// How long an evicted pod may take until it is seen to go. After that its eviction counts as failed. Upstream's figure.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// The controller of disruption budgets.
pub struct Budgets;

impl Controller for Budgets {
    type Object = PodDisruptionBudget;

    fn name(&self) -> &'static str {
        "disruption"
    }

    fn watches(&self, watches: &mut Watches<PodDisruptionBudget>) {
        watches.mapped::<Pod>(|pod, budgets| {
            beside(&**pod, budgets, |budget| selector(budget).is_some_and(|one| selects(&one, &pod.metadata)))
        });
        // How many pods there should be is asked of their controllers.
        watches.mapped::<ReplicaSet>(|set, budgets| beside(&**set, budgets, |_| true));
        watches.mapped::<Deployment>(|deployment, budgets| beside(&**deployment, budgets, |_| true));
        watches.mapped::<StatefulSet>(|set, budgets| beside(&**set, budgets, |_| true));
        watches.mapped::<ReplicationController>(|set, budgets| beside(&**set, budgets, |_| true));
    }

    fn plan(&self, budget: &Arc<PodDisruptionBudget>, world: &World, now: Timestamp) -> Plan {
        if budget.metadata.deletion_timestamp.is_some() {
            return Plan::nothing();
        }
        let all = world.kind::<Pod>();
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let selector = selector(budget);
        let pods: Vec<&Arc<Pod>> =
            selector.iter().flat_map(|selector| all.select(namespace, selector)).collect();
        let (disrupted, look_again) = still_disrupted(budget, &pods, now);
        let healthy = pods.iter().filter(|pod| is_healthy(pod, &disrupted)).count();
        let expected = counts::expected(budget, &pods, world);
        let plan = Plan::nothing().status(&status(budget, expected, healthy, disrupted, now));
        match look_again {
            Some(delay) => plan.again_after(delay),
            None => plan,
        }
    }
}

/// Which pods a budget is about: none where it does not say. An empty selector means all of the namespace.
fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    LabelSelector::from_meta(budget.spec.as_ref()?.selector.as_ref()?).ok()
}

/// The budgets in the namespace of an object that pass.
fn beside<K: Object>(
    object: &K,
    budgets: &Store<PodDisruptionBudget>,
    pass: impl Fn(&PodDisruptionBudget) -> bool,
) -> Vec<ObjectKey> {
    let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
    let snapshot = budgets.snapshot();
    let found = snapshot.in_namespace(namespace).filter(|budget| pass(budget));
    found.map(|budget| ObjectKey::of(&budget.metadata)).collect()
}

type Disrupted = BTreeMap<String, Time>;

/// The evicted pods that are still to be seen to go, and when the first of them is given up.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    pods: &[&Arc<Pod>],
    now: Timestamp,
) -> (Disrupted, Option<Duration>) {
    let noted = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let (mut still, mut first) = (Disrupted::new(), None);
    for pod in pods.iter().filter(|pod| !pods::is_terminating(pod)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(time) = noted.get(&name) else { continue };
        let left = DELETION_TIMEOUT.saturating_sub(now.duration_since(time.0));
        let Ok(left) = Duration::try_from(left) else { continue };
        if left.is_zero() {
            continue;
        }
        first = Some(first.map_or(left, |other: Duration| other.min(left)));
        still.insert(name, time.clone());
    }
    (still, first)
}

fn is_healthy(pod: &Pod, disrupted: &Disrupted) -> bool {
    let going = pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
    !pods::is_terminating(pod) && !going && pods::is_ready(pod)
}

/// The status that the counts add up to. What cannot be counted allows nothing.
fn status(
    budget: &PodDisruptionBudget,
    expected: Result<Expected, String>,
    healthy: usize,
    disrupted: Disrupted,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    conditions::remove(&mut conditions, UNATTENDED);
    let mut set = |status: &str, reason: &str, message: &str| {
        let condition = Condition::build(ALLOWED, status, reason, message);
        conditions::set(&mut conditions, condition, budget.metadata.generation, now);
    };
    let expected = match expected {
        Ok(expected) => expected,
        Err(why) => {
            set(FALSE, "SyncFailed", &why);
            let conditions = Some(conditions);
            let observed_generation = budget.metadata.generation;
            return PodDisruptionBudgetStatus {
                disruptions_allowed: Some(0),
                observed_generation,
                conditions,
                ..old
            };
        }
    };
    let allowed = expected.allowed(healthy);
    if allowed > 0 {
        set(TRUE, "SufficientPods", "");
    } else {
        set(FALSE, "InsufficientPods", "");
    }
    PodDisruptionBudgetStatus {
        current_healthy: Some(count(healthy)),
        desired_healthy: Some(count(expected.desired)),
        expected_pods: Some(count(expected.pods)),
        disruptions_allowed: Some(count(allowed)),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions),
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
