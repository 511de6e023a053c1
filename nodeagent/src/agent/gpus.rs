//! Keeps the server's picture of this machine's GPUs current: the ResourceSlice, and an event when one is withheld or
//! comes back. What the Node itself says of them travels with `Hello` (see `session`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_client::{ApiError, Client, request::DeleteOptions};
use claw_schemas::{gpu::slice_name, status::Reason};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Event, EventSource, Node, ObjectReference},
        resource::v1::ResourceSlice,
    },
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Shared, events::COMPONENT};
use crate::gpu::{Gpu, Inventory, health, slice};

/// After the server could not be asked, or does not have the Node yet.
const RETRY: Duration = Duration::from_secs(2);

/// How often the slice is compared with the server's: somebody may have deleted it.
const RESYNC: Duration = Duration::from_secs(60);

/// Runs until cancelled; at once over where there never are GPUs.
pub(super) async fn keep(shared: Arc<Shared>, client: Client, cancel: CancellationToken) {
    let Some(mut inventories) = shared.runtime.gpus() else { return };
    let mut told = inventories.borrow_and_update().clone();
    let mut published: Option<Arc<Inventory>> = None;
    loop {
        let present = Arc::clone(&inventories.borrow_and_update());
        tell_changes(&shared, &told, &present);
        told = Arc::clone(&present);
        let is_news = published.as_ref().is_none_or(|published| !says_the_same(published, &present));
        let mut wait = RESYNC;
        if is_news {
            match publish(&shared.config.node_name, &client, &present).await {
                Ok(()) => published = Some(present),
                Err(error) => {
                    tracing::debug!(%error, "the ResourceSlice is not written yet");
                    wait = RETRY;
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = next(&mut inventories, wait) => match changed {
                Next::Changed => {}
                // A machine without GPUs has nothing that somebody could have deleted.
                Next::Again if told.gpus.is_empty() && published.is_some() => {}
                Next::Again => published = None,
                Next::Over => return,
            }
        }
    }
}

enum Next {
    Changed,
    Again,
    Over,
}

async fn next(inventories: &mut watch::Receiver<Arc<Inventory>>, wait: Duration) -> Next {
    match tokio::time::timeout(wait, inventories.changed()).await {
        Ok(Ok(())) => Next::Changed,
        Ok(Err(_)) => Next::Over,
        Err(_) => Next::Again,
    }
}

/// Whether two inventories make the same slice.
fn says_the_same(one: &Inventory, other: &Inventory) -> bool {
    let owner = OwnerReference::default;
    let (before, now) = (Timestamp::UNIX_EPOCH, Timestamp::now());
    let written = slice::next("", owner(), one, None, before);
    slice::next("", owner(), other, written.as_ref(), now).is_none()
}

async fn publish(node: &str, client: &Client, inventory: &Inventory) -> Result<(), ApiError> {
    let slices = client.all::<ResourceSlice>();
    let before = slices.find(&slice_name(node)).await?;
    if inventory.gpus.is_empty() {
        return match before {
            Some(_) => slices.delete(&slice_name(node), DeleteOptions::default()).await,
            None => Ok(()),
        };
    }
    let owner = client.all::<Node>().get(node).await?;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: owner.metadata.uid.unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let next = slice::next(node, owner, inventory, before.as_ref(), Timestamp::now());
    let Some(slice) = next else { return Ok(()) };
    let written = match before {
        Some(_) => slices.update(&slice).await,
        None => slices.create(&slice).await,
    };
    match written {
        // Written by an earlier run of this agent, just now; the next look sees it.
        Err(error) if error.reason == Reason::AlreadyExists => {
            Err(ApiError::new(Reason::ServiceUnavailable, error.message))
        }
        written => written.map(drop),
    }
}

/// An event on the Node for each GPU whose fate changed, and for each remark that is new.
fn tell_changes(shared: &Shared, before: &Inventory, now: &Inventory) {
    let known: BTreeMap<&str, &Gpu> = before.gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu)).collect();
    for gpu in now.devices() {
        let was = known.get(gpu.uuid.as_str());
        let name = format!("GPU {} ({})", gpu.uuid, gpu.model);
        match (&gpu.withheld, was.and_then(|was| was.withheld.as_ref())) {
            (Some(why), was) if was != Some(why) => {
                tell(shared, "Warning", "GPUWithheld", format!("{name} is not offered to pods: {why}"));
            }
            (None, Some(_)) => {
                tell(shared, "Normal", "GPUOffered", format!("{name} is offered to pods again"))
            }
            _ => {}
        }
        let told = was.map(|was| health::remarks(was)).unwrap_or_default();
        for remark in health::remarks(gpu).into_iter().filter(|remark| !told.contains(remark)) {
            tell(shared, "Warning", "GPURemark", format!("{name}: {remark}"));
        }
    }
}

fn tell(shared: &Shared, type_: &str, reason: &str, message: String) {
    let node = &shared.config.node_name;
    let now = Some(Time(Timestamp::now()));
    let event = Event {
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.clone()),
            // As the kubelet does: `kubectl describe node` looks for it.
            uid: Some(node.clone()),
            ..ObjectReference::default()
        },
        type_: Some(type_.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        first_timestamp: now.clone(),
        last_timestamp: now,
        count: Some(1),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(node.clone()) }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(node.clone()),
        ..Event::default()
    };
    if let Ok(text) = serde_json::to_vec(&event) {
        shared.outbox.event(text);
    }
}
