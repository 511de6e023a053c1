//! Pods with one worker of the image of kernels in them: how they get on, and how they end. Pure functions of one pod.
//!
//! The worker's own words are its container's termination message; who ended the pod may have said why in its status.
//!
//! Must never know: who made the pod, and what for.

use std::{sync::Arc, time::Duration};

use claw_runtime::conditions;
use claw_schemas::api::PROGRESS;
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Node, Pod, PodCondition,
};

use crate::pods;

/// The pod's one container.
pub const WORKER: &str = "worker";

/// Why a pod ended that had to make room: its node was drained, or somebody more important came.
pub const DISRUPTED: &str = "Disrupted";

/// Bytes of a message that a status keeps.
const MESSAGE_BYTES_MAX: usize = 1_024;
/// Bytes of what a worker said that is no report.
const WORDS_BYTES_MAX: usize = 200;

/// Who tells a pod to make room, as the condition `DisruptionTarget` says it. Pods that their node ended or lost are not among them.
const MAKE_ROOM: [&str; 2] = ["EvictionByEvictionAPI", "PreemptionByScheduler"];

/// What a container waits for that its node will hardly have: another one may.
const TROUBLE: [&str; 6] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// Why a worker's pod comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// In one word.
    pub reason: String,
    /// In words.
    pub message: String,
    /// Whether no other pod can do better.
    pub is_final: bool,
}

impl Cause {
    /// One that another pod may not meet.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: clip(message.into(), MESSAGE_BYTES_MAX), is_final: false }
    }

    /// One that every pod would meet.
    pub fn of_the_job(reason: &str, message: impl Into<String>) -> Self {
        Self { is_final: true, ..Self::new(reason, message) }
    }
}

/// How a worker ended that did not say why.
pub fn death(end: Option<&ContainerStateTerminated>, has_report: bool) -> (String, String) {
    let told = |reason: &str, message: String| (reason.to_owned(), message);
    let Some(end) = end else {
        return told("PodFailed", "the pod failed before its worker had run".to_owned());
    };
    match (end.reason.as_deref(), end.signal) {
        (Some("OOMKilled"), _) => told("OOMKilled", "the worker took more memory than it may".to_owned()),
        (_, Some(signal)) => told("Killed", format!("the worker was killed by signal {signal}")),
        _ if has_report => told("Died", format!("the worker ended with exit code {}", end.exit_code)),
        _ => told("NoReport", no_report(end)),
    }
}

fn no_report(end: &ContainerStateTerminated) -> String {
    let ended = format!("the worker ended with exit code {} and without a report", end.exit_code);
    match end.message.as_deref().map(str::trim).filter(|words| !words.is_empty()) {
        Some(words) => format!("{ended}; it said: {}", clip(words.to_owned(), WORDS_BYTES_MAX)),
        None => ended,
    }
}

/// Why a pod had to make room, if it had to.
pub fn disruption(pod: &Pod) -> Option<Cause> {
    let told = condition(pod, "DisruptionTarget").filter(|told| told.status == conditions::TRUE)?;
    let is_meant = told.reason.as_deref().is_some_and(|reason| MAKE_ROOM.contains(&reason));
    let message = told.message.clone().unwrap_or_default();
    is_meant.then(|| Cause::new(DISRUPTED, message))
}

/// Why a pod will not run where it is.
pub fn trouble(pod: &Pod) -> Option<Cause> {
    let waiting = waiting(pod)?;
    let reason = waiting.reason.as_deref().filter(|reason| TROUBLE.contains(reason))?;
    Some(Cause::new(reason, waiting.message.clone().unwrap_or_default()))
}

/// What a pod that has not ended does, or waits for.
pub fn doing(pod: &Pod) -> Option<String> {
    let said = |kind: &str, status: &str| {
        let found = condition(pod, kind).filter(|found| found.status == status)?;
        found.message.clone().filter(|message| !message.is_empty())
    };
    if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        return said("PodScheduled", conditions::FALSE);
    }
    let lost = condition(pod, "Ready").filter(|ready| ready.reason.as_deref() == Some("NodeNotReady"));
    if lost.is_some() {
        return said("Ready", conditions::FALSE);
    }
    let stuck = || pod.status.as_ref()?.message.clone();
    let waits = || {
        let waiting = waiting(pod)?;
        Some(format!("{}: {}", waiting.reason.as_deref()?, waiting.message.as_deref()?))
    };
    said(PROGRESS, conditions::TRUE).or_else(stuck).or_else(waits)
}

/// Whether its worker runs.
pub fn is_running(pod: &Pod) -> bool {
    pods::phase(pod) == "Running"
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    conditions::find(pod.status.as_ref()?.conditions.iter().flatten(), kind)
}

fn worker(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.iter().flatten().find(|status| status.name == WORKER)
}

pub fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    worker(pod)?.state.as_ref()?.terminated.as_ref()
}

fn waiting(pod: &Pod) -> Option<&ContainerStateWaiting> {
    worker(pod)?.state.as_ref()?.waiting.as_ref()
}

/// How long is waited after so many failures in a row: twice as long after each.
pub fn delay(failures: u32, first: Duration, most: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(most)
}

/// The text, cut where it is too long for a status.
pub fn clip(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// Whether the node of a pod, which is bound, is gone or not heard of.
pub fn is_lost(pod: &Pod, node: impl FnOnce(&str) -> Option<Arc<Node>>) -> bool {
    let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { return false };
    let Some(node) = node(name) else { return true };
    let all = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions::find(all, "Ready").is_none_or(|ready| ready.status == conditions::UNKNOWN)
}
