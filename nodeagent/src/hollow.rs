//! Hollow nodes: the real agent over a runtime that only pretends, so that one process can be a thousand nodes.

use std::sync::Arc;

use claw_client::{Client, node::NodeLink};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, AgentConfig},
    error::Error,
    runtime::hollow::Hollow,
};

/// Tells hollow nodes from real ones.
pub const HOLLOW_LABEL: &str = "clawbernetes.io/hollow";

/// Runs one hollow node for each name until cancelled.
///
/// # Errors
/// When an agent cannot start; the others are stopped then.
pub async fn run(
    names: Vec<String>,
    link: impl Fn(&str) -> Arc<dyn NodeLink>,
    client: Client,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let cancel = cancel.child_token();
    let mut agents = JoinSet::new();
    for name in names {
        let mut config = AgentConfig::new(&name);
        config.labels.insert(HOLLOW_LABEL.to_owned(), "true".to_owned());
        let runtime = Arc::new(Hollow::new());
        agents.spawn(Agent::run(config, link(&name), client.clone(), runtime, cancel.clone()));
    }
    let mut first_error = Ok(());
    while let Some(ended) = agents.join_next().await {
        let ended =
            ended.unwrap_or_else(|error| Err(Error::Unsupported(format!("a hollow node failed: {error}"))));
        if ended.is_err() && first_error.is_ok() {
            first_error = ended;
            cancel.cancel();
        }
    }
    first_error
}
