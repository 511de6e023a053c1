//! Group `apiextensions.k8s.io`: definitions of kinds that arrive at run time.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as api;

use super::{Kind, STATUS};
use crate::{columns, registry::Descriptor};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["crd", "crds"],
            categories: &["api-extensions"],
            subresources: &[STATUS],
            columns: columns::apiextensions::definition(),
            cells: columns::apiextensions::definition_cells,
            has_generation: true,
            ..Kind::of::<api::CustomResourceDefinition>()
        }
        .describe(),
    ]
}
