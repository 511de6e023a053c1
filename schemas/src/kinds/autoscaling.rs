//! Group `autoscaling`: how many replicas there should be.

use k8s_openapi::api::autoscaling::{v1, v2};

use super::{Kind, STATUS};
use crate::{
    columns::autoscaling as columns,
    forms::autoscaler as form,
    registry::{Descriptor, StoredAs},
};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["hpa"],
            categories: &["all"],
            subresources: &[STATUS],
            columns: columns::horizontal_pod_autoscaler(),
            cells: columns::horizontal_pod_autoscaler_cells,
            ..Kind::of::<v2::HorizontalPodAutoscaler>()
        }
        .describe(),
        Kind {
            short_names: &["hpa"],
            categories: &["all"],
            subresources: &[STATUS],
            columns: columns::horizontal_pod_autoscaler(),
            cells: |object, now| columns::horizontal_pod_autoscaler_cells(&form::stored(object.clone()), now),
            stored_as: Some(StoredAs {
                group: "autoscaling",
                version: "v2",
                store: form::stored,
                serve: form::served,
            }),
            ..Kind::of::<v1::HorizontalPodAutoscaler>()
        }
        .describe(),
    ]
}
