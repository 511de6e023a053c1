//! Containers: names, images, ports, mounts.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    common::len,
    each, env, ephemeral,
    faults::{Faults, Path},
    is_empty, names, one_of, pod, probe, resources, text,
    volume::Volumes,
};

/// Upstream's figures.
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What the containers of one pod share while they are judged.
struct Shared<'v> {
    volumes: &'v Volumes<'v>,
    names: HashSet<&'v str>,
    /// (protocol, host address, host port)
    host_ports: HashSet<(&'v str, &'v str, i64)>,
    host_network: bool,
}

pub(super) fn all(spec: &Value, volumes: &Volumes<'_>, path: &Path<'_>, faults: &mut Faults) {
    let mut shared = Shared {
        volumes,
        names: HashSet::new(),
        host_ports: HashSet::new(),
        host_network: spec["hostNetwork"] == true,
    };
    let containers = &path.field("containers");
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        faults.required(containers, "");
    }
    each(&spec["containers"], containers, |container, path| {
        shared.judge(container, path, faults);
        for hook in ["livenessProbe", "readinessProbe", "startupProbe"] {
            probe::probe(hook, &container[hook], &path.field(hook), faults);
        }
        probe::lifecycle(&container["lifecycle"], &path.field("lifecycle"), faults);
        restarts(container, path, faults);
    });
    each(&spec["initContainers"], &path.field("initContainers"), |container, path| {
        shared.judge(container, path, faults);
        init(container, path, faults);
    });
    let names: HashSet<&str> = spec["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| text(&container["name"]))
        .collect();
    each(&spec["ephemeralContainers"], &path.field("ephemeralContainers"), |container, path| {
        shared.judge(container, path, faults);
        ephemeral::container(container, &names, path, faults);
    });
}

/// A container may say itself when it is started again; rules need a policy for what none of them is about.
fn restarts(container: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (policy, rules) = (&container["restartPolicy"], &container["restartPolicyRules"]);
    let path_of_policy = &path.field("restartPolicy");
    if !is_empty(policy) {
        one_of(policy, &["Always", "Never", "OnFailure"], path_of_policy, faults);
    } else if len(rules) > 0 {
        faults.required(path_of_policy, "must specify restartPolicy when restart rules are used");
    }
    let path = &path.field("restartPolicyRules");
    if len(rules) > RESTART_RULES_MAX {
        faults.too_many(path, len(rules), RESTART_RULES_MAX);
    }
    each(rules, path, |rule, path| {
        one_of(&rule["action"], &["Restart"], &path.field("action"), faults);
        let (codes, path) = (&rule["exitCodes"], &path.field("exitCodes"));
        if codes.is_null() {
            faults.required(path, "must be specified");
            return;
        }
        one_of(&codes["operator"], &["In", "NotIn"], &path.field("operator"), faults);
        if len(&codes["values"]) > EXIT_CODES_MAX {
            faults.too_many(&path.field("values"), len(&codes["values"]), EXIT_CODES_MAX);
        }
    });
}

/// Only an init container that keeps running has a life to probe.
fn init(container: &Value, path: &Path<'_>, faults: &mut Faults) {
    let sidecar = container["restartPolicy"] == "Always";
    restarts(container, path, faults);
    for hook in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if sidecar {
            probe::probe(hook, &container[hook], &path.field(hook), faults);
        } else if !container[hook].is_null() {
            faults.forbidden(
                &path.field(hook),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
    if !sidecar && !container["lifecycle"].is_null() {
        let why = "may not be set for init containers without restartPolicy=Always";
        faults.forbidden(&path.field("lifecycle"), why);
    }
}

impl<'v> Shared<'v> {
    fn judge(&mut self, container: &'v Value, path: &Path<'_>, faults: &mut Faults) {
        self.name(&container["name"], &path.field("name"), faults);
        let image = &container["image"];
        if is_empty(image) {
            faults.required(&path.field("image"), "");
        } else if text(image).trim() != text(image) {
            faults.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
        }
        let policies = ["Always", "IfNotPresent", "Never"];
        one_of(&container["imagePullPolicy"], &policies, &path.field("imagePullPolicy"), faults);
        let policies = ["FallbackToLogsOnError", "File"];
        let path_of = &path.field("terminationMessagePolicy");
        one_of(&container["terminationMessagePolicy"], &policies, path_of, faults);
        self.ports(&container["ports"], &path.field("ports"), faults);
        env::variables(&container["env"], &path.field("env"), faults);
        env::sources(&container["envFrom"], &path.field("envFrom"), faults);
        self.mounts(&container["volumeMounts"], &path.field("volumeMounts"), faults);
        resources::requirements(&container["resources"], &path.field("resources"), faults);
        pod::security(&container["securityContext"], &path.field("securityContext"), faults);
    }

    fn name(&mut self, name: &'v Value, path: &Path<'_>, faults: &mut Faults) {
        if is_empty(name) {
            faults.required(path, "");
        } else if let Err(why) = names::dns_label(text(name)) {
            faults.invalid(path, name, why);
        } else if !self.names.insert(text(name)) {
            faults.duplicate(path, name);
        }
    }

    fn ports(&mut self, ports: &'v Value, path: &Path<'_>, faults: &mut Faults) {
        let mut seen = HashSet::new();
        each(ports, path, |port, path| {
            let name = &port["name"];
            if !is_empty(name) {
                if let Err(why) = names::port(text(name)) {
                    faults.invalid(&path.field("name"), name, why);
                } else if !seen.insert(text(name)) {
                    faults.duplicate(&path.field("name"), name);
                }
            }
            match port["containerPort"].as_i64().unwrap_or(0) {
                0 => faults.required(&path.field("containerPort"), ""),
                number => port_number(number, &path.field("containerPort"), faults),
            }
            one_of(&port["protocol"], &["SCTP", "TCP", "UDP"], &path.field("protocol"), faults);
            self.host_port(port, &path.field("hostPort"), faults);
        });
    }

    fn host_port(&mut self, port: &'v Value, path: &Path<'_>, faults: &mut Faults) {
        let number = port["hostPort"].as_i64().unwrap_or(0);
        if number == 0 {
            return;
        }
        port_number(number, path, faults);
        if self.host_network && port["hostPort"] != port["containerPort"] {
            let why = "must match `containerPort` when `hostNetwork` is true";
            faults.invalid(path, &port["hostPort"], why);
        }
        let host = (text(&port["protocol"]), text(&port["hostIP"]), number);
        if !self.host_ports.insert(host) {
            faults.duplicate(path, &port["hostPort"]);
        }
    }

    fn mounts(&self, mounts: &'v Value, path: &Path<'_>, faults: &mut Faults) {
        let mut seen = HashSet::new();
        each(mounts, path, |mount, path| {
            let (name, at) = (&mount["name"], &mount["mountPath"]);
            if is_empty(name) {
                faults.required(&path.field("name"), "");
            } else if !self.volumes.contains(text(name)) {
                faults.not_found(&path.field("name"), name);
            }
            if is_empty(at) {
                faults.required(&path.field("mountPath"), "");
            } else if !seen.insert(text(at)) {
                faults.invalid(&path.field("mountPath"), at, "must be unique");
            }
            for field in ["subPath", "subPathExpr"] {
                relative(&mount[field], &path.field(field), faults);
            }
            if !is_empty(&mount["subPath"]) && !is_empty(&mount["subPathExpr"]) {
                let why = "subPathExpr and subPath are mutually exclusive";
                faults.invalid(&path.field("subPathExpr"), &mount["subPathExpr"], why);
            }
        });
    }
}

fn port_number(number: i64, path: &Path<'_>, faults: &mut Faults) {
    if let Err(why) = names::port_number(number) {
        faults.invalid(path, &number.into(), why);
    }
}

/// A path that stays inside of where it starts.
pub(super) fn relative(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if text(value).starts_with('/') {
        faults.invalid(path, value, "must be a relative path");
    }
    if text(value).split('/').any(|part| part == "..") {
        faults.invalid(path, value, "must not contain '..'");
    }
}
