//! Group `storage.k8s.io`: where volumes come from.

use k8s_openapi::api::storage::v1 as api;

use super::Kind;
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["sc"],
            columns: columns::storage::class(),
            cells: columns::storage::class_cells,
            ..Kind::of::<api::StorageClass>()
        }
        .describe(),
    ]
}
