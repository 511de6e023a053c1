//! Whether Python reads back the YAML that is written here, as it was meant.

use claw_e2e::{
    kubectl::Outcome,
    need::{self, Need},
    python::python,
};
use serde_json::{Value, json};

/// Reads a document from stdin by both of its readers, and writes it as JSON.
const READ: &str = "
import json, sys, yaml
text = sys.stdin.buffer.read().decode()
print(json.dumps([yaml.load(text, loader) for loader in (yaml.SafeLoader, yaml.CSafeLoader)]))
";

/// What texts are put together from: words, signs and characters that mean something to some reader of YAML.
const PIECES: [&str; 78] = [
    "",
    "a",
    "ä",
    "😀",
    "yes",
    "No",
    "on",
    "OFF",
    "y",
    "N",
    "true",
    "~",
    "null",
    "NULL",
    ".nan",
    ".inf",
    "-.Inf",
    "0",
    "08",
    "0644",
    "1_000",
    "_1",
    "0x1F",
    "0x",
    "0b1",
    "0b",
    "0o7",
    "1e3",
    "1e+3",
    "1.",
    ".5",
    "._5",
    "-",
    "--",
    "---",
    "...",
    "+",
    "1:30",
    "1:30.5",
    "2026-01-02",
    "2026-1-2T3:4:5Z",
    "<<",
    "=",
    "?",
    ":",
    ": ",
    "#",
    " #",
    "&a",
    "*a",
    "!",
    "!!str",
    "|",
    ">",
    "'",
    "\"",
    "%",
    "@",
    "`",
    ",",
    "[",
    "]",
    "{",
    "}",
    " ",
    "  x",
    "\n",
    "\n\n",
    "\t",
    "\\",
    "\\n",
    "\r",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{feff}",
];

const NUMBERS: [f64; 8] =
    [1e23, 5e-324, 0.123_456_789_012_345_68, f64::MAX, -0.5, 1e-7, 1.5e300, 123_456.789];

#[test]
fn python_reads_back_every_text_and_number_that_is_written_as_yaml() {
    if !need::all("python_reads_back_every_text_and_number_that_is_written_as_yaml", &[Need::Python]) {
        return;
    }
    let texts: Vec<String> =
        PIECES.iter().flat_map(|first| PIECES.map(|second| format!("{first}{second}"))).collect();
    let keys: serde_json::Map<_, _> = texts.iter().map(|text| (text.clone(), json!([text]))).collect();
    let long: serde_json::Map<_, _> =
        texts.iter().map(|text| (format!("{text}{}", "k".repeat(1100)), json!({text: text}))).collect();
    let whole = [json!(i64::MIN), json!(u64::MAX), json!(0), json!(null), json!(true), json!([]), json!({})];
    let written = json!({"texts": texts, "keys": keys, "long": long, "numbers": NUMBERS, "others": whole});
    let mut python = python();
    python.args(["-c", READ]);
    let said = Outcome::of(&mut python, &claw_schemas::yaml::to_string(&written));
    let read: Value =
        serde_json::from_str(&said.success().unwrap_or_else(|text| panic!("{text}"))).expect("it is JSON");
    for read in read.as_array().expect("one of each reader") {
        for (name, expected) in written.as_object().expect("a map") {
            assert!(read[name] == *expected, "{name}: {:?}", first_difference(&read[name], expected));
        }
    }
}

fn first_difference<'v>(read: &'v Value, expected: &'v Value) -> Option<(&'v Value, &'v Value)> {
    match (read, expected) {
        (Value::Array(read), Value::Array(expected)) => read.iter().zip(expected).find(|(a, b)| a != b),
        (Value::Object(read), Value::Object(expected)) => {
            read.values().zip(expected.values()).find(|(a, b)| a != b)
        }
        pair => Some(pair),
    }
}
