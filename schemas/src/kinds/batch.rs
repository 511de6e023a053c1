//! Group `batch`: pods that run to an end, once or by the clock.

use k8s_openapi::api::batch::v1 as api;

use super::{Kind, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            categories: &["all"],
            subresources: &[STATUS],
            selectable_fields: &["status.successful"],
            columns: columns::batch::job(),
            cells: columns::batch::job_cells,
            has_generation: true,
            ..Kind::of::<api::Job>()
        }
        .describe(),
        Kind {
            short_names: &["cj"],
            categories: &["all"],
            subresources: &[STATUS],
            columns: columns::batch::cron_job(),
            cells: columns::batch::cron_job_cells,
            has_generation: true,
            ..Kind::of::<api::CronJob>()
        }
        .describe(),
    ]
}
