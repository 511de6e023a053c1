//! Certificate signing requests: who asks is for the server to say, and deciding is apart from signing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use claw_schemas::schema::time_text;
use jiff::Timestamp;
use serde_json::Value;

use super::{kinds::Served, update::Part};
use crate::{
    auth::{Identity, MASTERS},
    pki,
};

/// Conditions that only the approval endpoint sets.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

pub(super) fn is_request(kind: &Served) -> bool {
    kind.descriptor.group == GROUP && kind.descriptor.kind == "CertificateSigningRequest"
}

/// Group whose kinds these are, and of the signers about whom rights are given.
pub(super) const GROUP: &str = "certificates.k8s.io";

/// Signs certificates of clients that the server knows by their names and organisations.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// What somebody must be allowed to do with the request's signer who makes this change, if anything.
pub(super) fn deed(part: Part, old: &Value, new: &Value) -> Option<&'static str> {
    let (was, is) = (&old["status"], &new["status"]);
    match part {
        Part::Approval => Some("approve"),
        Part::Status if ["certificate", "conditions"].iter().any(|field| was[field] != is[field]) => {
            Some("sign")
        }
        _ => None,
    }
}

/// The names by which a right is given about a signer: its own, and that of all in its domain.
pub(super) fn names_of(signer: &str) -> [String; 2] {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    [signer.to_owned(), format!("{domain}/*")]
}

/// Why a request may not even be made: nobody becomes an administrator by a certificate that others approve in passing.
pub(super) fn refusal(request: &Value) -> Option<String> {
    let spec = &request["spec"];
    if spec["signerName"] != CLIENT_SIGNER {
        return None;
    }
    let pem = STANDARD.decode(spec["request"].as_str().unwrap_or_default()).unwrap_or_default();
    match pki::organizations_of_request(&pem) {
        Err(why) => Some(format!("the request cannot be read: {why}")),
        Ok(organizations) if organizations.iter().any(|one| one == MASTERS) => {
            Some(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"))
        }
        Ok(_) => None,
    }
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
