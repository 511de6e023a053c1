//! The worker: a process that carries out one [`Order`](claw_graph::order::Order) on a device of its machine, and says what it did in one
//! file.
//!
//! It is a process of its own because drivers hang, panic and take their process along. So [`main`] never comes back: whatever happens,
//! the file says it (`report`), and the process ends without asking a driver to let go (`guard`). `job` is the work itself.
//!
//! Must never know: pods, nodes, the API. Who started it knows the two files, and is told nothing in any other way.

mod files;
mod guard;
mod inputs;
mod job;
mod limits;
mod look;
mod npy;
mod numbers;
mod open;
mod report;
#[cfg(test)]
mod tests;

use crate::error::Error;
use claw_graph::order::{Failure, Reason};
use guard::Guard;
pub use look::look;
pub use open::Given;
use report::Reporter;
use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Carries out the order in a file and keeps the report in another, which is made if it is not there. Log lines for people go to stdout.
/// Where devices of Vulkan were given, it opens no other of these. In the folder `kept`, if there is one, the device keeps which ways of
/// calculating were the fastest, for the next process.
///
/// The process ends with 0 if all is done, with 1 if not, and with 143 if it was asked to stop. Comes back only if no report can be written.
#[must_use]
pub fn main(order: &Path, report: &Path, given: Option<&Given>, kept: Option<&Path>) -> ExitCode {
    let (reporter, guard) = match begin(report) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    match job::run(order, given, kept, &reporter, &guard) {
        Ok(()) => guard.complete(),
        Err(failure) => guard.fail(failure),
    }
}

/// From here on the file says what becomes of this process.
fn begin(report: &Path) -> Result<(Reporter, Guard), ExitCode> {
    let reporter = Reporter::open(report).map_err(|error| {
        say(format_args!("{}: {error}", report.display()));
        ExitCode::FAILURE
    })?;
    let guard = Guard::start(reporter.clone());
    Ok((reporter, guard))
}

/// A line for people. Nobody's work fails for want of a reader.
fn say(line: impl Display) {
    if cfg!(test) {
        // What the harness keeps to itself while a test passes.
        println!("{line}");
        return;
    }
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn failure(reason: Reason, message: impl Into<String>) -> Failure {
    Failure { reason, message: message.into() }
}

/// A device's error, in the words of reports.
fn failed(error: Error) -> Failure {
    let reason = match &error {
        Error::Unavailable { .. } => Reason::NoDevice,
        Error::Unsupported { .. } => Reason::Unsupported,
        Error::OutOfMemory { .. } => Reason::OutOfMemory,
        Error::Index { .. } => Reason::IndexOutOfRange,
        Error::Failed(_) | Error::Data(_) | Error::Elsewhere => Reason::DeviceFailed,
    };
    failure(reason, error.to_string())
}
