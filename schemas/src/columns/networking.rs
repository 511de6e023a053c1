//! Columns of group `networking.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, age_column, column, created, few, items, name, or, selector, service, text};
use crate::registry::Column;

/// Hosts that one cell shows.
const HOSTS_SHOWN: usize = 3;

/// NAME POD-SELECTOR AGE
pub fn network_policy() -> Vec<Column> {
    vec![
        name(),
        column("Pod-Selector", "string", "Labels of the pods that the policy is about."),
        age_column(),
    ]
}

/// Cells for [`network_policy`].
pub fn network_policy_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let pods = selector(&object["spec"]["podSelector"]);
    vec![object["metadata"]["name"].clone(), pods.into(), created(object, now)]
}

/// NAME CLASS HOSTS ADDRESS PORTS AGE
pub fn ingress() -> Vec<Column> {
    vec![
        name(),
        column("Class", "string", "Which controller is to serve it."),
        column("Hosts", "string", "Hosts whose requests are let in."),
        column("Address", "string", "Where requests come in."),
        column("Ports", "string", "Ports that are open."),
        age_column(),
    ]
}

/// Cells for [`ingress`].
pub fn ingress_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let annotated = or(&object["metadata"]["annotations"]["kubernetes.io/ingress.class"], NONE);
    let ports = if items(&spec["tls"]).next().is_some() { "80, 443" } else { "80" };
    vec![
        object["metadata"]["name"].clone(),
        or(&spec["ingressClassName"], annotated).into(),
        hosts(&spec["rules"]).into(),
        service::load_balancer(&object["status"]["loadBalancer"]).into(),
        ports.into(),
        created(object, now),
    ]
}

fn hosts(rules: &Value) -> String {
    let hosts: Vec<String> =
        items(rules).map(|rule| text(&rule["host"]).to_owned()).filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() { "*".to_owned() } else { few(&hosts, HOSTS_SHOWN) }
}

/// NAME CONTROLLER PARAMETERS AGE
pub fn ingress_class() -> Vec<Column> {
    vec![
        name(),
        column("Controller", "string", "Who serves Ingresses of the class."),
        column("Parameters", "string", "An object with more of its configuration."),
        age_column(),
    ]
}

/// Cells for [`ingress_class`].
pub fn ingress_class_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, parameters) = (&object["spec"], &object["spec"]["parameters"]);
    let shown = match (parameters.is_object(), text(&parameters["apiGroup"])) {
        (false, _) => NONE.to_owned(),
        (true, "") => format!("{}/{}", text(&parameters["kind"]), text(&parameters["name"])),
        (true, group) => format!("{}.{group}/{}", text(&parameters["kind"]), text(&parameters["name"])),
    };
    let controller = text(&spec["controller"]);
    vec![object["metadata"]["name"].clone(), controller.into(), shown.into(), created(object, now)]
}

/// NAME PARENTREF
pub fn ip_address() -> Vec<Column> {
    vec![name(), column("ParentRef", "string", "Whose address it is.")]
}

/// Cells for [`ip_address`].
pub fn ip_address_cells(object: &Value, _: Timestamp) -> Vec<Value> {
    let parent = &object["spec"]["parentRef"];
    let parts = ["group", "resource", "namespace", "name"].map(|field| text(&parent[field]));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    vec![object["metadata"]["name"].clone(), parts.join("/").into()]
}
