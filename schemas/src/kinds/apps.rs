//! Group `apps`: workloads that keep pods running.

use k8s_openapi::api::apps::v1 as api;

use super::{Kind, SCALE, STATUS, schema_of};
use crate::{
    columns,
    registry::{Descriptor, Scope},
};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            group: "apps",
            kind: "ReplicaSet",
            plural: "replicasets",
            short_names: &["rs"],
            categories: &["all"],
            scope: Scope::Namespaced,
            subresources: &[STATUS, SCALE],
            selectable_fields: &["status.replicas"],
            columns: columns::apps::replica_set(),
            cells: columns::apps::replica_set_cells,
            schema: schema_of::<api::ReplicaSet>,
            has_generation: true,
        }
        .describe(),
        Kind {
            group: "apps",
            kind: "Deployment",
            plural: "deployments",
            short_names: &["deploy"],
            categories: &["all"],
            scope: Scope::Namespaced,
            subresources: &[STATUS, SCALE],
            selectable_fields: &[],
            columns: columns::apps::deployment(),
            cells: columns::apps::deployment_cells,
            schema: schema_of::<api::Deployment>,
            has_generation: true,
        }
        .describe(),
    ]
}
