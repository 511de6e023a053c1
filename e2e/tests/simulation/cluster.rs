//! The hosts that make pods run: controllers, of which one leads, and node agents whose containers only pretend.

use std::sync::Arc;

use claw_controllers::Options;
use claw_e2e::{dice::Dice, warp::Warp};
use claw_nodeagent::{Agent, AgentConfig, runtime::hollow::Hollow};
use claw_schemas::quantity::Quantity;
use tokio_util::sync::CancellationToken;

use super::net::{Wire, client, node_link};

/// What pods compete for.
pub const GPU: &str = "example.com/gpu";

/// How many of it a node has: four nodes have just enough for all pods, so that who counts wrongly gives away too many.
const GPUS: i128 = 3;

/// All controllers, while their host leads. Their wall clocks disagree by hours.
pub async fn controllers(name: String, dice: Dice) -> turmoil::Result {
    let env = Warp::env(std::time::Duration::from_secs(dice.below(100_000)), 1);
    let options = Options { elect_as: Some(name.clone()), ..Options::default() };
    claw_controllers::run(client(Wire::Http2, &name), env, options, CancellationToken::new()).await;
    Ok(())
}

/// One agent. A host that crashes loses its containers.
pub async fn node(name: String) -> turmoil::Result {
    let mut config = AgentConfig::new(&name);
    config.capacity.insert(GPU.to_owned(), Quantity::from_units(GPUS));
    let client = client(Wire::Http2, &name);
    Agent::run(config, node_link(), client, Arc::new(Hollow::new()), CancellationToken::new()).await?;
    Ok(())
}
