//! `delete`: remove objects, and wait until they are gone.

use std::time::Duration;

use anyhow::{Context as _, bail};
use claw_client::request::{DeleteOptions, Propagation};
use claw_schemas::status::Reason;

use super::{
    context::Context,
    duration,
    output::{Format, print},
    session::{Session, short_name, text},
    targets::{Target, Targets},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    targets: Targets,
    /// Every object of the type in the namespace
    #[arg(long)]
    all: bool,
    /// Return only when the objects are gone
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait for each object; 0 waits for ever
    #[arg(long, value_parser = duration::parse, default_value = "0")]
    timeout: Duration,
    /// Seconds that containers get to end (default: what the pod says)
    #[arg(long, allow_negative_numbers = true)]
    grace_period: Option<i64>,
    /// Give containers one second to end
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// Do not wait for containers at all; what runs may go on for a while
    #[arg(long)]
    force: bool,
    /// What happens to dependents
    #[arg(long, default_value = "background", value_name = "background|foreground|orphan")]
    cascade: String,
    /// Succeed when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// "name" prints names alone
    #[arg(short = 'o', long, value_name = "name")]
    output: Option<Format>,
    /// Try it without deleting anything
    #[arg(long, value_name = "none|server", default_value = "none")]
    dry_run: String,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    let options = options(&args)?;
    let doomed = args.targets.each(&session, args.all, "delete").await?;
    if doomed.is_empty() {
        eprintln!("No resources found");
    }
    let (total, mut failed, mut going) = (doomed.len(), 0_usize, Vec::new());
    for doomed in doomed {
        match delete(&args, &session, &doomed, &options).await {
            Ok(uid) => going.extend(uid.map(|uid| (doomed, uid))),
            Err(error) if total == 1 => return Err(error),
            Err(error) => {
                super::complain(&error);
                failed += 1;
            }
        }
    }
    if args.wait && !options.dry_run {
        for (doomed, uid) in going {
            until_gone(&session, &doomed, &uid, args.timeout).await?;
        }
    }
    if failed > 0 {
        bail!("{failed} of {total} objects were not deleted");
    }
    Ok(())
}

fn options(args: &Args) -> anyhow::Result<DeleteOptions> {
    let propagation = match args.cascade.as_str() {
        "background" | "true" => Propagation::Background,
        "foreground" => Propagation::Foreground,
        "orphan" | "false" => Propagation::Orphan,
        other => bail!("--cascade={other}: use background, foreground or orphan"),
    };
    let grace_period_seconds = match args.grace_period {
        // kubectl's way to say "the object's own".
        Some(seconds) if seconds < 0 => None,
        Some(0) if !args.force => {
            bail!("--grace-period=0 kills without waiting: add --force to mean it, or use --now")
        }
        None if args.force => Some(0),
        None if args.now => Some(1),
        given => given,
    };
    let dry_run = match args.dry_run.as_str() {
        "none" => false,
        "server" => true,
        other => bail!("--dry-run={other}: use none or server"),
    };
    Ok(DeleteOptions {
        grace_period_seconds,
        propagation: Some(propagation),
        dry_run,
        ..DeleteOptions::default()
    })
}

/// Answers the uid to wait for, unless there was nothing to delete.
async fn delete(
    args: &Args,
    session: &Session,
    doomed: &Target,
    options: &DeleteOptions,
) -> anyhow::Result<Option<String>> {
    let answer = match session.delete(doomed.resource.clone(), options.clone()).await {
        Err(error) if error.reason == Reason::NotFound && args.ignore_not_found => return Ok(None),
        answer => answer?,
    };
    let name = doomed.resource.name.as_deref().unwrap_or_default();
    let qualified = short_name(&doomed.kind, name);
    if args.output == Some(Format::Name) {
        print(&format!("{qualified}\n"))?;
    } else {
        let (kind, _) = qualified.split_once('/').unwrap_or((&qualified, ""));
        let how = match (options.dry_run, args.force) {
            (true, _) => " deleted (server dry run)",
            (false, true) => " force deleted",
            (false, false) => " deleted",
        };
        print(&format!("{kind} \"{name}\"{how}\n"))?;
    }
    let uid = match text(&answer, "/details/uid") {
        "" => text(&answer, "/metadata/uid"),
        uid => uid,
    };
    Ok(Some(uid.to_owned()))
}

/// Waits until the object, or this incarnation of it, is gone.
async fn until_gone(session: &Session, doomed: &Target, uid: &str, timeout: Duration) -> anyhow::Result<()> {
    // Most go at once: ask before a watch is set up.
    match session.find(&doomed.resource).await? {
        None => return Ok(()),
        Some(now) if !uid.is_empty() && text(&now, "/metadata/uid") != uid => return Ok(()),
        Some(_) => {}
    }
    let name = short_name(&doomed.kind, doomed.resource.name.as_deref().unwrap_or_default());
    let mut observed = session.observe(&doomed.resource);
    let gone = async {
        let gone = async {
            while let Some(now) = observed.now().await?
                && (uid.is_empty() || text(&now, "/metadata/uid") == uid)
            {
                observed.changed().await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        gone.await.with_context(|| format!("{name} is marked for deletion, but was not seen to go"))
    };
    if timeout.is_zero() {
        return gone.await;
    }
    match tokio::time::timeout(timeout, gone).await {
        Ok(done) => done,
        Err(_) => {
            bail!("timed out waiting for {name} to be gone; it is marked for deletion and may still go")
        }
    }
}
