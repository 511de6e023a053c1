//! Events, in the core group and in `events.k8s.io`. The newer group wants more of an event, and no news of it but its series.
//!
//! Paths are those of the core group in both, as upstream has them.

use serde_json::Value;

use super::{
    faults::{Faults, Path},
    is_empty, names, one_of, text,
};

/// Longest action, reason and name of an instance, in bytes.
const WORD_BYTES_MAX: usize = 128;
/// Longest note.
const NOTE_BYTES_MAX: usize = 1024;
/// What happened once is no series.
const SERIES_COUNT_MIN: i64 = 2;

/// (in `events.k8s.io`, in the core group): what may not change once it is told.
const FIXED: [(&str, &str); 13] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// (in `events.k8s.io`, in the core group): how events told of their repeats before.
const OLD: [(&str, &str); 3] = [
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// What the two groups call the same.
struct Names {
    about: &'static str,
    note: &'static str,
    reporter: &'static str,
}

pub(super) fn core(_: Option<&Value>, event: &Value, faults: &mut Faults) {
    let names = Names { about: "involvedObject", note: "message", reporter: "reportingComponent" };
    common(&names, event, faults);
}

pub(super) fn newer(old: Option<&Value>, event: &Value, faults: &mut Faults) {
    let names = Names { about: "regarding", note: "note", reporter: "reportingController" };
    common(&names, event, faults);
    let Some(old) = old else { return told(event, faults) };
    if old["series"] != event["series"] {
        series(&event["series"], faults);
    }
    for (field, path) in FIXED {
        if old[field] != event[field] {
            faults.invalid(&Path::Root.field(path), &event[field], "field is immutable");
        }
    }
}

/// What both groups demand. An event that says when it happened in the newer way has to say who and what, too.
fn common(names: &Names, event: &Value, faults: &mut Faults) {
    let is_new = !is_empty(&event["eventTime"]);
    place(&event[names.about]["namespace"], text(&event["metadata"]["namespace"]), is_new, faults);
    if !is_new {
        return;
    }
    let reporter = &Path::Root.field(names.reporter);
    if is_empty(&event[names.reporter]) {
        faults.required(reporter, "");
    }
    if let Err(why) = names::qualified(text(&event[names.reporter])) {
        faults.invalid(reporter, &event[names.reporter], why);
    }
    for field in ["reportingInstance", "action", "reason"] {
        let path = &Path::Root.field(field);
        if is_empty(&event[field]) {
            faults.required(path, "");
        }
        at_most(WORD_BYTES_MAX, &event[field], path, faults);
    }
    at_most(NOTE_BYTES_MAX, &event[names.note], &Path::Root.field("message"), faults);
}

/// An event lives in the namespace of what it is about; cluster-wide things have theirs in `default`.
fn place(about: &Value, own: &str, is_new: bool, faults: &mut Faults) {
    let fits = match text(about) {
        "" => own == "default" || (is_new && own == "kube-system"),
        namespace => namespace == own,
    };
    if !fits {
        let path = &Path::Root.field("involvedObject");
        faults.invalid(&path.field("namespace"), &text(about).into(), "does not match event.namespace");
    }
}

fn at_most(bytes: usize, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if text(value).len() > bytes {
        faults.invalid_text(path, "", format_args!("can have at most {bytes} characters"));
    }
}

/// A new event of the newer group.
fn told(event: &Value, faults: &mut Faults) {
    series(&event["series"], faults);
    if is_empty(&event["eventTime"]) {
        faults.required(&Path::Root.field("eventTime"), "");
    }
    one_of(&event["type"], &["Normal", "Warning"], &Path::Root.field("type"), faults);
    let unset = "needs to be unset";
    for (field, path) in OLD {
        if !matches!(&event[field], Value::Null) && event[field] != 0 {
            faults.invalid_text(&Path::Root.field(path), "", unset);
        }
    }
    let source = &event["deprecatedSource"];
    if !is_empty(&source["component"]) || !is_empty(&source["host"]) {
        faults.invalid_text(&Path::Root.field("source"), "", unset);
    }
}

fn series(series: &Value, faults: &mut Faults) {
    if series.is_null() {
        return;
    }
    let path = &Path::Root.field("series");
    if series["count"].as_i64().unwrap_or(0) < SERIES_COUNT_MIN {
        let why = format_args!("should be at least {SERIES_COUNT_MIN}");
        faults.invalid_text(&path.field("count"), "", why);
    }
    if is_empty(&series["lastObservedTime"]) {
        faults.required(&path.field("lastObservedTime"), "");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sound() -> Value {
        json!({
            "metadata": {"name": "e", "namespace": "default"},
            "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "a.io/c", "reportingInstance": "c-1",
            "action": "Act", "reason": "Because", "note": "n", "type": "Normal",
        })
    }

    fn faults(old: Option<&Value>, event: &Value) -> Vec<String> {
        let mut faults = Faults::default();
        newer(old, event, &mut faults);
        faults.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_new_event_of_the_newer_group_says_all_it_has_to() {
        assert_eq!(faults(None, &sound()), Vec::<String>::new());
        for (field, value, expected) in [
            ("eventTime", Value::Null, "eventTime: Required value"),
            ("reportingController", json!(""), "reportingController: Required value"),
            ("reportingController", json!("a b"), "reportingController: Invalid value: \"a b\""),
            ("reportingInstance", Value::Null, "reportingInstance: Required value"),
            ("reportingInstance", json!("x".repeat(129)), "can have at most 128 characters"),
            ("action", Value::Null, "action: Required value"),
            ("reason", Value::Null, "reason: Required value"),
            (
                "note",
                json!("x".repeat(1025)),
                "message: Invalid value: \"\": can have at most 1024 characters",
            ),
            ("type", json!("Odd"), "type: "),
            ("deprecatedCount", json!(2), "count: Invalid value: \"\": needs to be unset"),
            ("deprecatedSource", json!({"host": "n"}), "source: Invalid value: \"\": needs to be unset"),
            ("deprecatedLastTimestamp", json!("2026-01-01T00:00:00Z"), "lastTimestamp: Invalid value"),
            ("series", json!({"count": 1}), "series.count: Invalid value: \"\": should be at least 2"),
            ("series", json!({"count": 2}), "series.lastObservedTime: Required value"),
            ("regarding", json!({"namespace": "other"}), "does not match event.namespace"),
        ] {
            let mut event = sound();
            event[field] = value;
            let found = faults(None, &event);
            assert!(found.iter().any(|fault| fault.contains(expected)), "{field}: {found:?}");
        }
    }

    #[test]
    fn a_told_event_changes_in_nothing_but_its_series() {
        let (old, mut new) = (sound(), sound());
        new["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"});
        assert_eq!(faults(Some(&old), &new), Vec::<String>::new());
        new["note"] = json!("other");
        assert_eq!(faults(Some(&old), &new), ["message: Invalid value: \"other\": field is immutable"]);
    }
}
