//! The built-in kinds, one module an API group.

mod admission;
mod apiextensions;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod clawbernetes;
mod coordination;
mod core;
mod discovery;
mod events;
mod metrics;
mod networking;
mod policy;
mod rbac;
mod resource;
mod reviews;
mod scheduling;
mod storage;

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope, Resource, apimachinery::pkg::apis::meta::v1 as meta,
};

use crate::{
    columns,
    registry::{Cells, CellsOf, Column, Descriptor, SchemaOf, SchemaSource, Scope, StoredAs, Subresource},
    schema::Compiled,
};

/// A descriptor for every built-in kind.
pub fn all() -> Vec<Descriptor> {
    [
        core::all(),
        admission::all(),
        apiextensions::all(),
        apps::all(),
        autoscaling::all(),
        batch::all(),
        certificates::all(),
        clawbernetes::all(),
        coordination::all(),
        discovery::all(),
        events::all(),
        networking::all(),
        policy::all(),
        rbac::all(),
        resource::all(),
        scheduling::all(),
        storage::all(),
    ]
    .concat()
}

/// Kinds that are created, answered, and never stored: no registry has them.
pub fn reviews() -> &'static [Descriptor] {
    static ALL: LazyLock<Vec<Descriptor>> = LazyLock::new(reviews::all);
    &ALL
}

/// Kinds that are measured when somebody reads them, and never stored: no registry has them.
pub fn measured() -> &'static [Arc<Descriptor>] {
    static ALL: LazyLock<Vec<Arc<Descriptor>>> =
        LazyLock::new(|| metrics::all().into_iter().map(Arc::new).collect());
    &ALL
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
pub fn carried() -> [Carried; 4] {
    use k8s_openapi::api::{
        authentication::v1::TokenRequest, autoscaling::v1::Scale, core::v1::Binding, policy::v1::Eviction,
    };
    [
        Carried {
            group: "authentication.k8s.io",
            version: "v1",
            kind: "TokenRequest",
            schema: schema_of::<TokenRequest>,
        },
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
pub(crate) fn schema_of<K: schemars::JsonSchema>() -> serde_json::Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<K>().into()
}

/// Where the type itself says that its objects live.
trait Placed {
    const SCOPE: Scope;
}

impl Placed for NamespaceResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

impl Placed for ClusterResourceScope {
    const SCOPE: Scope = Scope::Cluster;
}

/// What a kind's module states; the rest follows from its type and from Kubernetes' naming rules.
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    scope: Scope,
    subresources: &'static [Subresource],
    selectable_fields: &'static [&'static str],
    columns: Vec<Column>,
    cells: CellsOf,
    cells_read: &'static [&'static str],
    schema: SchemaOf,
    has_generation: bool,
    stored_as: Option<StoredAs>,
}

impl Kind {
    /// A kind as its type describes it, without anything of its own: complete it with `..Kind::of::<T>()`.
    fn of<T>() -> Self
    where
        T: Resource + schemars::JsonSchema,
        T::Scope: Placed,
    {
        Self {
            group: T::GROUP,
            version: T::VERSION,
            kind: T::KIND,
            plural: T::URL_PATH_SEGMENT,
            short_names: &[],
            categories: &[],
            scope: T::Scope::SCOPE,
            subresources: &[],
            selectable_fields: &[],
            columns: columns::name_and_age(),
            cells: columns::name_and_age_cells,
            cells_read: &[],
            schema: schema_of::<T>,
            has_generation: false,
            stored_as: None,
        }
    }

    fn describe(self) -> Descriptor {
        let borrowed =
            |names: &'static [&'static str]| names.iter().map(|name| Cow::Borrowed(*name)).collect();
        Descriptor {
            group: self.group.into(),
            version: self.version.into(),
            kind: self.kind.into(),
            plural: self.plural.into(),
            singular: self.kind.to_ascii_lowercase().into(),
            short_names: borrowed(self.short_names),
            categories: borrowed(self.categories),
            scope: self.scope,
            subresources: self.subresources.to_vec(),
            selectable_fields: borrowed(self.selectable_fields),
            columns: self.columns,
            cells: Cells::Builtin(self.cells),
            cells_read: borrowed(self.cells_read),
            schema: SchemaSource::Builtin(self.schema),
            compiled: Compiled::default(),
            has_generation: self.has_generation,
            builtin: true,
            stored_as: self.stored_as,
        }
    }
}
