//! Group `apps`: workloads that keep pods running.

use k8s_openapi::api::apps::v1 as api;

use super::{Kind, SCALE, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["rs"],
            categories: &["all"],
            subresources: &[STATUS, SCALE],
            selectable_fields: &["status.replicas"],
            columns: columns::apps::replica_set(),
            cells: columns::apps::replica_set_cells,
            cells_read: columns::apps::WORKLOAD_READ,
            has_generation: true,
            ..Kind::of::<api::ReplicaSet>()
        }
        .describe(),
        Kind {
            short_names: &["deploy"],
            categories: &["all"],
            subresources: &[STATUS, SCALE],
            columns: columns::apps::deployment(),
            cells: columns::apps::deployment_cells,
            cells_read: columns::apps::WORKLOAD_READ,
            has_generation: true,
            ..Kind::of::<api::Deployment>()
        }
        .describe(),
        Kind {
            short_names: &["ds"],
            categories: &["all"],
            subresources: &[STATUS],
            columns: columns::apps::daemon_set(),
            cells: columns::apps::daemon_set_cells,
            has_generation: true,
            ..Kind::of::<api::DaemonSet>()
        }
        .describe(),
        Kind {
            short_names: &["sts"],
            categories: &["all"],
            subresources: &[STATUS, SCALE],
            columns: columns::apps::stateful_set(),
            cells: columns::apps::stateful_set_cells,
            has_generation: true,
            ..Kind::of::<api::StatefulSet>()
        }
        .describe(),
        Kind {
            columns: columns::apps::controller_revision(),
            cells: columns::apps::controller_revision_cells,
            ..Kind::of::<api::ControllerRevision>()
        }
        .describe(),
    ]
}
