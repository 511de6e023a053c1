//! Group `scheduling.k8s.io`: which pods come first.

use k8s_openapi::api::scheduling::v1 as api;

use super::Kind;
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["pc"],
            columns: columns::scheduling::priority_class(),
            cells: columns::scheduling::priority_class_cells,
            has_generation: true,
            ..Kind::of::<api::PriorityClass>()
        }
        .describe(),
    ]
}
