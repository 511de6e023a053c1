//! Group `metrics.k8s.io`: what nodes and pods use, measured when somebody asks.

use super::Kind;
use crate::{
    columns::metrics as columns,
    metrics::{NodeMetrics, PodMetrics},
    registry::Descriptor,
};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind { columns: columns::usage(), cells: columns::node_cells, ..Kind::of::<NodeMetrics>() }
            .describe(),
        Kind { columns: columns::usage(), cells: columns::pod_cells, ..Kind::of::<PodMetrics>() }.describe(),
    ]
}
