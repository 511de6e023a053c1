//! Group `certificates.k8s.io`: requests for certificates, and who approved them.

use std::borrow::Cow;

use k8s_openapi::api::certificates::v1 as api;

use super::{Kind, STATUS};
use crate::{
    columns,
    registry::{Descriptor, Subresource},
};

/// Approving is a right of its own, so it has a path of its own; it carries the whole request.
const APPROVAL: Subresource =
    Subresource { name: Cow::Borrowed("approval"), carries: None, verbs: &["get", "patch", "update"] };

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["csr"],
            subresources: &[STATUS, APPROVAL],
            selectable_fields: &["spec.signerName"],
            columns: columns::certificates::signing_request(),
            cells: columns::certificates::signing_request_cells,
            ..Kind::of::<api::CertificateSigningRequest>()
        }
        .describe(),
    ]
}
