//! What expressions build to change an object: `Object{spec: Object.spec{replicas: 3}}`, which is laid over it, and
//! `JSONPatch{op: "add", path: "/a", value: 1}`, of which lists are.
//!
//! Source: "CEL" in the Kubernetes documentation "Mutating Admission Policy".

use std::rc::Rc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube_cel::cel::Value as Cel;
use serde_json::{Map, Value};

use super::{
    budget::{BYTES_PER_UNIT, Budget},
    eval::Failure,
    value::Val,
};

/// The type of an object that is laid over another. Parts of it are `Object.` and the way to them.
pub(super) const OBJECT: &str = "Object";
/// The type of one operation of a JSON patch.
pub(super) const PATCH: &str = "JSONPatch";

/// A structure that an expression wrote out, by the name of its type.
#[derive(Clone, Debug)]
pub(super) struct Built<'a> {
    pub type_name: Rc<str>,
    pub fields: Rc<Vec<(Rc<str>, Val<'a>)>>,
}

impl<'a> Built<'a> {
    pub fn field(&self, name: &str) -> Option<&Val<'a>> {
        self.fields.iter().find(|(own, _)| &**own == name).map(|(_, value)| value)
    }
}

/// Whether a type is one of those that can be built.
pub(super) fn is_type(name: &str) -> bool {
    name == PATCH || name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether a type has a field. What an object may have, the schema of its kind will say.
pub(super) fn has_field(type_name: &str, field: &str) -> bool {
    type_name != PATCH || matches!(field, "op" | "path" | "from" | "value")
}

/// The object that is to be laid over another.
pub(super) fn object(value: &Val<'_>, budget: &Budget) -> Result<Value, Failure> {
    match value {
        Val::Built(built) if &*built.type_name == OBJECT => {
            check_names(value, OBJECT)?;
            json(value, budget)
        }
        _ => Err(Failure::Error("unsupported return type from ApplyConfiguration expression".to_owned())),
    }
}

/// The operations of a JSON patch.
pub(super) fn patch(value: &Val<'_>, budget: &Budget) -> Result<Value, Failure> {
    let operations = value.items().filter(|_| matches!(value, Val::List(_)));
    let operations =
        operations.ok_or_else(|| mismatch("JSONPatchType.expression should evaluate to array"))?;
    operations.iter().map(|one| operation(one, budget)).collect()
}

fn operation(value: &Val<'_>, budget: &Budget) -> Result<Value, Failure> {
    let Val::Built(built) = value else {
        return Err(mismatch("JSONPatchType.expression should evaluate to array of JSONPatch"));
    };
    if &*built.type_name != PATCH {
        return Err(mismatch("JSONPatchType.expression should evaluate to array of JSONPatch"));
    }
    let mut operation = Map::new();
    for (name, value) in &*built.fields {
        if &**name == "value" {
            if let Val::Built(inner) = value {
                check_names(value, &inner.type_name)?;
            }
        } else if value.as_text().is_none() {
            return Err(Failure::Error(format!("unexpected type for JSONPatchType '{name}' field")));
        }
        operation.insert(name.to_string(), json(value, budget)?);
    }
    Ok(operation.into())
}

fn mismatch(why: &str) -> Failure {
    Failure::Error(format!("type mismatch: {why}"))
}

/// Each structure must be of the type that belongs to its place. Lists and maps between them have no names.
fn check_names(value: &Val<'_>, expected: &str) -> Result<(), Failure> {
    match value {
        Val::Built(built) if &*built.type_name != expected => Err(mismatch(&format!(
            "unexpected type name \"{}\", expected \"{expected}\", which matches field name path from root Object type",
            built.type_name
        ))),
        Val::Built(built) => built
            .fields
            .iter()
            .try_for_each(|(name, value)| check_names(value, &format!("{expected}.{name}"))),
        Val::List(items) => items.iter().try_for_each(|item| check_names(item, expected)),
        Val::Map(entries) => entries.iter().try_for_each(|(_, value)| check_names(value, expected)),
        _ => Ok(()),
    }
}

/// A value as JSON has it.
fn json(value: &Val<'_>, budget: &Budget) -> Result<Value, Failure> {
    budget.charge(1 + value.as_text().map_or(0, |text| text.len() as u64 / BYTES_PER_UNIT))?;
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(value) => (*value).into(),
        Val::Int(number) => (*number).into(),
        Val::Uint(number) => (*number).into(),
        Val::Double(number) => serde_json::Number::from_f64(*number)
            .ok_or_else(|| Failure::Error(format!("{number} is no number in JSON")))?
            .into(),
        Val::Text(text) => text.as_ref().as_ref().into(),
        Val::Array(..) | Val::List(_) => value
            .items()
            .unwrap_or_default()
            .iter()
            .map(|item| json(item, budget))
            .collect::<Result<_, _>>()?,
        Val::Object(..) | Val::Map(_) => {
            let keys = value.items().unwrap_or_default();
            keys.iter().map(|key| entry(value, key, budget)).collect::<Result<Map<_, _>, _>>()?.into()
        }
        Val::Built(built) => {
            let field = |(name, value): &(Rc<str>, Val<'_>)| Ok((name.to_string(), json(value, budget)?));
            built.fields.iter().map(field).collect::<Result<Map<_, _>, Failure>>()?.into()
        }
        Val::Foreign(Cel::Bytes(bytes)) => STANDARD.encode(&**bytes).into(),
        Val::Foreign(Cel::Timestamp(time)) => time.to_rfc3339().replace("+00:00", "Z").into(),
        Val::Optional(_) | Val::Authorizer(_) | Val::Foreign(_) => {
            return Err(Failure::Error("a value has no form in JSON".to_owned()));
        }
    })
}

fn entry(map: &Val<'_>, key: &Val<'_>, budget: &Budget) -> Result<(String, Value), Failure> {
    let name = key.as_text().ok_or_else(|| Failure::Error("map keys must be strings".to_owned()))?;
    let value = map.at(key)?.unwrap_or(Val::Null);
    Ok((name.to_owned(), json(&value, budget)?))
}

/// A key as it is written in the path of a JSON patch.
pub(super) fn escaped_key(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
