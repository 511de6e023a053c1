//! Clients that stand for election, and act only while they hold the lease. Their wall clocks disagree by years.

use std::{sync::Arc, time::Duration};

use claw_e2e::{dice::Dice, warp::Warp};
use claw_runtime::lease::Election;

use super::{
    net::{Wire, client},
    world::World,
};

const NAMESPACE: &str = "default";
/// The lease they want.
const LEASE: &str = "one-at-a-time";

/// Between two acts of a leader.
const ACT: Duration = Duration::from_millis(300);

/// Stands until its host crashes.
pub async fn run(world: Arc<World>, name: String, wire: Wire, dice: Dice) -> turmoil::Result {
    let env = Warp::env(Duration::from_secs(dice.below(100_000_000)), 1);
    let election = Election::new(&client(wire, &name), env, NAMESPACE, LEASE, &name);
    let work = |leadership: claw_runtime::Leadership, term: tokio_util::sync::CancellationToken| {
        let (world, name) = (world.clone(), name.clone());
        async move {
            while !term.is_cancelled() {
                if leadership.is_held() {
                    act(&world, &name, leadership.epoch());
                }
                let _ = tokio::time::timeout(ACT, term.cancelled()).await;
            }
        }
    };
    election.lead(tokio_util::sync::CancellationToken::new(), work).await;
    Ok(())
}

/// Whoever acts under an old epoch, or under another's, acts beside somebody.
fn act(world: &World, name: &str, epoch: u64) {
    let before = world.note(|notes| notes.acted.insert(LEASE.to_owned(), (epoch, name.to_owned())));
    let Some((last, who)) = before else { return };
    if last > epoch || last == epoch && who != name {
        world.violated(format!("{name} acted under epoch {epoch} after {who} had acted under {last}"));
    }
}
