//! Group `resource.k8s.io`: devices such as GPUs, and claims on them.

use k8s_openapi::api::resource::{v1 as api, v1beta2 as beta};

use super::{Kind, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            selectable_fields: &["spec.nodeName", "spec.driver"],
            columns: columns::resource::slice(),
            cells: columns::resource::slice_cells,
            has_generation: true,
            ..Kind::of::<api::ResourceSlice>()
        }
        .describe(),
        Kind { has_generation: true, ..Kind::of::<api::DeviceClass>() }.describe(),
        Kind {
            subresources: &[STATUS],
            columns: columns::resource::claim(),
            cells: columns::resource::claim_cells,
            ..Kind::of::<api::ResourceClaim>()
        }
        .describe(),
        Kind::of::<api::ResourceClaimTemplate>().describe(),
        Kind { subresources: &[STATUS], has_generation: true, ..Kind::of::<beta::DeviceTaintRule>() }
            .describe(),
    ]
}
