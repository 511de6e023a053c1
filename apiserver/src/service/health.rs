//! What can be told about the health of the server, check by check, and figures about what it holds.
//!
//! Must never know: paths, or who asks.

use std::{collections::BTreeMap, time::Duration};

use claw_schemas::ApiError;

use super::{ObjectService, errors};
use crate::{backup::Pieces, metrics::Text, store::Key};

/// How long the store may take to answer that it would commit: ten times what a busy disk takes for a batch. Whoever
/// waits for the health of a server gives up after a few seconds.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// One thing that can be well or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The server answers.
    Ping,
    /// The one who commits answers, and the disk took what it was given last.
    Store,
    /// The kinds that are defined are served.
    Definitions,
    /// Sessions of nodes are served.
    Nodes,
    /// The server has started, and is not asked to stop.
    Shutdown,
}

impl Check {
    /// What tells that a process need not be restarted.
    pub const LIVE: &[Self] = &[Self::Ping, Self::Store];
    /// What tells that requests should be sent here.
    pub const READY: &[Self] = &[Self::Ping, Self::Store, Self::Definitions, Self::Nodes, Self::Shutdown];

    /// Its name in paths and texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Store => "store",
            Self::Definitions => "definitions",
            Self::Nodes => "nodes",
            Self::Shutdown => "shutdown",
        }
    }
}

impl ObjectService {
    /// Makes a check.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::Ping => Ok(()),
            Check::Store => self.check_store().await,
            Check::Definitions if self.follows_definitions() => Ok(()),
            Check::Definitions => Err("the definitions of custom kinds cannot be followed".to_owned()),
            // Before there is a hub, nobody can have a session.
            Check::Nodes if self.node_streams.get().is_none_or(|streams| streams.is_open()) => Ok(()),
            Check::Nodes => Err("sessions of nodes are closed".to_owned()),
            Check::Shutdown if self.is_ready() => Ok(()),
            Check::Shutdown => Err("the server is starting or shutting down".to_owned()),
        }
    }

    /// A transaction without writes waits for its turn like every other, and is refused when others would be.
    async fn check_store(&self) -> Result<(), String> {
        match tokio::time::timeout(STORE_LIMIT, self.store.commit(Vec::new())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_LIMIT.as_secs())),
        }
    }

    /// All figures about the server.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn write_metrics(&self, text: &mut Text) -> Result<(), ApiError> {
        self.metrics.write(text);
        let name = "apiserver_longrunning_requests";
        text.family(name, "gauge", "Open watches.");
        text.sample(name, &[("verb", "WATCH")], self.watches.count());
        if let Some(figures) = self.store.figures() {
            figures.write(text);
        }
        let (name, help) = ("clawbernetes_store_revision", "The revision of the last write.");
        text.gauge(name, help, self.store.revision());
        self.write_census(text).await
    }

    /// Everything that is stored, as it is now, ready to be sent. Whoever asks must have been let pass.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn backup(&self) -> Result<Pieces, ApiError> {
        let all = self.store.list(&Key::everything(), None, 0, None).await.map_err(errors::from_store)?;
        Ok(Pieces::new(all.revision, all.items))
    }

    /// Objects and bytes by kind: counted when somebody asks, which takes 10 ms for 100,000 objects.
    async fn write_census(&self, text: &mut Text) -> Result<(), ApiError> {
        let all = self.store.list(&Key::everything(), None, 0, None).await.map_err(errors::from_store)?;
        let mut census: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        for record in &all.items {
            let (objects, bytes) = census.entry(record.key.group_and_plural()).or_default();
            *objects += 1;
            *bytes += record.value.len();
        }
        let name = "apiserver_resource_objects";
        text.family(name, "gauge", "Stored objects.");
        for ((group, resource), (objects, _)) in &census {
            text.sample(name, &[("group", group), ("resource", resource)], objects);
        }
        let name = "clawbernetes_store_object_bytes";
        text.family(name, "gauge", "Bytes of stored objects.");
        for ((group, resource), (_, bytes)) in &census {
            text.sample(name, &[("group", group), ("resource", resource)], bytes);
        }
        Ok(())
    }
}
