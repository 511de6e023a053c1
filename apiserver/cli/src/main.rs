//! The one binary, and the one place where its parts are put together.
//!
//! `roles` compose server, controllers and node agents into processes; `verbs` are a client like any other.
//! No logic of a cluster lives here.

mod kernel_worker;
mod memory;
mod roles;
mod settings;
mod telemetry;
mod verbs;

use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};
use telemetry::Telemetry;

/// Turns machines into a cluster that speaks the Kubernetes API.
///
/// `clawbernetes up` starts one on this machine.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: verbs::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Role(Box<roles::Command>),
    #[command(flatten)]
    Verb(verbs::Command),
}

fn main() -> ExitCode {
    // Containers' shims and the holders of namespaces and of sockets are this same program. They must be single-threaded, so they
    // go first.
    claw_nodeagent::shim::run_if_asked();
    claw_nodeagent::rootless::hold_if_asked();
    claw_nodeagent::sockets::hold_if_asked();
    if let Some(code) = kernel_worker::work_if_asked() {
        return code;
    }
    // Other crates may bring a second provider into the build, and rustls then refuses to choose one by itself.
    // An error means that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match settings::layered(std::env::args_os().collect(), |name| std::env::var_os(name)) {
        // A faulty command line ends the process here, with a message and the usual code.
        Ok(args) => Cli::from_arg_matches(&settings::command().get_matches_from(args)),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    };
    let mut cli = cli.unwrap_or_else(|error| error.exit());
    // Only a process without threads can.
    let prepared = match &mut cli.command {
        Command::Role(role) => role.become_root(),
        Command::Verb(_) => Ok(()),
    };
    match prepared.and_then(|()| run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if matches!(cli.command, Command::Role(_)) {
        memory::give_back();
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Command::Role(role) = &cli.command
        && let Some(threads) = role.threads()
    {
        memory::share();
        builder.worker_threads(threads).on_thread_start(memory::share);
    }
    let runtime = builder.enable_all().build()?;
    let telemetry = {
        let _within = runtime.enter();
        telemetry(&cli.command)?
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Role(role) => role.run(cli.global).await,
            Command::Verb(verb) => verb.run(verbs::Context::new(cli.global)).await,
        }
    });
    telemetry.flush();
    // A read of the terminal that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    code
}

/// Roles tell what they do by default, and trace it if they are asked to; verbs tell only what goes wrong.
fn telemetry(command: &Command) -> anyhow::Result<Telemetry> {
    match command {
        Command::Role(role) => Telemetry::start("info", role.telemetry()),
        Command::Verb(_) => Telemetry::start("warn", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        settings::command().debug_assert();
    }
}
