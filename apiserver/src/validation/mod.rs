//! Says what is wrong with an object, field by field, in the words that `kube-apiserver` uses.
//!
//! Pure: looks only at the object and, on updates, at the one it replaces. Objects come here well typed
//! ([`claw_schemas::schema::Schema::check`]) and with their defaults filled in. A part that an update leaves as it was
//! is not judged again, so that a rule of today never locks an object of yesterday.
//!
//! Must never know: who asks, and what else is stored.

mod config;
mod container;
mod env;
mod faults;
mod meta;
mod names;
mod pod;
mod pod_update;
mod probe;
mod resources;
mod scheduling;
mod small;
mod volume;
mod workload;

use claw_schemas::{Descriptor, status::Cause};
use serde_json::Value;

use self::faults::{Faults, Path};

/// What is wrong with a new object; empty when nothing is.
pub fn create(kind: &Descriptor, object: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    meta::metadata(kind, &object["metadata"], &mut faults);
    let spec = &Path::Root.field("spec");
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::spec(&object["spec"], spec, &mut faults),
        ("", "Namespace") => small::namespace(object, &mut faults),
        ("", "Node") => small::node(object, &mut faults),
        ("", "ConfigMap") => config::config_map(object, &mut faults),
        ("", "Secret") => config::secret(object, &mut faults),
        ("", "Event") => small::event(object, &mut faults),
        ("apps", "Deployment") => workload::deployment(&object["spec"], spec, &mut faults),
        ("apps", "ReplicaSet") => workload::replica_set(&object["spec"], spec, &mut faults),
        ("coordination.k8s.io", "Lease") => small::lease(object, &mut faults),
        _ => {}
    }
    faults.into_causes()
}

/// What is wrong with an object that replaces `old`; empty when nothing is.
pub fn update(kind: &Descriptor, old: &Value, new: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    if old["metadata"] != new["metadata"] {
        meta::metadata(kind, &new["metadata"], &mut faults);
    }
    let spec = &Path::Root.field("spec");
    let spec_changed = old["spec"] != new["spec"];
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") if spec_changed => {
            pod::spec(&new["spec"], spec, &mut faults);
            pod_update::spec(&old["spec"], &new["spec"], spec, &mut faults);
        }
        ("", "Namespace") => small::namespace(new, &mut faults),
        ("", "Node") => small::node(new, &mut faults),
        ("", "ConfigMap") => {
            config::config_map(new, &mut faults);
            config::immutable(old, new, &["data", "binaryData"], &mut faults);
        }
        ("", "Secret") => {
            config::secret(new, &mut faults);
            config::secret_update(old, new, &mut faults);
        }
        ("", "Event") => small::event(new, &mut faults),
        ("apps", "Deployment") if spec_changed => {
            workload::deployment(&new["spec"], spec, &mut faults);
            workload::same_selector(&old["spec"], &new["spec"], spec, &mut faults);
        }
        ("apps", "ReplicaSet") if spec_changed => {
            workload::replica_set(&new["spec"], spec, &mut faults);
            workload::same_selector(&old["spec"], &new["spec"], spec, &mut faults);
        }
        ("coordination.k8s.io", "Lease") => small::lease(new, &mut faults),
        _ => {}
    }
    faults.into_causes()
}

/// The items of a list, with the path of each.
fn each<'v>(list: &'v Value, path: &Path<'_>, mut judge: impl FnMut(&'v Value, &Path<'_>)) {
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        judge(item, &path.item(index));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether nothing was said: absent or empty text.
fn is_empty(value: &Value) -> bool {
    text(value).is_empty() && !value.is_number() && !value.is_boolean()
}

/// A number that must not be negative, if it is there.
fn not_negative(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if value.as_i64().is_some_and(|number| number < 0) {
        faults.invalid(path, value, "must be greater than or equal to 0");
    }
}

/// A text that must be one of a few.
fn one_of(value: &Value, allowed: &[&str], path: &Path<'_>, faults: &mut Faults) {
    if !allowed.contains(&text(value)) {
        faults.unsupported(path, value, allowed);
    }
}

#[cfg(test)]
mod garbage;
#[cfg(test)]
mod tests;
