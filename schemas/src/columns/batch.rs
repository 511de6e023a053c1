//! Columns of group `batch`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    NONE, age, age_column, choice, column, created, human_duration, items, name, number, or, template_cells,
    template_columns, text,
};
use crate::registry::Column;

/// NAME STATUS COMPLETIONS DURATION AGE
pub fn job() -> Vec<Column> {
    let mut columns = vec![
        name(),
        column("Status", "string", "How the job is getting on."),
        column("Completions", "string", "Pods that succeeded, of those that must."),
        column("Duration", "string", "How long the job ran, or runs by now."),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

/// Cells for [`job`].
pub fn job_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut cells = vec![
        object["metadata"]["name"].clone(),
        state(object).into(),
        completions(spec, number(&status["succeeded"])).into(),
        duration(status, now).into(),
        created(object, now),
    ];
    cells.extend(template_cells(spec));
    cells
}

fn state(job: &Value) -> &'static str {
    let holds = |condition: &str, status: &str| {
        items(&job["status"]["conditions"])
            .any(|other| other["type"] == condition && other["status"] == status)
    };
    let is = |condition: &str| holds(condition, "True");
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if job["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else if holds("ControllerAvailable", "False") {
        // Upstream has no such case: there, a controller always runs.
        "NoController"
    } else {
        "Running"
    }
}

/// `1/3`; of a work queue, where any pod's success ends the job, `0/1 of 4`.
fn completions(spec: &Value, succeeded: i64) -> String {
    match (spec["completions"].as_i64(), number(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(status: &Value, now: Timestamp) -> String {
    let time = |field: &str| text(&status[field]).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else { return String::new() };
    human_duration(time("completionTime").unwrap_or(now).as_second() - start.as_second())
}

/// NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE
pub fn cron_job() -> Vec<Column> {
    let mut columns = vec![
        name(),
        column("Schedule", "string", "When jobs start, as cron writes it."),
        column("Timezone", "string", "Whose clock counts."),
        column("Suspend", "boolean", "Whether no more jobs start."),
        column("Active", "integer", "Jobs that run now."),
        column("Last Schedule", "string", "Time since a job started."),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

/// Cells for [`cron_job`].
pub fn cron_job_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let last = &status["lastScheduleTime"];
    let mut cells = vec![
        object["metadata"]["name"].clone(),
        text(&spec["schedule"]).into(),
        or(&spec["timeZone"], NONE).into(),
        choice(&spec["suspend"]).into(),
        json!(items(&status["active"]).count()),
        if last.is_string() { age(last, now).into() } else { NONE.into() },
        created(object, now),
    ];
    let [containers, images, _] = template_cells(&spec["jobTemplate"]["spec"]);
    let selector = &spec["jobTemplate"]["spec"]["selector"];
    let selector = if selector.is_object() { super::selector(selector) } else { NONE.to_owned() };
    cells.extend([containers, images, selector.into()]);
    cells
}
