//! `clawbernetes controllers`: the controllers alone, as clients of a server elsewhere. Of several, one acts.

use std::net::SocketAddr;

use anyhow::Context as _;
use claw_client::{Client, endpoint::Trust};
use claw_runtime::Env;
use tokio_util::sync::CancellationToken;

use super::{metrics_server, signal::Stop};
use crate::{telemetry, verbs::Global};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name in the election (default: the host's name and this process's id)
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Serve /metrics, /healthz and /readyz there, over plain HTTP and to everybody who can reach it
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

/// Runs until asked to stop.
pub async fn run(options: Options, global: Global) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let selected = global.select()?;
    let client = Client::connect(&selected.endpoint, "clawbernetes-controllers")?;
    let identity = match options.identity {
        Some(identity) => identity,
        None => format!("{}-{}", super::node::host_name()?, std::process::id()),
    };
    tracing::info!(server = %selected.endpoint.server, %identity, "controllers start");
    let cancel = CancellationToken::new();
    let root_ca = match &selected.endpoint.trust {
        Trust::Roots(pem) => String::from_utf8(pem.clone()).ok().map(Into::into),
        _ => None,
    };
    let elected = claw_controllers::Options { elect_as: Some(identity), root_ca, ..Default::default() };
    let _serving = match options.metrics_listen {
        None => None,
        Some(listen) => {
            let (figures, readiness) = (elected.figures.clone(), elected.readiness.clone());
            let (address, serving) = metrics_server::start(listen, figures, readiness).await?;
            tracing::info!("figures at http://{address}/metrics");
            Some(serving)
        }
    };
    let work = tokio::spawn(claw_controllers::run(client, Env::real(), elected, cancel.clone()));
    stop.asked().await;
    tracing::info!("stopping");
    cancel.cancel();
    stop.in_order(work).await?.context("the controllers failed")
}
