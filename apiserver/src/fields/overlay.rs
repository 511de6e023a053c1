//! Lays a configuration over an object that nobody is to own by it: how mutating policies change objects.
//!
//! The merge is that of server-side apply. What can only be replaced as a whole is refused, since whoever names a part of it
//! would take away the rest without knowing.

use claw_schemas::schema::Schema;
use serde_json::Value;

use super::{
    element::{self, Element, Path},
    extract,
    form::{self, At, Form},
    merge::merge,
};

/// The object under a configuration. Without a schema, maps are merged.
///
/// # Errors
/// Why the configuration makes no sense, in upstream's words.
pub fn overlay(schema: Option<&Schema>, live: &Value, config: &Value) -> Result<Value, String> {
    let root = schema.map(Schema::root);
    extract::check(config, root)
        .map_err(|fault| format!("failed to convert patch object to typed object: {fault}"))?;
    let mut atomics = Vec::new();
    find_atomics(config, root, &mut Path::new(), &mut atomics);
    if atomics.is_empty() {
        return Ok(merge(live, config, root));
    }
    let atomics = atomics.join(", ");
    Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}"))
}

/// The paths of what cannot be merged, with all that is in it.
fn find_atomics(value: &Value, at: At<'_>, path: &mut Path, found: &mut Vec<String>) {
    if matches!(value, Value::Object(_) | Value::Array(_)) && Form::of(value, at) == Form::Leaf {
        found.push(element::display(path));
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(Element::field(name));
                find_atomics(value, form::field(at, name), path, found);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in (0..).zip(items) {
                path.push(Element::Index(index));
                find_atomics(item, form::items(at), path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;
    use serde_json::json;

    use super::*;

    fn pod(live: &Value, config: &Value) -> Result<Value, String> {
        let registry = Registry::builtin();
        overlay(Some(registry.kind("v1", "Pod").unwrap().compiled()), live, config)
    }

    #[test]
    fn items_are_merged_by_their_keys_and_leaves_are_replaced() {
        let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"hostNetwork": true, "containers": [{"name": "x", "image": "i:1"}]}});
        let config = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"hostNetwork": false, "containers": [{"name": "x", "tty": true}, {"name": "y"}]}});
        let merged = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {"hostNetwork": false, "containers": [{"name": "x", "image": "i:1", "tty": true}, {"name": "y"}]},
        });
        assert_eq!(pod(&live, &config), Ok(merged));
    }

    #[test]
    fn what_can_only_be_replaced_as_a_whole_is_refused() {
        let config =
            json!({"spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "x", "args": ["a"]}]}});
        assert_eq!(
            pod(&json!({}), &config).unwrap_err(),
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].args, .spec.nodeSelector"
        );
        let twice = json!({"spec": {"containers": [{"name": "x"}, {"name": "x"}]}});
        assert!(
            pod(&json!({}), &twice)
                .unwrap_err()
                .starts_with("failed to convert patch object to typed object")
        );
        assert_eq!(
            overlay(None, &json!({"a": {"b": 1}}), &json!({"a": {"c": 2}})),
            Ok(json!({"a": {"b": 1, "c": 2}}))
        );
        assert!(overlay(None, &json!({}), &json!({"a": [1]})).is_err());
    }
}
