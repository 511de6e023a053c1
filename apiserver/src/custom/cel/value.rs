//! The values of an evaluation: JSON as it stands in the object, typed by the schema beside it, and what expressions make.

use std::{borrow::Cow, collections::HashMap, rc::Rc, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube_cel::cel::{
    Value as Cel,
    objects::{Key, Map, OptionalValue},
};
use serde_json::Value;

use super::{
    authorizer::Question,
    budget::{BYTES_PER_UNIT, Budget, Spent},
    build::Built,
    eval::Failure,
};
use crate::custom::{
    format::{Format, duration_ns},
    node::{Node, Type},
};

/// Words that no CEL identifier can be, so that fields of these names are written between underscores.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Rc<Cow<'a, str>>),
    /// A list in the object, and the schema of its items.
    Array(&'a [Value], Option<&'a Node>),
    List(Rc<Vec<Val<'a>>>),
    /// An object or map in the object, and its schema.
    Object(&'a serde_json::Map<String, Value>, Option<&'a Node>),
    /// Key, value.
    Map(Rc<Vec<(Val<'a>, Val<'a>)>>),
    Optional(Option<Rc<Val<'a>>>),
    /// What is to become of an object.
    Built(Built<'a>),
    /// A question about what somebody may do.
    Authorizer(Rc<Question>),
    /// What only the library knows to handle: times, durations, bytes, quantities, addresses, ...
    Foreign(Cel),
}

impl<'a> Val<'a> {
    /// What stands in an object.
    pub fn of(value: &'a Value, node: Option<&'a Node>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => {
                let double = node.is_some_and(|node| node.ty == Some(Type::Number));
                match number.as_i64().filter(|_| !double) {
                    Some(whole) => Self::Int(whole),
                    None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
                }
            }
            Value::String(text) => formatted(text, node).unwrap_or_else(|| Self::borrowed(text)),
            Value::Array(items) => Self::Array(items, node.and_then(|node| node.items.as_deref())),
            Value::Object(fields) => Self::Object(fields, node),
        }
    }

    pub fn borrowed(text: &'a str) -> Self {
        Self::Text(Rc::new(Cow::Borrowed(text)))
    }

    pub fn text(text: String) -> Self {
        Self::Text(Rc::new(Cow::Owned(text)))
    }

    pub fn optional(value: Option<Self>) -> Self {
        Self::Optional(value.map(Rc::new))
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How many items, entries or letters there are.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Self::Text(text) => text.chars().count(),
            Self::Array(items, _) => items.len(),
            Self::List(items) => items.len(),
            Self::Object(fields, _) => fields.len(),
            Self::Map(entries) => entries.len(),
            Self::Foreign(Cel::Bytes(bytes)) => bytes.len(),
            _ => return None,
        })
    }

    /// What looking at all of it once costs, without what is below.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64 / BYTES_PER_UNIT,
            other => other.size().unwrap_or(1) as u64,
        }
    }

    /// The items of a list, or the keys of a map.
    pub fn items(&self) -> Option<Vec<Self>> {
        Some(match self {
            Self::Array(items, node) => items.iter().map(|item| Self::of(item, *node)).collect(),
            Self::List(items) => (**items).clone(),
            Self::Object(fields, _) => fields.keys().map(|key| Self::borrowed(key)).collect(),
            Self::Map(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
            _ => return None,
        })
    }

    /// A field, by the name that expressions have for it. `None` when it is not there.
    pub fn field(&self, name: &str) -> Result<Option<Self>, Failure> {
        match self {
            Self::Object(fields, node) => {
                // The keys of a map are data and stand for themselves; fields may be escaped.
                let own = if node.is_some_and(|node| node.is_map()) { name.into() } else { unescaped(name) };
                let inner = node.and_then(|node| node.field(&own));
                Ok(fields.get(&*own).map(|value| Self::of(value, inner)))
            }
            Self::Map(entries) => Ok(entries
                .iter()
                .find(|(key, _)| key.as_text() == Some(name))
                .map(|(_, value)| value.clone())),
            Self::Built(built) => Ok(built.field(name).cloned()),
            Self::Authorizer(question) => question.field(name).map(Some),
            _ => Err(Failure::overload("_._")),
        }
    }

    /// The value under a key or at an index. `None` when it is not there.
    pub fn at(&self, index: &Self) -> Result<Option<Self>, Failure> {
        let place = match index {
            Self::Int(index) => usize::try_from(*index).ok(),
            Self::Uint(index) => usize::try_from(*index).ok(),
            Self::Double(index) if index.fract() == 0.0 && *index >= 0.0 => Some(*index as usize),
            _ => None,
        };
        match (self, index) {
            (Self::Array(items, node), Self::Int(_) | Self::Uint(_) | Self::Double(_)) => {
                Ok(place.and_then(|place| items.get(place)).map(|item| Self::of(item, *node)))
            }
            (Self::List(items), Self::Int(_) | Self::Uint(_) | Self::Double(_)) => {
                Ok(place.and_then(|place| items.get(place)).cloned())
            }
            (Self::Object(fields, node), Self::Text(key)) => {
                let inner = node.and_then(|node| node.field(key));
                Ok(fields.get(&***key).map(|value| Self::of(value, inner)))
            }
            (Self::Map(entries), key) => {
                Ok(entries.iter().find(|(own, _)| own.same_scalar(key)).map(|(_, value)| value.clone()))
            }
            _ => Err(Failure::overload("_[_]")),
        }
    }

    fn same_scalar(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            _ => self.number().zip(other.number()).is_some_and(|(a, b)| a == b),
        }
    }

    /// The value of a number, for comparison with numbers of other types.
    #[expect(clippy::cast_precision_loss, reason = "CEL compares numbers of different types as doubles")]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Uint(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether two values are equal, at every depth.
    pub fn equals(&self, other: &Self, budget: &Budget) -> Result<bool, Spent> {
        budget.charge(1 + self.as_text().map_or(0, |text| text.len() as u64 / BYTES_PER_UNIT))?;
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Uint(a), Self::Uint(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, budget)?,
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::Foreign(a), Self::Foreign(b)) => a == b,
            (Self::Built(a), Self::Built(b)) => {
                let same = a.type_name == b.type_name && a.fields.len() == b.fields.len();
                for (name, value) in a.fields.iter().filter(|_| same) {
                    match b.field(name) {
                        Some(other) if value.equals(other, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                same
            }
            (Self::Array(..) | Self::List(_), Self::Array(..) | Self::List(_)) => {
                if self.size() != other.size() {
                    return Ok(false);
                }
                let (a, b) = (self.items().unwrap_or_default(), other.items().unwrap_or_default());
                for (a, b) in a.iter().zip(&b) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Object(..) | Self::Map(_), Self::Object(..) | Self::Map(_)) => {
                if self.size() != other.size() {
                    return Ok(false);
                }
                for key in self.items().unwrap_or_default() {
                    budget.charge(1)?;
                    let (a, b) = (self.at(&key).ok().flatten(), other.at(&key).ok().flatten());
                    let same = match a.zip(b) {
                        Some((a, b)) => a.equals(&b, budget)?,
                        None => false,
                    };
                    if !same {
                        return Ok(false);
                    }
                }
                true
            }
            _ => self.same_scalar(other),
        })
    }

    /// The value as the library has it.
    pub fn to_cel(&self, budget: &Budget) -> Result<Cel, Spent> {
        budget.charge(1 + self.weight())?;
        let list = |items: Vec<Self>| -> Result<Cel, Spent> {
            let items: Result<Vec<_>, _> = items.iter().map(|item| item.to_cel(budget)).collect();
            Ok(Cel::List(Arc::new(items?)))
        };
        Ok(match self {
            Self::Null | Self::Authorizer(_) | Self::Built(_) => Cel::Null,
            Self::Bool(value) => Cel::Bool(*value),
            Self::Int(value) => Cel::Int(*value),
            Self::Uint(value) => Cel::UInt(*value),
            Self::Double(value) => Cel::Float(*value),
            Self::Text(text) => Cel::String(Arc::new(text.to_string())),
            Self::Foreign(value) => value.clone(),
            Self::Optional(None) => Cel::Opaque(Arc::new(OptionalValue::none())),
            Self::Optional(Some(value)) => Cel::Opaque(Arc::new(OptionalValue::of(value.to_cel(budget)?))),
            Self::Array(..) | Self::List(_) => list(self.items().unwrap_or_default())?,
            Self::Object(..) | Self::Map(_) => {
                let mut map = HashMap::new();
                for key in self.items().unwrap_or_default() {
                    let value = self.at(&key).ok().flatten().unwrap_or(Self::Null);
                    if let Some(key) = key.to_key() {
                        map.insert(key, value.to_cel(budget)?);
                    }
                }
                Cel::Map(Map { map: Arc::new(map) })
            }
        })
    }

    fn to_key(&self) -> Option<Key> {
        Some(match self {
            Self::Text(text) => Key::String(Arc::new(text.to_string())),
            Self::Int(number) => Key::Int(*number),
            Self::Uint(number) => Key::Uint(*number),
            Self::Bool(value) => Key::Bool(*value),
            _ => return None,
        })
    }

    /// What the library gave.
    pub fn from_cel(value: Cel, budget: &Budget) -> Result<Self, Spent> {
        budget.charge(1)?;
        Ok(match value {
            Cel::Null => Self::Null,
            Cel::Bool(value) => Self::Bool(value),
            Cel::Int(value) => Self::Int(value),
            Cel::UInt(value) => Self::Uint(value),
            Cel::Float(value) => Self::Double(value),
            Cel::String(text) => {
                budget.charge(text.len() as u64 / BYTES_PER_UNIT)?;
                Self::text(Arc::unwrap_or_clone(text))
            }
            Cel::List(items) => {
                let items: Result<Vec<_>, _> =
                    items.iter().map(|item| Self::from_cel(item.clone(), budget)).collect();
                Self::List(Rc::new(items?))
            }
            Cel::Map(map) => {
                let entry = |(key, value): (&Key, &Cel)| {
                    let key = match key {
                        Key::Int(number) => Self::Int(*number),
                        Key::Uint(number) => Self::Uint(*number),
                        Key::Bool(value) => Self::Bool(*value),
                        Key::String(text) => Self::text(text.to_string()),
                    };
                    Ok((key, Self::from_cel(value.clone(), budget)?))
                };
                let entries: Result<Vec<_>, _> = map.map.iter().map(entry).collect();
                Self::Map(Rc::new(entries?))
            }
            Cel::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
                Some(optional) => {
                    let value =
                        optional.value().cloned().map(|value| Self::from_cel(value, budget)).transpose()?;
                    Self::optional(value)
                }
                None => Self::Foreign(Cel::Opaque(opaque)),
            },
            other => Self::Foreign(other),
        })
    }
}

/// Text that its schema gives a type beyond text. Text that does not have the format stays what it is.
fn formatted<'a>(text: &str, node: Option<&Node>) -> Option<Val<'a>> {
    let call = |name: &str, text: String| super::functions::constructed(name, text).map(Val::Foreign);
    match node?.demands.format? {
        Format::DateTime => call("timestamp", text.to_owned()),
        Format::Date => call("timestamp", format!("{text}T00:00:00Z")),
        Format::Duration => call("duration", format!("{}ns", duration_ns(text)?)),
        Format::Byte => Some(Val::Foreign(Cel::Bytes(Arc::new(STANDARD.decode(text).ok()?)))),
        _ => None,
    }
}

/// The field that an identifier stands for.
pub(super) fn unescaped(name: &str) -> Cow<'_, str> {
    if !name.contains("__") {
        return name.into();
    }
    let word = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"));
    if let Some(word) = word.filter(|word| RESERVED.contains(word)) {
        return word.into();
    }
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("__") {
        plain += &rest[..at];
        let escape = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")]
            .into_iter()
            .find(|(escape, _)| rest[at..].starts_with(escape));
        let (escape, letters) = escape.unwrap_or(("__", "__"));
        plain += letters;
        rest = &rest[at + escape.len()..];
    }
    plain += rest;
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_stand_for_fields() {
        for (name, field) in [
            ("plain_name", "plain_name"),
            ("__namespace__", "namespace"),
            ("a__dash__b__dot__c__slash__d", "a-b.c/d"),
            ("a__underscores__b", "a__b"),
            ("__other__", "__other__"),
        ] {
            assert_eq!(unescaped(name), field);
        }
    }
}
