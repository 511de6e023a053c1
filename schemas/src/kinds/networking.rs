//! Group `networking.k8s.io`: who may talk to whom, how the outside gets in, which addresses are taken.

use k8s_openapi::api::networking::v1 as api;

use super::{Kind, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["netpol"],
            columns: columns::networking::network_policy(),
            cells: columns::networking::network_policy_cells,
            has_generation: true,
            ..Kind::of::<api::NetworkPolicy>()
        }
        .describe(),
        Kind {
            short_names: &["ing"],
            subresources: &[STATUS],
            columns: columns::networking::ingress(),
            cells: columns::networking::ingress_cells,
            has_generation: true,
            ..Kind::of::<api::Ingress>()
        }
        .describe(),
        Kind {
            columns: columns::networking::ingress_class(),
            cells: columns::networking::ingress_class_cells,
            has_generation: true,
            ..Kind::of::<api::IngressClass>()
        }
        .describe(),
        Kind {
            short_names: &["ip"],
            columns: columns::networking::ip_address(),
            cells: columns::networking::ip_address_cells,
            ..Kind::of::<api::IPAddress>()
        }
        .describe(),
    ]
}
