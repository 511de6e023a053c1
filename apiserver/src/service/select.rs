//! Label and field selectors of a request, checked against the kind and matched against facts.

use claw_schemas::{
    ApiError,
    selector::{FieldSelector, LabelSelector},
};

use super::{facts::Facts, kinds::Served};
use crate::store::Key;

/// Which objects of a collection a request is about.
#[derive(Debug)]
pub(super) struct Selection {
    labels: LabelSelector,
    fields: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    what: What,
    value: String,
    equal: bool,
}

#[derive(Debug)]
enum What {
    Name,
    Namespace,
    Field(usize),
}

impl Selection {
    /// Parses both selectors.
    pub fn parse(kind: &Served, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
        let labels = LabelSelector::parse(labels).map_err(|error| bad(&error))?;
        let parsed = FieldSelector::parse(fields).map_err(|error| bad(&error))?;
        let condition = |requirement: &claw_schemas::selector::FieldRequirement| {
            let what =
                match requirement.path.as_str() {
                    "metadata.name" => What::Name,
                    "metadata.namespace" => What::Namespace,
                    path => What::Field(kind.plan.field(path).ok_or_else(|| {
                        ApiError::bad_request(format!("field label not supported: {path}"))
                    })?),
                };
            Ok(Condition { what, value: requirement.value.clone(), equal: requirement.equal })
        };
        let fields = parsed.requirements().iter().map(condition).collect::<Result<_, ApiError>>()?;
        Ok(Self { labels, fields })
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object's bytes must be looked at, its key not being enough.
    pub fn needs_facts(&self) -> bool {
        !self.labels.is_empty() || self.fields.iter().any(|field| matches!(field.what, What::Field(_)))
    }

    /// The one name that can be selected, if the selector pins it.
    pub fn pinned_name(&self) -> Option<&str> {
        self.fields.iter().find(|field| field.equal && matches!(field.what, What::Name)).map(|f| &*f.value)
    }

    /// Whether an object is selected. `facts` is only called when [`Self::needs_facts`].
    pub fn matches<F: AsRef<Facts>>(&self, key: &Key, facts: impl FnOnce() -> F) -> bool {
        let (namespace, name) = key.place();
        let by_key = self.fields.iter().all(|field| match field.what {
            What::Name => (field.value == name) == field.equal,
            What::Namespace => (field.value == namespace) == field.equal,
            What::Field(_) => true,
        });
        if !by_key || !self.needs_facts() {
            return by_key;
        }
        let facts = facts();
        let facts = facts.as_ref();
        self.fields.iter().all(|field| match field.what {
            What::Field(index) => (facts.field(index) == field.value) == field.equal,
            What::Name | What::Namespace => true,
        }) && self.labels.matches_with(|key| facts.label(key))
    }
}

impl AsRef<Facts> for Facts {
    fn as_ref(&self) -> &Facts {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use claw_client::ResourceRef;
    use claw_schemas::Registry;

    use super::*;
    use crate::service::kinds::Kinds;

    fn pods() -> Arc<Served> {
        let kinds = Kinds::new(Registry::builtin());
        kinds.resolve(ResourceRef::collection("", "v1", "pods")).unwrap().kind
    }

    #[test]
    fn names_are_matched_without_reading_the_object() {
        let selection = Selection::parse(&pods(), "", "metadata.name=a,metadata.namespace!=x").unwrap();
        let never = || -> Facts { panic!("the bytes were read") };
        assert_eq!(selection.pinned_name(), Some("a"));
        assert!(selection.matches(&Key::object("", "pods", "ns", "a"), never));
        assert!(!selection.matches(&Key::object("", "pods", "x", "a"), never));
        assert!(!selection.matches(&Key::object("", "pods", "ns", "b"), never));
    }

    #[test]
    fn labels_and_fields_must_all_hold() {
        let kind = pods();
        let selection = Selection::parse(&kind, "app=web", "spec.nodeName=n1").unwrap();
        let key = Key::object("", "pods", "ns", "a");
        let of = |json: &str| kind.plan.facts(json.as_bytes());
        let both = r#"{"metadata":{"labels":{"app":"web"}},"spec":{"nodeName":"n1"}}"#;
        let one = r#"{"metadata":{"labels":{"app":"web"}},"spec":{"nodeName":"n2"}}"#;
        assert!(selection.matches(&key, || of(both)));
        assert!(!selection.matches(&key, || of(one)));
    }

    #[test]
    fn an_undeclared_field_is_refused() {
        let error = Selection::parse(&pods(), "", "spec.hostname=x").unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.hostname");
        assert!(Selection::parse(&pods(), "a b c", "").is_err());
    }
}
