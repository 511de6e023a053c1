//! Carries actions out.
//!
//! Neighbouring creates of one kind start slowly, in batches of 1, 2, 4, ...: when the first is refused (a quota, a
//! fault in the template), one request was wasted, not five hundred. Neighbouring patches, and neighbouring
//! deletes, go out side by side. Everything else is strictly one after the other.
//!
//! A write that lost a race (`Conflict`, `AlreadyExists`, `NotFound`) is no failure to speak of: the plan was made
//! on an old picture, and is made anew. Only a delete that finds nothing has simply succeeded.
//!
//! Must never know: why actions were planned.

use bytes::Bytes;
use claw_client::{ApiError, Client, ResourceRef, Verb, cache::ObjectKey, object::PartialObject};
use claw_schemas::status::Reason;
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tracing::debug;

use crate::{
    action::{Action, Note, Step},
    caches::Caches,
    lease::Leadership,
};

/// Requests in flight for one key: enough to hide the latency of a durable write (about 1 ms here, so some 16,000
/// writes a second), few enough that one object cannot fill the server's queue.
const IN_FLIGHT_MAX: usize = 16;

/// Why an action did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action}: {error}")]
pub struct Failure {
    /// The action, in one line.
    pub action: String,
    /// The verb: `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// What the server said.
    pub error: ApiError,
}

impl Failure {
    /// Whether the plan was merely made on an old picture.
    pub fn is_stale(&self) -> bool {
        matches!(self.error.reason, Reason::Conflict | Reason::AlreadyExists | Reason::NotFound)
    }

    /// Whether the write may have happened although no answer said so.
    pub fn is_uncertain(&self) -> bool {
        self.error.is_retryable() && self.error.reason != Reason::TooManyRequests
    }

    /// Whether the namespace is being deleted, so that there is nothing to report and nothing to retry soon.
    pub fn is_namespace_terminating(&self) -> bool {
        self.error.details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// What a cache must show before the same key is planned again.
#[derive(Clone, Debug)]
pub(crate) enum Expectation {
    /// Everything up to a revision of that collection.
    Reached(ResourceRef, u64),
    /// This incarnation is gone, or on its way.
    Gone(ResourceRef, ObjectKey, String),
}

impl Expectation {
    /// Whether the caches show it. Kinds that nobody caches are never waited for.
    pub(crate) fn is_met(&self, caches: &Caches) -> bool {
        match self {
            Self::Reached(resource, revision) => {
                caches.named(resource).is_none_or(|store| store.revision() >= *revision)
            }
            Self::Gone(resource, key, uid) => {
                caches.named(resource).is_none_or(|store| !store.holds(&key.namespace, &key.name, uid))
            }
        }
    }
}

/// How a run of actions went.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub failure: Option<Failure>,
    pub expectations: Vec<Expectation>,
    /// Targets of the updates and patches, with the revision they left behind.
    pub written: Vec<(ResourceRef, String)>,
}

/// Tells of an event: the note, with its placeholders filled.
pub(crate) type Tell<'a> = &'a (dyn Fn(&Note, String) + Sync);

/// Runs actions in order until one fails or the right to act is lost.
pub(crate) async fn all(
    client: &Client,
    leadership: &Leadership,
    actions: &[Action],
    tell: Tell<'_>,
) -> Done {
    let mut done = Done::default();
    let mut rest = actions;
    let mut batch_max = 1;
    while let Some(first) = rest.first() {
        let alike = rest.iter().take_while(|action| may_run_together(first, action)).count();
        let creates = matches!(first.step, Step::Create(_));
        let (batch, after) = rest.split_at(if creates { alike.min(batch_max) } else { alike });
        batch_max = if creates { batch_max * 2 } else { 1 };
        rest = after;
        run_batch(client, leadership, batch, tell, &mut done).await;
        if done.failure.is_some() {
            break;
        }
    }
    done
}

fn may_run_together(first: &Action, other: &Action) -> bool {
    let same_verb = std::mem::discriminant(&first.step) == std::mem::discriminant(&other.step);
    let parallel = matches!(first.step, Step::Create(_) | Step::Patch(..) | Step::Delete(_));
    let same_kind = first.target.plural == other.target.plural && first.target.group == other.target.group;
    let distinct = std::ptr::eq(first, other)
        || matches!(first.step, Step::Create(_))
        || first.target.name != other.target.name;
    same_verb && parallel && same_kind && distinct || std::ptr::eq(first, other)
}

async fn run_batch(
    client: &Client,
    leadership: &Leadership,
    batch: &[Action],
    tell: Tell<'_>,
    done: &mut Done,
) {
    // Collected first: a closure inside the stream would have to be general over lifetimes it is not.
    let runs: Vec<_> = batch.iter().map(|action| run(client, leadership, action)).collect();
    let results: Vec<_> = stream::iter(runs).buffered(IN_FLIGHT_MAX).collect().await;
    for (action, result) in batch.iter().zip(results) {
        match result {
            Ok(written) => succeeded(action, &written, tell, done),
            Err(failure) => failed(action, failure, tell, done),
        }
    }
}

fn succeeded(action: &Action, written: &PartialObject, tell: Tell<'_>, done: &mut Done) {
    let meta = &written.metadata;
    let name = meta.name.as_deref().or(action.target.name.as_deref()).unwrap_or_default();
    debug!(%action, name, "done");
    if let Some(note) = &action.on_success {
        tell(note, note.message.replace("{name}", name));
    }
    let mut collection = action.target.clone();
    (collection.name, collection.subresource) = (None, None);
    match &action.step {
        Step::Delete(options) => {
            if let (Some(name), Some(uid)) = (&action.target.name, &options.precondition_uid) {
                let namespace = action.target.namespace.clone().unwrap_or_default();
                let key = ObjectKey::new(namespace, name.clone());
                done.expectations.push(Expectation::Gone(collection, key, uid.clone()));
            }
        }
        Step::Create(_) | Step::Update(_) | Step::Patch(..) => {
            let text = meta.resource_version.clone().unwrap_or_default();
            if let Ok(revision) = text.parse() {
                done.expectations.push(Expectation::Reached(collection, revision));
            }
            done.written.push((action.target.clone(), text));
        }
        Step::Announce => {}
    }
}

fn failed(action: &Action, failure: Failure, tell: Tell<'_>, done: &mut Done) {
    let silent = failure.is_stale() || failure.is_namespace_terminating();
    if let (Some(note), false) = (&action.on_failure, silent) {
        let name = action.target.name.as_deref().unwrap_or_default();
        let message = note.message.replace("{name}", name).replace("{error}", &failure.error.message);
        tell(note, message);
    }
    // Of several failures in one batch, one worth telling beats a lost race.
    if done.failure.as_ref().is_none_or(|earlier| earlier.is_stale() && !failure.is_stale()) {
        done.failure = Some(failure);
    }
}

async fn run(client: &Client, leadership: &Leadership, action: &Action) -> Result<PartialObject, Failure> {
    let (verb, name) = match &action.step {
        Step::Announce => return Ok(PartialObject::default()),
        Step::Create(body) => (Verb::Create { body: bytes(body), options: client.write_options() }, "create"),
        Step::Update(body) => (Verb::Update { body: bytes(body), options: client.write_options() }, "update"),
        Step::Patch(kind, body) => {
            let options = client.write_options();
            (Verb::Patch { kind: *kind, body: bytes(body), options, force: false }, "patch")
        }
        Step::Delete(options) => (Verb::Delete(options.clone()), "delete"),
    };
    let fail = |error| Failure { action: action.to_string(), verb: name, error };
    if !leadership.is_held() {
        return Err(fail(leadership.lost()));
    }
    match client.call(action.target.clone(), verb).await {
        // The answer to a delete may be a Status: it carries no name, and needs none.
        Ok(response) => Ok(serde_json::from_slice(&response.body).unwrap_or_default()),
        Err(error) if name == "delete" && error.reason == Reason::NotFound => Ok(PartialObject::default()),
        Err(error) => Err(fail(error)),
    }
}

fn bytes(body: &Value) -> Bytes {
    Bytes::from(body.to_string())
}
