//! Defaults of pods and pod templates.

use serde_json::{Value, json};

use super::{Object, child, existing, is_unset, items, positive, qos, text, value};

/// Permissions of projected files: 0644.
const FILE_MODE: i64 = 0o644;
/// How long a pod stays on a node that became unready or unreachable, as upstream's admission sets it.
const TOLERATED_SECONDS: i64 = 300;
/// Lifetime of a projected service account token.
const TOKEN_SECONDS: i64 = 3600;

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

pub(super) fn pod(object: &mut Object) {
    let pod = child(object, "spec");
    spec(pod);
    value(pod, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        items(pod, list).for_each(|container| requests_from_limits(child(container, "resources")));
    }
    if pod.get("hostNetwork") == Some(&Value::Bool(true)) {
        host_ports(pod);
    }
}

/// What upstream's admission and the storage of pods fill in.
pub(super) fn admit(object: &mut Object) {
    let pod = child(object, "spec");
    tolerate_node_trouble(pod);
    let class = qos::class(pod);
    let status = child(object, "status");
    text(status, "phase", "Pending");
    text(status, "qosClass", class);
}

/// What follows from a pod's class once and for all: an update need not repeat it.
pub(super) fn inherit(old: &Value, new: &mut Object) {
    for field in ["priority", "preemptionPolicy"] {
        if is_unset(new.get(field)) && !old[field].is_null() {
            new.insert(field.to_owned(), old[field].clone());
        }
    }
}

/// The part that pods and templates share.
pub(super) fn spec(pod: &mut Object) {
    text(pod, "restartPolicy", "Always");
    text(pod, "dnsPolicy", "ClusterFirst");
    text(pod, "schedulerName", "default-scheduler");
    value(pod, "terminationGracePeriodSeconds", 30);
    child(pod, "securityContext");
    for list in CONTAINER_LISTS {
        items(pod, list).for_each(container);
    }
    items(pod, "volumes").for_each(volume);
}

fn container(container: &mut Object) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if tag(image) == "latest" { "Always" } else { "IfNotPresent" };
    text(container, "imagePullPolicy", policy);
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    child(container, "resources");
    items(container, "ports").for_each(|port| text(port, "protocol", "TCP"));
    items(container, "env").filter_map(|env| existing(env, "valueFrom")).for_each(field_version);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        existing(container, name).into_iter().for_each(probe);
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            existing(lifecycle, hook).into_iter().for_each(http_get);
        }
    }
}

/// The tag of an image: `latest` when it has neither tag nor digest, empty when only a digest.
fn tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon before the last slash belongs to the registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.rsplit_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, None) => "latest",
        (None, Some(_)) => "",
    }
}

fn probe(probe: &mut Object) {
    positive(probe, "timeoutSeconds", 1);
    positive(probe, "periodSeconds", 10);
    positive(probe, "successThreshold", 1);
    positive(probe, "failureThreshold", 3);
    if let Some(grpc) = existing(probe, "grpc") {
        value(grpc, "service", "");
    }
    http_get(probe);
}

fn http_get(handler: &mut Object) {
    if let Some(get) = existing(handler, "httpGet") {
        text(get, "path", "/");
        text(get, "scheme", "HTTP");
    }
}

/// A reference to a field of the pod itself is in terms of `v1`.
fn field_version(source: &mut Object) {
    if let Some(field) = existing(source, "fieldRef") {
        text(field, "apiVersion", "v1");
    }
}

pub(super) fn volume(volume: &mut Object) {
    if volume.keys().all(|name| name == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, name) {
            value(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = existing(volume, "hostPath") {
        value(path, "type", "");
    }
    if let Some(api) = existing(volume, "downwardAPI") {
        items(api, "items").for_each(field_version);
    }
    if let Some(projected) = existing(volume, "projected") {
        for source in items(projected, "sources") {
            if let Some(token) = existing(source, "serviceAccountToken") {
                positive(token, "expirationSeconds", TOKEN_SECONDS);
            }
            if let Some(api) = existing(source, "downwardAPI") {
                items(api, "items").for_each(field_version);
            }
        }
    }
}

/// Who limits a resource and says no request, requests what the limit allows.
fn requests_from_limits(resources: &mut Object) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let requests = child(resources, "requests");
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// In the host's network a container's port is the host's.
fn host_ports(pod: &mut Object) {
    for list in ["containers", "initContainers"] {
        for container in items(pod, list) {
            for port in items(container, "ports") {
                if let Some(number) = port.get("containerPort").and_then(Value::as_i64) {
                    positive(port, "hostPort", number);
                }
            }
        }
    }
}

/// A pod survives a short trouble of its node, unless it says itself how long.
fn tolerate_node_trouble(pod: &mut Object) {
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = items(pod, "tolerations").any(|toleration| {
            let says = |name, wanted| is_unset(toleration.get(name)) || toleration[name] == wanted;
            says("key", taint) && says("effect", "NoExecute")
        });
        if tolerated {
            continue;
        }
        let list = pod.entry("tolerations").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!({
                "key": taint,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATED_SECONDS,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn tags_are_told_from_ports_and_digests() {
        for (image, expected) in [
            ("nginx", "latest"),
            ("nginx:latest", "latest"),
            ("nginx:1.27", "1.27"),
            ("host:5000/nginx", "latest"),
            ("host:5000/nginx:1", "1"),
            ("nginx@sha256:abc", ""),
            ("nginx:latest@sha256:abc", "latest"),
            ("", "latest"),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}
