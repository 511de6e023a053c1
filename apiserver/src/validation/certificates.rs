//! Requests for certificates, and decisions on them.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    distinct, each,
    faults::{Faults, Path},
    is_empty, len, names, one_of, text,
};

/// Shortest life that may be asked for, in seconds.
const EXPIRATION_S_MIN: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const PEM_END: &str = "-----END CERTIFICATE REQUEST-----";

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Decisions that are final.
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn signing_request(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    if !is_request(text(&spec["request"])) {
        faults.invalid(
            &path.field("request"),
            &spec["request"],
            "PEM block type must be CERTIFICATE REQUEST",
        );
    }
    let usages = &path.field("usages");
    if len(&spec["usages"]) == 0 {
        faults.required(usages, "");
    }
    each(&spec["usages"], usages, |usage, path| one_of(usage, &USAGES, path, faults));
    distinct(&spec["usages"], usages, faults);
    signer(&spec["signerName"], &path.field("signerName"), faults);
    let expiration = &spec["expirationSeconds"];
    if expiration.as_i64().is_some_and(|seconds| seconds < EXPIRATION_S_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        faults.invalid(&path.field("expirationSeconds"), expiration, why);
    }
}

/// Whether base64 text holds a PEM block of the right type, and nothing else. What is in it is the signer's to judge.
fn is_request(base64: &str) -> bool {
    let decoded = STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.is_some_and(|pem| {
        let body = pem.trim().strip_prefix(PEM_BEGIN).and_then(|rest| rest.strip_suffix(PEM_END));
        body.is_some_and(|body| {
            let body: String = body.split_whitespace().collect();
            !body.is_empty() && STANDARD.decode(body).is_ok()
        })
    })
}

fn signer(name: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(name) {
        faults.required(path, "");
    } else if name == LEGACY_SIGNER {
        faults.invalid(path, name, "the legacy signerName is not allowed via this API version");
    } else if !text(name).split_once('/').is_some_and(|(domain, rest)| {
        domain.contains('.') && names::dns_subdomain(domain).is_ok() && names::dns_subdomain(rest).is_ok()
    }) {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        faults.invalid(path, name, why);
    }
}

/// Decisions are made once.
pub(super) fn status(old: &Value, new: &Value, faults: &mut Faults) {
    let root = &Path::Root.field("status");
    let (conditions, path) = (&new["conditions"], &root.field("conditions"));
    let mut seen = HashSet::new();
    each(conditions, path, |condition, path| {
        if is_empty(&condition["type"]) {
            faults.required(&path.field("type"), "");
        } else if !seen.insert(text(&condition["type"])) {
            faults.duplicate(&path.field("type"), &condition["type"]);
        }
        if DECISIONS.contains(&text(&condition["type"])) {
            one_of(&condition["status"], &["True"], &path.field("status"), faults);
        } else {
            one_of(&condition["status"], &["False", "True", "Unknown"], &path.field("status"), faults);
        }
    });
    if seen.contains("Approved") && seen.contains("Denied") {
        faults.invalid(path, conditions, "Approved and Denied conditions are mutually exclusive");
    }
    for condition in old["conditions"].as_array().into_iter().flatten() {
        let decision = text(&condition["type"]);
        if DECISIONS.contains(&decision) && !seen.contains(decision) {
            faults.forbidden(path, format_args!("updates may not remove a condition of type \"{decision}\""));
        }
    }
    if !is_empty(&old["certificate"]) && old["certificate"] != new["certificate"] {
        faults.forbidden(&root.field("certificate"), "updates may not modify a set certificate");
    }
}
