//! Group `admissionregistration.k8s.io`: who has a say in what is stored.

use k8s_openapi::api::admissionregistration::v1 as api;

use super::{Kind, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            categories: &["api-extensions"],
            columns: columns::admission::webhooks(),
            cells: columns::admission::webhooks_cells,
            has_generation: true,
            ..Kind::of::<api::ValidatingWebhookConfiguration>()
        }
        .describe(),
        Kind {
            categories: &["api-extensions"],
            columns: columns::admission::webhooks(),
            cells: columns::admission::webhooks_cells,
            has_generation: true,
            ..Kind::of::<api::MutatingWebhookConfiguration>()
        }
        .describe(),
        Kind {
            categories: &["api-extensions"],
            subresources: &[STATUS],
            columns: columns::admission::policy(),
            cells: columns::admission::policy_cells,
            has_generation: true,
            ..Kind::of::<api::ValidatingAdmissionPolicy>()
        }
        .describe(),
        Kind {
            categories: &["api-extensions"],
            columns: columns::admission::policy_binding(),
            cells: columns::admission::policy_binding_cells,
            has_generation: true,
            ..Kind::of::<api::ValidatingAdmissionPolicyBinding>()
        }
        .describe(),
        Kind {
            categories: &["api-extensions"],
            columns: columns::admission::mutating_policy(),
            cells: columns::admission::mutating_policy_cells,
            has_generation: true,
            ..Kind::of::<api::MutatingAdmissionPolicy>()
        }
        .describe(),
        Kind {
            categories: &["api-extensions"],
            columns: columns::admission::policy_binding(),
            cells: columns::admission::policy_binding_cells,
            has_generation: true,
            ..Kind::of::<api::MutatingAdmissionPolicyBinding>()
        }
        .describe(),
    ]
}
