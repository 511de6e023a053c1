//! Definitions of custom kinds: nearly right ones, with schemas, rules, columns and defaults, are judged and not fallen over.

use claw_client::ResourceRef;
use serde_json::{Value, json};

use crate::{json, tape::Tape, world};

const KEYWORDS: [&str; 28] = [
    "type",
    "properties",
    "additionalProperties",
    "items",
    "required",
    "enum",
    "default",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "multipleOf",
    "minLength",
    "maxItems",
    "uniqueItems",
    "nullable",
    "allOf",
    "anyOf",
    "not",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
    "$ref",
];
const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];
const FORMATS: [&str; 10] =
    ["date-time", "duration", "byte", "ipv4", "cidr", "uuid", "int32", "email", "hostname", "password"];
const RULES: [&str; 8] = [
    "self == oldSelf",
    "has(self.a)",
    "self.a.size() < 3",
    "self.all(x, x > 0)",
    "self > 'a'",
    "true",
    "self.a in self.b",
    "!has(self.b) || self.b.exists_one(k, k == 'x')",
];

/// One definition.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let schema = schema(&mut tape, 4);
    let mut definition = json!({
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": tape.pick(&["Namespaced", "Cluster"]),
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList", "shortNames": ["g"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.a", "statusReplicasPath": ".status.a"}},
                "additionalPrinterColumns": [{"name": "A", "type": tape.pick(&TYPES), "jsonPath": column(&mut tape)}],
                "selectableFields": [{"jsonPath": ".spec.a"}],
            }],
        },
    });
    json::damage(&mut tape, &mut definition);
    let definitions = ResourceRef::collection("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let made = world::within(|world| world.create(definitions.clone(), definition.to_string().into_bytes()));
    match made {
        Ok(made) => {
            let again = json!({"metadata": {"name": made["metadata"]["name"]}, "spec": made["spec"]});
            let twice = world::within(|world| world.create(definitions, again.to_string().into_bytes()));
            assert_eq!(twice.map(|twice| twice["spec"].clone()), Ok(made["spec"].clone()), "{definition}");
        }
        Err(error) => world::is_told(&error, &definition),
    }
}

fn column(tape: &mut Tape<'_>) -> String {
    let paths = [
        ".spec.a",
        ".spec.b[*].c",
        ".status.conditions[?(@.type==\"Ready\")].status",
        ".spec.a[0]",
        "$.x",
        "..a",
    ];
    tape.text(&paths)
}

fn schema(tape: &mut Tape<'_>, levels: usize) -> Value {
    let mut schema = json!({"type": tape.pick(&TYPES)});
    if levels == 0 {
        return schema;
    }
    match schema["type"].as_str() {
        Some("object") => {
            let mut fields = 0;
            while tape.more(fields, 3) {
                schema["properties"][tape.pick(&["a", "b", "spec", "status", "metadata"])] =
                    self::schema(tape, levels - 1);
                fields += 1;
            }
        }
        Some("array") => schema["items"] = self::schema(tape, levels - 1),
        _ => {}
    }
    for _ in 0..tape.below(4) {
        let keyword = tape.pick(&KEYWORDS);
        schema[keyword] = match keyword {
            "format" => tape.pick(&FORMATS).into(),
            "required" | "x-kubernetes-list-map-keys" => json!(["a"]),
            "x-kubernetes-validations" => json!([{"rule": tape.text(&RULES), "message": "no"}]),
            "x-kubernetes-list-type" => tape.pick(&["map", "set", "atomic"]).into(),
            "pattern" => tape.text(&["^a+$", "(", "a{1,9}"]).into(),
            "additionalProperties" | "not" => self::schema(tape, levels - 1),
            "allOf" | "anyOf" => json!([self::schema(tape, levels - 1)]),
            "uniqueItems" | "nullable" => tape.flag().into(),
            _ if keyword.starts_with("x-") => tape.flag().into(),
            _ => json::value(tape, &["a", "b"]),
        };
    }
    schema
}
