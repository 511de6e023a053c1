//! Defaults of services and of the addresses behind them.

use std::collections::HashMap;

use serde_json::json;

use super::{Object, Value, child, is_unset, items, text, value};

/// How long a client sticks to a server: three hours.
const AFFINITY_S: i64 = 10_800;

const TYPE: &str = "type";
const EXTERNAL_NAME: &str = "ExternalName";

pub(super) fn service(object: &mut Object) {
    let spec = child(object, "spec");
    text(spec, TYPE, "ClusterIP");
    text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        value(child(child(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", AFFINITY_S);
    }
    for port in items(spec, "ports") {
        text(port, "protocol", "TCP");
        let unset = is_unset(port.get("targetPort")) || port["targetPort"] == 0;
        if let Some(number) = port.get("port").cloned().filter(|_| unset) {
            port.insert("targetPort".to_owned(), number);
        }
    }
    let kind = spec[TYPE].as_str().unwrap_or_default().to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        value(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != EXTERNAL_NAME {
        text(spec, "internalTrafficPolicy", "Cluster");
        text(spec, "ipFamilyPolicy", "SingleStack");
        if is_unset(spec.get("ipFamilies")) {
            spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
        }
    }
    same_address_twice(spec);
    child(child(object, "status"), "loadBalancer");
}

/// The address stands in two fields, of which clients may fill in either.
fn same_address_twice(spec: &mut Object) {
    match (is_unset(spec.get("clusterIP")), is_unset(spec.get("clusterIPs"))) {
        (false, true) => {
            let ips = json!([spec["clusterIP"]]);
            spec.insert("clusterIPs".to_owned(), ips);
        }
        (true, false) => {
            let ip = spec["clusterIPs"][0].clone();
            spec.insert("clusterIP".to_owned(), ip);
        }
        _ => {}
    }
}

/// What was given to a service stays, even if an update does not repeat it; what only its old type had goes, unless the
/// update insists.
pub(super) fn inherit(old: &Value, new: &mut Object) {
    text(new, TYPE, "ClusterIP");
    let is = |spec: &Value, kind: &str| *spec == kind;
    let (was, becomes) = (&old[TYPE], new[TYPE].clone());
    if is(&becomes, EXTERNAL_NAME) {
        let gone = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"];
        drop_unchanged(old, new, &gone);
    } else if !is(was, EXTERNAL_NAME) {
        keep_address(old, new);
    }
    let has_node_ports = |kind: &Value| is(kind, "NodePort") || is(kind, "LoadBalancer");
    match (has_node_ports(was), has_node_ports(&becomes)) {
        (true, true) => keep_node_ports(old, new),
        (true, false) => {
            drop_node_ports(old, new);
            drop_unchanged(old, new, &["externalTrafficPolicy", "healthCheckNodePort"]);
        }
        _ => {}
    }
    if is(was, "LoadBalancer") && !is(&becomes, "LoadBalancer") {
        drop_unchanged(
            old,
            new,
            &["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"],
        );
    }
}

fn drop_unchanged(old: &Value, new: &mut Object, fields: &[&str]) {
    new.retain(|name, value| !fields.contains(&name.as_str()) || old[name] != *value);
}

fn keep_address(old: &Value, new: &mut Object) {
    let unset = |field: &str| is_unset(new.get(field));
    // Whoever changes one of the two fields means both.
    if !unset("clusterIP")
        && new["clusterIP"] != old["clusterIP"]
        && new.get("clusterIPs") == old.get("clusterIPs")
    {
        new.remove("clusterIPs");
    } else if unset("clusterIP") && unset("clusterIPs") {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.get(field) {
                new.insert(field.to_owned(), value.clone());
            }
        }
    }
}

/// Port and protocol, which tell the ports of a service apart.
type PortKey = (Option<i64>, Option<String>);

fn key_of(port: &Object) -> PortKey {
    let protocol = port.get("protocol").and_then(Value::as_str);
    (port.get("port").and_then(Value::as_i64), protocol.map(str::to_owned))
}

/// The node ports that a service has.
fn node_ports(old: &Value) -> HashMap<PortKey, &Value> {
    let ports = old["ports"].as_array().into_iter().flatten().filter_map(Value::as_object);
    ports.filter_map(|port| Some((key_of(port), port.get("nodePort")?))).collect()
}

fn keep_node_ports(old: &Value, new: &mut Object) {
    let had = node_ports(old);
    for port in items(new, "ports") {
        text(port, "protocol", "TCP");
        let unsaid = port.get("nodePort").is_none_or(|number| *number == 0);
        if let Some(number) = had.get(&key_of(port)).filter(|_| unsaid) {
            port.insert("nodePort".to_owned(), (*number).clone());
        }
    }
}

fn drop_node_ports(old: &Value, new: &mut Object) {
    let had = node_ports(old);
    for port in items(new, "ports") {
        text(port, "protocol", "TCP");
        if had.get(&key_of(port)).is_some_and(|number| Some(*number) == port.get("nodePort")) {
            port.remove("nodePort");
        }
    }
}

pub(super) fn endpoints(object: &mut Object) {
    for subset in items(object, "subsets") {
        items(subset, "ports").for_each(|port| text(port, "protocol", "TCP"));
    }
}

pub(super) fn endpoint_slice(object: &mut Object) {
    for port in items(object, "ports") {
        value(port, "name", "");
        text(port, "protocol", "TCP");
    }
    value(object, "endpoints", json!([]));
}
