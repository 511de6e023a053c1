//! Kinds that show the objects of another kind under other names: what a served object is stored as, and the way back.
//!
//! Nothing is lost either way: what one form has no field for, it keeps where Kubernetes keeps it.
//!
//! Must never know: who asks, and how objects are stored.

pub mod autoscaler;
pub mod event;

use serde_json::{Map, Value};

/// Moves fields of an object to other names; what is not there stays away.
fn renamed<'n>(object: &mut Map<String, Value>, names: impl Iterator<Item = (&'n str, &'n str)>) {
    let moved: Vec<(String, Value)> =
        names.filter_map(|(from, to)| Some((to.to_owned(), object.remove(from)?))).collect();
    object.extend(moved);
}

/// Sets a field that has a value, and removes one that has none.
fn put(object: &mut Value, field: &str, value: Option<Value>) {
    match value {
        Some(value) => object[field] = value,
        None => {
            if let Some(fields) = object.as_object_mut() {
                fields.remove(field);
            }
        }
    }
}
