//! Group `policy`: what evictions must leave running.

use k8s_openapi::api::policy::v1 as api;

use super::{Kind, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["pdb"],
            subresources: &[STATUS],
            columns: columns::policy::pod_disruption_budget(),
            cells: columns::policy::pod_disruption_budget_cells,
            has_generation: true,
            ..Kind::of::<api::PodDisruptionBudget>()
        }
        .describe(),
    ]
}
