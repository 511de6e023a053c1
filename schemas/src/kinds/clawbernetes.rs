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
        Kind {
            short_names: api::DeviceCheckSpec::SHORT,
            subresources: &[STATUS],
            columns: columns::clawbernetes::device_check(),
            cells: columns::clawbernetes::device_check_cells,
            cells_read: columns::clawbernetes::DEVICE_CHECK_READ,
            has_generation: true,
            ..Kind::of::<api::DeviceCheck>()
        }
        .describe(),
        Kind {
            short_names: api::DevicePolicySpec::SHORT,
            subresources: &[STATUS],
            columns: columns::clawbernetes::device_policy(),
            cells: columns::clawbernetes::device_policy_cells,
            has_generation: true,
            ..Kind::of::<api::DevicePolicy>()
        }
        .describe(),
    ]
}
