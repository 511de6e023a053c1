//! The built-in kinds, one module an API group.

mod apps;
mod coordination;
mod core;

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::{
    registry::{Cells, Column, Descriptor, SchemaOf, Scope, Subresource},
    schema::Compiled,
};

/// A descriptor for every built-in kind.
pub fn all() -> Vec<Descriptor> {
    [core::all(), apps::all(), coordination::all()].concat()
}

/// A document that is no kind of its own: what subresources carry, and what requests and answers are wrapped in.
#[derive(Clone, Copy)]
pub struct Carried {
    /// Empty for the core group and for `meta/v1`.
    pub group: &'static str,
    /// `v1`
    pub version: &'static str,
    /// `Scale`
    pub kind: &'static str,
    /// Schema source.
    pub schema: SchemaOf,
}

/// The documents that subresources carry.
pub fn carried() -> [Carried; 3] {
    use k8s_openapi::api::{autoscaling::v1::Scale, core::v1::Binding, policy::v1::Eviction};
    [
        Carried { group: "autoscaling", version: "v1", kind: "Scale", schema: schema_of::<Scale> },
        Carried { group: "", version: "v1", kind: "Binding", schema: schema_of::<Binding> },
        Carried { group: "policy", version: "v1", kind: "Eviction", schema: schema_of::<Eviction> },
    ]
}

/// The documents of `meta/v1` that every group uses.
pub fn wrappers() -> [Carried; 3] {
    let of = |kind, schema| Carried { group: "", version: "v1", kind, schema };
    [
        of("DeleteOptions", schema_of::<meta::DeleteOptions> as SchemaOf),
        of("Status", schema_of::<meta::Status>),
        of("ListMeta", schema_of::<meta::ListMeta>),
    ]
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
