//! A look at a device in place of an order: the same file, signals and manners, with the device in a process of its own.

use super::limits::{CONTROL_GROUPS, killed_for_memory};
use super::report::Reporter;
use super::{begin, failure, say};
use crate::qualify::apart;
use claw_graph::order::{Reason, ReportDevice};
use claw_graph::qualification::{Level, Qualification};
use std::path::Path;
use std::process::{Command, ExitCode};

/// Looks at a device by a process that calls [`apart::say`] for it, and keeps the report in a file, which is made if it is not there.
///
/// The process ends with 0 if the device was looked at, whatever was found, with 1 if it could not be, and with 143 if it was asked to
/// stop. Comes back only if no report can be written.
#[must_use]
pub fn look(process: Command, device: &str, level: Level, report: &Path) -> ExitCode {
    let (reporter, guard) = match begin(report) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    say(format_args!("device {device}, level {}", level.name()));
    let mut tell = |_, words: &str| {
        say(words);
        reporter.doing(words.to_owned());
    };
    let groups = Path::new(CONTROL_GROUPS);
    let killed_before = killed_for_memory(groups);
    match apart::watch(process, device, level, apart::SILENCE, &mut tell) {
        // A process that dies speaks against its device, but not if the kernel chose it to make room.
        Ok(found) if !found.passed() && killed_for_memory(groups) > killed_before => {
            guard.fail(failure(Reason::OutOfMemory, "memory of the machine ran out"))
        }
        Ok(found) => {
            deliver(found, &reporter);
            guard.complete()
        }
        Err(error) => {
            guard.fail(failure(Reason::Stopped, format!("no process could be started for {device}: {error}")))
        }
    }
}

fn deliver(mut found: Qualification, reporter: &Reporter) {
    for finding in &mut found.findings {
        say(format_args!(
            "{} {}: {}",
            if finding.passed { "ok  " } else { "FAIL" },
            finding.check,
            finding.words
        ));
        // JSON has no infinity, which a clock that is too coarse makes.
        finding.figures.retain(|_, figure| figure.is_finite());
    }
    reporter.change(|report| {
        let ReportDevice { id, model } = &found.device;
        report.device = Some(ReportDevice { id: id.clone(), model: model.clone() });
        report.qualification = Some(found);
    });
}
