//! The schema of a kind that the server itself knows, written as the schemas of Kubernetes' own types are: types by name, and of
//! what may be absent only that it is not required.
//!
//! Must never know: any one kind.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{
    JsonSchema, Schema, SchemaGenerator, json_schema,
    transform::{RecursiveTransform, Transform as _},
};
use serde_json::{Value, json};

use super::{CustomResource, Spec, group_and_version};

impl<S: Spec> JsonSchema for CustomResource<S> {
    /// The group backwards, the version and the kind.
    fn schema_name() -> Cow<'static, str> {
        let (group, version) = group_and_version(S::API_VERSION);
        let group: Vec<&str> = group.split('.').rev().collect();
        format!("{}.{version}.{}", group.join("."), S::KIND).into()
    }

    /// What the spec says of itself is what the kind is.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let metadata = field::<ObjectMeta>(generator, "Name, namespace, labels, owners.");
        let spec = field::<S>(generator, "What is wanted.");
        let status = field::<S::Status>(generator, "What is, as far as a controller has said so.");
        let types = generator.definitions_mut();
        for of in types.values_mut().filter_map(|of| <&mut Schema>::try_from(of).ok()) {
            RecursiveTransform(plain).transform(of);
        }
        let description = types.get(&*S::schema_name()).map(|spec| &spec["description"]);
        json_schema!({
            "description": description,
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string", "description": "Group and version of the schema of this object."},
                "kind": {"type": "string", "description": "What this object is."},
                "metadata": metadata,
                "spec": spec,
                "status": status,
            },
            "required": ["metadata", "spec"],
        })
    }
}

fn field<T: JsonSchema>(generator: &mut SchemaGenerator, description: &str) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    schema.insert("description".to_owned(), description.into());
    schema
}

/// Null counts as absent everywhere, unknown fields are found by the server, and it fills in defaults.
fn plain(schema: &mut Schema) {
    schema.remove("default");
    if schema.get("additionalProperties").is_some_and(Value::is_boolean) {
        schema.remove("additionalProperties");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_mut_slice() {
            let only = only.take();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(mut all)) = schema.remove("anyOf") else { return };
    all.retain(|one| *one != json!({"type": "null"}));
    if let [Value::Object(only)] = all.as_slice() {
        only.iter().for_each(|(key, value)| drop(schema.insert(key.clone(), value.clone())));
    } else {
        schema.insert("anyOf".to_owned(), all.into());
    }
}
