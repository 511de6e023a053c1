//! Reads the protobuf form of objects, in which kubectl sends what it makes itself (`kubectl create namespace`).
//!
//! The compiled schema says what each field is; only the field numbers are facts of their own, kept in `numbers.txt`
//! (source: `generated.proto` in `k8s.io/api` and `k8s.io/apimachinery`). Answers are always JSON.
//!
//! Go writes fields that were never set as empty texts, zeros and false. An empty text means absent here; so does a
//! zero, where the Go field could not tell it from one that is meant.
//!
//! Must never know: who sends, and what the object is for.

mod numbers;
mod wire;

use jiff::Timestamp;
use serde_json::{Map, Value};

use self::{
    numbers::Entry,
    wire::{Payload, Reader},
};
use crate::{
    api, kinds,
    registry::{Descriptor, Registry},
    schema::{Place, Scalar, Schema, Shape},
};

/// The media type of the form.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every message starts with.
const MAGIC: &[u8] = b"k8s\0";
/// Levels of messages: as many as `serde_json` would parse.
const DEPTH_MAX: u32 = 127;

/// The bytes are not an object of a served kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The envelope is not one.
    #[error("the body is not a Kubernetes protobuf message: it does not start with \"k8s\\0\"")]
    NoMagic,
    /// Nothing of that type is read in this form.
    #[error("no kind \"{kind}\" of version \"{api_version}\" is read as protobuf here, send JSON")]
    UnknownKind {
        /// As the envelope says.
        api_version: String,
        /// As the envelope says.
        kind: String,
    },
    /// The bytes end early, or are no protobuf.
    #[error("the protobuf message is damaged: {0}")]
    Damaged(&'static str),
}

/// Reads an enveloped message as the JSON object it stands for.
///
/// # Errors
/// The envelope is none, names a kind that is not served, or holds damaged bytes.
pub fn to_json(registry: &Registry, body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader::new(envelope) {
        match field? {
            (1, Payload::Bytes(meta)) => {
                for field in Reader::new(meta) {
                    match field? {
                        (1, Payload::Bytes(text)) => api_version = utf8(text)?.to_owned(),
                        (2, Payload::Bytes(text)) => kind = utf8(text)?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(bytes)) => raw = bytes,
            (3, Payload::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(ProtobufError::Damaged("its content is encoded once more"));
            }
            _ => {}
        }
    }
    let read = |schema: &Schema| object(schema, raw);
    let served = registry.kind(&api_version, &kind).filter(|descriptor| has_form(descriptor));
    let served = served.map(|descriptor| read(descriptor.compiled()));
    let mut object = match served.or_else(|| other(&api_version, &kind).map(|schema| read(&schema))) {
        Some(object) => object?,
        None => return Err(ProtobufError::UnknownKind { api_version, kind }),
    };
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// Whether objects of a kind are read in this form. Custom kinds and our own have no field numbers, and of definitions nobody
/// sends any but JSON.
fn has_form(kind: &Descriptor) -> bool {
    kind.builtin && !["apiextensions.k8s.io", api::GROUP].contains(&&*kind.group)
}

/// Documents that are no kind of their own. They are small and rare, so their schemas are not kept.
fn other(api_version: &str, kind: &str) -> Option<Schema> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let carried = kinds::carried()
        .into_iter()
        .find(|carried| (carried.group, carried.version, carried.kind) == (group, version, kind));
    // Options of a delete come in the version of the group they are sent to.
    let options =
        || kinds::wrappers().into_iter().find(|one| one.kind == "DeleteOptions" && one.kind == kind);
    let review = kinds::reviews().iter().find(|one| one.api_version() == api_version && one.kind == kind);
    let carried = carried.or_else(options).map(|document| Schema::compile(&(document.schema)()));
    carried.or_else(|| review.map(|one| one.schema.compile()))
}

fn object(schema: &Schema, raw: &[u8]) -> Result<Map<String, Value>, ProtobufError> {
    let mut object = Map::new();
    if let Shape::Struct(shape) = schema.root().shape() {
        message(schema.root(), &shape.name, raw, &mut object, 0)?;
    }
    Ok(object)
}

/// Reads the fields of a message into an object. Fields without a number here are skipped, as protobuf demands.
fn message(
    place: Place<'_>,
    name: &str,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Damaged("it nests too deep"));
    }
    for field in Reader::new(bytes) {
        let (number, payload) = field?;
        match numbers::entry(name, number) {
            None => {}
            Some(Entry::Inline(inner)) => {
                message(place, inner, payload.bytes()?, object, depth + 1)?;
            }
            Some(Entry::Field(_, true)) if payload == Payload::Varint(0) => {}
            Some(Entry::Field(field, _)) => {
                if let Some(place) = place.field(field) {
                    add(place, field, payload, object, depth)?;
                }
            }
        }
    }
    Ok(())
}

/// Adds one occurrence of a field; lists and maps come one element at a time.
fn add(
    place: Place<'_>,
    name: &str,
    payload: Payload<'_>,
    object: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), ProtobufError> {
    if let Shape::Map(_) = place.shape() {
        let slot = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
        let (key, value) = map_entry(place, payload.bytes()?, depth)?;
        if let Value::Object(entries) = slot {
            entries.insert(key, value);
        }
    } else if let Some(item) = place.items() {
        let slot = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        let item = value(item, payload, depth)?;
        if let Value::Array(items) = slot {
            items.push(item);
        }
    } else {
        let value = value(place, payload, depth)?;
        if !value.is_null() && value != "" {
            object.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

fn map_entry(place: Place<'_>, bytes: &[u8], depth: u32) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), None);
    // What a map's values are does not depend on the key.
    let values = place.field("").ok_or(ProtobufError::Damaged("a map has no values"))?;
    for field in Reader::new(bytes) {
        match field? {
            (1, payload) => key = utf8(payload.bytes()?)?.to_owned(),
            (2, payload) => found = Some(value(values, payload, depth)?),
            _ => {}
        }
    }
    // An absent value is the zero value, which normalizing puts in place of null.
    Ok((key, found.unwrap_or(Value::Null)))
}

fn value(place: Place<'_>, payload: Payload<'_>, depth: u32) -> Result<Value, ProtobufError> {
    match place.shape() {
        Shape::Struct(shape) => {
            let mut object = Map::new();
            message(place, &shape.name, payload.bytes()?, &mut object, depth + 1)?;
            Ok(Value::Object(object))
        }
        // Free-form JSON travels as text in field 1.
        Shape::Any => match first(payload.bytes()?)? {
            Some(Payload::Bytes(json)) => serde_json::from_slice(json)
                .map_err(|_| ProtobufError::Damaged("embedded JSON does not parse")),
            _ => Ok(Value::Null),
        },
        Shape::Scalar(scalar) => leaf(*scalar, payload),
        // A list in a map (`extra` of users) travels as a message with its items in field 1.
        Shape::List(_) => {
            let items = place.items().ok_or(ProtobufError::Damaged("a list has no items"))?;
            let mut list = Vec::new();
            for field in Reader::new(payload.bytes()?) {
                if let (1, item) = field? {
                    list.push(value(items, item, depth + 1)?);
                }
            }
            Ok(list.into())
        }
        Shape::Map(_) => Err(ProtobufError::Damaged("a map stands directly in a map")),
    }
}

fn leaf(scalar: Scalar, payload: Payload<'_>) -> Result<Value, ProtobufError> {
    Ok(match scalar {
        Scalar::String => utf8(payload.bytes()?)?.into(),
        Scalar::Bytes => base64(payload.bytes()?).into(),
        Scalar::Int32 | Scalar::Int64 => payload.integer()?.into(),
        Scalar::Boolean => (payload.integer()? != 0).into(),
        Scalar::Number => match payload {
            Payload::Fixed64(bits) => f64::from_bits(bits).into(),
            _ => return Err(ProtobufError::Damaged("a number is none")),
        },
        Scalar::Time | Scalar::MicroTime => time(payload.bytes()?)?,
        Scalar::Quantity => match first(payload.bytes()?)? {
            Some(text) => utf8(text.bytes()?)?.into(),
            None => "0".into(),
        },
        Scalar::IntOrString => int_or_string(payload.bytes()?)?,
    })
}

/// Seconds and nanoseconds; nothing, or the epoch, is a time that was never set.
fn time(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Reader::new(bytes) {
        match field? {
            (1, payload) => seconds = payload.integer()?,
            (2, payload) => nanos = payload.integer()?,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::Damaged("a time is out of range"))?;
    let time =
        Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Damaged("a time is out of range"))?;
    Ok(time.to_string().into())
}

/// Field 1 says which of the others counts: 2 a number, 3 a text.
fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for field in Reader::new(bytes) {
        match field? {
            (1, payload) => is_text = payload.integer()? == 1,
            (2, payload) => number = payload.integer()?,
            (3, payload) => text = utf8(payload.bytes()?)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// Field 1 of a message, if it is there.
fn first(bytes: &[u8]) -> Result<Option<Payload<'_>>, ProtobufError> {
    for field in Reader::new(bytes) {
        let (number, payload) = field?;
        if number == 1 {
            return Ok(Some(payload));
        }
    }
    Ok(None)
}

fn utf8(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Damaged("a text is not UTF-8"))
}

/// Standard alphabet with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = group >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
