//! From JSON to text: block style, lists not indented, as `kubectl get -o yaml` has it.

use std::fmt::Write as _;

use serde_json::{Number, Value};

use super::words::is_ambiguous;

/// Bytes of a key that stands before its value: readers look no more than 1,024 characters ahead.
const KEY_BYTES_MAX: usize = 1000;

/// Puts a value into words. A text that some reader would take for something else is quoted.
pub fn to_string(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(&mut text, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut text, value, 0),
        plain => {
            leaf(&mut text, plain, 2);
            text.push('\n');
        }
    }
    text
}

/// A map or list that is not empty, each of its lines from this column on.
fn block(text: &mut String, value: &Value, column: usize) {
    match value {
        Value::Object(fields) => {
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    indent(text, column);
                }
                key(text, name, column);
                below(text, value, column);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    indent(text, column);
                }
                text.push_str("- ");
                if is_block(item) {
                    block(text, item, column + 2);
                } else {
                    leaf(text, item, column + 2);
                    text.push('\n');
                }
            }
        }
        _ => {}
    }
}

/// The name of a field. What is too long for readers to look past is marked as a key.
fn key(text: &mut String, name: &str, column: usize) {
    let start = text.len();
    word(text, name, 0, false);
    if text.len() - start > KEY_BYTES_MAX {
        text.insert_str(start, "? ");
        text.push('\n');
        indent(text, column);
    }
    text.push(':');
}

/// The value of a field, whose name begins at this column.
fn below(text: &mut String, value: &Value, column: usize) {
    if is_block(value) {
        let column = if value.is_array() { column } else { column + 2 };
        text.push('\n');
        indent(text, column);
        block(text, value, column);
    } else {
        text.push(' ');
        leaf(text, value, column + 2);
        text.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn indent(text: &mut String, column: usize) {
    text.extend(std::iter::repeat_n(' ', column));
}

fn leaf(text: &mut String, value: &Value, column: usize) {
    match value {
        Value::String(own) => word(text, own, column, true),
        Value::Number(own) if own.is_f64() => fraction(text, own),
        // What is empty, and other numbers, flags and nothing, are the same in JSON.
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// `1.0e+23`: without the point, or the sign, readers of YAML 1.1 take it for a text.
fn fraction(text: &mut String, number: &Number) {
    let written = number.to_string();
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, ""));
    text.push_str(digits);
    if !digits.contains('.') {
        text.push_str(".0");
    }
    if !exponent.is_empty() {
        let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
        let _ = write!(text, "e{sign}{exponent}");
    }
}

/// A text: as it is, or in lines of its own; in single quotes where nothing but signs of YAML is in the way, as kubectl has it;
/// else quoted as JSON does, which all readers of YAML read.
fn word(text: &mut String, own: &str, column: usize, may_be_lines: bool) {
    if may_be_lines && is_lines(own) {
        lines(text, own, column);
    } else if is_ambiguous(own) || !is_shown(own) {
        quoted(text, own);
    } else if is_plain(own) {
        text.push_str(own);
    } else {
        text.extend(["'", &own.replace('\'', "''"), "'"]);
    }
}

/// In double quotes, with escapes as JSON has them.
fn quoted(text: &mut String, own: &str) {
    text.push('"');
    for c in own.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if is_hidden(c) => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// What YAML reads as the end of a line, or not at all.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a text means itself without quotes.
fn is_plain(word: &str) -> bool {
    let starts_well = match word.as_bytes() {
        [b'-', second, ..] => *second != b' ' && !word.starts_with("---"),
        [b'-'] | [] => false,
        [first, ..] => !b"?:,[]{}#&*!|>'\"%@` ".contains(first) && !word.starts_with("..."),
    };
    starts_well && !word.ends_with([' ', ':']) && !word.contains(": ") && !word.contains(" #")
}

/// Whether no character needs an escape, and all stand in one line.
fn is_shown(word: &str) -> bool {
    word.chars().all(|c| c == ' ' || (!c.is_whitespace() && !is_hidden(c)))
}

/// Whether a text can be written as lines: they begin with something visible and have nothing that needs an escape.
fn is_lines(own: &str) -> bool {
    let is_visible = |c: char| c == '\n' || c == '\t' || !is_hidden(c);
    own.contains('\n')
        && !own.starts_with([' ', '\t', '\n'])
        && own.chars().all(is_visible)
        && !own.lines().any(|line| line.ends_with([' ', '\t']))
}

fn lines(text: &mut String, own: &str, column: usize) {
    let body = own.trim_end_matches('\n');
    // How many ends of lines there are at the end: none, one, or all of them.
    text.push_str(match own.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let ends = (own.len() - body.len()).saturating_sub(1);
    for line in body.split('\n') {
        text.push('\n');
        if !line.is_empty() {
            indent(text, column);
            text.push_str(line);
        }
    }
    text.extend(std::iter::repeat_n('\n', ends));
}
