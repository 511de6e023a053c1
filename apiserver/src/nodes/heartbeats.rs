//! The `Ready` condition of Nodes: `Unknown` when an agent falls silent, what it said last when it is back.
//!
//! Level-triggered: every tick compares what is stored with what should be, and writes only differences.

use std::{sync::Arc, time::Duration};

use claw_schemas::ApiError;
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{hub::Hub, merge, registration, roster::Verdict};

/// Nodes written at a time. When a rack of 1,000 goes dark, this keeps the store's batches full without crowding
/// out everybody else's writes.
const WRITES_AT_A_TIME: usize = 16;

/// The quickest tick, for tests with a short grace period.
const TICK_MIN: Duration = Duration::from_millis(20);

/// Looks after the condition until the hub stops.
pub async fn watch(hub: Arc<Hub>) {
    let mut ticks = interval(hub.heartbeat_interval().max(TICK_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let settled = async {
            ticks.tick().await;
            let now = Instant::now();
            hub.usages.drop_old(now);
            let unsettled = hub.with(|state| {
                state.roster.cut_homeless(now, hub.grace);
                state.roster.unsettled(now, hub.grace)
            });
            stream::iter(unsettled)
                .for_each_concurrent(WRITES_AT_A_TIME, |node| {
                    let hub = &hub;
                    async move {
                        if let Err(error) = settle(hub, &node).await {
                            tracing::warn!(node, %error, "the readiness of a node could not be written, will try again");
                        }
                    }
                })
                .await;
        };
        tokio::select! {
            () = hub.closing.cancelled() => return,
            () = settled => {}
        }
    }
}

async fn settle(hub: &Hub, node: &str) -> Result<(), ApiError> {
    let verdict = || hub.with(|state| state.roster.verdict(node, Instant::now(), hub.grace));
    match verdict() {
        Verdict::Keep => return Ok(()),
        Verdict::Silent => tracing::warn!(node, "the node agent stopped sending heartbeats"),
        Verdict::Back(_) => tracing::info!(node, "the node agent sends heartbeats again"),
    }
    registration::set_ready(hub, node, || match verdict() {
        Verdict::Keep => None,
        Verdict::Silent => {
            Some(merge::ready("Unknown", "NodeStatusUnknown", "the node agent stopped sending heartbeats"))
        }
        Verdict::Back(reported) => Some(reported.unwrap_or_else(registration::connected)),
    })
    .await
}
