//! Tells the claims of pods here whether their devices are ready, in their status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use claw_client::{ApiError, Client};
use claw_schemas::status::Reason;
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaim;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::gpu::{Inventory, device_status, ledger::HeldClaim};

/// How often what pods hold is compared with what was told: as often as GPUs are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// By uid of the claim, why each of its devices is withheld.
type Told = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// Runs until cancelled; at once over where there never are GPUs.
pub(super) async fn keep(shared: Arc<Shared>, client: Client, cancel: CancellationToken) {
    let Some(inventories) = shared.runtime.gpus() else { return };
    let mut told = Told::new();
    loop {
        let present = Arc::clone(&inventories.borrow());
        let held = shared.runtime.held_claims();
        let uids: BTreeSet<&str> = held.iter().map(|claim| claim.uid.as_str()).collect();
        told.retain(|uid, _| uids.contains(uid.as_str()));
        for claim in &held {
            let now = fates(claim, &present);
            if told.get(&claim.uid) != Some(&now) {
                match tell(&client, claim, &present).await {
                    Ok(()) => drop(told.insert(claim.uid.clone(), now)),
                    Err(error) => {
                        tracing::debug!(claim = claim.uid, %error, "a claim is not told of its devices yet")
                    }
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn fates(claim: &HeldClaim, inventory: &Inventory) -> BTreeMap<String, Option<String>> {
    let fate = |uuid: &str| match inventory.get(uuid) {
        Some(gpu) => gpu.withheld.clone(),
        None => Some(String::new()),
    };
    claim.devices.iter().map(|device| (device.uuid.clone(), fate(&device.uuid))).collect()
}

async fn tell(client: &Client, held: &HeldClaim, inventory: &Inventory) -> Result<(), ApiError> {
    // Written down by an agent that did not ask for its place.
    let Some((namespace, name)) = held.place.split_once('/') else { return Ok(()) };
    let claims = client.namespaced::<ResourceClaim>(namespace);
    let Some(mut claim) = claims.find(name).await? else { return Ok(()) };
    let is_it = claim.metadata.uid.as_ref() == Some(&held.uid);
    let Some(status) = claim.status.as_mut().filter(|status| is_it && status.allocation.is_some()) else {
        return Ok(());
    };
    let before = status.devices.clone().unwrap_or_default();
    let Some(devices) = device_status::next(&before, held, inventory, Timestamp::now()) else {
        return Ok(());
    };
    status.devices = Some(devices);
    match claims.update_status(&claim).await {
        // Gone meanwhile, or another's of that name: nothing to tell.
        Err(error) if error.reason == Reason::NotFound => Ok(()),
        written => written.map(drop),
    }
}
