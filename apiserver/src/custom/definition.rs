//! What a `CustomResourceDefinition` says, read from the object, and its defaults.

use claw_schemas::Scope;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Holds a definition until the objects of its kind are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Port of a webhook's service where none is given.
const WEBHOOK_PORT: u16 = 443;

/// A definition, as a view on the object.
#[derive(Clone, Copy)]
pub(crate) struct Definition<'a>(pub &'a Value);

impl<'a> Definition<'a> {
    fn text(self, pointer: &str) -> &'a str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// `plural.group`
    pub fn name(self) -> &'a str {
        self.text("/metadata/name")
    }

    pub fn uid(self) -> &'a str {
        self.text("/metadata/uid")
    }

    pub fn created(self) -> &'a str {
        self.text("/metadata/creationTimestamp")
    }

    pub fn generation(self) -> i64 {
        self.0["metadata"]["generation"].as_i64().unwrap_or(0)
    }

    pub fn group(self) -> &'a str {
        self.text("/spec/group")
    }

    pub fn plural(self) -> &'a str {
        self.text("/spec/names/plural")
    }

    pub fn kind(self) -> &'a str {
        self.text("/spec/names/kind")
    }

    pub fn scope(self) -> Scope {
        if self.text("/spec/scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced }
    }

    /// Names as they are wished for.
    pub fn names(self) -> &'a Value {
        &self.0["spec"]["names"]
    }

    pub fn versions(self) -> impl Iterator<Item = &'a Value> {
        self.0["spec"]["versions"].as_array().into_iter().flatten()
    }

    /// The version that objects are stored in.
    pub fn storage_version(self) -> &'a str {
        let stored = self.versions().find(|version| version["storage"] == true);
        stored.and_then(|version| version["name"].as_str()).unwrap_or_default()
    }

    pub fn is_deleting(self) -> bool {
        !self.text("/metadata/deletionTimestamp").is_empty()
    }

    /// Whether a condition is true.
    pub fn is(self, condition: &str) -> bool {
        condition_of(&self.0["status"], condition).is_some_and(|found| found["status"] == "True")
    }

    /// Whether the status tells of the definition as it is now.
    pub fn is_observed(self) -> bool {
        self.0["status"]["observedGeneration"].as_i64() == Some(self.generation())
    }
}

/// A condition in a status.
pub(super) fn condition_of<'v>(status: &'v Value, ty: &str) -> Option<&'v Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == ty)
}

/// Sets a condition. Its time stays where its status does.
pub(super) fn set_condition(
    status: &mut Value,
    (ty, holds, reason, message): (&str, bool, &str, &str),
    now: Timestamp,
) {
    let holds = if holds { "True" } else { "False" };
    let old = condition_of(status, ty);
    let since = old.filter(|old| old["status"] == holds).map(|old| old["lastTransitionTime"].clone());
    let since =
        since.unwrap_or_else(|| Timestamp::from_second(now.as_second()).unwrap_or(now).to_string().into());
    let new = json!({
        "type": ty, "status": holds, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == ty) {
        Some(condition) => *condition = new,
        None => conditions.push(new),
    }
}

/// Marks a definition that is being deleted: the objects of its kind go first.
pub(crate) fn terminate(object: &mut Value, now: Timestamp) {
    let finalizers = &mut object["metadata"]["finalizers"];
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|name| name == CLEANUP_FINALIZER)
    {
        finalizers.push(CLEANUP_FINALIZER.into());
    }
    let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(&mut object["status"], ("Terminating", true, "InstanceDeletionPending", why), now);
}

/// Fills in what a definition may leave out.
pub(crate) fn defaults(object: &mut Map<String, Value>) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let unset = |names: &Map<String, Value>, key: &str| names.get(key).is_none_or(|name| name == "");
        if unset(names, "singular") && !kind.is_empty() {
            names.insert("singular".to_owned(), kind.to_ascii_lowercase().into());
        }
        if unset(names, "listKind") && !kind.is_empty() {
            names.insert("listKind".to_owned(), format!("{kind}List").into());
        }
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({}));
    if conversion["strategy"].as_str().unwrap_or_default().is_empty() && conversion.is_object() {
        conversion["strategy"] = "None".into();
    }
    if let Some(service) =
        conversion.pointer_mut("/webhook/clientConfig/service").and_then(Value::as_object_mut)
    {
        service.entry("port").or_insert_with(|| WEBHOOK_PORT.into());
    }
    let storage = storage_of(spec);
    status(object, storage);
}

fn storage_of(spec: &Map<String, Value>) -> Option<Value> {
    let versions = spec.get("versions")?.as_array()?;
    versions.iter().find(|version| version["storage"] == true).map(|version| version["name"].clone())
}

/// The version that objects are stored in is remembered from the moment it is one.
fn status(object: &mut Map<String, Value>, storage: Option<Value>) {
    let status = object.entry("status").or_insert_with(|| json!({}));
    if !status.is_object() {
        *status = json!({});
    }
    if !status["acceptedNames"].is_object() {
        status["acceptedNames"] = json!({"plural": "", "kind": ""});
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    if !status["storedVersions"].is_array() {
        status["storedVersions"] = json!([]);
    }
    let stored = status["storedVersions"].as_array_mut();
    if let (Some(stored), Some(storage)) = (stored, storage.filter(|name| name.is_string()))
        && !stored.contains(&storage)
    {
        stored.push(storage);
    }
}
