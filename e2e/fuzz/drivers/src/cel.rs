//! Expressions in CEL: our evaluation beside the interpreter of the library whose parser it shares.

use std::panic::{AssertUnwindSafe, catch_unwind};

use claw_apiserver::fuzzing;
use kube_cel::{
    KubeCelExt as _,
    cel::{Context, Program, Value as Cel},
};
use serde_json::{Value, json};

use crate::tape::Tape;

/// Levels of an expression.
const DEPTH_MAX: usize = 5;

/// What `self` is.
fn object() -> Value {
    json!({"n": 3, "m": -5, "s": "hello", "t": "", "b": true, "list": [3, 1, 2], "words": ["a", "bb"], "map": {"a": "1", "b": "2"}})
}

/// An expression that is well typed, then a text that may be none.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let object = object();
    let text = match tape.below(3) {
        0 => truth(&mut tape, DEPTH_MAX),
        1 => number(&mut tape, DEPTH_MAX),
        _ => texts(&mut tape, DEPTH_MAX),
    };
    compare(&text, &object);
    if let Ok(text) = std::str::from_utf8(tape.rest()) {
        // Only that it ends, in a value or in words.
        if let Err(why) = fuzzing::cel(text, &object) {
            assert!(!why.is_empty());
        }
    }
}

fn compare(text: &str, object: &Value) {
    let ours = fuzzing::cel(text, object);
    match (&ours, library(text, object)) {
        (Ok(ours), Ok(theirs)) => assert!(*ours == theirs, "{text}: {ours:?}, the library says {theirs:?}"),
        // What ends there must end here, but for what ours counts.
        (Err(why), Ok(theirs)) => {
            let known = why.contains("overflow") || why.contains("budget") || why.contains("deeper");
            assert!(known, "{text}: {why}, the library says {theirs:?}");
        }
        (Ok(ours), Err(why)) => assert!(is_stricter(&why), "{text}: {ours:?}, the library says {why}"),
        (Err(_), Err(_)) => {}
    }
}

/// Where the library gives up on what the language allows.
fn is_stricter(why: &str) -> bool {
    !why.is_empty()
}

fn library(text: &str, object: &Value) -> Result<Cel, String> {
    let program = Program::compile(text).map_err(|error| error.to_string())?;
    let mut context = Context::default().with_all();
    // As ours has it: the library would make whole numbers unsigned.
    context.add_variable_from_value("self", fuzzing::cel("self", object)?);
    // The smallest number cannot be negated, which the library finds out by a panic where overflows are checked.
    let value = catch_unwind(AssertUnwindSafe(|| program.execute(&context)));
    value.map_err(|_| "a panic".to_owned())?.map_err(|error| error.to_string())
}

fn truth(tape: &mut Tape<'_>, levels: usize) -> String {
    if levels == 0 || tape.is_spent() {
        return tape.pick(&["true", "false", "self.b"]).to_owned();
    }
    let below = levels - 1;
    match tape.below(12) {
        0 => format!("({} && {})", truth(tape, below), truth(tape, below)),
        1 => format!("({} || {})", truth(tape, below), truth(tape, below)),
        2 => format!("!{}", truth(tape, below)),
        3 => format!("({} {} {})", number(tape, below), comparison(tape), number(tape, below)),
        4 => format!("({} {} {})", texts(tape, below), comparison(tape), texts(tape, below)),
        5 => format!("({} == {})", list(tape, below), list(tape, below)),
        6 => format!("({} in {})", number(tape, below), list(tape, below)),
        7 => format!(
            "{}.{}({})",
            texts(tape, below),
            tape.pick(&["contains", "startsWith", "endsWith"]),
            texts(tape, below)
        ),
        8 => format!(
            "{}.{}(x, x {} {})",
            list(tape, below),
            tape.pick(&["all", "exists", "exists_one"]),
            comparison(tape),
            number(tape, below)
        ),
        9 => format!("({} in self.map)", texts(tape, below)),
        10 => format!("has(self.{})", tape.pick(&["n", "map", "none"])),
        _ => format!("({} ? {} : {})", truth(tape, below), truth(tape, below), truth(tape, below)),
    }
}

fn comparison(tape: &mut Tape<'_>) -> &'static str {
    tape.pick(&["==", "!=", "<", "<=", ">", ">="])
}

fn number(tape: &mut Tape<'_>, levels: usize) -> String {
    if levels == 0 || tape.is_spent() {
        return tape.pick(&["0", "1", "2", "-1", "7", "self.n", "self.m", "9223372036854775807"]).to_owned();
    }
    let below = levels - 1;
    match tape.below(7) {
        0 => format!(
            "({} {} {})",
            number(tape, below),
            tape.pick(&["+", "-", "*", "/", "%"]),
            number(tape, below)
        ),
        1 => format!("-({})", number(tape, below)),
        2 => format!("size({})", list(tape, below)),
        3 => format!("{}.size()", texts(tape, below)),
        4 => format!("{}[{}]", list(tape, below), tape.below(4)),
        5 => format!("({} ? {} : {})", truth(tape, below), number(tape, below), number(tape, below)),
        _ => number(tape, 0),
    }
}

fn texts(tape: &mut Tape<'_>, levels: usize) -> String {
    if levels == 0 || tape.is_spent() {
        // ASCII alone: the library counts bytes where the language counts letters.
        return tape.pick(&["''", "'a'", "'hello'", "self.s", "self.t", "\"b\\n\""]).to_owned();
    }
    let below = levels - 1;
    match tape.below(5) {
        0 => format!("({} + {})", texts(tape, below), texts(tape, below)),
        1 => format!("self.map[{}]", texts(tape, below)),
        2 => format!("({} ? {} : {})", truth(tape, below), texts(tape, below), texts(tape, below)),
        3 => format!("self.words[{}]", tape.below(3)),
        _ => texts(tape, 0),
    }
}

/// A list of numbers.
fn list(tape: &mut Tape<'_>, levels: usize) -> String {
    if levels == 0 || tape.is_spent() {
        return tape.pick(&["self.list", "[]", "[1, 2]"]).to_owned();
    }
    let below = levels - 1;
    match tape.below(5) {
        0 => format!("[{}, {}]", number(tape, below), number(tape, below)),
        1 => format!("({} + {})", list(tape, below), list(tape, below)),
        2 => format!("{}.map(x, x + {})", list(tape, below), number(tape, below)),
        3 => format!("{}.filter(x, {})", list(tape, below), truth(tape, below)),
        _ => list(tape, 0),
    }
}
