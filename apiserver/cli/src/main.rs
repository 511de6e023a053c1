//! The one binary, and the one place where its parts are put together.
//!
//! `roles` compose server, controllers and node agents into processes; `verbs` are a client like any other.
//! No logic of a cluster lives here.

mod roles;
mod settings;
mod telemetry;
mod verbs;

use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};
use telemetry::Telemetry;

/// Objects live as trees of many small pieces that one thread makes and another frees. The C library's allocator spent a
/// third of a busy cluster's CPU on them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the allocator reads when it starts. What is free goes back to the system within half a second, not ten: a burst of writes
/// leaves a third of what it needed. No thread keeps pieces above 4 KiB for itself. Neither costs time that can be measured.
#[expect(unsafe_code, reason = "the allocator looks its settings up by this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 35] = b"dirty_decay_ms:500,tcache_max:4096\0";

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
    // A container's shim is this same program. It must be single-threaded, so it goes first.
    claw_nodeagent::shim::run_if_asked();
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
    let cli = cli.unwrap_or_else(|error| error.exit());
    if matches!(cli.command, Command::Role(_)) {
        give_memory_back();
    }
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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

/// Has memory that is free go back to the system by itself. Without a thread for it, what a part of the program let go of goes back
/// only when the same part asks for more: after the state was written to disk, tens of MiB stayed for ever.
fn give_memory_back() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "the allocator gives no memory back in the background");
    }
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
