//! Group `rbac.authorization.k8s.io`: who may do what.

use k8s_openapi::api::rbac::v1 as api;

use super::Kind;
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind { columns: columns::rbac::role(), cells: columns::rbac::role_cells, ..Kind::of::<api::Role>() }
            .describe(),
        Kind {
            columns: columns::rbac::binding(),
            cells: columns::rbac::binding_cells,
            ..Kind::of::<api::RoleBinding>()
        }
        .describe(),
        Kind {
            columns: columns::rbac::role(),
            cells: columns::rbac::role_cells,
            ..Kind::of::<api::ClusterRole>()
        }
        .describe(),
        Kind {
            columns: columns::rbac::binding(),
            cells: columns::rbac::binding_cells,
            ..Kind::of::<api::ClusterRoleBinding>()
        }
        .describe(),
    ]
}
