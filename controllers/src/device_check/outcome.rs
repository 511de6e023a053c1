//! What a pod that has ended says of the device: pure functions of one pod.
//!
//! The device is opened by a process of its own, so that a crash and a hang of it are findings like others. What happens to the pod
//! around it (its node, its image, somebody who needs the room) says nothing about the device.
//!
//! Must never know: the check, or what a device should reach.

use claw_graph::{
    order::{Report, State},
    qualification::Qualification,
};
use k8s_openapi::api::core::v1::Pod;

use super::findings;
use crate::workers::{self, Cause};

/// What was found, or why nothing was.
///
/// # Errors
/// Why the device was not looked at, or not to the end.
pub fn of(pod: &Pod) -> Result<Qualification, Cause> {
    let end = workers::terminated(pod);
    let report = end.and_then(|end| findings::report(end.message.as_deref()?));
    match report {
        Some(Report { state: State::Complete, qualification: Some(found), .. })
            if !found.findings.is_empty() =>
        {
            Ok(found)
        }
        report => Err(workers::disruption(pod).unwrap_or_else(|| cause(pod, report.as_ref()))),
    }
}

fn cause(pod: &Pod, report: Option<&Report>) -> Cause {
    let status = pod.status.as_ref();
    let failure = report.and_then(|report| report.failure.as_ref());
    let (reason, message) = match (status.and_then(|status| status.reason.clone()), failure) {
        (Some(reason), _) => (reason, status.and_then(|status| status.message.clone()).unwrap_or_default()),
        (None, Some(failure)) => (failure.reason.to_string(), failure.message.clone()),
        (None, None) => workers::death(workers::terminated(pod), report.is_some()),
    };
    let doing = report.map(|report| report.doing.as_str()).filter(|doing| !doing.is_empty());
    let message = doing.map_or(message.clone(), |doing| format!("{message} ({doing})"));
    Cause::new(&reason, message)
}
