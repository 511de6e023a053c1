//! Tells the server which images are on this machine, and keeps room for more.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ContainerImage;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;

/// How often they are looked at when nobody says that they changed: people bring and remove images, too.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often room is made, beside after every pull. kubelet's figure. The server is told anew as often, in case it was
/// set back to an older state.
const ROOM_EVERY: Duration = Duration::from_secs(300);

/// Runs until cancelled; at once over where there never are images.
pub(super) async fn keep(shared: Arc<Shared>, cancel: CancellationToken) {
    let Some(mut changed) = shared.runtime.images_changed() else { return };
    let mut told: Option<Vec<ContainerImage>> = None;
    let mut room_at = Instant::now();
    loop {
        if Instant::now() >= room_at {
            shared.runtime.make_room().await;
            room_at = Instant::now() + ROOM_EVERY;
            told = None;
        }
        changed.mark_unchanged();
        let images = shared.runtime.images().await;
        if told.as_ref() != Some(&images)
            && let Ok(text) = serde_json::to_vec(&json!({ "images": images }))
        {
            shared.outbox.node_status(text);
            told = Some(images);
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
