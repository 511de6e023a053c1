//! The built-in kinds, one module an API group.

mod apps;
mod coordination;
mod core;

use std::borrow::Cow;

use crate::{
    registry::{Cells, Column, Descriptor, SchemaOf, Scope, Subresource},
    schema::Compiled,
};

/// A descriptor for every built-in kind.
pub fn all() -> Vec<Descriptor> {
    [core::all(), apps::all(), coordination::all()].concat()
}

/// The verbs of a `status` subresource.
const STATUS: Subresource =
    Subresource { name: Cow::Borrowed("status"), carries: None, verbs: &["get", "patch", "update"] };

/// The `scale` subresource of workloads.
const SCALE: Subresource = Subresource {
    name: Cow::Borrowed("scale"),
    carries: Some(("autoscaling", "v1", "Scale")),
    verbs: &["get", "patch", "update"],
};

/// The JSON schema of a `k8s-openapi` type.
fn schema_of<K: schemars::JsonSchema>() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<K>().into()
}

/// What a kind's module states; the rest follows from Kubernetes' naming rules.
struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    scope: Scope,
    subresources: &'static [Subresource],
    selectable_fields: &'static [&'static str],
    columns: Vec<Column>,
    cells: Cells,
    schema: SchemaOf,
    has_generation: bool,
}

impl Kind {
    fn describe(self) -> Descriptor {
        let borrowed =
            |names: &'static [&'static str]| names.iter().map(|name| Cow::Borrowed(*name)).collect();
        Descriptor {
            group: self.group.into(),
            version: "v1".into(),
            kind: self.kind.into(),
            plural: self.plural.into(),
            singular: self.kind.to_ascii_lowercase().into(),
            short_names: borrowed(self.short_names),
            categories: borrowed(self.categories),
            scope: self.scope,
            subresources: self.subresources.to_vec(),
            selectable_fields: borrowed(self.selectable_fields),
            columns: self.columns,
            cells: self.cells,
            schema: self.schema,
            compiled: Compiled::default(),
            has_generation: self.has_generation,
            builtin: true,
        }
    }
}
