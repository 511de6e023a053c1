//! Pods: where, how each container is, and why it is not further.

use serde_json::Value;

use super::{Sheet, amounts, describe_conditions, describe_metadata, items, sheet::plain};
use crate::verbs::session::{integer, text};

pub fn describe(sheet: &mut Sheet, pod: &Value) {
    describe_metadata(sheet, pod);
    let node = text(pod, "/spec/nodeName");
    let host = text(pod, "/status/hostIP");
    sheet.pair(
        0,
        "Node",
        match (node, host) {
            ("", _) => "<none>".to_owned(),
            (node, "") => node.to_owned(),
            (node, host) => format!("{node}/{host}"),
        },
    );
    sheet.known(0, "Start Time", text(pod, "/status/startTime"));
    let phase = text(pod, "/status/phase");
    let deleted = pod["metadata"]["deletionTimestamp"].is_string();
    sheet.pair(0, "Status", if deleted { "Terminating" } else { phase });
    sheet.known(0, "Reason", text(pod, "/status/reason"));
    sheet.known(0, "Message", text(pod, "/status/message"));
    sheet.known(0, "IP", text(pod, "/status/podIP"));
    sheet.known(0, "Service Account", text(pod, "/spec/serviceAccountName"));
    containers(
        sheet,
        "Init Containers",
        &pod["spec"]["initContainers"],
        &pod["status"]["initContainerStatuses"],
    );
    containers(sheet, "Containers", &pod["spec"]["containers"], &pod["status"]["containerStatuses"]);
    describe_conditions(sheet, pod);
    volumes(sheet, &pod["spec"]["volumes"]);
    sheet.known(0, "QoS Class", text(pod, "/status/qosClass"));
    sheet.map(0, "Node-Selectors", &pod["spec"]["nodeSelector"], "=");
    let tolerations: Vec<String> = items(&pod["spec"]["tolerations"]).map(toleration).collect();
    sheet.pair(0, "Tolerations", or_none(tolerations.join("\n")));
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// The containers of a list, each with its status where there is one.
pub fn containers(sheet: &mut Sheet, title: &str, specs: &Value, statuses: &Value) {
    if items(specs).next().is_none() {
        return;
    }
    sheet.heading(0, title);
    for spec in items(specs) {
        let name = text(spec, "/name");
        sheet.heading(1, name);
        let status = items(statuses).find(|status| text(status, "/name") == name);
        container(sheet, spec, status.unwrap_or(&Value::Null));
    }
}

fn container(sheet: &mut Sheet, spec: &Value, status: &Value) {
    sheet.known(2, "Container ID", text(status, "/containerID"));
    sheet.pair(2, "Image", text(spec, "/image"));
    sheet.known(2, "Image ID", text(status, "/imageID"));
    let ports: Vec<String> = items(&spec["ports"])
        .map(|port| {
            let protocol = text(port, "/protocol");
            let protocol = if protocol.is_empty() { "TCP" } else { protocol };
            format!("{}/{protocol}", integer(port, "/containerPort"))
        })
        .collect();
    sheet.known(2, "Ports", &ports.join(", "));
    for (key, field) in [("Command", "command"), ("Args", "args")] {
        sheet.known(2, key, &items(&spec[field]).map(plain).collect::<Vec<_>>().join("\n"));
    }
    if status.is_object() {
        sheet.pair(2, "State", state(&status["state"]));
        if status["lastState"].as_object().is_some_and(|last| !last.is_empty()) {
            sheet.pair(2, "Last State", state(&status["lastState"]));
        }
        sheet.pair(2, "Ready", if status["ready"] == true { "True" } else { "False" });
        sheet.pair(2, "Restart Count", integer(status, "/restartCount").to_string());
    }
    for (key, field) in [("Limits", "limits"), ("Requests", "requests")] {
        if spec["resources"][field].is_object() {
            sheet.pair(2, key, amounts(&spec["resources"][field]));
        }
    }
    for (key, field) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if spec[field].is_object() {
            sheet.pair(2, key, probe(&spec[field]));
        }
    }
    let variables: Vec<String> = items(&spec["env"]).map(variable).collect();
    let sources = items(&spec["envFrom"]).map(source);
    let environment: Vec<String> = variables.into_iter().chain(sources).collect();
    sheet.pair(2, "Environment", or_none(environment.join("\n")));
    let mounts: Vec<String> = items(&spec["volumeMounts"])
        .map(|mount| {
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            format!("{} from {} ({mode})", text(mount, "/mountPath"), text(mount, "/name"))
        })
        .collect();
    sheet.pair(2, "Mounts", or_none(mounts.join("\n")));
}

/// A container's state, with all that is known of it.
fn state(state: &Value) -> String {
    let with = |head: &str, parts: &[(&str, String)]| {
        let known = parts.iter().filter(|(_, value)| !value.is_empty());
        known.fold(head.to_owned(), |all, (key, value)| format!("{all}\n{key}: {value}"))
    };
    let said = |pointer: &str| text(state, pointer).to_owned();
    if state["running"].is_object() {
        return with("Running", &[("Started", said("/running/startedAt"))]);
    }
    if state["terminated"].is_object() {
        return with(
            "Terminated",
            &[
                ("Reason", said("/terminated/reason")),
                ("Message", said("/terminated/message")),
                ("Exit Code", integer(state, "/terminated/exitCode").to_string()),
                ("Started", said("/terminated/startedAt")),
                ("Finished", said("/terminated/finishedAt")),
            ],
        );
    }
    with("Waiting", &[("Reason", said("/waiting/reason")), ("Message", said("/waiting/message"))])
}

fn probe(probe: &Value) -> String {
    let what = if let Some(get) = probe.get("httpGet") {
        let scheme = match text(get, "/scheme") {
            "" => "http".to_owned(),
            scheme => scheme.to_ascii_lowercase(),
        };
        format!("http-get {scheme}://{}:{}{}", text(get, "/host"), plain(&get["port"]), text(get, "/path"))
    } else if let Some(socket) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", text(socket, "/host"), plain(&socket["port"]))
    } else if let Some(exec) = probe.get("exec") {
        format!("exec {}", items(&exec["command"]).map(plain).collect::<Vec<_>>().join(" "))
    } else {
        "unknown".to_owned()
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        integer(probe, "/initialDelaySeconds"),
        integer(probe, "/timeoutSeconds"),
        integer(probe, "/periodSeconds"),
        integer(probe, "/successThreshold"),
        integer(probe, "/failureThreshold"),
    )
}

fn variable(variable: &Value) -> String {
    let name = text(variable, "/name");
    let from = &variable["valueFrom"];
    for (kind, what) in [("secretKeyRef", "secret"), ("configMapKeyRef", "config map")] {
        if let Some(reference) = from.get(kind) {
            return format!("{name}: key {} of {what} {}", text(reference, "/key"), text(reference, "/name"));
        }
    }
    if let Some(field) = from.get("fieldRef") {
        return format!("{name}: field {}", text(field, "/fieldPath"));
    }
    if let Some(resource) = from.get("resourceFieldRef") {
        return format!("{name}: {}", text(resource, "/resource"));
    }
    format!("{name}: {}", text(variable, "/value"))
}

fn source(source: &Value) -> String {
    let prefix = text(source, "/prefix");
    for (kind, what) in [("secretRef", "secret"), ("configMapRef", "config map")] {
        if let Some(reference) = source.get(kind) {
            return format!("{prefix}* : all of {what} {}", text(reference, "/name"));
        }
    }
    format!("{prefix}* : unknown source")
}

fn volumes(sheet: &mut Sheet, volumes: &Value) {
    if items(volumes).next().is_none() {
        return sheet.pair(0, "Volumes", "<none>");
    }
    sheet.heading(0, "Volumes");
    for volume in items(volumes) {
        sheet.heading(1, text(volume, "/name"));
        for (kind, source) in volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name") {
            sheet.pair(2, "Type", kind.as_str());
            for (key, value) in source.as_object().into_iter().flatten() {
                let shown =
                    if value.is_object() || value.is_array() { value.to_string() } else { plain(value) };
                sheet.pair(2, key, shown);
            }
        }
    }
}

fn toleration(toleration: &Value) -> String {
    let mut said = match text(toleration, "/key") {
        "" => "any taint".to_owned(),
        key => key.to_owned(),
    };
    let value = text(toleration, "/value");
    if !value.is_empty() {
        said.push_str(&format!("={value}"));
    }
    let effect = text(toleration, "/effect");
    if !effect.is_empty() {
        said.push_str(&format!(":{effect}"));
    }
    if text(toleration, "/operator") == "Exists" {
        said.push_str(" op=Exists");
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        said.push_str(&format!(" for {seconds}s"));
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_crashing_pod_tells_why() {
        let mut sheet = Sheet::default();
        let pod = json!({
            "metadata": {"name": "web-1", "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "nodeName": "gpu-02",
                "containers": [{
                    "name": "main", "image": "web:2", "args": ["serve"], "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 5},
                    "env": [{"name": "A", "value": "1"},
                            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "volumeMounts": [{"name": "v", "mountPath": "/data"}],
                }],
                "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}],
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
            "status": {
                "phase": "Running", "hostIP": "10.0.0.2",
                "containerStatuses": [{
                    "name": "main", "ready": false, "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                    "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                }],
                "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
            },
        });
        describe(&mut sheet, &pod);
        crate::verbs::describe::golden::check("pod", &sheet.render());
    }
}
