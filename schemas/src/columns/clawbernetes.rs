//! Columns of group `clawbernetes.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, age_column, column, created, items, name, number, or, text, wide};
use crate::registry::Column;

/// NAME OP DEVICE GFLOP/S STATE AGE
pub fn kernel_job() -> Vec<Column> {
    vec![
        name(),
        column("Op", "string", "The last operation of the graph, and how many there are beside it."),
        column("Device", "string", "On what the last attempt calculates."),
        column("GFLOP/s", "string", "Arithmetic operations a second in the run in the middle, in 10⁹."),
        column("State", "string", "How the job is getting on."),
        age_column(),
        wide("Node", "Where the last attempt is."),
        wide("Model", "What the device's maker calls it."),
        wide("Runs", "Runs that were timed, of those that are wanted."),
        wide("Median", "How long the run in the middle took."),
        wide("Attempts", "How often it was tried."),
        wide("Progress", "What it does."),
    ]
}

/// What [`kernel_job_cells`] looks at.
pub const KERNEL_JOB_READ: &[&str] = &[
    "metadata.name",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "spec.operations.op",
    "spec.runs",
    "status.attempts.device",
    "status.attempts.model",
    "status.attempts.node",
    "status.conditions.type",
    "status.conditions.status",
    "status.figures",
    "status.phase",
    "status.progress",
];

/// Cells for [`kernel_job`].
pub fn kernel_job_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let (attempt, figures) = (items(&status["attempts"]).last().unwrap_or(&Value::Null), &status["figures"]);
    let figure = |name: &str, written: fn(f64) -> String| {
        figures[name].as_f64().map_or_else(|| NONE.to_owned(), written)
    };
    vec![
        object["metadata"]["name"].clone(),
        operations(&spec["operations"]).into(),
        or(&attempt["device"], NONE).into(),
        figure("gflopsPerSecond", three_digits).into(),
        state(object).into(),
        created(object, now),
        or(&attempt["node"], NONE).into(),
        or(&attempt["model"], NONE).into(),
        format!("{}/{}", number(&figures["runs"]), spec["runs"].as_i64().unwrap_or(1)).into(),
        figure("secondsMedian", seconds).into(),
        items(&status["attempts"]).count().to_string().into(),
        or(&status["progress"], NONE).into(),
    ]
}

/// NAME DEVICE NODE MODEL LEVEL VERDICT AGE
pub fn device_check() -> Vec<Column> {
    vec![
        name(),
        column("Device", "string", "The device's name in its slice."),
        column("Node", "string", "Where it is."),
        column("Model", "string", "What the device's maker calls it."),
        column("Level", "string", "How thoroughly it is looked at."),
        column("Verdict", "string", "Whether it is fit; until that is known, how the look is getting on."),
        age_column(),
        wide("Progress", "What is done, or waited for."),
        wide("Objection", "What speaks against the device, or why it could not be looked at."),
    ]
}

/// What [`device_check_cells`] looks at.
pub const DEVICE_CHECK_READ: &[&str] = &[
    "metadata.name",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "spec.device",
    "spec.level",
    "status.conditions",
    "status.device",
    "status.findings.passed",
    "status.findings.words",
    "status.phase",
    "status.progress",
    "status.verdict",
];

/// Cells for [`device_check`].
pub fn device_check_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let verdict = match text(&status["verdict"]) {
        "" => state(object),
        verdict => verdict,
    };
    vec![
        object["metadata"]["name"].clone(),
        or(&spec["device"]["name"], NONE).into(),
        or(&status["device"]["node"], or(&spec["device"]["pool"], NONE)).into(),
        or(&status["device"]["model"], NONE).into(),
        or(&spec["level"], "Quick").into(),
        verdict.into(),
        created(object, now),
        or(&status["progress"], NONE).into(),
        objection(status).into(),
    ]
}

/// The first finding that speaks against the device, or why there are none.
fn objection(status: &Value) -> &str {
    let failed = items(&status["conditions"]).find(|one| one["type"] == "Failed" && one["status"] == "True");
    let against = items(&status["findings"]).find(|finding| finding["passed"] == false);
    let words = failed.map(|failed| &failed["message"]).or(against.map(|finding| &finding["words"]));
    words.map_or(NONE, |words| or(words, NONE))
}

/// NAME LEVEL DEVICES FIT NOT FIT UNCHECKED AGE
pub fn device_policy() -> Vec<Column> {
    vec![
        name(),
        column("Level", "string", "How thoroughly devices are looked at."),
        column("Devices", "integer", "How many devices are meant."),
        column("Fit", "integer", "How many of them were looked at and are fit."),
        column("Not Fit", "integer", "How many of them were looked at and are not."),
        column("Unchecked", "integer", "How many of them are yet to be looked at."),
        age_column(),
        wide("Running", "How many looks are under way."),
        wide("Class", "The class of the devices that are meant."),
        wide("Hold Back", "Whether nobody is given one before it was found fit."),
        wide("Effect", "The effect of the taint of those that are not fit."),
    ]
}

/// Cells for [`device_policy`].
pub fn device_policy_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    vec![
        object["metadata"]["name"].clone(),
        or(&spec["level"], "Quick").into(),
        number(&status["devices"]).into(),
        number(&status["fit"]).into(),
        number(&status["notFit"]).into(),
        number(&status["unchecked"]).into(),
        created(object, now),
        number(&status["running"]).to_string().into(),
        or(&spec["deviceClassName"], NONE).into(),
        (spec["holdBack"] != false).to_string().into(),
        or(&spec["effect"], "NoSchedule").into(),
    ]
}

/// `Softmax+2`
fn operations(operations: &Value) -> String {
    let Some(last) = items(operations).last() else { return NONE.to_owned() };
    match items(operations).count() {
        1 => text(&last["op"]).to_owned(),
        count => format!("{}+{}", text(&last["op"]), count - 1),
    }
}

/// What its controller says; before it has said a word, what follows from the conditions.
fn state(job: &Value) -> &str {
    let is = |condition: &&str| {
        items(&job["status"]["conditions"])
            .any(|other| other["type"] == **condition && other["status"] == "True")
    };
    let ended = ["Complete", "Failed"].into_iter().find(is);
    if let Some(ended) = ended {
        ended
    } else if job["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if let Some(phase) = job["status"]["phase"].as_str().filter(|phase| !phase.is_empty()) {
        phase
    } else {
        ["Suspended"].into_iter().find(is).unwrap_or("Pending")
    }
}

/// A figure as exact as people compare them: `12.3`, `4560`, `0.0123`.
fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// `1.25s`, `12.3ms`, `456µs`
fn seconds(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{}s", three_digits(seconds)),
        1e-3.. => format!("{}ms", three_digits(seconds * 1e3)),
        _ => format!("{}µs", three_digits(seconds * 1e6)),
    }
}
