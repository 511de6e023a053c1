//! `additionalPrinterColumns`: what `kubectl get` shows of custom objects.

use claw_schemas::{
    columns::{age, name_and_age},
    jsonpath::JsonPath,
    registry::{Column, MakeCells},
};
use jiff::Timestamp;
use serde_json::Value;

use crate::validation::{
    common::each,
    faults::{Faults, Path},
};

/// The types a column can have.
const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
/// The formats a column can have, most of which only say how wide a number is.
const FORMATS: [&str; 9] =
    ["int32", "int64", "float", "double", "byte", "date", "date-time", "password", "name"];

/// The rows of one version.
pub(super) struct Columns {
    /// Type and place of each column after the name.
    sources: Vec<(&'static str, JsonPath)>,
}

/// The columns of a version, and what fills them. A column that does not parse was not admitted, and is left out.
pub(super) fn compile(declared: &Value) -> (Vec<Column>, Columns) {
    let mut columns: Vec<Column> = name_and_age().into_iter().take(1).collect();
    let mut sources = Vec::new();
    for column in declared.as_array().into_iter().flatten() {
        let (Some(kind), Some(path)) = (known(&TYPES, &column["type"]), path_of(column)) else { continue };
        let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
        columns.push(Column {
            name: text("name").into(),
            kind,
            format: known(&FORMATS, &column["format"]).unwrap_or_default(),
            description: text("description").into(),
            priority: column["priority"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
        });
        sources.push((kind, path));
    }
    if sources.is_empty() {
        columns.extend(name_and_age().into_iter().skip(1).map(|column| Column { kind: "date", ..column }));
        sources.extend(JsonPath::parse(".metadata.creationTimestamp").map(|path| ("date", path)));
    }
    (columns, Columns { sources })
}

fn path_of(column: &Value) -> Option<JsonPath> {
    JsonPath::parse(column["jsonPath"].as_str()?)
}

fn known(words: &[&'static str], word: &Value) -> Option<&'static str> {
    words.iter().find(|known| word == **known).copied()
}

impl MakeCells for Columns {
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = std::iter::once(object["metadata"]["name"].clone());
        name.chain(
            self.sources
                .iter()
                .map(|(kind, path)| path.first(object).map_or(Value::Null, |value| cell(kind, value, now))),
        )
        .collect()
    }
}

/// A value as its column's type shows it; null where it is of another type.
fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("boolean", Value::Bool(_)) => value.clone(),
        ("number", Value::Number(_)) => value.clone(),
        ("integer", Value::Number(number)) => {
            #[expect(clippy::cast_possible_truncation, reason = "a cell shows whole numbers")]
            let whole = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
            whole.map_or(Value::Null, Value::from)
        }
        ("date", Value::String(_)) => age(value, now).into(),
        _ => Value::Null,
    }
}

/// Judges the columns of a definition.
pub(super) fn validate(columns: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(columns, path, |column, path| {
        let text = |field: &str| column[field].as_str().unwrap_or_default();
        if text("name").is_empty() {
            faults.required(&path.field("name"), "");
        }
        match text("type") {
            "" => faults.required(&path.field("type"), &format!("must be one of {}", TYPES.join(","))),
            ty if TYPES.contains(&ty) => {}
            _ => faults.unsupported(&path.field("type"), &column["type"], &TYPES),
        }
        if !text("format").is_empty() && !FORMATS.contains(&text("format")) {
            faults.unsupported(&path.field("format"), &column["format"], &FORMATS);
        }
        match text("jsonPath") {
            "" => faults.required(&path.field("jsonPath"), ""),
            text if JsonPath::parse(text).is_none() => {
                faults.invalid(&path.field("jsonPath"), &column["jsonPath"], "is an invalid json path");
            }
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_follow_the_types_of_their_columns() {
        let declared = json!([
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Spec", "type": "string", "jsonPath": ".spec.names", "priority": 1},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "On", "type": "boolean", "jsonPath": ".spec.replicas"},
            {"name": "Since", "type": "date", "jsonPath": ".status.since"},
        ]);
        let (columns, cells) = compile(&declared);
        assert_eq!(
            columns.iter().map(|c| (&*c.name, c.priority)).collect::<Vec<_>>(),
            [("Name", 0), ("Replicas", 0), ("Spec", 1), ("Ready", 0), ("On", 0), ("Since", 0)]
        );
        let object = json!({
            "metadata": {"name": "x"},
            "spec": {"replicas": 3, "names": ["a"]},
            "status": {"since": "2026-01-01T00:00:00Z", "conditions": [{"type": "A"}, {"type": "Ready", "status": "True"}]},
        });
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        assert_eq!(
            cells.cells(&object, now),
            json!(["x", 3, "[\"a\"]", "True", null, "60m"]).as_array().unwrap().clone()
        );
        assert_eq!(cells.cells(&json!({}), now), vec![Value::Null; 6]);
    }

    #[test]
    fn without_columns_the_age_is_shown() {
        let (columns, cells) = compile(&Value::Null);
        assert_eq!(
            columns.iter().map(|c| (&*c.name, c.kind)).collect::<Vec<_>>(),
            [("Name", "string"), ("Age", "date")]
        );
        let object = json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(cells.cells(&object, "2026-01-03T00:00:00Z".parse().unwrap()), [json!("x"), json!("2d")]);
    }
}
