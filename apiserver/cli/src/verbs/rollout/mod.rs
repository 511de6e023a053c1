//! `rollout`: follow, inspect and steer the rollouts of Deployments.

mod history;
mod status;

use std::time::Duration;

use anyhow::bail;
use claw_client::{ResourceRef, request::PatchKind};
use claw_schemas::schema::time_text;
use serde_json::{Value, json};

use super::{
    context::Context,
    duration,
    output::print,
    resources,
    session::{Session, Write, short_name, text},
};

/// Says when a restart was asked for; the name that kubectl uses.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Follow a rollout to its end
    Status {
        #[command(flatten)]
        target: Target,
        /// Return when the rollout is done
        #[arg(short = 'w', long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
        watch: bool,
        /// How long to follow; 0 is for ever
        #[arg(long, value_parser = duration::parse, default_value = "0")]
        timeout: Duration,
    },
    /// List the revisions there have been
    History {
        #[command(flatten)]
        target: Target,
        /// Show what this revision ran
        #[arg(long)]
        revision: Option<u64>,
    },
    /// Go back to an earlier revision
    Undo {
        #[command(flatten)]
        target: Target,
        /// Which; 0 is the one before
        #[arg(long, default_value_t = 0)]
        to_revision: u64,
    },
    /// Hold further rollouts
    Pause {
        #[command(flatten)]
        target: Target,
    },
    /// Let rollouts go on
    Resume {
        #[command(flatten)]
        target: Target,
    },
    /// Replace every pod by a new one
    Restart {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, clap::Args)]
pub struct Target {
    /// deployment/NAME, or deployment NAME
    #[arg(required = true)]
    resources: Vec<String>,
}

/// A Deployment as it is.
struct Deployment {
    resource: ResourceRef,
    object: Value,
    /// `deployment.apps/web`
    name: String,
}

pub async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let session = context.session()?;
    match command {
        Command::Status { target, watch, timeout } => {
            let deployment = one(&session, &target).await?;
            status::run(&session, &deployment, watch, timeout).await
        }
        Command::History { target, revision } => {
            for deployment in all(&session, &target).await? {
                history::print_history(&session, &deployment, revision).await?;
            }
            Ok(())
        }
        Command::Undo { target, to_revision } => {
            for deployment in all(&session, &target).await? {
                history::undo(&session, &deployment, to_revision).await?;
            }
            Ok(())
        }
        Command::Pause { target } => pause(&session, &target, true).await,
        Command::Resume { target } => pause(&session, &target, false).await,
        Command::Restart { target } => restart(&session, &target).await,
    }
}

async fn all(session: &Session, target: &Target) -> anyhow::Result<Vec<Deployment>> {
    let mut deployments = Vec::new();
    for wanted in resources::named(&session.registry, &target.resources)? {
        if wanted.kind.kind != "Deployment" {
            bail!("{} have no rollouts: name a deployment", wanted.kind.plural);
        }
        for name in &wanted.names {
            let resource = session.object(&wanted.kind, name);
            let object = session.get(&resource).await?;
            deployments.push(Deployment { resource, object, name: short_name(&wanted.kind, name) });
        }
    }
    Ok(deployments)
}

async fn one(session: &Session, target: &Target) -> anyhow::Result<Deployment> {
    let mut deployments = all(session, target).await?;
    match (deployments.pop(), deployments.is_empty()) {
        (Some(deployment), true) => Ok(deployment),
        _ => bail!("follow one rollout at a time"),
    }
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment.object["spec"]["paused"] == json!(true)
}

async fn pause(session: &Session, target: &Target, pause: bool) -> anyhow::Result<()> {
    for deployment in all(session, target).await? {
        if is_paused(&deployment) == pause {
            let state = if pause { "already paused" } else { "not paused" };
            bail!("deployments.apps \"{}\" is {state}", text(&deployment.object, "/metadata/name"));
        }
        let patch = json!({"spec": {"paused": pause.then_some(true)}});
        session.patch(deployment.resource, PatchKind::Merge, &patch, &Write::default()).await?;
        print(&format!("{} {}\n", deployment.name, if pause { "paused" } else { "resumed" }))?;
    }
    Ok(())
}

async fn restart(session: &Session, target: &Target) -> anyhow::Result<()> {
    for deployment in all(session, target).await? {
        if is_paused(&deployment) {
            bail!("{} is paused and would not restart: resume it first (rollout resume)", deployment.name);
        }
        let now = time_text(jiff::Timestamp::now());
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
        session.patch(deployment.resource, PatchKind::Merge, &patch, &Write::default()).await?;
        print(&format!("{} restarted\n", deployment.name))?;
    }
    Ok(())
}
