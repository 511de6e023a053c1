//! What selectors look at, picked from stored bytes without building the whole document.

use std::borrow::Cow;

use claw_schemas::{Descriptor, pick::Pick};
use serde_json::Value;

/// Labels and selectable fields of one object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    labels: Vec<(Box<str>, Box<str>)>,
    /// In the order of the kind's declared fields.
    fields: Vec<Box<str>>,
}

impl Facts {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(found, _)| &**found == key).map(|(_, value)| &**value)
    }

    pub fn field(&self, index: usize) -> &str {
        &self.fields[index]
    }
}

/// Where the selectable fields of a kind are found.
#[derive(Debug)]
pub(super) struct Plan {
    pick: Pick,
    fields: Vec<Field>,
}

/// One declared field: the first of its places that holds text, else a default.
#[derive(Debug)]
struct Field {
    name: String,
    places: Vec<String>,
    default: &'static str,
}

impl Plan {
    pub fn new(descriptor: &Descriptor) -> Self {
        let field = |name: &Cow<'static, str>| {
            let (places, default) = places_of(&descriptor.kind, name);
            let places = places.into_iter().map(str::to_owned).collect();
            Field { name: name.to_string(), places, default }
        };
        let fields: Vec<Field> = descriptor.selectable_fields.iter().map(field).collect();
        let places = fields.iter().flat_map(|field| &field.places).map(String::as_str);
        Self { pick: Pick::paths(places.chain(["metadata.labels"])), fields }
    }

    /// The index of a declared field.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Reads an object. Bytes that do not parse have no labels and no fields.
    pub fn facts(&self, stored: &[u8]) -> Facts {
        let mut read = self.pick.read(stored).unwrap_or_else(|error| {
            tracing::error!(%error, "a stored object does not parse");
            Value::Null
        });
        let fields = self.fields.iter().map(|field| {
            let text = field.places.iter().map(|place| text_at(&read, place)).find(|text| !text.is_empty());
            text.unwrap_or_else(|| field.default.into())
        });
        let fields = fields.collect();
        let labels = match read.pointer_mut("/metadata/labels").map(Value::take) {
            Some(Value::Object(labels)) => {
                labels.into_iter().map(|(key, value)| (key.into(), text(&value))).collect()
            }
            _ => Vec::new(),
        };
        Facts { labels, fields }
    }
}

/// JSON paths behind a declared field, and what an absent one reads as. Most fields are their own path; the exceptions
/// are those of Kubernetes' own conversion functions.
fn places_of<'a>(kind: &str, field: &'a str) -> (Vec<&'a str>, &'static str) {
    match (kind, field) {
        ("Event", "source") => (vec!["source.component", "reportingComponent"], ""),
        ("Node", "spec.unschedulable") => (vec![field], "false"),
        ("ReplicaSet" | "ReplicationController", "status.replicas") => (vec![field], "0"),
        ("Job", "status.successful") => (vec!["status.succeeded"], "0"),
        _ => (vec![field], ""),
    }
}

/// The scalar at a path, as selectors compare it; empty where there is none.
fn text_at(object: &Value, path: &str) -> Box<str> {
    path.split('.').try_fold(object, |value, key| value.get(key)).map(text).unwrap_or_default()
}

fn text(value: &Value) -> Box<str> {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Bool(_) | Value::Number(_) => value.to_string().into(),
        Value::Null | Value::Array(_) | Value::Object(_) => Box::default(),
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;
    use serde_json::json;

    use super::*;

    fn facts(plural: &str, object: &serde_json::Value) -> (Plan, Facts) {
        let registry = Registry::builtin();
        let plan = Plan::new(registry.named(plural).unwrap());
        let facts = plan.facts(object.to_string().as_bytes());
        (plan, facts)
    }

    #[test]
    fn labels_and_declared_fields_are_picked_from_bytes() {
        let pod = json!({
            "metadata": {"labels": {"app": "web", "n": "1"}, "annotations": {"labels": "no"}},
            "spec": {"nodeName": "n1", "containers": [{"nodeName": "decoy"}]},
            "status": {"phase": "Running"},
        });
        let (plan, facts) = facts("pods", &pod);
        assert_eq!(facts.label("app"), Some("web"));
        assert_eq!(facts.label("labels"), None);
        assert_eq!(facts.field(plan.field("spec.nodeName").unwrap()), "n1");
        assert_eq!(facts.field(plan.field("status.phase").unwrap()), "Running");
        assert_eq!(facts.field(plan.field("status.podIP").unwrap()), "");
        assert_eq!(plan.field("spec.hostname"), None);
    }

    #[test]
    fn absent_fields_read_as_kubernetes_reads_them() {
        let (plan, node) = facts("nodes", &json!({"metadata": {}, "spec": {}}));
        assert_eq!(node.field(plan.field("spec.unschedulable").unwrap()), "false");
        let (plan, node) = facts("nodes", &json!({"spec": {"unschedulable": true}}));
        assert_eq!(node.field(plan.field("spec.unschedulable").unwrap()), "true");
    }

    #[test]
    fn the_source_of_an_event_has_two_places() {
        let (plan, old) =
            facts("events", &json!({"source": {"component": "kubelet"}, "reportingComponent": "r"}));
        assert_eq!(old.field(plan.field("source").unwrap()), "kubelet");
        assert_eq!(old.field(plan.field("reportingComponent").unwrap()), "r");
        let (plan, new) = facts("events", &json!({"source": {}, "reportingComponent": "agent"}));
        assert_eq!(new.field(plan.field("source").unwrap()), "agent");
    }

    #[test]
    fn odd_shapes_count_as_absent() {
        let (plan, odd) = facts("pods", &json!({"metadata": [], "spec": 5, "status": {"phase": {"a": [1]}}}));
        assert_eq!(odd.field(plan.field("status.phase").unwrap()), "");
        assert_eq!(odd.label("x"), None);
    }
}
