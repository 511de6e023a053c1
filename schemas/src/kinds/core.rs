//! The core group: namespaces, nodes, pods, configuration, events, services, volumes, limits.

use std::borrow::Cow;

use k8s_openapi::api::core::v1 as api;

use super::{Kind, SCALE, STATUS};
use crate::{
    columns,
    registry::{Descriptor, Subresource},
};

const LOG: Subresource = Subresource { name: Cow::Borrowed("log"), carries: None, verbs: &["get"] };
const BINDING: Subresource =
    Subresource { name: Cow::Borrowed("binding"), carries: Some(("", "v1", "Binding")), verbs: &["create"] };
const EVICTION: Subresource = Subresource {
    name: Cow::Borrowed("eviction"),
    carries: Some(("policy", "v1", "Eviction")),
    verbs: &["create"],
};

/// Containers that come to a pod after it was made.
const EPHEMERAL: Subresource = Subresource {
    name: Cow::Borrowed("ephemeralcontainers"),
    carries: None,
    verbs: &["get", "patch", "update"],
};

const OF_PODS: &[Subresource] = &[
    STATUS,
    EPHEMERAL,
    LOG,
    opened("attach", "PodAttachOptions"),
    opened("exec", "PodExecOptions"),
    opened("portforward", "PodPortForwardOptions"),
    BINDING,
    EVICTION,
];

const TOKEN: Subresource = Subresource {
    name: Cow::Borrowed("token"),
    carries: Some(("authentication.k8s.io", "v1", "TokenRequest")),
    verbs: &["create"],
};
const FINALIZE: Subresource =
    Subresource { name: Cow::Borrowed("finalize"), carries: None, verbs: &["update"] };

/// What is opened instead of read: by GET for WebSockets, by POST for SPDY.
const fn opened(name: &'static str, carried: &'static str) -> Subresource {
    let carries = Some(("", "v1", carried));
    Subresource { name: Cow::Borrowed(name), carries, verbs: &["create", "get"] }
}

pub(super) fn all() -> Vec<Descriptor> {
    vec![
        Kind {
            short_names: &["ns"],
            subresources: &[STATUS, FINALIZE],
            selectable_fields: &["status.phase"],
            columns: columns::core::namespace(),
            cells: columns::core::namespace_cells,
            ..Kind::of::<api::Namespace>()
        }
        .describe(),
        Kind {
            short_names: &["no"],
            subresources: &[STATUS],
            selectable_fields: &["spec.unschedulable"],
            columns: columns::node::node(),
            cells: columns::node::node_cells,
            cells_read: columns::node::NODE_READ,
            ..Kind::of::<api::Node>()
        }
        .describe(),
        Kind {
            short_names: &["po"],
            categories: &["all"],
            subresources: OF_PODS,
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
            cells_read: columns::pod::POD_READ,
            has_generation: true,
            ..Kind::of::<api::Pod>()
        }
        .describe(),
        Kind {
            short_names: &["cm"],
            columns: columns::core::config_map(),
            cells: columns::core::config_map_cells,
            cells_read: columns::core::CONFIG_MAP_READ,
            ..Kind::of::<api::ConfigMap>()
        }
        .describe(),
        Kind {
            selectable_fields: &["type"],
            columns: columns::core::secret(),
            cells: columns::core::secret_cells,
            cells_read: columns::core::SECRET_READ,
            ..Kind::of::<api::Secret>()
        }
        .describe(),
        Kind {
            short_names: &["ev"],
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
            ..Kind::of::<api::Event>()
        }
        .describe(),
        Kind {
            short_names: &["svc"],
            categories: &["all"],
            subresources: &[STATUS],
            selectable_fields: &["spec.clusterIP", "spec.type"],
            columns: columns::service::service(),
            cells: columns::service::service_cells,
            ..Kind::of::<api::Service>()
        }
        .describe(),
        Kind {
            short_names: &["ep"],
            columns: columns::service::endpoints(),
            cells: columns::service::endpoints_cells,
            ..Kind::of::<api::Endpoints>()
        }
        .describe(),
        Kind {
            short_names: &["sa"],
            subresources: &[TOKEN],
            columns: columns::core::service_account(),
            cells: columns::core::service_account_cells,
            ..Kind::of::<api::ServiceAccount>()
        }
        .describe(),
        Kind {
            short_names: &["quota"],
            subresources: &[STATUS],
            columns: columns::core::resource_quota(),
            cells: columns::core::resource_quota_cells,
            ..Kind::of::<api::ResourceQuota>()
        }
        .describe(),
        Kind {
            short_names: &["limits"],
            columns: columns::core::limit_range(),
            cells: columns::core::limit_range_cells,
            ..Kind::of::<api::LimitRange>()
        }
        .describe(),
        Kind {
            short_names: &["pv"],
            subresources: &[STATUS],
            columns: columns::storage::volume(),
            cells: columns::storage::volume_cells,
            ..Kind::of::<api::PersistentVolume>()
        }
        .describe(),
        Kind {
            short_names: &["pvc"],
            subresources: &[STATUS],
            columns: columns::storage::claim(),
            cells: columns::storage::claim_cells,
            ..Kind::of::<api::PersistentVolumeClaim>()
        }
        .describe(),
        Kind {
            columns: columns::core::pod_template(),
            cells: columns::core::pod_template_cells,
            ..Kind::of::<api::PodTemplate>()
        }
        .describe(),
        Kind {
            short_names: &["rc"],
            categories: &["all"],
            subresources: &[STATUS, SCALE],
            selectable_fields: &["status.replicas"],
            columns: columns::apps::replica_set(),
            cells: columns::apps::replica_set_cells,
            has_generation: true,
            ..Kind::of::<api::ReplicationController>()
        }
        .describe(),
    ]
}
