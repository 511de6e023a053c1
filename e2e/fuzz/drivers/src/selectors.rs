//! Label and field selectors: what is written from conditions is read as these conditions, judged beside a naive evaluator.

use std::collections::BTreeMap;

use claw_schemas::selector::{FieldSelector, LabelSelector};

use crate::tape::Tape;

const KEYS: [&str; 6] = ["app", "tier", "in", "notin", "example.com/role", "a.b_c-d"];
const VALUES: [&str; 7] = ["", "web", "in", "1", "7", "a.b_c-d", "-9"];

type Labels = BTreeMap<String, String>;

/// A condition as it is meant.
enum Condition {
    Among(&'static str, Vec<&'static str>),
    NotAmong(&'static str, Vec<&'static str>),
    There(&'static str),
    NotThere(&'static str),
    Above(&'static str, i64),
    Below(&'static str, i64),
}

impl Condition {
    fn choose(tape: &mut Tape<'_>) -> Self {
        let key = tape.pick(&KEYS);
        let mut values = vec![tape.pick(&VALUES[..6])];
        match tape.below(6) {
            kind @ (0 | 1) => {
                while tape.more(values.len(), 4) {
                    values.push(tape.pick(&VALUES[..6]));
                }
                if kind == 0 { Self::Among(key, values) } else { Self::NotAmong(key, values) }
            }
            2 => Self::There(key),
            3 => Self::NotThere(key),
            4 => Self::Above(key, i64::from(tape.byte())),
            _ => Self::Below(key, i64::from(tape.byte())),
        }
    }

    fn holds(&self, labels: &Labels) -> bool {
        let number = |key: &str| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Among(key, values) => {
                labels.get(*key).is_some_and(|value| values.contains(&value.as_str()))
            }
            Self::NotAmong(key, values) => {
                !labels.get(*key).is_some_and(|value| values.contains(&value.as_str()))
            }
            Self::There(key) => labels.contains_key(*key),
            Self::NotThere(key) => !labels.contains_key(*key),
            Self::Above(key, bound) => number(key).is_some_and(|number| number > *bound),
            Self::Below(key, bound) => number(key).is_some_and(|number| number < *bound),
        }
    }

    /// One of the ways to write it.
    fn write(&self, tape: &mut Tape<'_>, out: &mut String) {
        let space = |tape: &mut Tape<'_>| tape.pick(&["", " ", "  ", "\t"]);
        let listed = |tape: &mut Tape<'_>, word: &str, key: &str, values: &[&str]| {
            let values = values.join(&format!("{},{}", space(tape), space(tape)));
            format!("{key} {word}{}({}{values}{})", space(tape), space(tape), space(tape))
        };
        let pair = |tape: &mut Tape<'_>, sign: &str, key: &str, value: &str| {
            format!("{key}{}{sign}{}{value}", space(tape), space(tape))
        };
        let text = match self {
            Self::Among(key, values) if values.len() == 1 && (values[0].is_empty() || tape.flag()) => {
                let sign = tape.pick(&["=", "=="]);
                pair(tape, sign, key, values[0])
            }
            Self::NotAmong(key, values) if values.len() == 1 && (values[0].is_empty() || tape.flag()) => {
                pair(tape, "!=", key, values[0])
            }
            Self::Among(key, values) => listed(tape, "in", key, values),
            Self::NotAmong(key, values) => listed(tape, "notin", key, values),
            Self::There(key) => (*key).to_owned(),
            Self::NotThere(key) => format!("!{}{key}", space(tape)),
            Self::Above(key, bound) => pair(tape, ">", key, &bound.to_string()),
            Self::Below(key, bound) => pair(tape, "<", key, &bound.to_string()),
        };
        out.push_str(space(tape));
        out.push_str(&text);
        out.push_str(space(tape));
    }
}

fn labels(tape: &mut Tape<'_>) -> Labels {
    let mut labels = Labels::new();
    while tape.more(labels.len(), 5) {
        labels.insert(tape.pick(&KEYS).to_owned(), tape.pick(&VALUES).to_owned());
    }
    labels
}

/// Conditions written out, then whatever is left as a text of its own.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let mut conditions = Vec::new();
    let mut text = String::new();
    while tape.more(conditions.len(), 5) {
        if !conditions.is_empty() {
            text.push(',');
        }
        let condition = Condition::choose(&mut tape);
        condition.write(&mut tape, &mut text);
        conditions.push(condition);
    }
    let selector = LabelSelector::parse(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(selector.is_empty(), conditions.is_empty(), "{text:?}");
    for _ in 0..4 {
        let labels = labels(&mut tape);
        let expected = conditions.iter().all(|condition| condition.holds(&labels));
        assert_eq!(selector.matches(&labels), expected, "{text:?} on {labels:?}");
    }
    let again = LabelSelector::parse(&selector.to_string());
    assert_eq!(again.as_ref(), Ok(&selector), "{text:?}");
    if let Ok(text) = std::str::from_utf8(tape.rest()) {
        any_text(text);
    }
}

/// A text that may be no selector: an error in words, or a selector that its own text stands for.
fn any_text(text: &str) {
    match LabelSelector::parse(text) {
        Ok(selector) => {
            let written = selector.to_string();
            assert_eq!(LabelSelector::parse(&written), Ok(selector), "{text:?} was written as {written:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let Ok(selector) = FieldSelector::parse(text) else { return };
    // What no field is called cannot be written: operators and commas end a path.
    let is_path =
        |path: &str| path.chars().all(|letter| letter.is_ascii_alphanumeric() || "._/-".contains(letter));
    if selector.requirements().iter().all(|requirement| is_path(&requirement.path)) {
        let written: Vec<String> = selector.requirements().iter().map(written).collect();
        assert_eq!(
            FieldSelector::parse(&written.join(",")),
            Ok(selector),
            "{text:?} was written as {written:?}"
        );
    }
}

fn written(requirement: &claw_schemas::selector::FieldRequirement) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    let sign = if requirement.equal { "=" } else { "!=" };
    format!("{}{sign}{}", escaped(&requirement.path), escaped(&requirement.value))
}
