//! Certificate signing requests: who asks is for the server to say, and deciding is apart from signing.

use jiff::Timestamp;
use serde_json::Value;

use super::{kinds::Served, object::time_text};
use crate::auth::Identity;

/// Conditions that only the approval endpoint sets.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

pub(super) fn is_request(kind: &Served) -> bool {
    kind.descriptor.group == "certificates.k8s.io" && kind.descriptor.kind == "CertificateSigningRequest"
}

/// Writes down who asks for a certificate, whatever the request claims.
pub(super) fn sign(who: &Identity, object: &mut Value) {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    spec["username"] = who.user.as_str().into();
    spec["groups"] = who.groups.clone().into();
    spec["uid"] = who.uid.as_str().into();
    spec["extra"] = serde_json::json!(who.extra);
}

/// The request with the conditions that an approval sets; nothing else of it changes.
pub(super) fn approved(old: &Value, sent: &mut Value) -> Value {
    let mut new = old.clone();
    new["status"]["conditions"] = sent["status"]["conditions"].take();
    if new["status"]["conditions"].is_null()
        && let Some(status) = new["status"].as_object_mut()
    {
        status.remove("conditions");
    }
    date(&mut new);
    new
}

/// A change of the status leaves the decisions as they are.
pub(super) fn keep_decisions(old: &Value, new: &mut Value) {
    let is_decision = |condition: &Value| DECISIONS.iter().any(|decision| condition["type"] == *decision);
    let list = |object: &Value| object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut conditions: Vec<Value> = list(old).into_iter().filter(&is_decision).collect();
    conditions.extend(list(new).into_iter().filter(|condition| !is_decision(condition)));
    match (conditions.is_empty(), new["status"].as_object_mut()) {
        (true, Some(status)) => drop(status.remove("conditions")),
        (true, None) => {}
        (false, _) => new["status"]["conditions"] = conditions.into(),
    }
    date(new);
}

/// Says when a condition was set that does not say so itself.
fn date(request: &mut Value) {
    let now = time_text(Timestamp::now());
    for condition in request["status"]["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition[field].is_null() {
                condition[field] = now.as_str().into();
            }
        }
    }
}
