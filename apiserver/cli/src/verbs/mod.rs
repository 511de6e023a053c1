//! The verbs of a client: `get`, `apply`, `logs` and their kin, one file each.
//!
//! Every verb talks to an API server through [`Context`], prints data on stdout and everything else
//! on stderr. Must never know: how the server works, or the roles beside it.

mod api_resources;
mod apply;
mod context;
mod delete;
mod describe;
mod diff;
mod discovery;
mod duration;
mod edit;
mod events;
mod explain;
mod get;
mod logs;
mod manifest;
mod output;
mod pods;
mod reach;
mod resources;
mod rollout;
mod run;
mod scale;
mod session;
mod table;
mod targets;
mod three_way;
mod top;
mod unified;
mod wait;

use std::process::ExitCode;

use claw_schemas::{ApiError, status::Reason};

pub use context::{Context, Global};
pub use output::print;

/// A verb with its arguments.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print objects
    Get(get::Args),
    /// Make the cluster hold what manifests say
    Apply(apply::Args),
    /// Show what apply would change: exit code 1 says that something would
    Diff(diff::Args),
    /// Change objects in an editor
    Edit(edit::Args),
    /// Remove objects
    Delete(delete::Args),
    /// Tell everything about objects, and what happened to them
    Describe(describe::Args),
    /// Tell what a kind or a field of it is for
    Explain(explain::Args),
    /// Print what containers wrote
    Logs(logs::Args),
    /// Run a program in a container
    Exec(reach::exec::Args),
    /// Talk to the process that a container is there for
    Attach(reach::attach::Args),
    /// Make ports of a pod ports of this machine
    PortForward(reach::forward::Args),
    /// Copy files into a container or out of it
    Cp(reach::copy::Args),
    /// Show what nodes and pods use
    #[command(subcommand)]
    Top(top::Command),
    /// Return when a condition holds
    Wait(wait::Args),
    /// Print what happened
    Events(events::Args),
    /// Change how many replicas there should be
    Scale(scale::Args),
    /// Follow, inspect and steer rollouts
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Start one pod from a command line
    Run(run::Args),
    /// List the kinds there are
    ApiResources(api_resources::Args),
}

impl Command {
    /// Runs the verb to its end. What goes wrong is told on stderr, in the exit code alone beyond that.
    pub async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        let result = match self {
            Self::Get(args) => get::run(args, &context).await.map(done),
            Self::Apply(args) => apply::run(args, &context).await.map(done),
            Self::Diff(args) => return Ok(diff::run(args, &context).await),
            Self::Edit(args) => edit::run(args, &context).await.map(done),
            Self::Explain(args) => explain::run(args, &context).await.map(done),
            Self::Delete(args) => delete::run(args, &context).await.map(done),
            Self::Describe(args) => describe::run(args, &context).await.map(done),
            Self::Logs(args) => logs::run(args, &context).await.map(done),
            Self::Top(command) => top::run(command, &context).await.map(done),
            Self::Exec(args) => reach::exec::run(args, &context).await,
            Self::Attach(args) => reach::attach::run(args, &context).await,
            Self::PortForward(args) => reach::forward::run(args, &context).await.map(done),
            Self::Cp(args) => reach::copy::run(args, &context).await.map(done),
            Self::Wait(args) => wait::run(args, &context).await.map(done),
            Self::Events(args) => events::run(args, &context).await.map(done),
            Self::Scale(args) => scale::run(args, &context).await.map(done),
            Self::Rollout(command) => rollout::run(command, &context).await.map(done),
            Self::Run(args) => run::run(args, &context).await.map(done),
            Self::ApiResources(args) => api_resources::run(args, &context).await.map(done),
        };
        match result {
            Ok(code) => Ok(code),
            // Nobody reads any more: that is the reader's success.
            Err(error) if output::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            Err(error) => {
                complain(&error);
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// Tells what went wrong, in kubectl's form, which scripts look for.
fn complain(error: &anyhow::Error) {
    eprintln!("{}", complaint(error));
}

fn complaint(error: &anyhow::Error) -> String {
    match error.downcast_ref::<ApiError>() {
        // These are ours, not a server's: it could not be asked.
        Some(api) if matches!(api.reason, Reason::ServiceUnavailable | Reason::Timeout) => {
            format!("error: {error:#}")
        }
        Some(api) => format!("Error from server ({:?}): {error:#}", api.reason),
        None => format!("error: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn what_the_server_refused_is_told_as_kubectl_tells_it() {
        let missing = ApiError::not_found("apps", "deployments", "web");
        assert_eq!(
            complaint(&missing.into()),
            "Error from server (NotFound): deployments.apps \"web\" not found"
        );
        let refused = Err::<(), _>(ApiError::bad_request("no")).context("f.yaml").unwrap_err();
        assert_eq!(complaint(&refused), "Error from server (BadRequest): f.yaml: no");
        let away = ApiError::new(Reason::ServiceUnavailable, "cannot reach the server at https://a");
        assert_eq!(complaint(&away.into()), "error: cannot reach the server at https://a");
    }
}
