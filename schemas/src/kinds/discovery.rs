//! Group `discovery.k8s.io`: where the pods behind a service are.

use k8s_openapi::api::discovery::v1 as api;

use super::Kind;
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            columns: columns::service::endpoint_slice(),
            cells: columns::service::endpoint_slice_cells,
            has_generation: true,
            ..Kind::of::<api::EndpointSlice>()
        }
        .describe(),
    ]
}
