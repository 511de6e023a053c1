//! Decoding of request bodies: JSON or YAML bytes to a document.
//!
//! Duplicate keys are noted with their path, since a parser that keeps the last one hides a mistake. Size and depth are
//! bounded before any other stage runs.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use claw_schemas::{ApiError, status::Reason, yaml};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::limits::{
    DOCUMENT_DEPTH_MAX, DOCUMENT_WEIGHT_MAX, DUPLICATES_BYTES_MAX, DUPLICATES_MAX, REQUEST_BYTES_MAX,
};

/// A decoded body.
#[derive(Debug)]
pub(super) struct Document {
    /// Always an object at the top level.
    pub value: Value,
    /// Paths of keys that occurred twice: the first of them, if there are very many.
    pub duplicates: Vec<String>,
}

/// Decodes a body that must hold one object.
pub(super) fn document(body: &[u8]) -> Result<Document, ApiError> {
    check_size(body)?;
    let noted = Noted::default();
    let seed = Node { noted: &noted, path: Path::Root, depth: 0 };
    let value = if is_json(body) {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = seed.deserialize(&mut reader).map_err(|error| malformed("JSON", &error))?;
        reader.end().map_err(|error| malformed("JSON", &error))?;
        value
    } else {
        only_document(body, seed).map_err(|error| malformed("YAML", &error))?
    };
    match value {
        Value::Object(_) => Ok(Document { value, duplicates: noted.duplicates.into_inner() }),
        Value::Null => {
            Err(ApiError::bad_request("the request body is empty: send one object as JSON or YAML"))
        }
        other => Err(ApiError::bad_request(format!(
            "the request body must hold one object, found {}",
            name_of_type(&other)
        ))),
    }
}

/// Refuses a body above the request limit.
pub(super) fn check_size(body: &[u8]) -> Result<(), ApiError> {
    if body.len() > REQUEST_BYTES_MAX {
        return Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("the request body has {} bytes, the limit is {REQUEST_BYTES_MAX}", body.len()),
        ));
    }
    Ok(())
}

/// Reads the document of a text in YAML. Nothing is one, too.
fn only_document(body: &[u8], seed: Node<'_>) -> Result<Value, yaml::Error> {
    let text = std::str::from_utf8(body).map_err(yaml::Error::custom)?;
    yaml::only(text)?.map_or(Ok(Value::Null), |document| seed.deserialize(&document))
}

fn is_json(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'{')
}

fn malformed(format: &str, error: &dyn fmt::Display) -> ApiError {
    ApiError::bad_request(format!("the request body is not valid {format}: {error}"))
}

fn name_of_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Where the visitor is; written out only when a duplicate is found.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What the visitor notes on its way.
#[derive(Default)]
struct Noted {
    duplicates: RefCell<Vec<String>>,
    /// Bytes that the document takes so far, written out.
    weight: Cell<usize>,
}

impl Noted {
    /// Notes a path, unless there are so many or such long ones that their texts would be larger than the body.
    fn duplicate(&self, path: Path<'_>) {
        let mut noted = self.duplicates.borrow_mut();
        let bytes: usize = noted.iter().map(String::len).sum();
        if noted.len() < DUPLICATES_MAX && bytes < DUPLICATES_BYTES_MAX {
            noted.push(path.to_string());
        }
    }
}

/// Builds one value of the document.
#[derive(Clone, Copy)]
struct Node<'a> {
    noted: &'a Noted,
    path: Path<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.weigh(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.weigh(0)?;
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.weigh(0)?;
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.weigh(0)?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.weigh(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.weigh(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.weigh(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        self.weigh(0)?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Node {
            noted: self.noted,
            path: Path::Index(&self.path, items.len()),
            depth: self.depth + 1,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        self.weigh(0)?;
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.weigh(key.len())?;
            let path = Path::Key(&self.path, &key);
            let value = map.next_value_seed(Node { noted: self.noted, path, depth: self.depth + 1 })?;
            if members.contains_key(&key) {
                self.noted.duplicate(path);
            }
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

impl Node<'_> {
    /// A short YAML text can stand for a huge document, by aliases. What it stands for must be as small as what may
    /// be sent: every key and value is counted with a separator.
    fn weigh<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let weight = self.noted.weight.get() + bytes + 1;
        self.noted.weight.set(weight);
        if weight <= DOCUMENT_WEIGHT_MAX {
            return Ok(());
        }
        Err(E::custom(format!("its aliases expand to more than {DOCUMENT_WEIGHT_MAX} bytes")))
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth < DOCUMENT_DEPTH_MAX {
            return Ok(());
        }
        Err(E::custom(format!("it nests deeper than {DOCUMENT_DEPTH_MAX} levels at {}", self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_of_one_object_decode_alike() {
        let json = document(br#"{"kind":"X","spec":{"m":1,"list":["a",2,true]}}"#).unwrap();
        let yaml = document(b"kind: X\nspec:\n  m: 1\n  list: [a, 2, true]\n").unwrap();
        assert_eq!(json.value, yaml.value);
    }

    #[test]
    fn duplicate_keys_are_named_by_their_path() {
        for body in [
            r#"{"spec":{"list":[{"a":1,"a":2}]},"kind":"X","kind":"Y"}"#,
            "spec:\n  list:\n  - a: 1\n    a: 2\nkind: X\nkind: Y\n",
        ] {
            assert_eq!(document(body.as_bytes()).unwrap().duplicates, ["spec.list[0].a", "kind"]);
        }
    }

    #[test]
    fn duplicates_below_a_long_key_take_no_more_room_than_the_body() {
        let body = format!(r#"{{"{}":{{{}"x":1}}}}"#, "k".repeat(100_000), r#""x":1,"#.repeat(10_000));
        let duplicates = document(body.as_bytes()).unwrap().duplicates;
        assert!(duplicates.iter().map(String::len).sum::<usize>() < body.len() && !duplicates.is_empty());
        let many = document(format!("{{{}\"x\":1}}", r#""x":1,"#.repeat(10_000)).as_bytes()).unwrap();
        assert_eq!(many.duplicates.len(), DUPLICATES_MAX);
    }

    #[test]
    fn garbage_is_refused_with_a_sentence() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(110), "}".repeat(110));
        let deep_yaml = "a: ".to_owned() + &"[".repeat(120) + &"]".repeat(120);
        for body in [
            "",
            "   ",
            "{",
            "[1]",
            "just words",
            "{\"a\":}",
            "a: b: c",
            "\u{0}",
            &deep,
            &deep_yaml,
            "{} {}",
            "a: &x [*x, *x]",
            "a: 1\n---\nb: 2\n",
        ] {
            let error = document(body.as_bytes()).unwrap_err();
            assert_eq!(error.reason, Reason::BadRequest, "{body:?}: {error}");
        }
        assert!(document(&[0xff, 0xfe, b'{']).is_err());
    }

    #[test]
    fn brackets_that_never_close_are_refused_as_soon_as_they_are_too_many() {
        let error = document(format!("a: {}", "[".repeat(1_000_000)).as_bytes()).unwrap_err();
        assert_eq!(error.reason, Reason::BadRequest, "{error}");
        let text = format!("a: \"{}\"", "[".repeat(1_000_000));
        assert!(document(text.as_bytes()).is_ok(), "texts may have many");
    }

    #[test]
    fn words_of_yaml_mean_what_they_mean_to_kubectl() {
        let document =
            document(b"a: yes\nb: 'yes'\nc: 0644\nd: &d {e: 1_000}\nf: {<<: *d, g: off}\n").unwrap();
        let expected = serde_json::json!({"a": true, "b": "yes", "c": 420, "d": {"e": 1000}, "f": {"g": false, "e": 1000}});
        assert_eq!((document.value, document.duplicates), (expected, Vec::<String>::new()));
    }

    #[test]
    fn aliases_cannot_blow_a_small_body_up() {
        let bomb = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(2000), "*a,".repeat(2000));
        let error = document(bomb.as_bytes()).unwrap_err();
        assert!(error.message.contains("aliases expand to more than"), "{error}");
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a,".repeat(1000));
        assert!(document(text.as_bytes()).is_err());
        assert!(document(b"a: &a {b: c}\nd: *a\n").is_ok());
        let dense = format!("[{}1]", "1,".repeat(1_000_000));
        assert!(
            document(format!("{{\"a\":{dense}}}").as_bytes()).is_ok(),
            "a body within the limit never weighs too much"
        );
    }

    #[test]
    fn a_body_above_the_limit_is_refused_by_size() {
        let body = vec![b' '; REQUEST_BYTES_MAX + 1];
        assert_eq!(document(&body).unwrap_err().reason, Reason::RequestEntityTooLarge);
    }
}
