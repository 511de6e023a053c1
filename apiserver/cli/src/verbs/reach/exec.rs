//! `exec`: run a program in a container.

use std::process::ExitCode;

use anyhow::bail;

use super::{
    part,
    talk::{Ends, Wish, exit_code, talk},
    terminal::{self, Print, Raw},
};
use crate::verbs::{context::Context, pods};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD or TYPE/NAME
    target: String,
    #[command(flatten)]
    process: Process,
    /// The program and its arguments, after "--"
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// How a process is talked to.
#[derive(Debug, clap::Args)]
pub struct Process {
    /// The container (default: the first)
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give it a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Say nothing but what the process says
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

impl Process {
    /// Whether it gets a terminal. One that nobody types on is none.
    pub fn has_terminal(&self) -> bool {
        let has = self.tty && self.stdin && terminal::is_there();
        if self.tty && self.stdin && !has && !self.quiet {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        has
    }
}

/// What is typed and shown goes to the process and comes from it. On a terminal, keep what is given for as long as they do.
pub fn ends(wish: &Wish) -> anyhow::Result<(Ends<Print>, Option<Raw>)> {
    let raw = wish.tty.then(Raw::enter).transpose()?;
    let sizes = wish.tty.then(terminal::sizes).transpose()?;
    let input = wish.stdin.then(terminal::input);
    Ok((Ends { input, sizes, listener: Print }, raw))
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let session = context.session()?;
    let pod = pods::meant(&session, std::slice::from_ref(&args.target)).await?;
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        bail!("cannot exec into a container in a completed pod; current phase is {}", pod["status"]["phase"]);
    }
    let wish = Wish {
        container: pods::container(&pod, args.process.container.as_deref(), !args.process.quiet)?,
        command: args.command,
        stdin: args.process.stdin,
        tty: args.process.has_terminal(),
    };
    let (ends, raw) = ends(&wish)?;
    let ended = talk(&session, &part(&session, &pod, "exec")?, &wish, ends).await;
    // Before anything is said: lines would lose their beginning.
    drop(raw);
    Ok(exit_code(ended?))
}
