//! `events.k8s.io/v1` Event: the Event of the core group with newer names for seven of its fields.

use serde_json::{Value, json};

use super::renamed;

/// (in the core group, in `events.k8s.io`)
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An event of `events.k8s.io` as the core group has it.
pub fn stored(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        renamed(fields, NAMES.into_iter().map(|(core, newer)| (newer, core)));
        fields.insert("apiVersion".to_owned(), "v1".into());
        // The core group has no event that is about nothing.
        fields.entry("involvedObject").or_insert_with(|| json!({}));
    }
    event
}

/// An event of the core group as `events.k8s.io` has it.
pub fn served(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        renamed(fields, NAMES.into_iter());
        fields.insert("apiVersion".to_owned(), "events.k8s.io/v1".into());
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_same_to_say_in_both_groups() {
        let newer = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod", "name": "p"}, "related": {"kind": "Node"}, "note": "n", "reason": "R",
            "reportingController": "c", "reportingInstance": "c-1", "action": "A", "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"},
            "deprecatedSource": {"component": "s"}, "deprecatedCount": 3,
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:00:01Z",
        });
        let core = stored(newer.clone());
        assert_eq!(core["apiVersion"], "v1");
        for (field, value) in [
            ("involvedObject", json!({"kind": "Pod", "name": "p"})),
            ("message", json!("n")),
            ("reportingComponent", json!("c")),
            ("source", json!({"component": "s"})),
            ("count", json!(3)),
            ("firstTimestamp", json!("2026-01-01T00:00:00Z")),
            ("lastTimestamp", json!("2026-01-01T00:00:01Z")),
        ] {
            assert_eq!(core[field], value, "{field}");
        }
        assert_eq!(core.as_object().unwrap().len(), newer.as_object().unwrap().len());
        assert_eq!(served(core), newer);
    }

    #[test]
    fn what_an_event_does_not_say_stays_unsaid() {
        let core = stored(json!({"apiVersion": "events.k8s.io/v1", "note": "n"}));
        assert_eq!(core, json!({"apiVersion": "v1", "message": "n", "involvedObject": {}}));
    }
}
