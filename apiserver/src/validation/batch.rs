//! Jobs, and the clocks that start them.

use serde_json::{Value, json};

use super::{
    cron, each,
    faults::{Faults, Path},
    immutable, is_empty, len, not_negative, one_of, optional_one_of, text,
    workload::{self, label_selector, without},
};

/// Pods that an indexed job may run at one time, as its status lists them by number.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
/// Exit codes that one rule may name.
const EXIT_CODES_MAX: usize = 255;
/// The name of a job started by the clock ends with eleven characters that tell when.
const CRON_NAME_BYTES_MAX: usize = 52;

const COUNTS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "ttlSecondsAfterFinished",
];

pub(super) fn job(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    selector(new, &path.field("selector"), faults);
    job_spec(spec, path, faults);
    if let Some(old) = old {
        update(&old["spec"], spec, !old["status"]["startTime"].is_null(), path, faults);
    }
}

pub(super) fn cron_job(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    if text(&new["metadata"]["name"]).len() > CRON_NAME_BYTES_MAX {
        let why = format_args!("must be no more than {CRON_NAME_BYTES_MAX} characters");
        let meta = &Path::Root.field("metadata");
        faults.invalid(&meta.field("name"), &new["metadata"]["name"], why);
    }
    schedule(&spec["schedule"], &path.field("schedule"), faults);
    time_zone(&spec["timeZone"], &path.field("timeZone"), faults);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&spec[field], &path.field(field), faults);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    one_of(&spec["concurrencyPolicy"], &policies, &path.field("concurrencyPolicy"), faults);
    let (job, template) = (&spec["jobTemplate"]["spec"], &path.field("jobTemplate"));
    let path = &template.field("spec");
    if !job["selector"].is_null() {
        faults.invalid(&path.field("selector"), &job["selector"], "`selector` will be auto-generated");
    }
    if job["manualSelector"] == true {
        faults.unsupported(&path.field("manualSelector"), &job["manualSelector"], &["nil", "false"]);
    }
    job_spec(job, path, faults);
}

fn schedule(schedule: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(schedule) {
        faults.required(path, "");
    } else if text(schedule).contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        faults.invalid(path, schedule, why);
    } else if let Err(why) = cron::schedule(text(schedule)) {
        faults.invalid(path, schedule, why);
    }
}

/// `Europe/Berlin`. Whether there is such a zone, only who reads the clock can say.
fn time_zone(zone: &Value, path: &Path<'_>, faults: &mut Faults) {
    if zone.is_null() {
        return;
    }
    let sound = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
    };
    if is_empty(zone) {
        faults.invalid(path, zone, "timeZone must be nil or non-empty string");
    } else if text(zone).eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        faults.invalid(path, zone, why);
    } else if !text(zone).split('/').all(sound) {
        faults.invalid(path, zone, format_args!("unknown time zone {}", text(zone)));
    }
}

/// A job's selector is the server's to choose, unless the user insists.
fn selector(job: &Value, path: &Path<'_>, faults: &mut Faults) {
    let spec = &job["spec"];
    if spec["selector"].is_null() {
        faults.required(path, "");
        return;
    }
    label_selector(&spec["selector"], path, faults);
    let uid = &job["metadata"]["uid"];
    let generated = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let older = json!({"matchLabels": {"controller-uid": uid}});
    if spec["manualSelector"] != true && spec["selector"] != generated && spec["selector"] != older {
        faults.invalid(path, &spec["selector"], "`selector` not auto-generated");
    }
    let wanted = spec["selector"]["matchLabels"].as_object().into_iter().flatten();
    let labels = &spec["template"]["metadata"]["labels"];
    if wanted.into_iter().any(|(key, value)| labels[key] != *value) {
        let path = &Path::Root.field("spec");
        let template = &path.field("template");
        let meta = &template.field("metadata");
        faults.invalid(&meta.field("labels"), labels, "`selector` does not match template `labels`");
    }
}

fn job_spec(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    for field in COUNTS {
        not_negative(&spec[field], &path.field(field), faults);
    }
    indexed(spec, path, faults);
    let policies = ["Failed", "TerminatingOrFailed"];
    optional_one_of(&spec["podReplacementPolicy"], &policies, &path.field("podReplacementPolicy"), faults);
    workload::template(&spec["template"], &path.field("template"), faults);
    restart_policy(spec, path, faults);
    let rules = &path.field("podFailurePolicy");
    each(&spec["podFailurePolicy"]["rules"], &rules.field("rules"), |rule, path| {
        failure_rule(rule, spec, path, faults);
    });
    let manager = &spec["managedBy"];
    if !manager.is_null()
        && let Err(why) = super::names::domain_path(text(manager))
    {
        faults.invalid(&path.field("managedBy"), manager, why);
    }
}

fn indexed(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mode = &spec["completionMode"];
    optional_one_of(mode, &["Indexed", "NonIndexed"], &path.field("completionMode"), faults);
    if mode == "Indexed" {
        if spec["completions"].is_null() {
            faults.required(&path.field("completions"), "when completion mode is Indexed");
        }
        if spec["parallelism"].as_i64().is_some_and(|count| count > INDEXED_PARALLELISM_MAX) {
            let why = format_args!(
                "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
            );
            faults.invalid(&path.field("parallelism"), &spec["parallelism"], why);
        }
        return;
    }
    for field in ["backoffLimitPerIndex", "successPolicy"].into_iter().filter(|field| !spec[*field].is_null())
    {
        faults.invalid(&path.field(field), &spec[field], "requires indexed completion mode");
    }
    if !spec["maxFailedIndexes"].is_null() {
        let why = "requires backoffLimitPerIndex and indexed completion mode";
        faults.invalid(&path.field("maxFailedIndexes"), &spec["maxFailedIndexes"], why);
    }
}

fn restart_policy(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let policy = &spec["template"]["spec"]["restartPolicy"];
    let template = &path.field("template");
    let pod = &template.field("spec");
    let path = &pod.field("restartPolicy");
    match text(policy) {
        "" | "Always" => faults.required(path, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        _ if !spec["podFailurePolicy"].is_null() => {
            faults.invalid(path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        _ => {}
    }
}

fn failure_rule(rule: &Value, spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
    if is_empty(&rule["action"]) {
        faults.required(
            &path.field("action"),
            "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
        );
    } else {
        one_of(&rule["action"], &actions, &path.field("action"), faults);
    }
    if rule["action"] == "FailIndex" && spec["backoffLimitPerIndex"].is_null() {
        let why = "requires the backoffLimitPerIndex to be set";
        faults.invalid(&path.field("action"), &rule["action"], why);
    }
    let (codes, conditions) = (&rule["onExitCodes"], &rule["onPodConditions"]);
    match (codes.is_object(), len(conditions) > 0) {
        (true, true) => {
            faults.invalid(path, rule, "specifying both OnExitCodes and OnPodConditions is not supported")
        }
        (false, false) => {
            faults.invalid(path, rule, "specifying one of OnExitCodes and OnPodConditions is required")
        }
        _ => {}
    }
    if codes.is_object() {
        exit_codes(codes, &path.field("onExitCodes"), faults);
    }
}

fn exit_codes(codes: &Value, path: &Path<'_>, faults: &mut Faults) {
    one_of(&codes["operator"], &["In", "NotIn"], &path.field("operator"), faults);
    let values = &path.field("values");
    match len(&codes["values"]) {
        0 => faults.invalid(values, &codes["values"], "at least one value is required"),
        count if count > EXIT_CODES_MAX => faults.too_many(values, count, EXIT_CODES_MAX),
        _ => {}
    }
    each(&codes["values"], values, |value, path| {
        if codes["operator"] == "In" && value == 0 {
            faults.invalid(path, value, "must not be 0 for the In operator");
        }
    });
}

/// What a job does is settled when it starts; how many pods work on it at a time is not.
fn update(old: &Value, new: &Value, started: bool, path: &Path<'_>, faults: &mut Faults) {
    for field in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "successPolicy",
        "backoffLimitPerIndex",
        "managedBy",
    ] {
        immutable(old, new, field, path, faults);
    }
    // An indexed job that does all its work at once may grow and shrink.
    let elastic = new["completionMode"] == "Indexed" && new["completions"] == new["parallelism"];
    if !elastic {
        immutable(old, new, "completions", path, faults);
    }
    let may_move = old["suspend"] == true && !started;
    let (old_template, new_template) = match may_move {
        true => (rooted(&old["template"]), rooted(&new["template"])),
        false => (old["template"].clone(), new["template"].clone()),
    };
    if old_template != new_template {
        faults.invalid(&path.field("template"), &new["template"], "field is immutable");
    }
}

/// A template without what says where its pods run, which may change while a job has not started.
fn rooted(template: &Value) -> Value {
    let mut template = without(template, &["metadata"]);
    template["spec"] =
        without(&template["spec"], &["nodeSelector", "affinity", "tolerations", "schedulingGates"]);
    template
}
