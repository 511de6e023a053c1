//! What the scheduler writes to claims: allocations before a pod is bound, and taking back those that are of no use.
//!
//! Every write is for the revision that the decision was made on, or looks again.

use claw_client::{ApiError, Client, request::PatchKind};
use claw_schemas::status::Reason;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use serde_json::{Value, json};

use super::claims::{CONSUMERS_MAX, ClaimKey};
use crate::resource_claims::PROTECTION;

/// How often to look again at a claim that others reserve at the same time.
const RESERVE_ATTEMPTS_MAX: usize = 8;

/// What a pod is given by one claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub key: ClaimKey,
    pub uid: String,
    pub version: String,
    pub is_protected: bool,
    /// Its devices; `None` where it has some, and is only to be reserved.
    pub allocation: Option<AllocationResult>,
}

/// An allocation that is to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub key: ClaimKey,
    pub uid: String,
    pub version: String,
}

/// Allocates or reserves a claim for a pod. Gives its revision then.
///
/// # Errors
/// When the claim has changed, or the server refuses.
pub async fn grant(client: &Client, grant: &Grant, pod_name: &str, pod_uid: &str) -> Result<u64, ApiError> {
    let consumer = ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod_name.to_owned(),
        uid: pod_uid.to_owned(),
    };
    match &grant.allocation {
        Some(allocation) => allocate(client, grant, allocation, consumer).await,
        None => reserve(client, grant, consumer).await,
    }
}

async fn allocate(
    client: &Client,
    grant: &Grant,
    allocation: &AllocationResult,
    consumer: ResourceClaimConsumerReference,
) -> Result<u64, ApiError> {
    let claims = client.namespaced::<ResourceClaim>(&grant.key.0);
    let mut version = grant.version.clone();
    if !grant.is_protected {
        let metadata = json!({"uid": grant.uid, "resourceVersion": version, "finalizers": [PROTECTION]});
        let patch = json!({"metadata": metadata});
        let claim = claims.patch(&grant.key.1, None, PatchKind::Strategic, &patch).await?;
        version = claim.metadata.resource_version.unwrap_or_default();
    }
    let status = json!({"allocation": allocation, "reservedFor": [consumer]});
    let patch = guarded(&grant.uid, &version, &status);
    claims
        .patch(&grant.key.1, Some("status"), PatchKind::Merge, &patch)
        .await
        .map(|claim| revision_of(&claim))
}

/// Adds the pod to those that use a claim which has devices already.
async fn reserve(
    client: &Client,
    grant: &Grant,
    consumer: ResourceClaimConsumerReference,
) -> Result<u64, ApiError> {
    let claims = client.namespaced::<ResourceClaim>(&grant.key.0);
    let mut last = ApiError::new(Reason::Conflict, "the claim changes all the time");
    for _ in 0..RESERVE_ATTEMPTS_MAX {
        let claim = claims.get(&grant.key.1).await?;
        let status = claim.status.clone().unwrap_or_default();
        let mut consumers = status.reserved_for.unwrap_or_default();
        if consumers.iter().any(|one| one.uid == consumer.uid) {
            return Ok(revision_of(&claim));
        }
        let is_usable = claim.metadata.uid.as_deref() == Some(&grant.uid)
            && claim.metadata.deletion_timestamp.is_none()
            && status.allocation.is_some()
            && consumers.len() < CONSUMERS_MAX;
        if !is_usable {
            return Err(ApiError::new(Reason::Conflict, "the claim cannot be reserved any more"));
        }
        consumers.push(consumer.clone());
        let version = claim.metadata.resource_version.unwrap_or_default();
        let patch = guarded(&grant.uid, &version, &json!({"reservedFor": consumers}));
        match claims.patch(&grant.key.1, Some("status"), PatchKind::Merge, &patch).await {
            Ok(claim) => return Ok(revision_of(&claim)),
            Err(error) if error.reason == Reason::Conflict => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Takes an allocation back that is of no use to anybody.
///
/// # Errors
/// When the claim has changed, or the server refuses.
pub async fn release(client: &Client, release: &Release) -> Result<(), ApiError> {
    let claims = client.namespaced::<ResourceClaim>(&release.key.0);
    let patch = guarded(&release.uid, &release.version, &json!({"allocation": null, "reservedFor": null}));
    claims.patch(&release.key.1, Some("status"), PatchKind::Merge, &patch).await.map(drop)
}

/// The revision of a claim as it is now, after a write of which nobody knows how it ended.
pub async fn revision(client: &Client, key: &ClaimKey) -> Option<u64> {
    let claim = client.namespaced::<ResourceClaim>(&key.0).get(&key.1).await.ok()?;
    Some(revision_of(&claim))
}

fn guarded(uid: &str, version: &str, status: &Value) -> Value {
    json!({"metadata": {"uid": uid, "resourceVersion": version}, "status": status})
}

fn revision_of(claim: &ResourceClaim) -> u64 {
    claim.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
