//! JSON from choices: values of any shape, values that a schema allows, and damage to values that are sound.

use serde_json::{Map, Value, json};

use crate::tape::Tape;

/// Levels of a value that is made up.
const DEPTH_MAX: usize = 6;

/// Texts that mean something to a field of some kind.
pub const WORDS: [&str; 40] = [
    "",
    "a",
    "b",
    "web",
    "v1",
    "Always",
    "Never",
    "TCP",
    "UDP",
    "SCTP",
    "1Gi",
    "500m",
    "0.1",
    "-1",
    "25%",
    "80",
    "true",
    "ClusterIP",
    "RollingUpdate",
    "NoSchedule",
    "In",
    "Exists",
    "app",
    "example.com/gpu",
    "nvidia.com/gpu",
    "10.0.0.1",
    "fd00::1",
    "2026-01-02T03:04:05Z",
    "2026-01-02T03:04:05.000006Z",
    "1h",
    "aGk=",
    "*",
    "/",
    "/data",
    "Retain",
    "Forbid",
    "*/5 * * * *",
    "pods",
    "default",
    "$(A)",
];

/// Any value with these names in it.
pub fn value(tape: &mut Tape<'_>, names: &[&str]) -> Value {
    nested(tape, names, DEPTH_MAX)
}

fn nested(tape: &mut Tape<'_>, names: &[&str], levels: usize) -> Value {
    match tape.below(if levels == 0 { 5 } else { 9 }) {
        0 => Value::Null,
        1 => tape.flag().into(),
        2 => tape.number().into(),
        3 | 4 => tape.text(&WORDS).into(),
        5 => {
            let mut items = Vec::new();
            while tape.more(items.len(), 5) {
                items.push(nested(tape, names, levels - 1));
            }
            items.into()
        }
        _ => {
            let mut fields = Map::new();
            while tape.more(fields.len(), 6) {
                let name = tape.text(names);
                fields.insert(name, nested(tape, names, levels - 1));
            }
            fields.into()
        }
    }
}

/// An object.
pub fn object(tape: &mut Tape<'_>, names: &[&str]) -> Value {
    match value(tape, names) {
        object @ Value::Object(_) => object,
        other => json!({"a": other}),
    }
}

/// Changes a few places of a value.
pub fn damage(tape: &mut Tape<'_>, value: &mut Value) {
    for _ in 0..tape.below(4) {
        let donor = value.clone();
        let place = somewhere(tape, value);
        change(tape, place, &donor);
    }
}

/// A place in a value, by choices on the way down.
fn somewhere<'v>(tape: &mut Tape<'_>, value: &'v mut Value) -> &'v mut Value {
    let members = match value {
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if members == 0 || tape.below(6) == 5 {
        return value;
    }
    let chosen = tape.below(members);
    match value {
        Value::Object(fields) => {
            somewhere(tape, fields.values_mut().nth(chosen).expect("it is below their number"))
        }
        Value::Array(items) => somewhere(tape, &mut items[chosen]),
        _ => unreachable!("only containers have members"),
    }
}

fn change(tape: &mut Tape<'_>, place: &mut Value, donor: &Value) {
    match (tape.below(8), &mut *place) {
        (0, Value::Object(fields)) if !fields.is_empty() => {
            let name = fields.keys().nth(tape.below(fields.len())).cloned().unwrap_or_default();
            fields.remove(&name);
        }
        (1, Value::Object(fields)) => {
            let name = tape.text(&WORDS);
            fields.insert(name, nested(tape, &WORDS, 2));
        }
        (0, Value::Array(items)) if !items.is_empty() => drop(items.remove(tape.below(items.len()))),
        (1 | 2, Value::Array(items)) if !items.is_empty() => {
            items.push(items[tape.below(items.len())].clone())
        }
        (3, Value::Array(items)) if items.len() > 1 => items.rotate_left(1),
        (4, place) => *place = Value::Null,
        (5, place) => {
            let mut donor = donor.clone();
            let taken = somewhere(tape, &mut donor).take();
            *place = taken;
        }
        (6, place) => *place = tape.text(&WORDS).into(),
        (_, place) => *place = nested(tape, &WORDS, 2),
    }
}

/// The JSON text of a value, now and then with odd spelling that means the same.
pub fn text(tape: &mut Tape<'_>, value: &Value) -> String {
    match tape.below(3) {
        0 => value.to_string(),
        1 => serde_json::to_string_pretty(value).expect("a value is JSON"),
        _ => value.to_string().replace("\"a", "\"\\u0061"),
    }
}

/// A value that a JSON schema allows, references resolved in `root`'s `$defs`. Nothing but types is looked at.
pub fn of_schema(tape: &mut Tape<'_>, root: &Value, schema: &Value, levels: usize) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return of_schema(tape, root, &root["$defs"][name], levels);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
    match kind {
        "object" if schema["properties"].is_object() => structure(tape, root, schema, levels),
        "object" => {
            let mut fields = Map::new();
            while levels > 0 && tape.more(fields.len(), 3) {
                let name = tape.text(&WORDS);
                fields.insert(name, of_schema(tape, root, &schema["additionalProperties"], levels - 1));
            }
            fields.into()
        }
        "array" => {
            let mut items = Vec::new();
            while levels > 0 && tape.more(items.len(), 4) {
                items.push(of_schema(tape, root, &schema["items"], levels - 1));
            }
            items.into()
        }
        "integer" => match schema["format"].as_str() {
            Some("int32") => (tape.number() as i32).into(),
            _ => tape.number().into(),
        },
        "number" => (tape.number() as f64 / 4.0).into(),
        "boolean" => tape.flag().into(),
        "string" => tape.text(&WORDS).into(),
        // Anything, or a choice of types: quantities, numbers or texts.
        _ => match tape.below(3) {
            0 => tape.text(&WORDS).into(),
            1 => tape.number().into(),
            _ => nested(tape, &WORDS, 1),
        },
    }
}

/// Required fields, and some of the others.
fn structure(tape: &mut Tape<'_>, root: &Value, schema: &Value, levels: usize) -> Value {
    let fields = schema["properties"].as_object().expect("the caller looked");
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let mut object = Map::new();
    let insert = |tape: &mut Tape<'_>, object: &mut Map<String, Value>, name: &str| {
        object.insert(name.to_owned(), of_schema(tape, root, &fields[name], levels.saturating_sub(1)));
    };
    for name in fields.keys().filter(|name| required(name)) {
        insert(tape, &mut object, name);
    }
    let names: Vec<&String> = fields.keys().collect();
    while levels > 0 && tape.more(object.len(), 8) {
        let name = tape.pick(&names);
        insert(tape, &mut object, name);
    }
    object.into()
}
