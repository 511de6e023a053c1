//! Group `events.k8s.io`: the events of the core group, under the field names that came later.

use k8s_openapi::api::events::v1 as api;

use super::Kind;
use crate::{
    columns, forms,
    registry::{Descriptor, StoredAs},
};

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["ev"],
            selectable_fields: &[
                "reason",
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reportingController",
                "type",
            ],
            columns: columns::core::event(),
            cells: |event, now| columns::core::event_cells(&forms::event::stored(event.clone()), now),
            stored_as: Some(StoredAs {
                group: "",
                version: "v1",
                store: forms::event::stored,
                serve: forms::event::served,
            }),
            ..Kind::of::<api::Event>()
        }
        .describe(),
    ]
}
