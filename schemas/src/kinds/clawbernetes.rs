//! Group `clawbernetes.io`: what Kubernetes has no kind for.

use super::{Kind, STATUS};
use crate::{api, columns, custom::Spec as _, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: api::KernelJobSpec::SHORT,
            categories: &["all"],
            subresources: &[STATUS],
            columns: columns::clawbernetes::kernel_job(),
            cells: columns::clawbernetes::kernel_job_cells,
            cells_read: columns::clawbernetes::KERNEL_JOB_READ,
            has_generation: true,
            ..Kind::of::<api::KernelJob>()
        }
        .describe(),
    ]
}
