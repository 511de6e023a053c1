//! Group `autoscaling`: how many replicas there should be.

use k8s_openapi::api::autoscaling::v2 as api;

use super::{Kind, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["hpa"],
            categories: &["all"],
            subresources: &[STATUS],
            columns: columns::autoscaling::horizontal_pod_autoscaler(),
            cells: columns::autoscaling::horizontal_pod_autoscaler_cells,
            ..Kind::of::<api::HorizontalPodAutoscaler>()
        }
        .describe(),
    ]
}
