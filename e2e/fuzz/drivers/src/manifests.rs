//! Bodies of requests, JSON and YAML: what is stored is what the parsers of everybody else read.

use serde_json::{Value, json};

use crate::{json, tape::Tape, world, yaml};

const NAMES: [&str; 8] = ["a", "b", "spec", "é", "yes", "1", "a b", "~"];

/// A document in both forms, then whatever is left as a body of its own.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let spec = json::value(&mut tape, &NAMES);
    let sent = json!({"metadata": {"name": "x"}, "spec": spec});
    let text = json::text(&mut tape, &sent);
    is_kept(text.into_bytes(), &spec);
    is_kept(claw_schemas::yaml::to_string(&sent).into_bytes(), &spec);
    let others = serde_yaml::to_string(&sent).expect("every JSON value is YAML");
    any_body(others.into_bytes());
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
    any_body(bytes.to_vec());
    any_body([b"metadata: {name: x}\nspec: ", bytes].concat());
}

fn any_body(body: Vec<u8>) {
    let shown = String::from_utf8_lossy(&body).into_owned();
    match world::within(|world| world.create(world::things(), body.clone())) {
        Ok(made) => assert!(is_read(&body, &made["spec"]), "{shown}\nis read as {}", made["spec"]),
        Err(error) => world::is_told(&error, &shown),
    }
}

/// Whether the parsers that the rest of the world uses read the same. What is written as a JSON object is read as JSON, wherever
/// YAML would have it otherwise.
fn is_read(body: &[u8], spec: &Value) -> bool {
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    match is_json {
        true => serde_json::from_slice(body).is_ok_and(|read: Value| read["spec"] == *spec),
        false => yaml::has(body, "spec", spec),
    }
}
