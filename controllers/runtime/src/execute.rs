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

use std::collections::BTreeSet;

use bytes::Bytes;
use claw_client::{ApiError, Client, ResourceRef, Verb, cache::ObjectKey, object::PartialObject};
use claw_schemas::status::Reason;
use futures::{StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use tracing::debug;

use crate::{
    action::{Action, Note, Step},
    caches::Caches,
    lease::Leadership,
    owner,
};

/// Requests in flight for one key: enough to hide the latency of a durable write (about 1 ms here, so some 16,000
/// writes a second), few enough that one object cannot fill the server's queue.
const IN_FLIGHT_MAX: usize = 16;

/// The verb of [`Action::ensure`].
pub const ENSURE: &str = "ensure";

/// Why an action did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action}: {error}")]
pub struct Failure {
    /// The action, in one line.
    pub action: String,
    /// The verb: `create`, `ensure`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// What the server said.
    pub error: ApiError,
}

impl Failure {
    /// Whether the plan was merely made on an old picture.
    pub fn is_stale(&self) -> bool {
        match self.error.reason {
            Reason::Conflict | Reason::NotFound => true,
            Reason::AlreadyExists => self.verb != ENSURE,
            _ => false,
        }
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
        let creates = matches!(first.step, Step::Create(_));
        let alike = alike(rest);
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

/// How many of the next actions may run side by side: neighbours of one verb and kind, no object twice.
fn alike<'a>(actions: &'a [Action]) -> usize {
    let Some(first) = actions.first() else { return 0 };
    let creates = matches!(first.step, Step::Create(_));
    if !creates && !matches!(first.step, Step::Patch(..) | Step::Delete(_)) {
        return 1;
    }
    let mut objects = BTreeSet::new();
    let mut joins = |other: &'a Action| {
        let same_verb = std::mem::discriminant(&first.step) == std::mem::discriminant(&other.step);
        let (a, b) = (&first.target, &other.target);
        let same_kind = a.plural == b.plural && a.group == b.group;
        same_verb && same_kind && (creates || objects.insert((&b.namespace, &b.name)))
    };
    actions.iter().map_while(|action| joins(action).then_some(())).count()
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
        Step::Create(_) | Step::Ensure(_) | Step::Update(_) | Step::Patch(..) => {
            let text = meta.resource_version.clone().unwrap_or_default();
            if let Ok(revision) = text.parse() {
                done.expectations.push(Expectation::Reached(collection, revision));
            }
            done.written.push((action.target.clone(), text));
        }
        Step::Confirm(_) | Step::Announce => {}
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
        Step::Ensure(body) => (Verb::Create { body: bytes(body), options: client.write_options() }, ENSURE),
        Step::Update(body) => (Verb::Update { body: bytes(body), options: client.write_options() }, "update"),
        Step::Patch(kind, body) => {
            let options = client.write_options();
            (Verb::Patch { kind: *kind, body: bytes(body), options, force: false }, "patch")
        }
        Step::Delete(options) => (Verb::Delete(options.clone()), "delete"),
        Step::Confirm(_) => (Verb::Get, "get"),
    };
    let fail = |error| Failure { action: action.to_string(), verb: name, error };
    if !leadership.is_held() {
        return Err(fail(leadership.lost()));
    }
    match client.call(action.target.clone(), verb).await {
        Ok(response) => {
            // The answer to a delete may be a Status: it carries no name, and needs none.
            let answer = serde_json::from_slice(&response.body).unwrap_or_default();
            confirm(action, &answer).map_err(fail)?;
            Ok(answer)
        }
        Err(error) if name == "delete" && error.reason == Reason::NotFound => Ok(PartialObject::default()),
        Err(error) if name == ENSURE && error.reason == Reason::AlreadyExists => {
            already_there(client, action, error).await.map_err(fail)
        }
        Err(error) => Err(fail(error)),
    }
}

/// What is there instead of the object of a [`Step::Ensure`], if its own controller has it.
async fn already_there(client: &Client, action: &Action, taken: ApiError) -> Result<PartialObject, ApiError> {
    let Step::Ensure(body) = &action.step else { return Err(taken) };
    let wanted: PartialObject = serde_json::from_value(body.clone()).unwrap_or_default();
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let target = ResourceRef { name: Some(name.clone()), ..action.target.clone() };
    let response = client.call(target, Verb::Get).await?;
    let found: PartialObject = serde_json::from_slice(&response.body).unwrap_or_default();
    match held_by(&wanted.metadata, &found.metadata) {
        Holder::Itself => Ok(found),
        Holder::Nobody => {
            let (group, plural) = (&action.target.group, &action.target.plural);
            Err(ApiError::conflict(group, plural, &name, "one of that name is on its way out"))
        }
        Holder::Another => Err(taken),
    }
}

/// Who has an object that is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Itself,
    /// It goes, by itself or because its controller is gone: two of one name cannot be there at a time.
    Nobody,
    Another,
}

fn held_by(wanted: &ObjectMeta, found: &ObjectMeta) -> Holder {
    let (wanted, holder) = (owner::controller_of(wanted), owner::controller_of(found));
    if found.deletion_timestamp.is_some() {
        return Holder::Nobody;
    }
    match (wanted, holder) {
        (Some(wanted), Some(holder)) if wanted.uid == holder.uid => Holder::Itself,
        (Some(wanted), Some(holder)) if wanted.kind == holder.kind && wanted.name == holder.name => {
            Holder::Nobody
        }
        _ => Holder::Another,
    }
}

/// Whether the server has what a [`Step::Confirm`] asks for.
fn confirm(action: &Action, found: &PartialObject) -> Result<(), ApiError> {
    let Step::Confirm(uid) = &action.step else { return Ok(()) };
    let meta = &found.metadata;
    if meta.uid.as_ref() == Some(uid) && meta.deletion_timestamp.is_none() {
        return Ok(());
    }
    let (target, name) = (&action.target, meta.name.as_deref().unwrap_or_default());
    Err(ApiError::conflict(&target.group, &target.plural, name, "it is being deleted, or another one by now"))
}

fn bytes(body: &Value) -> Bytes {
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::Time};
    use serde_json::json;

    use super::*;

    fn map(namespace: &str, name: &str) -> ConfigMap {
        let (namespace, name) = (Some(namespace.to_owned()), Some(name.to_owned()));
        ConfigMap {
            metadata: ObjectMeta { namespace, name, ..ObjectMeta::default() },
            ..ConfigMap::default()
        }
    }

    /// How many actions each round runs.
    fn rounds(actions: &[Action]) -> Vec<usize> {
        let mut rest = actions;
        std::iter::from_fn(|| {
            let round = alike(rest);
            rest = &rest[round..];
            (round > 0).then_some(round)
        })
        .collect()
    }

    #[test]
    fn no_object_is_written_twice_in_one_round_so_that_order_holds() {
        let patch = |name: &str| Action::merge(&map("a", name), json!({}));
        assert_eq!(rounds(&[patch("x"), patch("y"), patch("y"), patch("z")]), [2, 2]);
        assert_eq!(rounds(&[patch("x"), patch("x")]), [1, 1]);
        let elsewhere = Action::merge(&map("b", "x"), json!({}));
        assert_eq!(rounds(&[patch("x"), elsewhere]), [2], "one name in two namespaces is two objects");
    }

    #[test]
    fn who_holds_a_name_is_told_by_its_controller_and_whether_it_goes() {
        let of = |name: &str, uid: &str| {
            let mut owner = map("a", name);
            owner.metadata.uid = Some(uid.to_owned());
            let mut held = map("a", "x");
            held.metadata.owner_references = Some(vec![owner::reference_to(&owner)]);
            held.metadata
        };
        let wanted = of("me", "1");
        assert_eq!(held_by(&wanted, &of("me", "1")), Holder::Itself);
        assert_eq!(held_by(&wanted, &of("me", "0")), Holder::Nobody, "its owner is gone, and it will be");
        assert_eq!(held_by(&wanted, &of("you", "0")), Holder::Another);
        assert_eq!(held_by(&wanted, &map("a", "x").metadata), Holder::Another);
        let mut going = of("me", "1");
        going.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(held_by(&wanted, &going), Holder::Nobody);
    }

    #[test]
    fn neighbours_of_one_verb_go_together_and_updates_alone() {
        let one = map("a", "x");
        let create = || Action::create(&one);
        let actions = [create(), create(), Action::delete(&one), Action::update(&one), Action::update(&one)];
        assert_eq!(rounds(&actions), [2, 1, 1, 1]);
    }
}
