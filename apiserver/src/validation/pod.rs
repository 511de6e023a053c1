//! Pods and pod templates: what the containers share.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    container, device, each, ephemeral,
    faults::{Faults, Path},
    is_empty, meta, names, not_negative, one_of, pod_update, scheduling, text, volume,
};

/// Seconds that fit what nodes count with.
const ACTIVE_SECONDS_MAX: i64 = i32::MAX as i64;

pub(super) fn judge(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let path = &Path::Root.field("spec");
    spec(&new["spec"], path, faults);
    match old {
        Some(old) => pod_update::spec(&old["spec"], &new["spec"], path, faults),
        None => ephemeral::none(&new["spec"], path, "cannot be set on create", faults),
    }
}

/// A pod to which ephemeral containers come, and nothing else changes.
pub(super) fn with_ephemeral(old: &Value, new: &Value, faults: &mut Faults) {
    spec(&new["spec"], &Path::Root.field("spec"), faults);
    ephemeral::changes(old, new, faults);
}

pub(super) fn spec(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let volumes = volume::all(&spec["volumes"], &path.field("volumes"), faults);
    container::all(spec, &volumes, path, faults);
    one_of(&spec["restartPolicy"], &["Always", "Never", "OnFailure"], &path.field("restartPolicy"), faults);
    dns(spec, path, faults);
    not_negative(
        &spec["terminationGracePeriodSeconds"],
        &path.field("terminationGracePeriodSeconds"),
        faults,
    );
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|seconds| !(1..=ACTIVE_SECONDS_MAX).contains(&seconds)) {
        let why = format_args!("must be between 1 and {ACTIVE_SECONDS_MAX}, inclusive");
        faults.invalid(&path.field("activeDeadlineSeconds"), deadline, why);
    }
    names_of_others(spec, path, faults);
    meta::labels(&spec["nodeSelector"], &path.field("nodeSelector"), faults);
    scheduling::tolerations(&spec["tolerations"], &path.field("tolerations"), faults);
    scheduling::affinity(&spec["affinity"], &path.field("affinity"), faults);
    scheduling::spread(&spec["topologySpreadConstraints"], &path.field("topologySpreadConstraints"), faults);
    gates(spec, path, faults);
    device::pod::claims(spec, path, faults);
    host_aliases(&spec["hostAliases"], &path.field("hostAliases"), faults);
    security(&spec["securityContext"], &path.field("securityContext"), faults);
    let shared = &spec["shareProcessNamespace"];
    if *shared == true && spec["hostPID"] == true {
        let context = &path.field("securityContext");
        faults.invalid(
            &context.field("shareProcessNamespace"),
            shared,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
}

fn dns(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(&spec["dnsPolicy"], &policies, &path.field("dnsPolicy"), faults);
    let servers = spec["dnsConfig"]["nameservers"].as_array().map_or(0, Vec::len);
    let config = &path.field("dnsConfig");
    let path = &config.field("nameservers");
    if spec["dnsPolicy"] == "None" && servers == 0 {
        faults.required(path, "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    each(&spec["dnsConfig"]["nameservers"], path, |server, path| {
        if text(server).parse::<std::net::IpAddr>().is_err() {
            faults.invalid(path, server, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
    });
}

/// Names of nodes, service accounts, hosts, secrets.
fn names_of_others(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    for (field, grammar) in [
        ("nodeName", names::dns_subdomain as fn(&str) -> Result<(), String>),
        ("serviceAccountName", names::dns_subdomain),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
        ("schedulerName", names::qualified),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ] {
        if !is_empty(&spec[field])
            && let Err(why) = grammar(text(&spec[field]))
        {
            faults.invalid(&path.field(field), &spec[field], why);
        }
    }
    each(&spec["imagePullSecrets"], &path.field("imagePullSecrets"), |reference, path| {
        if is_empty(&reference["name"]) {
            faults.required(&path.field("name"), "");
        }
    });
}

fn gates(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(&spec["readinessGates"], &path.field("readinessGates"), |gate, path| {
        if let Err(why) = names::qualified(text(&gate["conditionType"])) {
            faults.invalid(&path.field("conditionType"), &gate["conditionType"], why);
        }
    });
    let mut seen = HashSet::new();
    each(&spec["schedulingGates"], &path.field("schedulingGates"), |gate, path| {
        if let Err(why) = names::qualified(text(&gate["name"])) {
            faults.invalid(&path.field("name"), &gate["name"], why);
        }
        if !seen.insert(text(&gate["name"])) {
            faults.duplicate(&path.field("name"), &gate["name"]);
        }
    });
}

fn host_aliases(aliases: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(aliases, path, |alias, path| {
        if text(&alias["ip"]).parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.invalid(&path.field("ip"), &alias["ip"], why);
        }
        each(&alias["hostnames"], &path.field("hostnames"), |name, path| {
            if let Err(why) = names::dns_subdomain(text(name)) {
                faults.invalid(path, name, why);
            }
        });
    });
}

/// The numbers of users and groups and the filter of system calls, of a pod or of a container.
pub(super) fn security(context: &Value, path: &Path<'_>, faults: &mut Faults) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        let id = &context[field];
        if id.as_i64().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
            faults.invalid(&path.field(field), id, "must be between 0 and 2147483647, inclusive");
        }
    }
    if context["runAsNonRoot"] == true && context["runAsUser"] == 0 {
        faults.invalid(
            &path.field("runAsUser"),
            &context["runAsUser"],
            "must not be 0 when `runAsNonRoot` is true",
        );
    }
    seccomp(&context["seccompProfile"], &path.field("seccompProfile"), faults);
}

fn seccomp(profile: &Value, path: &Path<'_>, faults: &mut Faults) {
    if !profile.is_object() {
        return;
    }
    let (kind, name) = (&path.field("type"), &path.field("localhostProfile"));
    if is_empty(&profile["type"]) {
        faults.required(kind, "type is required when seccompProfile is set");
    } else {
        one_of(&profile["type"], &["Localhost", "RuntimeDefault", "Unconfined"], kind, faults);
    }
    let file = &profile["localhostProfile"];
    if profile["type"] != "Localhost" {
        if !file.is_null() {
            faults.invalid(name, file, "can only be set when seccomp type is Localhost");
        }
    } else if is_empty(file) {
        faults.required(name, "must be set when seccomp type is Localhost");
    } else {
        container::relative(file, name, faults);
    }
}
