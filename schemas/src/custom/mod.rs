//! Kinds of one's own as Rust types: a struct for the `spec`, one for the `status`, and the CustomResourceDefinition that
//! follows from both.
//!
//! ```
//! use claw_schemas::custom::{self, CustomResource, Spec};
//! use k8s_openapi::NamespaceResourceScope;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! /// A model that is kept on fast disks.
//! #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
//! struct ModelSpec {
//!     /// Where it comes from.
//!     source: String,
//!     /// How many copies are kept.
//!     #[serde(default)]
//!     #[schemars(range(max = 10))]
//!     copies: u32,
//! }
//!
//! #[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
//! struct ModelStatus {
//!     copies: u32,
//! }
//!
//! impl Spec for ModelSpec {
//!     const API_VERSION: &'static str = "example.com/v1";
//!     const KIND: &'static str = "Model";
//!     const PLURAL: &'static str = "models";
//!     type Scope = NamespaceResourceScope;
//!     type Status = ModelStatus;
//! }
//!
//! /// Use it like any other kind.
//! type Model = CustomResource<ModelSpec>;
//!
//! let model = Model::new("small", ModelSpec { source: "s3://models/small".into(), copies: 2 });
//! assert_eq!(serde_json::to_value(&model).unwrap()["kind"], "Model");
//! assert_eq!(custom::definition::<ModelSpec>().metadata.name.as_deref(), Some("models.example.com"));
//! ```
//!
//! Must never know: any one kind, or who serves it.

mod builtin;
mod structural;

use std::{any::TypeId, fmt::Debug};

use k8s_openapi::{
    ClusterResourceScope, Metadata, Resource, ResourceScope,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
        CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceStatus,
        CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned, ser::SerializeStruct as _};

/// The `spec` of a kind, and what else makes a kind of it.
pub trait Spec: Serialize + DeserializeOwned + JsonSchema + Clone + Debug + Send + Sync + 'static {
    /// `GROUP/VERSION`; the group is a domain of yours.
    const API_VERSION: &'static str;
    /// In CamelCase, singular.
    const KIND: &'static str;
    /// Lower case; in paths, and on the command line.
    const PLURAL: &'static str;
    /// Other names for the command line.
    const SHORT: &'static [&'static str] = &[];
    /// [`NamespaceResourceScope`](k8s_openapi::NamespaceResourceScope) or [`ClusterResourceScope`].
    type Scope: ResourceScope + 'static;
    /// What a controller says about an object. It is a subresource: writing it changes nothing else.
    type Status: Serialize + DeserializeOwned + JsonSchema + Clone + Debug + Send + Sync + 'static;

    /// What `kubectl get` shows between the name and the age.
    fn columns() -> Vec<CustomResourceColumnDefinition> {
        Vec::new()
    }
}

/// An object of the kind that `S` is the spec of.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "")]
pub struct CustomResource<S: Spec> {
    /// Name, namespace, labels, owners, ...
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// What is, as far as a controller has said so.
    pub status: Option<S::Status>,
}

impl<S: Spec> CustomResource<S> {
    /// One of that name, which nobody has looked at yet. Its namespace is the client's, or set in `metadata`.
    pub fn new(name: &str, spec: S) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { metadata, spec, status: None }
    }
}

impl<S: Spec> Serialize for CustomResource<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut object = serializer.serialize_struct(S::KIND, 5)?;
        object.serialize_field("apiVersion", S::API_VERSION)?;
        object.serialize_field("kind", S::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        match &self.status {
            Some(status) => object.serialize_field("status", status)?,
            None => object.skip_field("status")?,
        }
        object.end()
    }
}

impl<S: Spec> Resource for CustomResource<S> {
    const API_VERSION: &'static str = S::API_VERSION;
    const GROUP: &'static str = group_and_version(S::API_VERSION).0;
    const KIND: &'static str = S::KIND;
    const VERSION: &'static str = group_and_version(S::API_VERSION).1;
    const URL_PATH_SEGMENT: &'static str = S::PLURAL;
    type Scope = S::Scope;
}

impl<S: Spec> Metadata for CustomResource<S> {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Fails to compile where there is no slash: every kind of one's own has a group.
const fn group_and_version(api_version: &'static str) -> (&'static str, &'static str) {
    let bytes = api_version.as_bytes();
    let mut slash = 0;
    while bytes[slash] != b'/' {
        slash += 1;
    }
    let (group, rest) = api_version.split_at(slash);
    (group, rest.split_at(1).1)
}

/// The definition that makes a server serve the kind: one version, with a status, and a schema that follows from the
/// types (documentation comments, `#[serde(default)]` and the constraints of `#[schemars(..)]` included).
///
/// Of Rust's types a schema for Kubernetes can say structs, lists, maps, numbers, strings, options, and enums of unit
/// variants; what others are the server refuses when the definition is made.
///
/// # Panics
/// When a type's own `JsonSchema` is no schema at all.
#[must_use]
pub fn definition<S: Spec>() -> CustomResourceDefinition {
    let (group, version) = group_and_version(S::API_VERSION);
    let namespaced = TypeId::of::<S::Scope>() != TypeId::of::<ClusterResourceScope>();
    let short_names = S::SHORT.iter().map(|&name| name.to_owned()).collect();
    CustomResourceDefinition {
        metadata: ObjectMeta { name: Some(format!("{}.{group}", S::PLURAL)), ..ObjectMeta::default() },
        spec: CustomResourceDefinitionSpec {
            group: group.to_owned(),
            scope: if namespaced { "Namespaced" } else { "Cluster" }.to_owned(),
            names: CustomResourceDefinitionNames {
                kind: S::KIND.to_owned(),
                plural: S::PLURAL.to_owned(),
                singular: Some(S::KIND.to_lowercase()),
                short_names: Some(short_names).filter(|names: &Vec<_>| !names.is_empty()),
                ..CustomResourceDefinitionNames::default()
            },
            versions: vec![served::<S>(version)],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    }
}

/// The one version of a kind.
fn served<S: Spec>(version: &str) -> CustomResourceDefinitionVersion {
    let schema = JSONSchemaProps {
        type_: Some("object".to_owned()),
        required: Some(vec!["spec".to_owned()]),
        properties: Some(
            [("spec", structural::schema_of::<S>()), ("status", structural::schema_of::<S::Status>())]
                .map(|(name, schema)| (name.to_owned(), schema))
                .into(),
        ),
        ..JSONSchemaProps::default()
    };
    let mut columns = S::columns();
    columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    CustomResourceDefinitionVersion {
        name: version.to_owned(),
        served: true,
        storage: true,
        schema: Some(CustomResourceValidation { open_api_v3_schema: Some(schema) }),
        subresources: Some(CustomResourceSubresources {
            status: Some(CustomResourceSubresourceStatus(serde_json::json!({}))),
            scale: None,
        }),
        additional_printer_columns: Some(columns),
        ..CustomResourceDefinitionVersion::default()
    }
}

/// A column of tables; `kind` is `string`, `integer`, `number`, `boolean` or `date`.
#[must_use]
pub fn column(name: &str, kind: &str, json_path: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: kind.to_owned(),
        json_path: json_path.to_owned(),
        ..CustomResourceColumnDefinition::default()
    }
}

/// Whether the server serves the kind: objects made earlier than that may be answered `NotFound`.
#[must_use]
pub fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|found| found.type_ == "Established" && found.status == "True")
}

#[cfg(test)]
mod tests;
