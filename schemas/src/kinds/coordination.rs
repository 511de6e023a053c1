//! Group `coordination.k8s.io`: leases.

use k8s_openapi::api::coordination::v1 as api;

use super::{Kind, schema_of};
use crate::{
    columns,
    registry::{Descriptor, Scope},
};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            group: "coordination.k8s.io",
            kind: "Lease",
            plural: "leases",
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            subresources: &[],
            selectable_fields: &[],
            columns: columns::coordination::lease(),
            cells: columns::coordination::lease_cells,
            schema: schema_of::<api::Lease>,
            has_generation: false,
        }
        .describe(),
    ]
}
