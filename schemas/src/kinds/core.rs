//! The core group: namespaces, nodes, pods, configuration, events.

use std::borrow::Cow;

use k8s_openapi::api::core::v1 as api;

use super::{Kind, STATUS, schema_of};
use crate::{
    columns,
    registry::{Descriptor, Scope, Subresource},
};

const LOG: Subresource = Subresource { name: Cow::Borrowed("log"), carries: None, verbs: &["get"] };
const BINDING: Subresource =
    Subresource { name: Cow::Borrowed("binding"), carries: Some(("", "v1", "Binding")), verbs: &["create"] };
const EVICTION: Subresource = Subresource {
    name: Cow::Borrowed("eviction"),
    carries: Some(("policy", "v1", "Eviction")),
    verbs: &["create"],
};

const FINALIZE: Subresource =
    Subresource { name: Cow::Borrowed("finalize"), carries: None, verbs: &["update"] };

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            group: "",
            kind: "Namespace",
            plural: "namespaces",
            short_names: &["ns"],
            categories: &[],
            scope: Scope::Cluster,
            subresources: &[STATUS, FINALIZE],
            selectable_fields: &["status.phase"],
            columns: columns::core::namespace(),
            cells: columns::core::namespace_cells,
            schema: schema_of::<api::Namespace>,
            has_generation: false,
        }
        .describe(),
        Kind {
            group: "",
            kind: "Node",
            plural: "nodes",
            short_names: &["no"],
            categories: &[],
            scope: Scope::Cluster,
            subresources: &[STATUS],
            selectable_fields: &["spec.unschedulable"],
            columns: columns::node::node(),
            cells: columns::node::node_cells,
            schema: schema_of::<api::Node>,
            has_generation: false,
        }
        .describe(),
        Kind {
            group: "",
            kind: "Pod",
            plural: "pods",
            short_names: &["po"],
            categories: &["all"],
            scope: Scope::Namespaced,
            subresources: &[STATUS, LOG, BINDING, EVICTION],
            selectable_fields: &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            columns: columns::pod::pod(),
            cells: columns::pod::pod_cells,
            schema: schema_of::<api::Pod>,
            has_generation: true,
        }
        .describe(),
        Kind {
            group: "",
            kind: "ConfigMap",
            plural: "configmaps",
            short_names: &["cm"],
            categories: &[],
            scope: Scope::Namespaced,
            subresources: &[],
            selectable_fields: &[],
            columns: columns::core::config_map(),
            cells: columns::core::config_map_cells,
            schema: schema_of::<api::ConfigMap>,
            has_generation: false,
        }
        .describe(),
        Kind {
            group: "",
            kind: "Secret",
            plural: "secrets",
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            subresources: &[],
            selectable_fields: &["type"],
            columns: columns::core::secret(),
            cells: columns::core::secret_cells,
            schema: schema_of::<api::Secret>,
            has_generation: false,
        }
        .describe(),
        Kind {
            group: "",
            kind: "Event",
            plural: "events",
            short_names: &["ev"],
            categories: &[],
            scope: Scope::Namespaced,
            subresources: &[],
            selectable_fields: &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            columns: columns::core::event(),
            cells: columns::core::event_cells,
            schema: schema_of::<api::Event>,
            has_generation: false,
        }
        .describe(),
    ]
}
