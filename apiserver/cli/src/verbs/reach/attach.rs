//! `attach`: talk to the process that a container is there for.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    exec::{Process, ends},
    part,
    talk::{Wish, exit_code, talk},
};
use crate::verbs::{context::Context, pods, session::text};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD or TYPE/NAME
    target: String,
    #[command(flatten)]
    process: Process,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let session = context.session()?;
    let pod = pods::meant(&session, std::slice::from_ref(&args.target)).await?;
    let container = pods::container(&pod, args.process.container.as_deref(), !args.process.quiet)?;
    let mut tty = args.process.has_terminal();
    if tty && !has_terminal(&pod, &container) {
        // It was decided when the process was started.
        tty = false;
        if !args.process.quiet {
            eprintln!("Unable to use a TTY - container {container} did not allocate one");
        }
    }
    let wish = Wish { container, command: Vec::new(), stdin: args.process.stdin, tty };
    let (ends, raw) = ends(&wish)?;
    if tty && !args.process.quiet {
        eprint!("If you don't see a command prompt, try pressing enter.\r\n");
    }
    let ended = talk(&session, &part(&session, &pod, "attach")?, &wish, ends).await;
    drop(raw);
    Ok(exit_code(ended?))
}

fn has_terminal(pod: &Value, name: &str) -> bool {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let all = lists.iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    all.filter(|container| text(container, "/name") == name).any(|container| container["tty"] == true)
}
