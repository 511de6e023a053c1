//! The scheduler: gives each pending pod a node, or says why it waits.
//!
//! [`state::State`] decides, synchronously and without I/O; [`run`] keeps it level with the cluster and carries
//! its decisions out. A binding names the pod's uid and the server refuses a second one, so no race can bind a
//! pod twice.
//!
//! Writes the pod condition `PodScheduled` (status False, with the reason), the pod's binding, and before that what its
//! claims are given (`devices`). A claim that is allocated to a pod which then cannot go there is taken back by whoever
//! looks at the pod next, so nothing is left behind by a scheduler that dies in between.
//! Must never know: how nodes run pods.

mod amounts;
pub mod devices;
mod filter;
mod model;
mod score;
mod state;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use claw_client::{ApiError, Client, api::Object, cache::Delta, request::PatchKind};
use claw_runtime::{Runtime, events::reference_to, figures::Work, readiness::Need};
use claw_schemas::{
    api::{DeviceCheck, DevicePolicy},
    gpu::NAMED,
    schema::time_text,
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Binding, Node, ObjectReference, Pod},
        resource::{
            v1::{DeviceClass, ResourceClaim, ResourceSlice},
            v1beta2::DeviceTaintRule,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::device_policy::looks::Look;
use devices::{
    ClaimKey, Devices, Touched,
    writes::{self, Grant, Release},
};
pub use filter::tolerates;
use model::PodKey;
use state::{Decision, State, Verdict};

/// Its name among the controllers.
const CONTROLLER: &str = "scheduler";

/// The name that pods give in `spec.schedulerName` to be placed by this scheduler.
pub const NAME: &str = "default-scheduler";

/// Writes under way at once. The server commits what arrives together in one sync, so many in flight cost little;
/// beyond this they only queue there.
const IN_FLIGHT_MAX: usize = 256;

/// What came of one write.
enum Done {
    Bound(PodKey, Arc<str>, Vec<(ClaimKey, Option<u64>)>, Result<(), ApiError>),
    Released(PodKey, Result<(), ApiError>),
    Told(PodKey, String, Result<(), ApiError>),
}

/// Schedules until the runtime is cancelled.
pub async fn run(runtime: Runtime) {
    let figures = runtime.figures.of(CONTROLLER);
    let (state, changed) = (Arc::new(Mutex::new(State::counted(figures.clone()))), Arc::new(Notify::new()));
    follow(&runtime, &state, &changed);
    let caches = &runtime.caches;
    let needs = vec![
        Need::of(&caches.of::<Pod>()),
        Need::of(&caches.of::<Node>()),
        Need::of(&caches.of::<ResourceClaim>()),
        Need::of(&caches.of::<ResourceSlice>()),
        Need::of(&caches.of::<DeviceClass>()),
        Need::of(&caches.of::<DevicePolicy>()),
        Need::of(&caches.of::<DeviceCheck>()),
        Need::of(&caches.of::<DeviceTaintRule>()),
    ];
    if !runtime.readiness.all(&runtime.env, CONTROLLER, needs).await {
        return;
    }
    let mut writes: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
    loop {
        let room = IN_FLIGHT_MAX - writes.len();
        if room > 0 && runtime.leadership.is_held() {
            let decisions = state.lock().decide(runtime.env.uptime(), room);
            for decision in decisions {
                match carry_out(&runtime, decision) {
                    Some(write) => writes.push(timed(&runtime, &figures, write)),
                    None => figures.ran(Duration::ZERO),
                }
            }
        }
        let due = state.lock().next_due();
        tokio::select! {
            () = runtime.cancel.cancelled() => return,
            () = changed.notified(), if writes.len() < IN_FLIGHT_MAX => {}
            Some(done) = writes.next() => settle(&runtime, &state, done),
            () = until(&runtime, due), if due.is_some() => {}
        }
    }
}

/// A write that tells how long it took.
fn timed(
    runtime: &Runtime,
    figures: &Arc<Work>,
    write: BoxFuture<'static, Done>,
) -> BoxFuture<'static, Done> {
    let (env, figures) = (runtime.env.clone(), Arc::clone(figures));
    let began = env.uptime();
    let timed = async move {
        let done = write.await;
        figures.ran(env.uptime().saturating_sub(began));
        done
    };
    timed.boxed()
}

/// Keeps the state level with the caches. The handlers run on the reflectors' tasks and only touch memory.
fn follow(runtime: &Runtime, state: &Arc<Mutex<State>>, changed: &Arc<Notify>) {
    let (pods, nodes) = (runtime.caches.of::<Pod>(), runtime.caches.of::<Node>());
    let (on_pod, on_node) =
        ((Arc::clone(state), Arc::clone(changed)), (Arc::clone(state), Arc::clone(changed)));
    nodes.subscribe(move |delta: &Delta<Node>| {
        let (state, changed) = &on_node;
        match delta {
            Delta::Applied { new, .. } => state.lock().apply_node(new),
            Delta::Deleted { last } => {
                state.lock().remove_node(last.metadata.name.as_deref().unwrap_or_default());
            }
            Delta::Synced => {}
        }
        changed.notify_one();
    });
    follow_devices(runtime, state, changed);
    let env = runtime.env.clone();
    pods.subscribe(move |delta: &Delta<Pod>| {
        let ((state, changed), now) = (&on_pod, env.uptime());
        match delta {
            Delta::Applied { new, old: Some(old) } if model::is_immaterial(old, new) => return,
            Delta::Applied { new, .. } => state.lock().apply_pod(new, NAME, now),
            Delta::Deleted { last } => state.lock().remove_pod(&model::key_of(last)),
            Delta::Synced => {}
        }
        changed.notify_one();
    });
}

fn follow_devices(runtime: &Runtime, state: &Arc<Mutex<State>>, changed: &Arc<Notify>) {
    follow_device_kind::<ResourceSlice>(runtime, state, changed, |devices, slice, is_gone| match is_gone {
        false => devices.apply_slice(slice),
        true => devices.remove_slice(slice.metadata.name.as_deref().unwrap_or_default()),
    });
    follow_device_kind::<ResourceClaim>(runtime, state, changed, |devices, claim, is_gone| match is_gone {
        false => devices.apply_claim(claim),
        true => devices.remove_claim(claim),
    });
    follow_device_kind::<DeviceTaintRule>(runtime, state, changed, |devices, rule, is_gone| match is_gone {
        false => devices.apply_rule(rule),
        true => devices.remove_rule(rule.metadata.name.as_deref().unwrap_or_default()),
    });
    follow_device_kind::<DeviceClass>(runtime, state, changed, |devices, class, is_gone| match is_gone {
        false => devices.apply_class(class),
        true => devices.remove_class(class.metadata.name.as_deref().unwrap_or_default()),
    });
    follow_device_kind::<DevicePolicy>(runtime, state, changed, |devices, policy, is_gone| match is_gone {
        false => devices.apply_policy(policy),
        true => devices.remove_policy(policy.metadata.name.as_deref().unwrap_or_default()),
    });
    let (state, changed) = (Arc::clone(state), Arc::clone(changed));
    runtime.caches.of::<DeviceCheck>().subscribe(move |delta: &Delta<DeviceCheck>| {
        match delta {
            // How a look gets on is nothing to whoever waits.
            Delta::Applied { new, old: Some(old) } if Look::of(new) == Look::of(old) => return,
            Delta::Applied { new, .. } => state.lock().apply_devices(|devices| devices.apply_check(new)),
            Delta::Deleted { last } => state.lock().apply_devices(|devices| devices.remove_check(last)),
            Delta::Synced => return,
        }
        changed.notify_one();
    });
}

fn follow_device_kind<K: Object>(
    runtime: &Runtime,
    state: &Arc<Mutex<State>>,
    changed: &Arc<Notify>,
    change: impl Fn(&mut Devices, &K, bool) -> Touched + Send + Sync + 'static,
) {
    let (state, changed) = (Arc::clone(state), Arc::clone(changed));
    runtime.caches.of::<K>().subscribe(move |delta: &Delta<K>| {
        match delta {
            Delta::Applied { new, .. } => state.lock().apply_devices(|devices| change(devices, new, false)),
            Delta::Deleted { last } => state.lock().apply_devices(|devices| change(devices, last, true)),
            Delta::Synced => return,
        }
        changed.notify_one();
    });
}

/// The write that a decision asks for; none where it would repeat what the pod already says.
fn carry_out(runtime: &Runtime, decision: Decision) -> Option<BoxFuture<'static, Done>> {
    let client = runtime.client.clone();
    match decision {
        Decision::Bind { pod, uid, node, gpus, grants } => Some(
            async move {
                let (claims, granted) = grant(&client, &grants, &pod, &uid).await;
                let result = match granted {
                    Ok(()) => {
                        let (pods, binding) =
                            (client.namespaced::<Pod>(&pod.0), binding(&pod, uid, &node, &gpus));
                        pods.create_subresource(&pod.1, "binding", &binding).await.map(drop)
                    }
                    Err(error) => Err(error),
                };
                Done::Bound(pod, node, claims, result)
            }
            .boxed(),
        ),
        Decision::Release { pod, uid, claims } => Some(
            async move {
                let result = release(&client, &pod, &uid, &claims).await;
                Done::Released(pod, result)
            }
            .boxed(),
        ),
        Decision::Wait { pod, uid, reason, verdict } => (verdict != Verdict::Same).then(|| {
            let now = runtime.env.now();
            async move {
                let patch = unschedulable(&uid, &reason, (verdict == Verdict::First).then_some(now));
                let pods = client.namespaced::<Pod>(&pod.0);
                let result = pods.patch(&pod.1, Some("status"), PatchKind::Strategic, &patch).await;
                Done::Told(pod, reason, result.map(drop))
            }
            .boxed()
        }),
    }
}

/// Writes what a pod's claims are given, one after the other; the first failure ends it. Gives for each that was tried the
/// revision from which on it says what is so.
async fn grant(
    client: &Client,
    grants: &[Grant],
    pod: &PodKey,
    uid: &str,
) -> (Vec<(ClaimKey, Option<u64>)>, Result<(), ApiError>) {
    let (mut claims, mut result) = (Vec::new(), Ok(()));
    for grant in grants {
        let written =
            if result.is_ok() { Some(writes::grant(client, grant, &pod.1, uid).await) } else { None };
        let revision = match written {
            Some(Ok(revision)) => Some(revision),
            Some(Err(error)) => {
                result = Err(error);
                writes::revision(client, &grant.key).await
            }
            None => None,
        };
        claims.push((grant.key.clone(), revision));
    }
    (claims, result)
}

/// Takes allocations back, unless the pod was bound meanwhile.
async fn release(client: &Client, pod: &PodKey, uid: &str, claims: &[Release]) -> Result<(), ApiError> {
    let found = client.namespaced::<Pod>(&pod.0).find(&pod.1).await?;
    let found = found.filter(|found| found.metadata.uid.as_deref() == Some(uid));
    if found.is_some_and(|found| model::node_of(&found).is_some()) {
        return Ok(());
    }
    let releases = claims.iter().map(|claim| writes::release(client, claim));
    futures::future::try_join_all(releases).await.map(drop)
}

fn binding(pod: &PodKey, uid: String, node: &str, gpus: &[String]) -> Binding {
    let annotations = (!gpus.is_empty()).then(|| [(NAMED.to_owned(), gpus.join(","))].into());
    Binding {
        metadata: ObjectMeta {
            name: Some(pod.1.to_string()),
            namespace: Some(pod.0.to_string()),
            uid: Some(uid),
            annotations,
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    }
}

/// The condition that says why a pod waits. The uid makes the patch fail on a namesake; the time is that of the
/// first verdict, because a changed reason is no transition.
fn unschedulable(uid: &str, reason: &str, since: Option<Timestamp>) -> serde_json::Value {
    let mut condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason});
    if let Some(since) = since {
        condition["lastTransitionTime"] = json!(time_text(since));
    }
    json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}})
}

/// Takes note of a write's end, and records the event that users look for.
fn settle(runtime: &Runtime, state: &Mutex<State>, done: Done) {
    match done {
        Done::Bound(pod, node, claims, Ok(())) => {
            state.lock().settle(&claims);
            debug!(pod = %pod.1, namespace = %pod.0, %node, "bound");
            let message = format!("Successfully assigned {}/{} to {node}", pod.0, pod.1);
            record(runtime, &pod, false, "Scheduled", message);
        }
        Done::Bound(pod, node, claims, Err(error)) => {
            state.lock().settle(&claims);
            warn!(pod = %pod.1, namespace = %pod.0, %node, %error, "binding failed; the pod is queued again");
            record(runtime, &pod, true, "FailedBinding", format!("binding to {node} failed: {error}"));
            state.lock().forget(&pod, runtime.env.uptime());
        }
        Done::Released(pod, result) => {
            debug!(pod = %pod.1, namespace = %pod.0, ?result, "took back what its claims were given");
        }
        Done::Told(pod, reason, Ok(())) => record(runtime, &pod, true, "FailedScheduling", reason),
        Done::Told(pod, _, Err(error)) => {
            debug!(pod = %pod.1, namespace = %pod.0, %error, "could not write why the pod waits");
        }
    }
}

fn record(runtime: &Runtime, key: &PodKey, warning: bool, reason: &str, message: String) {
    if let Some(pod) = runtime.caches.of::<Pod>().get(&key.0, &key.1) {
        runtime.recorder.record(reference_to(&*pod), warning, reason, message);
    }
}

async fn until(runtime: &Runtime, due: Option<Duration>) {
    runtime.env.sleep(due.unwrap_or_default().saturating_sub(runtime.env.uptime())).await;
}
