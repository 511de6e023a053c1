//! Bodies of requests, JSON and YAML: what is stored is what the parsers of everybody else read.

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{json, tape::Tape, world};

const NAMES: [&str; 8] = ["a", "b", "spec", "é", "yes", "1", "a b", "~"];

/// A document in both forms, then whatever is left as a body of its own.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let spec = json::value(&mut tape, &NAMES);
    let sent = json!({"metadata": {"name": "x"}, "spec": spec});
    let text = json::text(&mut tape, &sent);
    is_kept(text.into_bytes(), &spec);
    let yaml = serde_yaml::to_string(&sent).expect("every JSON value is YAML");
    // What is written as a JSON object is read as JSON, wherever YAML would have it otherwise.
    is_kept(yaml.into_bytes(), &spec);
    any_bytes(tape.rest());
}

fn is_kept(body: Vec<u8>, spec: &Value) {
    let shown = String::from_utf8_lossy(&body).into_owned();
    match world::within(|world| world.create(world::things(), body)) {
        Ok(made) => assert_eq!(made["spec"], *spec, "{shown}"),
        Err(error) => world::is_told(&error, &shown),
    }
}

/// Bytes that may be no document.
fn any_bytes(bytes: &[u8]) {
    let body = [b"metadata: {name: x}\nspec: ", bytes].concat();
    for body in [bytes.to_vec(), body] {
        let shown = String::from_utf8_lossy(&body).into_owned();
        match world::within(|world| world.create(world::things(), body.clone())) {
            Ok(made) => {
                let expected = reference(&body).map(|read| read["spec"].clone());
                assert_eq!(Some(made["spec"].clone()), expected, "{shown}");
            }
            Err(error) => world::is_told(&error, &shown),
        }
    }
}

/// What the parsers read that the rest of the world uses.
fn reference(body: &[u8]) -> Option<Value> {
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if is_json {
        return serde_json::from_slice(body).ok();
    }
    let yaml = Value::deserialize(serde_yaml::Deserializer::from_slice(body)).ok();
    // Duplicate keys, which are warned of here, are refused there.
    yaml.or_else(|| Some(json!({"spec": duplicates_allowed(body)?})))
}

fn duplicates_allowed(body: &[u8]) -> Option<Value> {
    world::within(|world| world.create(world::things(), body.to_vec())).ok().map(|made| made["spec"].clone())
}
