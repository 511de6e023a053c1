//! OpenAPI 2 as protobuf, for clients that read nothing else (kubectl before 1.27).
//!
//! Source of the field numbers: `openapiv2/OpenAPIv2.proto` of `google/gnostic`; only the parts that a document of
//! ours uses. Extensions travel as YAML text, of which JSON is a subset.

use prost::Message;
use serde_json::Value;

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Properties>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(string, repeated, tag = "6")]
    produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "1")]
    body: Option<BodyParameter>,
    #[prost(message, optional, tag = "2")]
    other: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    r#in: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    r#in: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    r#type: String,
    #[prost(bool, tag = "20")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    r#in: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    r#type: String,
    #[prost(bool, tag = "19")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    response_code: Vec<NamedResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponseValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<SchemaItem>,
}

/// Also `AdditionalPropertiesItem`, whose first field is the same.
#[derive(Clone, PartialEq, Message)]
struct SchemaItem {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
}

/// Also `Definitions`.
#[derive(Clone, PartialEq, Message)]
struct Properties {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<SchemaItem>>,
    #[prost(message, optional, tag = "22")]
    r#type: Option<Strings>,
    #[prost(message, optional, tag = "23")]
    items: Option<ItemsItem>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Properties>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ItemsItem {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

/// Encodes a document that is given as JSON.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let info = &document["info"];
    Document {
        swagger: text(&document["swagger"]),
        info: Some(Info { title: text(&info["title"]), version: text(&info["version"]) }),
        paths: Some(Paths {
            path: entries(&document["paths"])
                .map(|(name, item)| NamedPathItem { name: name.clone(), value: Some(path_item(item)) })
                .collect(),
        }),
        definitions: Some(properties(&document["definitions"])),
    }
    .encode_to_vec()
}

fn path_item(item: &Value) -> PathItem {
    let operation = |method: &str| item.get(method).map(operation);
    PathItem {
        get: operation("get"),
        put: operation("put"),
        post: operation("post"),
        delete: operation("delete"),
        patch: operation("patch"),
        parameters: parameters(&item["parameters"]),
    }
}

fn operation(operation: &Value) -> Operation {
    Operation {
        operation_id: text(&operation["operationId"]),
        produces: texts(&operation["produces"]),
        consumes: texts(&operation["consumes"]),
        parameters: parameters(&operation["parameters"]),
        responses: Some(Responses {
            response_code: entries(&operation["responses"])
                .map(|(code, response)| NamedResponseValue {
                    name: code.clone(),
                    value: Some(ResponseValue {
                        response: Some(Response {
                            description: text(&response["description"]),
                            schema: response.get("schema").map(schema_item),
                        }),
                    }),
                })
                .collect(),
        }),
        vendor_extension: extensions(operation),
    }
}

fn parameters(list: &Value) -> Vec<ParametersItem> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|value| ParametersItem { parameter: Some(parameter(value)) })
        .collect()
}

fn parameter(value: &Value) -> Parameter {
    let (place, name, required) = (text(&value["in"]), text(&value["name"]), value["required"] == true);
    let (description, ty) = (text(&value["description"]), text(&value["type"]));
    let unique_items = value["uniqueItems"] == true;
    let mut other = NonBodyParameter::default();
    match place.as_str() {
        "body" => {
            let schema = value.get("schema").map(schema);
            let body = BodyParameter { name, r#in: place, required, schema };
            return Parameter { body: Some(body), other: None };
        }
        "path" => {
            other.path =
                Some(PathParameter { required, r#in: place, description, name, r#type: ty, unique_items });
        }
        _ => {
            other.query = Some(QueryParameter { r#in: place, description, name, r#type: ty, unique_items });
        }
    }
    Parameter { body: None, other: Some(other) }
}

fn schema(value: &Value) -> Schema {
    Schema {
        reference: text(&value["$ref"]),
        format: text(&value["format"]),
        description: text(&value["description"]),
        required: texts(&value["required"]),
        additional_properties: value.get("additionalProperties").map(|values| Box::new(schema_item(values))),
        r#type: value["type"].as_str().map(|ty| Strings { value: vec![ty.to_owned()] }),
        items: value.get("items").map(|items| ItemsItem { schema: vec![schema(items)] }),
        properties: value.get("properties").map(properties),
        vendor_extension: extensions(value),
    }
}

fn schema_item(value: &Value) -> SchemaItem {
    SchemaItem { schema: Some(Box::new(schema(value))) }
}

fn properties(fields: &Value) -> Properties {
    Properties {
        additional_properties: entries(fields)
            .map(|(name, value)| NamedSchema { name: name.clone(), value: Some(schema(value)) })
            .collect(),
    }
}

fn extensions(value: &Value) -> Vec<NamedAny> {
    entries(value)
        .filter(|(name, _)| name.starts_with("x-"))
        .map(|(name, value)| NamedAny { name: name.clone(), value: Some(Any { yaml: value.to_string() }) })
        .collect()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_encoded_decodes_with_its_extensions_as_yaml() {
        let bytes = encode(&json!({
            "swagger": "2.0",
            "info": {"title": "t", "version": "v"},
            "paths": {"/x": {"patch": {
                "operationId": "patchX",
                "parameters": [{"name": "dryRun", "in": "query", "type": "string"}, {"name": "body", "in": "body", "schema": {"type": "object"}}],
                "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "X"},
            }}},
            "definitions": {"X": {"type": "object", "properties": {
                "list": {"type": "array", "items": {"$ref": "#/definitions/Y"}, "x-kubernetes-patch-merge-key": "name"},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
            }}},
        }));
        let document = Document::decode(bytes.as_slice()).unwrap();
        let patch = document.paths.unwrap().path.remove(0).value.unwrap().patch.unwrap();
        let gvk = patch.vendor_extension[0].value.as_ref().unwrap();
        let gvk: serde_yaml::Value = serde_yaml::from_str(&gvk.yaml).unwrap();
        assert_eq!(gvk["kind"], "X");
        assert_eq!(
            patch.parameters[0]
                .parameter
                .as_ref()
                .unwrap()
                .other
                .as_ref()
                .unwrap()
                .query
                .as_ref()
                .unwrap()
                .name,
            "dryRun"
        );
        let definition = document.definitions.unwrap().additional_properties.remove(0).value.unwrap();
        let fields = definition.properties.unwrap().additional_properties;
        let list = fields[0].value.as_ref().unwrap();
        assert_eq!(list.items.as_ref().unwrap().schema[0].reference, "#/definitions/Y");
        assert_eq!(list.vendor_extension[0].value.as_ref().unwrap().yaml, "\"name\"");
    }
}
