//! How tries and jobs end.

use std::time::Duration;

use claw_graph::order::{Report, ReportDevice};
use claw_runtime::{
    Action,
    conditions::{self, Condition as _, TRUE},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{COMPLETE, Course, FAILED};
use crate::kernel_job::{
    attempts::{self, DEADLINE, SUSPENDED},
    figures,
};
use crate::workers::{Cause, DISRUPTED};

/// A job that is to go right after its end goes once that is written.
const SOON: Duration = Duration::from_secs(1);

impl Course<'_> {
    /// A try has ended without a result, for this cause unless another was written down before.
    pub(super) fn end(&mut self, at: usize, cause: Cause, device: Option<ReportDevice>) {
        let cause = self.noted(at).filter(|_| !cause.is_final).unwrap_or(cause);
        self.note(at, cause.clone());
        self.close(at, device);
        let is_failure = !matches!(cause.reason.as_str(), SUSPENDED | DISRUPTED);
        let text = format!("{}: {}: {}", self.status.attempts[at].pod, cause.reason, cause.message);
        self.announce(is_failure, if is_failure { "Failed" } else { "Interrupted" }, text);
        let failures = attempts::failures(&self.status.attempts);
        if cause.is_final || cause.reason == DEADLINE {
            self.fail(&cause);
        } else if failures > attempts::failures_max(&self.job.spec) {
            let last = format!("{failures} tries failed, the last by {}: {}", cause.reason, cause.message);
            self.fail(&Cause::of_the_job("BackoffLimitExceeded", last));
        }
    }

    fn close(&mut self, at: usize, device: Option<ReportDevice>) {
        let attempt = &mut self.status.attempts[at];
        if let Some(ReportDevice { id, model }) = device {
            (attempt.device, attempt.model) = (Some(id), Some(model));
        }
        attempt.end_time = Some(MicroTime(self.now));
        self.status.progress = None;
    }

    pub(super) fn fail(&mut self, cause: &Cause) {
        self.set(FAILED, TRUE, &cause.reason, &cause.message);
        self.announce(true, &cause.reason, cause.message.clone());
    }

    pub(super) fn complete(&mut self, at: usize, report: Report) {
        let attempt = &mut self.status.attempts[at];
        (attempt.reason, attempt.message) = (None, None);
        let place = report
            .device
            .as_ref()
            .map_or_else(String::new, |device| format!(" on {}, {}", device.id, device.model));
        self.close(at, report.device);
        self.status.completion_time = Some(Time(self.now));
        self.status.figures = report.figures.as_ref().map(|reached| figures::reached(reached, report.runs));
        self.status.outputs = report.outputs.into_iter().map(figures::result).collect();
        self.set(COMPLETE, TRUE, "CompletionsReached", &format!("calculated{place}"));
        self.announce(false, "Completed", "Job completed");
    }

    /// Deletes a job that is over, when its time has come.
    pub(super) fn leave_in_time(&mut self) {
        let Some(seconds) = self.job.spec.ttl_seconds_after_finished else { return };
        let over = [COMPLETE, FAILED].into_iter().find_map(|kind| {
            conditions::find(&self.status.conditions, kind).filter(|found| found.status == TRUE)?.since()
        });
        let kept = Duration::from_secs(seconds.try_into().unwrap_or(0));
        let age = over.map_or(Duration::ZERO, |since| self.world.age(since, self.now));
        match kept.saturating_sub(age) {
            Duration::ZERO if self.job.status.as_ref() == Some(&self.status) => {
                self.plan.actions.push(Action::delete(self.job));
            }
            left => self.plan.look_again_after(left.max(SOON)),
        }
    }
}
