//! From client-side apply to server-side apply: what the annotation of the first means to the second.
//!
//! kubectl used to keep the manifest in an annotation, and its fields belong to the updater
//! `kubectl-client-side-apply`. When kubectl applies server-side, fields that are still as that manifest said are its
//! own to change.

use serde_json::{Value, json};

use super::{
    apply::{Applied, Conflict, Halt, Refusal, apply_in},
    compare::compare,
    extract::named,
    managers::{Entry, Manager},
    set::Set,
    subject::Subject,
    versions::Versions,
};

/// Where client-side apply keeps the manifest.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager whose applies go on from the annotation; whoever does not want that takes another name.
const KUBECTL: &str = "kubectl";

/// As [`apply_in`], and kubectl goes on where its client-side apply has stopped. Keeps the annotation up to date, so that
/// the way back stays open.
///
/// # Errors
/// As [`apply_in`].
pub fn apply_over_last(
    versions: &Versions<'_>,
    live: &Value,
    config: &Value,
    entries: Vec<Entry>,
    manager: &Manager,
    force: bool,
    now: &str,
) -> Result<Applied, Halt> {
    if manager.name != KUBECTL || !manager.subresource.is_empty() {
        return apply_in(versions, live, config, entries, manager, force, now);
    }
    let mut applied = match apply_in(versions, live, config, entries.clone(), manager, force, now) {
        Err(Halt::Refused(Refusal::Conflicts(conflicts))) => {
            let foreign = foreign(conflicts, &unchanged(&versions.subject, live));
            if !foreign.is_empty() {
                return Err(Refusal::Conflicts(foreign).into());
            }
            apply_in(versions, live, config, entries, manager, true, now)?
        }
        result => result?,
    };
    remember(&mut applied.object, config);
    Ok(applied)
}

fn foreign(mut conflicts: Vec<Conflict>, own: &Set) -> Vec<Conflict> {
    conflicts.retain(|conflict| !own.contains(&conflict.path));
    conflicts
}

/// The fields that are still as the annotation has them.
fn unchanged(subject: &Subject<'_>, live: &Value) -> Set {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    let Ok(mut last) = serde_json::from_str::<Value>(text) else { return Set::default() };
    if last["apiVersion"] != live["apiVersion"] {
        return Set::default();
    }
    subject.schema.normalize(&mut last);
    let changes = compare(subject, &last, live);
    named(subject, &last).difference(&changes.changed).difference(&changes.removed)
}

/// Brings an annotation that is there up to date.
fn remember(object: &mut Value, config: &Value) {
    let annotation = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED));
    let Some(annotation) = annotation.filter(|text| text.as_str().is_some_and(|text| !text.is_empty()))
    else {
        return;
    };
    let mut manifest = config.clone();
    if let Some(Value::Object(annotations)) = manifest.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = json!(format!("{manifest}\n"));
}
