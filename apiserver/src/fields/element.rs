//! One step on the way to a field: `f:name`, `k:{"key":"value"}`, `v:"value"`, `i:0`.

use std::{
    cmp::Ordering,
    fmt::{self, Write as _},
};

use serde_json::{Map, Value};

/// One step. The order is the one in which upstream writes sets: fields, keys, values, indices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of a structure, or an entry of a map.
    Field(Box<str>),
    /// The item of a list with these values in these fields, sorted by name.
    Key(Box<[(Box<str>, Leaf)]>),
    /// The item of a list of plain values.
    Value(Leaf),
    /// The item of a list by its place; nothing here makes one, but others may have.
    Index(i64),
}

/// The way to a field.
pub type Path = Vec<Element>;

/// A value inside a step, with a total order: numbers, texts, booleans, then whatever should not be there.
#[derive(Clone, Debug)]
pub struct Leaf(pub Value);

impl Element {
    /// A field or an entry.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// An item by its keys, in any order.
    pub fn key<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let mut fields: Vec<_> = fields.into_iter().map(|(name, value)| (name.into(), Leaf(value))).collect();
        fields.sort();
        Self::Key(fields.into())
    }

    /// Reads a key of `FieldsV1`. `Ok(None)` for kinds of steps that are not known, which upstream ignores too.
    ///
    /// # Errors
    /// Says what is malformed.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let (kind, rest) = text.split_once(':').filter(|(kind, _)| kind.len() == 1).ok_or_else(|| {
            format!("\"{text}\" is no step: it must begin with \"f:\", \"k:\", \"v:\" or \"i:\"")
        })?;
        let malformed = |error: serde_json::Error| format!("\"{text}\": {error}");
        Ok(Some(match kind {
            "f" => Self::field(rest),
            "v" => Self::Value(Leaf(serde_json::from_str(rest).map_err(malformed)?)),
            "k" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).map_err(malformed)?;
                Self::key(fields.iter().map(|(name, value)| (name.as_str(), value.clone())))
            }
            "i" => Self::Index(rest.parse().map_err(|error| format!("\"{text}\": {error}"))?),
            _ => return Ok(None),
        }))
    }

    /// Appends the key of `FieldsV1`, quoted.
    pub fn write_key(&self, out: &mut String) {
        let is_plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\');
        match self {
            Self::Field(name) if name.bytes().all(is_plain) => out.extend(["\"f:", name, "\""]),
            _ => out.push_str(&Value::from(self.to_key()).to_string()),
        }
    }

    /// The key of `FieldsV1`.
    pub fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let mut text = String::from("k:{");
                for (at, (name, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    let _ = write!(text, "{comma}{}:{}", Value::from(&**name), value.0);
                }
                text.push('}');
                text
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// As conflicts name fields: `.spec`, `[name="web"]`, `[="value"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_char('[')?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", value.0)?;
                }
                f.write_char(']')
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The text of a path.
pub fn display(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl Ord for Leaf {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or(f64::MAX).total_cmp(&b.as_f64().unwrap_or(f64::MAX)),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) if rank(a) == rank(b) => a.to_string().cmp(&b.to_string()),
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Leaf {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_are_written_as_they_are_read() {
        for (key, shown) in [
            ("f:spec", ".spec"),
            ("f:", "."),
            ("f:app.kubernetes.io/name", ".app.kubernetes.io/name"),
            ("k:{\"name\":\"web\"}", "[name=\"web\"]"),
            ("k:{\"containerPort\":80,\"protocol\":\"TCP\"}", "[containerPort=80,protocol=\"TCP\"]"),
            ("v:\"a\\\"b\"", "[=\"a\\\"b\"]"),
            ("v:7", "[=7]"),
            ("i:3", "[3]"),
        ] {
            let element = Element::parse(key).unwrap().unwrap();
            assert_eq!((element.to_key().as_str(), element.to_string().as_str()), (key, shown));
        }
    }

    #[test]
    fn keys_are_told_apart_by_content_not_by_spelling() {
        let spelt = Element::parse("k:{ \"protocol\" : \"TCP\", \"containerPort\": 80 }").unwrap().unwrap();
        assert_eq!(spelt, Element::key([("containerPort", json!(80)), ("protocol", json!("TCP"))]));
        assert_eq!(spelt.to_key(), "k:{\"containerPort\":80,\"protocol\":\"TCP\"}");
    }

    #[test]
    fn malformed_steps_are_refused_and_unknown_ones_ignored() {
        for text in ["", "f", "spec", "v:", "v:{", "k:[]", "k:\"x\"", "i:x", "ff:x"] {
            assert!(Element::parse(text).is_err(), "{text}");
        }
        assert_eq!(Element::parse("q:what"), Ok(None));
    }

    #[test]
    fn steps_are_ordered_as_upstream_writes_them() {
        let keys = [
            "f:a",
            "f:b",
            "k:{\"p\":80}",
            "k:{\"p\":443}",
            "k:{\"p\":\"a\"}",
            "v:9",
            "v:10",
            "v:\"a\"",
            "v:true",
            "i:0",
        ];
        let elements: Vec<_> = keys.iter().map(|key| Element::parse(key).unwrap().unwrap()).collect();
        assert!(elements.is_sorted(), "{elements:?}");
    }
}
