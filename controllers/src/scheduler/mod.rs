//! The scheduler: gives each pending pod a node, or says why it waits.
//!
//! [`state::State`] decides, synchronously and without I/O; [`run`] keeps it level with the cluster and carries
//! its decisions out. A binding names the pod's uid and the server refuses a second one, so no race can bind a
//! pod twice.
//!
//! Writes the pod condition `PodScheduled` (status False, with the reason), and the pod's binding.
//! Must never know: how nodes run pods.

mod amounts;
mod filter;
mod model;
mod score;
mod state;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use claw_client::{ApiError, cache::Delta, request::PatchKind};
use claw_runtime::{Runtime, events::reference_to, figures::Work, readiness::Need};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Binding, Node, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tracing::{debug, warn};

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
    Bound(PodKey, Arc<str>, Result<(), ApiError>),
    Told(PodKey, String, Result<(), ApiError>),
}

/// Schedules until the runtime is cancelled.
pub async fn run(runtime: Runtime) {
    let figures = runtime.figures.of(CONTROLLER);
    let (state, changed) = (Arc::new(Mutex::new(State::counted(figures.clone()))), Arc::new(Notify::new()));
    follow(&runtime, &state, &changed);
    let needs = vec![Need::of(&runtime.caches.of::<Pod>()), Need::of(&runtime.caches.of::<Node>())];
    if !runtime.readiness.all(&runtime.env, CONTROLLER, needs).await {
        return;
    }
    let mut writes: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
    loop {
        let room = IN_FLIGHT_MAX - writes.len();
        if room > 0 && runtime.leadership.is_held() {
            let decisions = state.lock().decide(runtime.env.now(), room);
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
    let env = runtime.env.clone();
    pods.subscribe(move |delta: &Delta<Pod>| {
        let ((state, changed), now) = (&on_pod, env.now());
        match delta {
            Delta::Applied { new, old: Some(old) } if model::is_immaterial(old, new) => return,
            Delta::Applied { new, .. } => state.lock().apply_pod(new, NAME, now),
            Delta::Deleted { last } => state.lock().remove_pod(&model::key_of(last)),
            Delta::Synced => {}
        }
        changed.notify_one();
    });
}

/// The write that a decision asks for; none where it would repeat what the pod already says.
fn carry_out(runtime: &Runtime, decision: Decision) -> Option<BoxFuture<'static, Done>> {
    let client = runtime.client.clone();
    match decision {
        Decision::Bind { pod, uid, node } => Some(
            async move {
                let binding = Binding {
                    metadata: ObjectMeta {
                        name: Some(pod.1.to_string()),
                        namespace: Some(pod.0.to_string()),
                        uid: Some(uid),
                        ..ObjectMeta::default()
                    },
                    target: ObjectReference {
                        api_version: Some("v1".to_owned()),
                        kind: Some("Node".to_owned()),
                        name: Some(node.to_string()),
                        ..ObjectReference::default()
                    },
                };
                let pods = client.namespaced::<Pod>(&pod.0);
                let result = pods.create_subresource(&pod.1, "binding", &binding).await.map(drop);
                Done::Bound(pod, node, result)
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

/// The condition that says why a pod waits. The uid makes the patch fail on a namesake; the time is that of the
/// first verdict, because a changed reason is no transition.
fn unschedulable(uid: &str, reason: &str, since: Option<Timestamp>) -> serde_json::Value {
    let mut condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason});
    if let Some(since) = since {
        condition["lastTransitionTime"] = json!(since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}})
}

/// Takes note of a write's end, and records the event that users look for.
fn settle(runtime: &Runtime, state: &Mutex<State>, done: Done) {
    match done {
        Done::Bound(pod, node, Ok(())) => {
            debug!(pod = %pod.1, namespace = %pod.0, %node, "bound");
            let message = format!("Successfully assigned {}/{} to {node}", pod.0, pod.1);
            record(runtime, &pod, false, "Scheduled", message);
        }
        Done::Bound(pod, node, Err(error)) => {
            warn!(pod = %pod.1, namespace = %pod.0, %node, %error, "binding failed; the pod is queued again");
            record(runtime, &pod, true, "FailedBinding", format!("binding to {node} failed: {error}"));
            state.lock().forget(&pod, runtime.env.now());
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

async fn until(runtime: &Runtime, due: Option<Timestamp>) {
    let wait = due.map_or(jiff::SignedDuration::ZERO, |due| due.duration_since(runtime.env.now()));
    runtime.env.sleep(wait.try_into().unwrap_or_default()).await;
}
