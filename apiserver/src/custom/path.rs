//! Paths to one field, as definitions write them: `.spec.replicas`.

use serde_json::{Map, Value};

/// A path of field names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldPath(Vec<String>);

impl FieldPath {
    /// Parses `.a.b`; `None` for anything but names with dots before them.
    pub fn parse(text: &str) -> Option<Self> {
        let names: Vec<String> = text.strip_prefix('.')?.split('.').map(str::to_owned).collect();
        let sound = |name: &String| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        };
        names.iter().all(sound).then_some(Self(names))
    }

    /// The names, outermost first.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// With dots between the names and none before: `spec.replicas`.
    pub fn dotted(&self) -> String {
        self.0.join(".")
    }

    /// The value at the path.
    pub fn get<'v>(&self, object: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(object, |value, name| value.get(name)).filter(|value| !value.is_null())
    }

    /// Sets the value at the path, making what leads there. False when something else is in the way.
    pub fn set(&self, object: &mut Value, value: Value) -> bool {
        let Some((last, parents)) = self.0.split_last() else { return false };
        let mut at = object;
        for name in parents {
            let Some(fields) = at.as_object_mut() else { return false };
            at = fields.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
        }
        let Some(fields) = at.as_object_mut() else { return false };
        fields.insert(last.clone(), value);
        true
    }

    /// What a schema says about the place.
    pub fn in_schema<'s>(&self, schema: &'s Value) -> Option<&'s Value> {
        self.0.iter().try_fold(schema, |schema, name| schema["properties"].get(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_names_one_field() {
        let path = FieldPath::parse(".spec.a-b").unwrap();
        assert_eq!(path.dotted(), "spec.a-b");
        let mut object = json!({"spec": {"x": 1}});
        assert_eq!(path.get(&object), None);
        assert!(path.set(&mut object, json!(3)));
        assert_eq!(path.get(&object), Some(&json!(3)));
        assert!(!FieldPath::parse(".spec.x.y").unwrap().set(&mut object, json!(1)));
        for broken in ["", "spec", ".", ".a..b", ".a[0]", ".a.b.", ".a b"] {
            assert_eq!(FieldPath::parse(broken), None, "{broken}");
        }
    }
}
