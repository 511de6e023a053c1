//! How a value at a place is taken apart, and how the items of a list are told apart.

use claw_schemas::schema::{Key, Ownership, Place};
use serde_json::Value;

use super::element::{Element, Leaf};

/// Where a value stands in a schema; `None` where no schema knows it: maps are taken apart there, lists are not.
pub(super) type At<'a> = Option<Place<'a>>;

/// The pieces of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form<'a> {
    /// One piece.
    Leaf,
    /// Fields or entries.
    Fields,
    /// Items that are plain values.
    Values,
    /// Items that are told apart by these fields.
    Items(&'a [Key]),
}

impl<'a> Form<'a> {
    pub fn of(value: &Value, at: At<'a>) -> Self {
        match (value, at.map(Place::ownership)) {
            (Value::Object(_), Some(Ownership::Atomic)) => Self::Leaf,
            (Value::Object(_), _) => Self::Fields,
            (Value::Array(_), Some(Ownership::Set)) => Self::Values,
            (Value::Array(_), Some(Ownership::Items(keys))) => Self::Items(keys),
            _ => Self::Leaf,
        }
    }

    /// The step to an item of a list.
    ///
    /// # Errors
    /// Says why the item cannot be told from others.
    pub fn item(self, item: &Value) -> Result<Element, String> {
        match (self, item) {
            (Self::Items(keys), Value::Object(fields)) => {
                let value = |key: &Key| fields.get(&*key.name).or(key.default.as_ref()).cloned();
                let found: Vec<_> = keys.iter().filter_map(|key| Some((&*key.name, value(key)?))).collect();
                if found.is_empty() {
                    let names: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields {names:?} (and doesn't have default values for any key fields)"
                    ));
                }
                Ok(Element::key(found))
            }
            (Self::Items(_), Value::Null) => {
                Err("associative list with keys may not have a null element".to_owned())
            }
            (Self::Items(_), _) => Err("associative list with keys may not have non-map elements".to_owned()),
            (_, Value::Object(_)) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            (_, Value::Array(_)) => Err("not supported: associative list with lists as elements".to_owned()),
            (_, Value::Null) => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            (_, plain) => Ok(Element::Value(Leaf(plain.clone()))),
        }
    }
}

/// The place under a field or an entry.
pub(super) fn field<'a>(at: At<'a>, name: &str) -> At<'a> {
    at.and_then(|place| place.field(name))
}

/// The place of the items of a list.
pub(super) fn items(at: At<'_>) -> At<'_> {
    at.and_then(Place::items)
}

/// Whether a field is declared by a structure; entries of maps are not.
pub(super) fn declares(at: At<'_>, name: &str) -> bool {
    at.is_some_and(|place| place.declares(name))
}
