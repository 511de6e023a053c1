//! Lifecycle hooks: what a container asks to happen after its start and before its stop.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};

use super::Shared;
use crate::runtime::{ExecReply, InstanceKey, ProbeTarget};

/// How long a hook over the network may take: requests that somebody answers take less.
const NETWORK_LIMIT: Duration = Duration::from_secs(60);

/// A lifecycle hook of a container.
pub(super) struct Hook {
    pub handler: LifecycleHandler,
    pub container: Container,
    /// Address of the pod.
    pub ip: Option<IpAddr>,
}

impl Hook {
    /// Runs it to its end, or to the limit.
    pub async fn run(&self, shared: &Shared, key: &InstanceKey, limit: Duration) -> Result<(), String> {
        if let Some(sleep) = &self.handler.sleep {
            let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep(wanted.min(limit)).await;
            return Ok(());
        }
        if let Some(exec) = &self.handler.exec {
            let command = exec.command.clone().unwrap_or_default();
            return match shared.runtime.exec(key, &command, limit).await {
                Ok(ExecReply::Exited { code: 0, .. }) => Ok(()),
                Ok(ExecReply::Exited { code, output }) if output.is_empty() => {
                    Err(format!("exit code {code}"))
                }
                Ok(ExecReply::Exited { code, output }) => Err(format!("exit code {code}: {output}")),
                Ok(ExecReply::TimedOut) => Err(format!("timed out after {} s", limit.as_secs())),
                Ok(ExecReply::Failed(why)) => Err(why),
                Err(error) => Err(error.full()),
            };
        }
        // The network handlers are those of probes.
        let probe = Probe {
            http_get: self.handler.http_get.clone(),
            tcp_socket: self.handler.tcp_socket.clone(),
            ..Probe::default()
        };
        let mut target = ProbeTarget::of(&probe, &self.container, self.ip)?;
        // The kubelet looks at no status here, so images that answer 404 do well elsewhere.
        if let ProbeTarget::Http { any_status, .. } = &mut target {
            *any_status = true;
        }
        shared.runtime.probe(key, &target, limit.min(NETWORK_LIMIT)).await
    }
}
