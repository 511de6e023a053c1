//! Runs a controller: the one place where plans meet I/O.
//!
//! Guarantees to a controller: the caches that it declared are synced before the first plan; one plan a key at a time; a key is
//! planned again only when the caches show what its own last plan wrote (read your writes); a failure backs off
//! that key alone; a panic in a plan is a failure of that key; nothing is written once the lease is lost; every
//! key is planned again at least every [`RESYNC`].
//!
//! Must never know: any one controller.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use claw_client::{ObjectKey, ResourceRef, Store, Verb};
use k8s_openapi::Metadata as _;
use parking_lot::Mutex;
use serde_json::Value;
use tracing::{debug, error, warn};

use crate::{
    Runtime,
    action::{Note, Outcome, Plan, target_of, to_value},
    controller::{Controller, Watches},
    events::{self, Recorder},
    execute::{self, Done, Expectation, Failure},
    queue::Queue,
    readiness::Need,
};

/// Every object is planned again after this long even if nothing changed: a net under lost triggers, rare enough
/// that 10,000 objects cost 17 plans a second.
pub const RESYNC: Duration = Duration::from_secs(600);

/// Keys that one controller works on at the same time. Plans are short; writes wait for the disk.
const WORKERS: usize = 8;

/// How soon to look whether the caches caught up, should no trigger come with the event waited for.
const CATCH_UP_POLL: Duration = Duration::from_millis(100);

/// After this long the caches are believed even if they do not show a write: something else undid it, or its event
/// was lost with the server. Long, because planning on an old picture creates twice.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// After a write whose outcome is unknown, the caches get this long to show it, should it have happened after all:
/// ten times what a loaded watch takes.
const UNCERTAIN_RETRY: Duration = Duration::from_secs(1);

struct Driver<C: Controller> {
    controller: C,
    runtime: Runtime,
    queue: Arc<Queue<ObjectKey>>,
    store: Store<C::Object>,
    recorder: Recorder,
    memory: Mutex<BTreeMap<ObjectKey, Memory>>,
}

/// What the driver remembers of a key between runs. Losing it (a restart) is safe: the caches start anew too.
#[derive(Clone, Default)]
struct Memory {
    expectations: Vec<Expectation>,
    /// Uptime when the expectations were made.
    since: Duration,
    failure: Option<Failure>,
}

/// Runs a controller until the runtime is cancelled.
pub(crate) fn drive<C: Controller>(
    runtime: Runtime,
    controller: C,
) -> impl Future<Output = ()> + Send + 'static {
    let queue = Arc::new(Queue::counted(runtime.env.clone(), runtime.figures.of(controller.name())));
    let mut watches = Watches::new(runtime.caches.clone(), Arc::clone(&queue));
    watches.primary();
    controller.watches(&mut watches);
    let needs = watches.into_needs();
    let store = runtime.caches.of::<C::Object>();
    let recorder = runtime.recorder.named(&format!("{}-controller", controller.name()));
    let driver = Driver { controller, runtime, queue, store, recorder, memory: Mutex::default() };
    async move { driver.run(needs).await }
}

impl<C: Controller> Driver<C> {
    async fn run(&self, needs: Vec<Need>) {
        let Runtime { cancel, env, readiness, .. } = &self.runtime;
        let ready = readiness.all(env, self.controller.name(), needs);
        if !matches!(cancel.run_until_cancelled(ready).await, Some(true)) {
            return;
        }
        let resync = async {
            let _ = cancel.run_until_cancelled(self.resync()).await;
        };
        // A run that is cut short is no loss: actions are idempotent, and the next leader plans anew.
        let work = self.queue.work(cancel, WORKERS, |key| async move { self.process(&key).await });
        tokio::join!(work, resync);
    }

    async fn resync(&self) {
        loop {
            self.runtime.env.sleep(RESYNC).await;
            for object in self.store.list() {
                self.queue.add(ObjectKey::of(object.metadata()));
            }
        }
    }

    async fn process(&self, key: &ObjectKey) {
        if !self.caught_up(key) {
            self.queue.add_after(key.clone(), CATCH_UP_POLL);
            return;
        }
        let failure = self.memory.lock().get(key).and_then(|memory| memory.failure.clone());
        let Some((object, plan)) = self.plan(key, failure) else { return };
        if let Outcome::Wait { reason } = &plan.outcome {
            debug!(controller = self.controller.name(), %key, reason, "waits");
        }
        let done = self.carry_out(&object, &plan).await;
        self.conclude(key, &plan, done);
    }

    /// Whether the caches show what this key's last run wrote.
    fn caught_up(&self, key: &ObjectKey) -> bool {
        let mut memory = self.memory.lock();
        let Some(entry) = memory.get_mut(key) else { return true };
        let caches = &self.runtime.caches;
        entry.expectations.retain(|expectation| !expectation.is_met(caches));
        if entry.expectations.is_empty() {
            return true;
        }
        if self.runtime.env.uptime().saturating_sub(entry.since) < CATCH_UP_MAX {
            return false;
        }
        warn!(controller = self.controller.name(), %key, missing = ?entry.expectations,
            "the cache does not show an earlier write; planning without it");
        entry.expectations.clear();
        true
    }

    /// The object and the plan for it; `None` when it is gone or the plan panicked.
    fn plan(&self, key: &ObjectKey, failure: Option<Failure>) -> Option<(Arc<C::Object>, Plan)> {
        let world = self.runtime.caches.world().after_failure(failure);
        let Some(object) = world.kind::<C::Object>().by_key(key).cloned() else {
            self.memory.lock().remove(key);
            self.queue.forget(key);
            return None;
        };
        let now = self.runtime.env.now();
        let plan = catch_unwind(AssertUnwindSafe(|| self.controller.plan(&object, &world, now)));
        if plan.is_err() {
            let delay = self.queue.retry(key.clone());
            error!(controller = self.controller.name(), %key, ?delay, "the plan panicked; trying again");
        }
        plan.ok().map(|plan| (object, plan))
    }

    async fn carry_out(&self, object: &Arc<C::Object>, plan: &Plan) -> Done {
        let runtime = &self.runtime;
        let tell = |note: &Note, message: String| {
            let about = events::reference_to(&**object);
            self.recorder.record(about, note.warning, &note.reason, message);
        };
        let mut done = execute::all(&runtime.client, &runtime.leadership, &plan.actions, &tell).await;
        let raced = done.failure.as_ref().is_some_and(Failure::is_stale);
        if let (Some(status), false) = (&plan.status, raced) {
            self.write_status(object, status, &mut done).await;
        }
        done
    }

    async fn write_status(&self, object: &Arc<C::Object>, status: &Value, done: &mut Done) {
        let mut body = to_value(&**object);
        if same(&body["status"], status) {
            return;
        }
        body["status"] = status.clone();
        let target = target_of(&**object);
        // Our own patch of the object, a moment ago, is no reason for a conflict.
        if let Some((_, revision)) = done.written.iter().rev().find(|(written, _)| *written == target) {
            body["metadata"]["resourceVersion"] = Value::String(revision.clone());
        }
        let result = self.put_status(target.clone(), &body).await;
        match result {
            Ok(revision) => done.expectations.push(Expectation::Reached(target, revision)),
            Err(error) => {
                let action = format!("update {} {} status", target.plural, target.name.unwrap_or_default());
                done.failure.get_or_insert(Failure { action, verb: "update", error });
            }
        }
    }

    async fn put_status(&self, target: ResourceRef, body: &Value) -> Result<u64, claw_client::ApiError> {
        if !self.runtime.leadership.is_held() {
            return Err(self.runtime.leadership.lost());
        }
        let options = self.runtime.client.write_options();
        let verb = Verb::Update { body: body.to_string().into(), options };
        let response = self.runtime.client.call(target.sub("status"), verb).await?;
        let written: claw_client::PartialObject = serde_json::from_slice(&response.body).unwrap_or_default();
        Ok(claw_client::object::revision_of(&written.metadata))
    }

    /// Remembers what to expect, and decides when to run again.
    fn conclude(&self, key: &ObjectKey, plan: &Plan, done: Done) {
        let name = self.controller.name();
        match &done.failure {
            None => {
                self.queue.forget(key);
                if let Some(delay) = plan.requeue_after {
                    self.queue.add_after(key.clone(), delay);
                }
            }
            Some(failure) => {
                let least = if failure.is_uncertain() { UNCERTAIN_RETRY } else { Duration::ZERO };
                let delay = self.queue.retry_after(key.clone(), least);
                if failure.is_stale() || failure.is_namespace_terminating() {
                    debug!(controller = name, %key, %failure, ?delay, "will be planned again");
                } else {
                    warn!(controller = name, %key, %failure, ?delay, "failed; trying again");
                }
            }
        }
        let failure = done.failure.filter(|failure| !failure.is_stale());
        let mut memory = self.memory.lock();
        if failure.is_none() && done.expectations.is_empty() {
            memory.remove(key);
            return;
        }
        let since = self.runtime.env.uptime();
        memory.insert(key.clone(), Memory { expectations: done.expectations, since, failure });
    }
}

/// Whether two JSON documents say the same, absent and null being equal.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covers = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
                a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
            };
            covers(a, b) && covers(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_the_same_when_only_nulls_differ() {
        assert!(same(&json!({"a": 1, "b": null}), &json!({"a": 1})));
        assert!(same(&json!({"a": [{"x": 1}]}), &json!({"a": [{"x": 1, "y": null}]})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!same(&json!({"a": []}), &json!({"a": [1]})));
        assert!(!same(&Value::Null, &json!({"replicas": 0})));
    }
}
