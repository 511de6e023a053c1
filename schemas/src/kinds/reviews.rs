//! Groups `authentication.k8s.io` and `authorization.k8s.io`: questions that are asked by creating an object, which is
//! answered and never stored.

use k8s_openapi::api::{authentication::v1 as authentication, authorization::v1 as authorization};

use super::Kind;
use crate::registry::Descriptor;

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind::of::<authentication::SelfSubjectReview>().describe(),
        Kind::of::<authentication::TokenReview>().describe(),
        Kind::of::<authorization::LocalSubjectAccessReview>().describe(),
        Kind::of::<authorization::SelfSubjectAccessReview>().describe(),
        Kind::of::<authorization::SelfSubjectRulesReview>().describe(),
        Kind::of::<authorization::SubjectAccessReview>().describe(),
    ]
}
