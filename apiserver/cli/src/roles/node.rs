//! `clawbernetes node`: this machine as a node of a cluster elsewhere. It dials out, so it needs no open port.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use claw_nodeagent::{AgentConfig, ContainersConfig};

/// What this machine is as a node; the same for `up` and `node`.
#[derive(Debug, clap::Args)]
pub struct Machine {
    /// Name of the node (default: the host's name)
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Label of the node; may be given several times
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    node_labels: Vec<String>,
}

impl Machine {
    /// What the agent is told.
    pub fn agent_config(&self) -> anyhow::Result<AgentConfig> {
        let name = match &self.node_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        let labels = self.node_labels.iter().map(|label| {
            let pair = label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.with_context(|| format!("--node-label {label}: a label is KEY=VALUE"))
        });
        Ok(AgentConfig { labels: labels.collect::<Result<BTreeMap<_, _>, _>>()?, ..AgentConfig::new(&name) })
    }

    /// Where containers run.
    pub fn containers_config(&self, data_dir: &Path) -> ContainersConfig {
        ContainersConfig::new(data_dir.join("node"))
    }
}

/// The host's name as a node's: lower case, and nothing that a name may not have.
pub fn host_name() -> anyhow::Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name cannot be read")?;
    let name: String = name
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    ensure!(!name.is_empty(), "this host has no name that a node could have; give one with --node-name");
    Ok(name)
}
