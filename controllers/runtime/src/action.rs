//! What a plan consists of: actions, a status, and when to look again.
//!
//! Actions are plain data that can be compared and printed, so that a test states a whole plan as text.
//!
//! Must never know: how actions are carried out (`execute.rs`).

use std::{fmt, time::Duration};

use claw_client::{
    ResourceRef,
    api::Object,
    request::{DeleteOptions, PatchKind},
};
use serde::Serialize;
use serde_json::{Value, json};

/// What a controller wants done about one object.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In this order. Neighbours that create (or patch, or delete) objects of one kind may run side by side;
    /// everything else is strictly one after the other, and the first failure ends the run.
    pub actions: Vec<Action>,
    /// The whole status as it should be, written after the actions and only if it differs.
    pub status: Option<Value>,
    /// Look again after this long, even if nothing changes.
    pub requeue_after: Option<Duration>,
    /// Whether the object is as it should be.
    pub outcome: Outcome,
}

/// Whether an object is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do beyond the actions.
    #[default]
    Done,
    /// Something else must happen first.
    Wait {
        /// What, for a person to read.
        reason: String,
    },
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Nothing to do until something else happens.
    pub fn wait(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Wait { reason: reason.into() }, ..Self::default() }
    }

    /// Adds an action.
    #[must_use]
    pub fn then(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    /// Sets the status to write.
    #[must_use]
    pub fn status(mut self, status: &impl Serialize) -> Self {
        self.status = Some(to_value(status));
        self
    }

    /// Looks again after this long; the earliest of several calls wins.
    #[must_use]
    pub fn again_after(mut self, delay: Duration) -> Self {
        self.look_again_after(delay);
        self
    }

    /// Like [`Self::again_after`], in place.
    pub fn look_again_after(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |earlier| earlier.min(delay)));
    }
}

/// One step towards the desired state. Doing it twice does no harm.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The collection for a create, else the object (or its subresource).
    pub target: ResourceRef,
    /// What to do.
    pub step: Step,
    /// Event to record once it is done.
    pub on_success: Option<Note>,
    /// Event to record if it fails. Lost races are no failures.
    pub on_failure: Option<Note>,
}

/// The verb of an [`Action`].
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Adds an object.
    Create(Value),
    /// Adds an object, unless the one who controls it has it already.
    Ensure(Value),
    /// Replaces an object; its `resourceVersion` guards it.
    Update(Value),
    /// Changes part of an object. A `metadata.resourceVersion` or `metadata.uid` in it guards it.
    Patch(PatchKind, Value),
    /// Removes an object. The uid precondition spares a successor of the same name.
    Delete(DeleteOptions),
    /// Reads the object from the server: it must be this incarnation (uid) and not on its way out, else what follows is
    /// not done and the plan is made anew. For what a cache that lags would do harm by.
    Confirm(String),
    /// Only records `on_success`.
    Announce,
}

/// An Event about the planned object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// CamelCase, for machines.
    pub reason: String,
    /// For people. `{name}` stands for the name of the object acted upon, `{error}` for what went wrong.
    pub message: String,
}

impl Action {
    /// Adds an object.
    pub fn create<K: Object>(object: &K) -> Self {
        let mut target = collection::<K>();
        target.namespace.clone_from(&object.metadata().namespace);
        Self::new(target, Step::Create(to_value(object)))
    }

    /// Adds an object that names its controller, unless that controller has one of this name already: for what a plan does not
    /// look at. What somebody else has under that name is not a lost race but a failure, `AlreadyExists` of the verb `ensure`; one that
    /// is going, or whose controller was a namesake of this one, is waited for.
    pub fn ensure<K: Object>(object: &K) -> Self {
        let Self { target, .. } = Self::create(object);
        Self::new(target, Step::Ensure(to_value(object)))
    }

    /// Replaces an object, guarded by its `resourceVersion`.
    pub fn update<K: Object>(object: &K) -> Self {
        Self::new(target_of(object), Step::Update(to_value(object)))
    }

    /// Merge-patches an object (RFC 7386), if it is still the same incarnation.
    pub fn merge<K: Object>(object: &K, mut patch: Value) -> Self {
        patch["metadata"]["uid"] = json!(object.metadata().uid);
        Self::new(target_of(object), Step::Patch(PatchKind::Merge, patch))
    }

    /// Merge-patches an object, if nobody wrote it since it was read.
    pub fn merge_unchanged<K: Object>(object: &K, mut patch: Value) -> Self {
        patch["metadata"]["resourceVersion"] = json!(object.metadata().resource_version);
        Self::merge(object, patch)
    }

    /// Patches an object strategically, if it is still the same incarnation.
    pub fn strategic<K: Object>(object: &K, mut patch: Value) -> Self {
        patch["metadata"]["uid"] = json!(object.metadata().uid);
        Self::new(target_of(object), Step::Patch(PatchKind::Strategic, patch))
    }

    /// The same, of the object's status.
    pub fn in_status(mut self) -> Self {
        self.target = self.target.sub("status");
        self
    }

    /// Removes an object, if it is still the same incarnation.
    pub fn delete<K: Object>(object: &K) -> Self {
        Self::delete_with(object, DeleteOptions::default())
    }

    /// Removes an object in a certain way, if it is still the same incarnation.
    pub fn delete_with<K: Object>(object: &K, mut options: DeleteOptions) -> Self {
        options.precondition_uid.clone_from(&object.metadata().uid);
        Self::new(target_of(object), Step::Delete(options))
    }

    /// Goes on only if the server still has this object and it is not being deleted.
    pub fn confirm<K: Object>(object: &K) -> Self {
        Self::new(target_of(object), Step::Confirm(object.metadata().uid.clone().unwrap_or_default()))
    }

    /// Records an event about the planned object, in its place among the actions.
    pub fn announce(warning: bool, reason: &str, message: impl Into<String>) -> Self {
        let note = Note { warning, reason: reason.to_owned(), message: message.into() };
        Self { on_success: Some(note), ..Self::new(ResourceRef::default(), Step::Announce) }
    }

    /// Any step on any target.
    pub fn new(target: ResourceRef, step: Step) -> Self {
        Self { target, step, on_success: None, on_failure: None }
    }

    /// Records a `Normal` event once it is done.
    #[must_use]
    pub fn on_success(mut self, reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.to_owned(), message.into());
        self.on_success = Some(Note { warning: false, reason, message });
        self
    }

    /// Records a `Warning` event if it fails.
    #[must_use]
    pub fn on_failure(mut self, reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.to_owned(), message.into());
        self.on_failure = Some(Note { warning: true, reason, message });
        self
    }
}

/// One line, for logs and golden tests: `patch replicasets default/web-1 {"spec":{"replicas":3}}`.
/// Guards (uid, resourceVersion) are left out: they differ in every run.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, verb: &str, name: &str| {
            write!(f, "{verb} {} ", self.target.plural)?;
            if let Some(namespace) = &self.target.namespace {
                write!(f, "{namespace}/")?;
            }
            f.write_str(name)
        };
        let name = self.target.name.as_deref().unwrap_or_default();
        match &self.step {
            Step::Ensure(body) => place(f, "ensure", body["metadata"]["name"].as_str().unwrap_or_default()),
            Step::Create(body) => {
                let meta = &body["metadata"];
                match meta["name"].as_str() {
                    Some(name) => place(f, "create", name),
                    None => {
                        place(f, "create", meta["generateName"].as_str().unwrap_or_default())?;
                        f.write_str("*")
                    }
                }
            }
            Step::Update(_) => place(f, "update", name),
            Step::Patch(_, body) => {
                place(f, "patch", name)?;
                write!(f, " {}", without_guards(body))
            }
            Step::Delete(_) => place(f, "delete", name),
            Step::Confirm(_) => place(f, "confirm", name),
            Step::Announce => {
                let note = self.on_success.as_ref();
                let (reason, message) =
                    note.map_or(("", ""), |note| (note.reason.as_str(), note.message.as_str()));
                write!(f, "event {reason}: {message}")
            }
        }
    }
}

/// One line an action, for golden tests of plans.
pub fn describe(actions: &[Action]) -> Vec<String> {
    actions.iter().map(ToString::to_string).collect()
}

fn without_guards(patch: &Value) -> Value {
    let mut patch = patch.clone();
    let Some(fields) = patch.as_object_mut() else { return patch };
    if let Some(meta) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("uid");
        meta.remove("resourceVersion");
        if meta.is_empty() {
            fields.remove("metadata");
        }
    }
    patch
}

fn collection<K: Object>() -> ResourceRef {
    ResourceRef::collection(K::GROUP, K::VERSION, K::PLURAL)
}

/// Names an object.
pub fn target_of<K: Object>(object: &K) -> ResourceRef {
    let meta = object.metadata();
    let mut target = collection::<K>();
    target.namespace.clone_from(&meta.namespace);
    target.name.clone_from(&meta.name);
    target
}

pub(crate) fn to_value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("API objects serialise: their keys are strings")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn config() -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some("default".into()),
            name: Some("a".into()),
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            ..Default::default()
        };
        ConfigMap { metadata, ..Default::default() }
    }

    #[test]
    fn an_action_prints_as_one_line_without_its_guards() {
        let action = Action::merge_unchanged(&config(), json!({"data": {"k": "v"}}));
        assert_eq!(action.to_string(), r#"patch configmaps default/a {"data":{"k":"v"}}"#);
        let Step::Patch(_, body) = &action.step else { panic!("{action:?}") };
        assert_eq!(body["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        assert_eq!(Action::delete(&config()).to_string(), "delete configmaps default/a");
        assert_eq!(Action::ensure(&config()).to_string(), "ensure configmaps default/a");
    }

    #[test]
    fn a_generated_name_prints_with_a_star() {
        let mut object = config();
        object.metadata.name = None;
        object.metadata.generate_name = Some("a-".into());
        assert_eq!(Action::create(&object).to_string(), "create configmaps default/a-*");
    }

    #[test]
    fn the_earliest_look_wins() {
        let plan = Plan::nothing().again_after(Duration::from_secs(9)).again_after(Duration::from_secs(3));
        assert_eq!(plan.again_after(Duration::from_secs(5)).requeue_after, Some(Duration::from_secs(3)));
    }
}
