//! Defaults of a structural schema, and the nulls that stand in their way.
//!
//! A field that is absent, or null where null is not allowed, takes its default. A null that is neither allowed nor
//! replaced is dropped, as if it had not been sent. Nulls in lists stay: they hold a place, and validation refuses them.

use serde_json::Value;

use super::node::Node;

/// Completes an object.
pub(super) fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in &node.properties {
                let absent = |value: &Value| value.is_null() && !inner.nullable;
                if let Some(default) = &inner.default
                    && fields.get(name).is_none_or(absent)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            fields.retain(|name, value| {
                let Some(inner) = node.field(name) else { return true };
                if value.is_null() && !inner.nullable {
                    match &inner.default {
                        Some(default) => value.clone_from(default),
                        None => return false,
                    }
                }
                fill(inner, value);
                true
            });
        }
        Value::Array(items) => {
            let Some(inner) = node.items.as_deref() else { return };
            for item in items {
                if let (true, Some(default)) = (item.is_null() && !inner.nullable, &inner.default) {
                    item.clone_from(default);
                }
                fill(inner, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::faults::{Faults, Path};

    fn filled(schema: &Value, mut value: Value) -> Value {
        let mut faults = Faults::default();
        let node = Node::compile(schema, &Path::Root, &mut faults);
        assert_eq!(faults.count(), 0);
        fill(&node, &mut value);
        let once = value.clone();
        fill(&node, &mut value);
        assert_eq!(value, once, "filling in twice changes nothing");
        value
    }

    #[test]
    fn absent_fields_take_their_defaults_at_every_depth() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "size": {"type": "integer", "default": 3},
                "none": {"type": "string"},
            }},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {
                "on": {"type": "boolean", "default": false}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {
                "protocol": {"type": "string", "default": "TCP"}}}},
        }});
        assert_eq!(
            filled(&schema, json!({"map": {"a": {}}, "list": [{}, {"protocol": "UDP"}]})),
            json!({
                "spec": {"size": 3},
                "map": {"a": {"on": false}},
                "list": [{"protocol": "TCP"}, {"protocol": "UDP"}],
            })
        );
    }

    #[test]
    fn null_is_dropped_or_replaced_unless_it_is_allowed() {
        let field = |nullable: bool, default: Value| json!({"type": "object", "properties": {"f": {"type": "string", "nullable": nullable, "default": default}}});
        for (nullable, default, expected) in [
            (false, json!("d"), json!({"f": "d"})),
            (true, json!("d"), json!({"f": null})),
            (false, Value::Null, json!({})),
            (true, Value::Null, json!({"f": null})),
        ] {
            assert_eq!(filled(&field(nullable, default), json!({"f": null})), expected);
        }
        let list =
            json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string"}}}});
        assert_eq!(filled(&list, json!({"l": [null]})), json!({"l": [null]}));
    }
}
