//! Reading parts of an object from its bytes, beside taking the same parts out of the whole.

use claw_schemas::pick::Pick;
use serde_json::{Map, Value};

use crate::{json, tape::Tape};

const NAMES: [&str; 5] = ["a", "b", "c", "metadata", "é"];

/// Some paths, a document, and a member beside them.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let mut paths: Vec<String> = Vec::new();
    while tape.more(paths.len(), 4) {
        let mut path = tape.pick(&NAMES).to_owned();
        while tape.below(3) == 2 {
            path = format!("{path}.{}", tape.pick(&NAMES));
        }
        paths.push(path);
    }
    let document = json::object(&mut tape, &NAMES);
    let text = json::text(&mut tape, &document);
    let pick = Pick::paths(paths.iter().map(String::as_str));
    let read = pick.read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(read, naive(&document, &paths), "{paths:?} of {document}");
    let member = tape.pick(&NAMES);
    let (beside, raw) =
        pick.read_beside(text.as_bytes(), member).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(beside, read, "{paths:?} of {document}");
    assert_eq!(serde_json::from_str::<Value>(raw).ok().as_ref(), document.get(member).or(Some(&Value::Null)));
    assert_eq!(Pick::everything().read(text.as_bytes()).ok(), Some(document));
    any_bytes(&pick, tape.rest());
}

/// Bytes that may be no JSON: read only if they are.
fn any_bytes(pick: &Pick, bytes: &[u8]) {
    // What is skipped is not taken apart, so numbers out of range and lone surrogates pass in it.
    if pick.read(bytes).is_err() {
        assert!(serde_json::from_slice::<Value>(bytes).is_err());
    }
}

fn naive(value: &Value, paths: &[String]) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| naive(item, paths)).collect(),
        Value::Object(fields) => {
            let mut picked = Map::new();
            for (name, value) in fields {
                let heads = paths.iter().filter(|path| path.split('.').next() == Some(name));
                let rests: Vec<Option<&str>> =
                    heads.map(|path| path.split_once('.').map(|(_, rest)| rest)).collect();
                if rests.contains(&None) {
                    picked.insert(name.clone(), value.clone());
                } else if !rests.is_empty() {
                    let rests: Vec<String> = rests.into_iter().flatten().map(str::to_owned).collect();
                    picked.insert(name.clone(), naive(value, &rests));
                }
            }
            picked.into()
        }
        _ => Value::Null,
    }
}
