//! Columns of pods. The status is one word for a whole pod, found by the rules of `kubectl`.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, age_column, column, created, human_duration, items, name, number, or, text, wide};
use crate::registry::Column;

/// NAME READY STATUS RESTARTS AGE
pub fn pod() -> Vec<Column> {
    vec![
        name(),
        column("Ready", "string", "Containers that are ready, of all."),
        column("Status", "string", "What the containers of the pod are up to."),
        column("Restarts", "string", "How often containers were restarted, and when the last time."),
        age_column(),
        wide("IP", "Address of the pod."),
        wide("Node", "Where the pod runs."),
        wide("Nominated Node", "Where the pod will run once others have made room."),
        wide("Readiness Gates", "Gates that are open, of all."),
    ]
}

/// Cells for [`pod`].
pub fn pod_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let summary = Summary::of(object);
    let address = items(&status["podIPs"]).next().map_or(&status["podIP"], |first| &first["ip"]);
    vec![
        object["metadata"]["name"].clone(),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.into(),
        summary.restarts.print(now).into(),
        created(object, now),
        or(address, NONE).into(),
        or(&spec["nodeName"], NONE).into(),
        or(&status["nominatedNodeName"], NONE).into(),
        gates(spec, status).into(),
    ]
}

/// What [`pod_cells`] looks at.
pub const POD_READ: &[&str] = &[
    "metadata.name",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "spec.nodeName",
    "spec.containers.*",
    "spec.initContainers.name",
    "spec.initContainers.restartPolicy",
    "spec.readinessGates",
    "status",
];

/// What the cells say about the containers.
struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: Restarts,
}

#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += number(&container["restartCount"]);
        let finished = text(&container["lastState"]["terminated"]["finishedAt"]).parse().ok();
        self.last = self.last.max(finished);
    }

    /// `0`, `3 (2m5s ago)`
    fn print(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, human_duration(now.as_second() - last.as_second()))
            }
            _ => self.count.to_string(),
        }
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let sidecars = items(&spec["initContainers"]).filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            ready: 0,
            containers: items(&spec["containers"]).count() + sidecars,
            reason: or(&status["reason"], text(&status["phase"])).to_owned(),
            restarts: Restarts::default(),
        };
        if is_gated(status) {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        let (initialized, of_sidecars) = summary.initialize(spec, status);
        // Conditions may know that initialization is over before every status does.
        if initialized || is_true(status, "Initialized") {
            summary.restarts = of_sidecars;
            summary.run(status);
        }
        summary.delete(pod);
        summary
    }

    /// Looks at the init containers, one after another, until one is not done. Gives whether all are, and the
    /// restarts of those that keep running.
    fn initialize(&mut self, spec: &Value, status: &Value) -> (bool, Restarts) {
        let mut of_sidecars = Restarts::default();
        for (index, container) in items(&status["initContainerStatuses"]).enumerate() {
            self.restarts.add(container);
            let sidecar = items(&spec["initContainers"])
                .any(|declared| declared["name"] == container["name"] && is_sidecar(declared));
            if sidecar {
                of_sidecars.add(container);
            }
            let (waiting, terminated) = (&container["state"]["waiting"], &container["state"]["terminated"]);
            if terminated.is_object() && number(&terminated["exitCode"]) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            let why_waiting = text(&waiting["reason"]);
            self.reason = if terminated.is_object() {
                format!("Init:{}", exit_reason(terminated))
            } else if !why_waiting.is_empty() && why_waiting != "PodInitializing" {
                format!("Init:{why_waiting}")
            } else {
                format!("Init:{index}/{}", items(&spec["initContainers"]).count())
            };
            return (false, of_sidecars);
        }
        (true, of_sidecars)
    }

    /// Looks at the containers, the last one first, so that the first one has the last word.
    fn run(&mut self, status: &Value) {
        let mut some_runs = false;
        for container in items(&status["containerStatuses"]).rev() {
            self.restarts.add(container);
            let (waiting, terminated) = (&container["state"]["waiting"], &container["state"]["terminated"]);
            if !text(&waiting["reason"]).is_empty() {
                text(&waiting["reason"]).clone_into(&mut self.reason);
            } else if terminated.is_object() {
                self.reason = exit_reason(terminated);
            } else if container["ready"] == true && container["state"]["running"].is_object() {
                some_runs = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && some_runs {
            let reason = if is_true(status, "Ready") { "Running" } else { "NotReady" };
            reason.clone_into(&mut self.reason);
        }
    }

    fn delete(&mut self, pod: &Value) {
        if pod["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        let status = &pod["status"];
        if status["reason"] == "NodeLost" {
            "Unknown".clone_into(&mut self.reason);
        } else if !matches!(text(&status["phase"]), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut self.reason);
        }
    }
}

/// An init container that keeps running beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn is_gated(status: &Value) -> bool {
    items(&status["conditions"])
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated")
}

fn is_true(status: &Value, condition: &str) -> bool {
    items(&status["conditions"]).any(|other| other["type"] == condition && other["status"] == "True")
}

/// `OOMKilled`, `Error`, `Signal:9`, `ExitCode:3`
fn exit_reason(terminated: &Value) -> String {
    let (reason, signal) = (text(&terminated["reason"]), number(&terminated["signal"]));
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", number(&terminated["exitCode"]))
    }
}

fn gates(spec: &Value, status: &Value) -> String {
    let all = items(&spec["readinessGates"]).count();
    if all == 0 {
        return NONE.to_owned();
    }
    let open =
        items(&spec["readinessGates"]).filter(|gate| is_true(status, text(&gate["conditionType"]))).count();
    format!("{open}/{all}")
}
