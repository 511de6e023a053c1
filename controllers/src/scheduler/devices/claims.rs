//! ResourceClaims, as far as placing pods goes: what they ask for, what they were given, and who uses them.

use std::sync::Arc;

use claw_runtime::owner;
use k8s_openapi::api::{
    core::v1::{NodeSelectorTerm, Pod},
    resource::v1::{AllocationResult, DeviceClaim, ResourceClaim},
};

use super::inventory::DeviceId;
use crate::{
    resource_claims::PROTECTION,
    scheduler::{filter::matches, model::NodeInfo},
};

/// Namespace and name of a claim.
pub type ClaimKey = (Arc<str>, Arc<str>);

/// Pods that one claim can be reserved for. Kubernetes' figure.
pub const CONSUMERS_MAX: usize = 256;

/// What a pod says of one of its claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodClaim {
    /// It uses this one.
    Named(Arc<str>),
    /// It uses one that is made for it: this one, once somebody made it.
    Made(Option<Arc<str>>),
    /// It was found to need none.
    Unneeded,
}

impl PodClaim {
    /// All that a pod says.
    pub fn of(pod: &Pod) -> Vec<Self> {
        let statuses =
            || pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
        let claims = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let one = |claim: &k8s_openapi::api::core::v1::PodResourceClaim| {
            if let Some(name) = &claim.resource_claim_name {
                return Self::Named(name.as_str().into());
            }
            match statuses().find(|status| status.name == claim.name) {
                None => Self::Made(None),
                Some(status) => match &status.resource_claim_name {
                    Some(name) => Self::Made(Some(name.as_str().into())),
                    None => Self::Unneeded,
                },
            }
        };
        claims.map(one).collect()
    }
}

/// What a claim was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    pub devices: Vec<DeviceId>,
    /// The nodes where it can be used; `None` is everywhere.
    terms: Option<Vec<NodeSelectorTerm>>,
}

impl Allocation {
    /// As the API has it.
    pub fn of(result: &AllocationResult) -> Self {
        let devices = result.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        let ids = devices.map(|device| DeviceId {
            driver: device.driver.as_str().into(),
            pool: device.pool.as_str().into(),
            name: device.device.as_str().into(),
        });
        let selector = result.node_selector.as_ref();
        Self { devices: ids.collect(), terms: selector.map(|selector| selector.node_selector_terms.clone()) }
    }

    /// Whether it can be used on a node.
    pub fn fits(&self, node: &NodeInfo) -> bool {
        self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| matches(term, node)))
    }
}

/// A claim.
#[derive(Clone, Debug)]
pub struct ClaimInfo {
    pub uid: String,
    /// Its revision as it was written, and as a number.
    pub version: String,
    pub revision: u64,
    pub is_deleting: bool,
    /// It has the finalizer that keeps it while it is allocated.
    pub is_protected: bool,
    /// Uid of the pod that it was made for.
    pub owner: Option<String>,
    pub asks: DeviceClaim,
    pub allocation: Option<Allocation>,
    /// Uids of the pods that use it.
    pub reserved_for: Vec<String>,
}

impl ClaimInfo {
    /// As it is stored.
    pub fn new(claim: &ResourceClaim) -> Self {
        let (meta, status) = (&claim.metadata, claim.status.as_ref());
        let version = meta.resource_version.clone().unwrap_or_default();
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            revision: version.parse().unwrap_or(0),
            version,
            is_deleting: meta.deletion_timestamp.is_some(),
            is_protected: meta.finalizers.iter().flatten().any(|one| one == PROTECTION),
            owner: owner::controller_of(meta).map(|owner| owner.uid.clone()),
            asks: claim.spec.devices.clone().unwrap_or_default(),
            allocation: status.and_then(|status| status.allocation.as_ref()).map(Allocation::of),
            reserved_for: status
                .iter()
                .flat_map(|status| status.reserved_for.iter().flatten())
                .map(|consumer| consumer.uid.clone())
                .collect(),
        }
    }

    /// Whether a pod uses it.
    pub fn is_reserved_for(&self, pod_uid: &str) -> bool {
        self.reserved_for.iter().any(|uid| uid == pod_uid)
    }
}

/// The key of a claim.
pub fn key_of(claim: &ResourceClaim) -> ClaimKey {
    let (namespace, name) = (&claim.metadata.namespace, &claim.metadata.name);
    (namespace.as_deref().unwrap_or_default().into(), name.as_deref().unwrap_or_default().into())
}
