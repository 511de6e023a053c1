//! The program: finds its server, stands for election, runs [`Sweeps`], and stops in order on Ctrl-C or SIGTERM.
//!
//! `sweep-controller definition` prints the CustomResourceDefinition instead.

use std::{env, io::IsTerminal as _};

use anyhow::{Context as _, bail};
use claw_client::{Client, custom, kubeconfig::Selected};
use claw_runtime::{Env, Manager, Runtime};
use sweep_controller::{Sweeps, kind::SweepSpec};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// In events, in `managedFields`, and as the lease that decides which of several processes acts.
const NAME: &str = "sweep-controller";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match env::args().nth(1).as_deref() {
        None => run().await,
        Some("definition") => {
            print!("{}", serde_yaml::to_string(&custom::definition::<SweepSpec>())?);
            Ok(())
        }
        Some(other) => bail!("unknown argument \"{other}\": give none to run, or `definition`"),
    }
}

async fn run() -> anyhow::Result<()> {
    let stderr = std::io::stderr;
    tracing_subscriber::fmt().with_writer(stderr).with_ansi(stderr().is_terminal()).init();
    let selected = Selected::find(|name| env::var_os(name), env::home_dir().as_deref())?;
    let client = Client::connect(&selected.endpoint, NAME)?;
    let namespace = selected.namespace.as_deref().unwrap_or("default");
    let env = Env::real();
    let identity = format!("{NAME}-{:x}", env.random());
    info!(server = selected.endpoint.server, namespace, identity, "starting");

    let cancel = CancellationToken::new();
    let manager = Manager::new(client, env, NAME).elected(namespace, &identity);
    let work = manager.run(cancel.clone(), |runtime: &Runtime| runtime.spawn(Sweeps));
    let stop = async {
        asked_to_stop().await?;
        info!("stopping");
        cancel.cancel();
        anyhow::Ok(())
    };
    tokio::join!(work, stop).1
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("signals cannot be listened to");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
