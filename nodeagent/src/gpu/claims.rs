//! What the claims of a pod have on this machine, as the server says.

use claw_schemas::gpu::{DRIVER, tolerates};
use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaim},
    resource::v1::{DeviceRequestAllocationResult, ResourceClaim},
};

use super::{
    Inventory,
    ledger::{ClaimedDevice, HeldClaim},
    slice,
};
use crate::runtime::Sources;

/// Whether a pod uses claims.
pub fn has_some(pod: &Pod) -> bool {
    wanted(pod).next().is_some()
}

/// What they have: all of them, or an error.
///
/// # Errors
/// What is not ready yet, in words.
pub async fn of(pod: &Pod, sources: &Sources, inventory: &Inventory) -> Result<Vec<HeldClaim>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut all = Vec::new();
    for claim in wanted(pod) {
        let Some(name) = name_of(pod, claim)? else { continue };
        let found = sources.claim(namespace, &name).await.map_err(|error| error.to_string())?;
        let found = found.ok_or_else(|| format!("ResourceClaim {namespace}/{name} not found"))?;
        all.push(held(pod, &claim.name, &found, inventory)?);
    }
    Ok(all)
}

fn wanted(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten())
}

/// The claim itself; `None` where it was found that none is needed.
fn name_of(pod: &Pod, claim: &PodResourceClaim) -> Result<Option<String>, String> {
    if claim.resource_claim_name.is_some() {
        return Ok(claim.resource_claim_name.clone());
    }
    let mut made = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    match made.find(|status| status.name == claim.name) {
        Some(status) => Ok(status.resource_claim_name.clone()),
        None => Err(format!("ResourceClaim for {}: ResourceClaim not created yet", claim.name)),
    }
}

fn held(pod: &Pod, name: &str, claim: &ResourceClaim, inventory: &Inventory) -> Result<HeldClaim, String> {
    let meta = &claim.metadata;
    let place = format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    );
    let status = claim.status.clone().unwrap_or_default();
    let allocation =
        status.allocation.ok_or_else(|| format!("ResourceClaim {place} is not allocated yet"))?;
    let consumers = status.reserved_for.unwrap_or_default();
    if !consumers.iter().any(|one| Some(&one.uid) == pod.metadata.uid.as_ref()) {
        return Err(format!(
            "the pod is not allowed to use ResourceClaim {place}: it is not reserved for it"
        ));
    }
    let results = allocation.devices.and_then(|devices| devices.results).unwrap_or_default();
    let devices = results.iter().map(|result| device(result, inventory)).collect::<Result<_, _>>();
    Ok(HeldClaim {
        name: name.to_owned(),
        uid: meta.uid.clone().unwrap_or_default(),
        devices: devices.map_err(|why| format!("ResourceClaim {place}: {why}"))?,
        place,
    })
}

fn device(result: &DeviceRequestAllocationResult, inventory: &Inventory) -> Result<ClaimedDevice, String> {
    let DeviceRequestAllocationResult { driver, pool, device, request, .. } = result;
    if driver != DRIVER {
        return Err(format!("DRA driver {driver} is not registered on this node"));
    }
    let tolerations = result.tolerations.clone().unwrap_or_default();
    let gpu = inventory.gpus.iter().find(|gpu| gpu.uuid.eq_ignore_ascii_case(device));
    let gpu = gpu.ok_or_else(|| format!("device {device} of pool {pool} is not on this machine"))?;
    Ok(ClaimedDevice {
        request: request.clone(),
        id: format!("{driver}/{pool}/{device}"),
        uuid: gpu.uuid.clone(),
        puts_up: gpu.fault.as_ref().is_some_and(|fault| tolerates(&tolerations, &slice::taint(fault))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::gpu::Gpu;

    fn told(status: Value) -> Result<HeldClaim, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "p"}})).unwrap();
        let claim =
            json!({"metadata": {"name": "c", "namespace": "d", "uid": "u"}, "spec": {}, "status": status});
        let gpu = Gpu { uuid: "GPU-A".to_owned(), ..Gpu::default() };
        let inventory = Inventory { gpus: vec![gpu], ..Inventory::default() };
        held(&pod, "mine", &serde_json::from_value(claim).unwrap(), &inventory)
    }

    fn given(driver: &str, device: &str, to: &str) -> Value {
        let result = json!({"request": "gpu", "driver": driver, "pool": "n", "device": device});
        json!({
            "allocation": {"devices": {"results": [result]}},
            "reservedFor": [{"resource": "pods", "name": "x", "uid": to}],
        })
    }

    #[test]
    fn a_claim_that_is_allocated_to_the_pod_names_gpus_of_this_machine() {
        let held = told(given(DRIVER, "gpu-a", "p")).unwrap();
        assert_eq!((held.name.as_str(), held.uid.as_str(), held.place.as_str()), ("mine", "u", "d/c"));
        assert_eq!(held.devices[0].uuid, "GPU-A");
        assert_eq!(held.devices[0].id, format!("{DRIVER}/n/gpu-a"));
    }

    #[test]
    fn a_fault_is_put_up_with_by_who_tolerates_its_taint() {
        let with = |tolerations: Value| -> DeviceRequestAllocationResult {
            let result = json!({"request": "gpu", "driver": DRIVER, "pool": "n", "device": "gpu-a", "tolerations": tolerations});
            serde_json::from_value(result).unwrap()
        };
        let mut gpu = Gpu { uuid: "GPU-A".to_owned(), ..Gpu::default() };
        gpu.withhold(crate::gpu::health::Fault::lost());
        let inventory = Inventory { gpus: vec![gpu], ..Inventory::default() };
        let puts_up = |tolerations| device(&with(tolerations), &inventory).unwrap().puts_up;
        assert!(puts_up(json!([{"key": "gpu.clawbernetes.io/lost", "operator": "Exists"}])));
        assert!(!puts_up(json!([{"key": "gpu.clawbernetes.io/ecc", "operator": "Exists"}])));
        assert!(!puts_up(json!([])));
    }

    #[test]
    fn whatever_is_not_ready_is_named() {
        for (status, why) in [
            (json!({}), "ResourceClaim d/c is not allocated yet"),
            (given(DRIVER, "gpu-a", "another"), "it is not reserved for it"),
            (given(DRIVER, "gpu-b", "p"), "device gpu-b of pool n is not on this machine"),
            (given("gpu.example.com", "gpu-a", "p"), "DRA driver gpu.example.com is not registered"),
        ] {
            let error = told(status).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_pod_knows_its_claims_by_name_or_from_its_status() {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [], "resourceClaims": [
                {"name": "a", "resourceClaimName": "x"}, {"name": "b", "resourceClaimTemplateName": "t"},
                {"name": "c", "resourceClaimTemplateName": "t"}, {"name": "d", "resourceClaimTemplateName": "t"},
            ]},
            "status": {"resourceClaimStatuses": [{"name": "b", "resourceClaimName": "y"}, {"name": "c"}]},
        }))
        .unwrap();
        let names: Vec<_> = wanted(&pod).map(|claim| name_of(&pod, claim)).collect();
        assert_eq!(names[..3], [Ok(Some("x".to_owned())), Ok(Some("y".to_owned())), Ok(None)]);
        assert!(names[3].as_ref().unwrap_err().contains("not created yet"));
    }
}
