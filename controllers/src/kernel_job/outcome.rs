//! What became of a try, by what its pod says: a pure function of one pod.
//!
//! The worker's own words are its container's termination message, a [`Report`]; who ended the pod may have said why in its status.
//!
//! Must never know: the job, or its other tries.

use claw_graph::order::{Report, ReportDevice, State};
use k8s_openapi::api::core::v1::Pod;

use crate::workers::{Cause, death, disruption, terminated};

/// What the worker of a pod that has ended reached, or why it did not, and on what.
pub fn of(pod: &Pod) -> Result<Box<Report>, (Cause, Option<ReportDevice>)> {
    let report = terminated(pod).and_then(|end| serde_json::from_str::<Report>(end.message.as_deref()?).ok());
    match report {
        Some(report) if report.state == State::Complete => Ok(Box::new(report)),
        report => {
            let cause = cause(pod, report.as_ref());
            let disruption = disruption(pod).filter(|_| !cause.is_final);
            Err((disruption.unwrap_or(cause), report.and_then(|report| report.device)))
        }
    }
}

fn cause(pod: &Pod, report: Option<&Report>) -> Cause {
    let status = pod.status.as_ref();
    let failure = report.and_then(|report| report.failure.as_ref());
    if let Some(failure) = failure.filter(|failure| !failure.reason.may_succeed_elsewhere()) {
        return Cause::of_the_job(&failure.reason.to_string(), with_place(failure.message.clone(), report));
    }
    let (reason, message) = match (status.and_then(|status| status.reason.clone()), failure) {
        (Some(reason), _) => (reason, status.and_then(|status| status.message.clone()).unwrap_or_default()),
        (None, Some(failure)) => (failure.reason.to_string(), failure.message.clone()),
        (None, None) => death(terminated(pod), report.is_some()),
    };
    Cause::new(&reason, with_place(message, report))
}

/// The message, and behind it on what the worker calculated and what it did.
fn with_place(message: String, report: Option<&Report>) -> String {
    let Some(report) = report else { return message };
    let device = report.device.as_ref().map(|device| format!("{}, {}", device.id, device.model));
    let doing = Some(report.doing.clone()).filter(|doing| !doing.is_empty());
    let place: Vec<String> = device.into_iter().chain(doing).collect();
    if place.is_empty() { message } else { format!("{message} ({})", place.join("; ")) }
}
