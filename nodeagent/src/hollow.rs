//! Hollow nodes: the real agent over a runtime that only pretends, so that one process can be a thousand nodes.

use std::sync::Arc;

use claw_client::{Client, node::NodeLink};
use k8s_openapi::api::core::v1::Taint;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, AgentConfig},
    error::Error,
    runtime::hollow::Hollow,
};

/// Tells hollow nodes from real ones: a label, and the taint that keeps pods off them.
pub const HOLLOW: &str = "clawbernetes.io/hollow";

/// What pods find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Hollow nodes only, so any pod may come.
    Alone,
    /// Nodes that really run pods, too. Only pods that tolerate the taint [`HOLLOW`] come here.
    BesideReal,
}

impl Company {
    fn taints(self) -> Vec<Taint> {
        match self {
            Self::Alone => Vec::new(),
            Self::BesideReal => vec![Taint {
                key: HOLLOW.to_owned(),
                value: Some("true".to_owned()),
                effect: "NoSchedule".to_owned(),
                ..Taint::default()
            }],
        }
    }
}

/// Runs one hollow node for each name until cancelled.
///
/// # Errors
/// When an agent cannot start; the others are stopped then.
pub async fn run(
    names: Vec<String>,
    company: Company,
    link: impl Fn(&str) -> Arc<dyn NodeLink>,
    client: Client,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let cancel = cancel.child_token();
    let mut agents = JoinSet::new();
    for name in names {
        let mut config = AgentConfig::new(&name);
        config.labels.insert(HOLLOW.to_owned(), "true".to_owned());
        config.taints = company.taints();
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
