//! Whether a document was read as Kubernetes reads YAML, by the parser that most of Rust uses.
//!
//! `serde_yaml` is of YAML 1.2: what differs from it is what older rules make of words, keys and tags, and nothing else.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Number, Value};
use serde_yaml::{Mapping, Value as Yaml};

/// Whether a field of a document has this value. What the other parser refuses (a key that comes twice, for one) is not judged.
pub fn has(body: &[u8], field: &str, value: &Value) -> bool {
    let Ok(Yaml::Mapping(read)) = serde_yaml::from_slice(body) else { return true };
    let with_tags = body.contains(&b'!');
    let expected = |map: &Mapping| agrees(map.get(field).unwrap_or(&Yaml::Null), value, with_tags);
    expected(&read) || merged(&read).is_some_and(|merged| expected(&merged))
}

fn agrees(theirs: &Yaml, ours: &Value, with_tags: bool) -> bool {
    let is_meant = match (theirs, ours) {
        (Yaml::Null, Value::Null) => true,
        (Yaml::Bool(theirs), Value::Bool(ours)) => theirs == ours,
        (Yaml::Number(theirs), Value::Number(ours)) => {
            serde_json::to_value(theirs).is_ok_and(|theirs| is_same(&theirs, ours))
        }
        (Yaml::String(theirs), Value::String(ours)) => theirs == ours,
        (Yaml::String(word), Value::Bool(_) | Value::Number(_)) => is_older(word, ours),
        (Yaml::Sequence(theirs), Value::Array(ours)) => {
            theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| agrees(a, b, with_tags))
        }
        (Yaml::Mapping(theirs), Value::Object(ours)) => {
            has_fields(theirs, ours, with_tags)
                || merged(theirs).is_some_and(|merged| has_fields(&merged, ours, with_tags))
        }
        (Yaml::Tagged(tagged), ours) => agrees(&tagged.value, ours, with_tags),
        _ => false,
    };
    is_meant || with_tags && ours.as_str().is_some_and(|ours| is_text_of(theirs, ours))
}

/// Whether these are the same fields. Two of theirs may be one of ours: `yes` and `true`.
fn has_fields(theirs: &Mapping, ours: &serde_json::Map<String, Value>, with_tags: bool) -> bool {
    theirs.keys().all(|key| ours.keys().any(|name| is_name(key, name)))
        && ours.iter().all(|(name, value)| {
            theirs.iter().any(|(key, theirs)| is_name(key, name) && agrees(theirs, value, with_tags))
        })
}

/// Whether a key becomes this name.
fn is_name(key: &Yaml, name: &str) -> bool {
    match key {
        Yaml::Bool(flag) => flag.to_string() == name,
        Yaml::Number(number) => {
            number.to_string() == name || number.as_f64().is_some_and(|number| name.parse() == Ok(number))
        }
        Yaml::String(word) => {
            word == name || serde_json::from_str(name).is_ok_and(|meant| is_older(word, &meant))
        }
        Yaml::Tagged(tagged) => is_name(&tagged.value, name) || is_text_of(key, name),
        _ => false,
    }
}

/// A map with what `<<` says that it takes from others; its own fields go before.
fn merged(map: &Mapping) -> Option<Mapping> {
    let sources = match map.get("<<")? {
        Yaml::Mapping(source) => vec![source.clone()],
        Yaml::Sequence(sources) => sources.iter().filter_map(Yaml::as_mapping).cloned().collect(),
        _ => return None,
    };
    let mut all = map.clone();
    all.remove("<<");
    for source in sources {
        for (key, value) in merged(&source).unwrap_or(source) {
            all.entry(key).or_insert(value);
        }
    }
    Some(all)
}

/// Whether a text became a value by its tag: in base64, or as it is where it would have been something else.
fn is_text_of(theirs: &Yaml, ours: &str) -> bool {
    let theirs = if let Yaml::Tagged(tagged) = theirs { &tagged.value } else { theirs };
    let decoded =
        theirs.as_str().and_then(|text| STANDARD.decode(text.replace(char::is_whitespace, "")).ok());
    decoded.is_some_and(|decoded| decoded == ours.as_bytes())
        || serde_yaml::from_str(ours).is_ok_and(|read: Yaml| read == *theirs)
}

/// Whether a word that is a text in YAML 1.2 is this in YAML 1.1.
fn is_older(word: &str, meant: &Value) -> bool {
    match (word, meant) {
        ("y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON", Value::Bool(flag)) => *flag,
        ("n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF", Value::Bool(flag)) => !*flag,
        (word, Value::Number(meant)) => number(word).is_some_and(|number| is_same(&number, meant)),
        _ => false,
    }
}

/// A number with gaps, or with a zero in front.
fn number(word: &str) -> Option<Value> {
    let first = word.bytes().next()?;
    let digits =
        if first.is_ascii_digit() || b"+-".contains(&first) { word.replace('_', "") } else { return None };
    let (sign, magnitude) = match digits.split_at(1) {
        (sign @ ("+" | "-"), magnitude) => (sign, magnitude),
        _ => ("", digits.as_str()),
    };
    let (base, places) = match magnitude.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &magnitude[2..]),
        [b'0', b'b' | b'B', ..] => (2, &magnitude[2..]),
        [b'0', b'o' | b'O', ..] => (8, &magnitude[2..]),
        [b'0', ..] => (8, magnitude),
        _ => (10, magnitude),
    };
    let whole = i128::from_str_radix(&format!("{sign}{places}"), base).ok();
    whole
        .and_then(|whole| {
            i64::try_from(whole).map(Value::from).or_else(|_| u64::try_from(whole).map(Value::from)).ok()
        })
        .or_else(|| digits.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number))
}

/// Whether two numbers are one; those with a fraction as far as a float goes.
fn is_same(theirs: &Value, ours: &Number) -> bool {
    match (theirs.as_i64(), ours.as_i64(), theirs.as_u64(), ours.as_u64()) {
        (Some(theirs), Some(ours), ..) => theirs == ours,
        (.., Some(theirs), Some(ours)) => theirs == ours,
        _ => theirs.as_f64() == ours.as_f64(),
    }
}
