//! Group `coordination.k8s.io`: leases.

use k8s_openapi::api::coordination::v1 as api;

use super::Kind;
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            columns: columns::coordination::lease(),
            cells: columns::coordination::lease_cells,
            ..Kind::of::<api::Lease>()
        }
        .describe(),
    ]
}
