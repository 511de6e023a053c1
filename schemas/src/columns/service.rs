//! Columns of services and of what stands behind them.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, UNSET, age_column, column, created, few, items, label_map, name, number, text, wide};
use crate::registry::Column;

/// Addresses or ports that one cell shows.
const SHOWN: usize = 3;

/// NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE
pub fn service() -> Vec<Column> {
    vec![
        name(),
        column("Type", "string", "How the service is reached."),
        column("Cluster-IP", "string", "Address inside the cluster."),
        column("External-IP", "string", "Addresses from outside."),
        column("Port(s)", "string", "Ports, and their node ports."),
        age_column(),
        wide("Selector", "Labels of the pods that serve."),
    ]
}

/// Cells for [`service`].
pub fn service_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let ports: Vec<String> = items(&spec["ports"]).map(port).collect();
    vec![
        object["metadata"]["name"].clone(),
        text(&spec["type"]).into(),
        items(&spec["clusterIPs"]).next().map_or(NONE, text).into(),
        external(spec, &object["status"]["loadBalancer"]).into(),
        if ports.is_empty() { NONE.into() } else { ports.join(",").into() },
        created(object, now),
        label_map(&spec["selector"]).into(),
    ]
}

/// `80/TCP`, `80:30080/TCP`
fn port(port: &Value) -> String {
    let (number, protocol) = (number(&port["port"]), text(&port["protocol"]));
    match port["nodePort"].as_i64().unwrap_or(0) {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external(spec: &Value, balancer: &Value) -> String {
    let mut addresses: Vec<&str> = items(&spec["externalIPs"]).map(text).collect();
    let of_balancer = load_balancer(balancer);
    match text(&spec["type"]) {
        "ExternalName" => return text(&spec["externalName"]).to_owned(),
        "LoadBalancer" if of_balancer.is_empty() && addresses.is_empty() => return "<pending>".to_owned(),
        "LoadBalancer" if !of_balancer.is_empty() => addresses.insert(0, &of_balancer),
        _ => {}
    }
    if addresses.is_empty() { NONE.to_owned() } else { addresses.join(",") }
}

/// Addresses or host names of a load balancer.
pub(super) fn load_balancer(status: &Value) -> String {
    let address = |ingress: &Value| match text(&ingress["ip"]) {
        "" => text(&ingress["hostname"]).to_owned(),
        ip => ip.to_owned(),
    };
    let mut addresses: Vec<String> =
        items(&status["ingress"]).map(address).filter(|address| !address.is_empty()).collect();
    addresses.sort();
    addresses.dedup();
    addresses.join(",")
}

/// NAME ENDPOINTS AGE
pub fn endpoints() -> Vec<Column> {
    vec![name(), column("Endpoints", "string", "Where the service is served."), age_column()]
}

/// Cells for [`endpoints`].
pub fn endpoints_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut shown = Vec::new();
    for subset in items(&object["subsets"]) {
        let addresses = || items(&subset["addresses"]).map(|address| text(&address["ip"]));
        let ports: Vec<i64> = items(&subset["ports"]).map(|port| number(&port["port"])).collect();
        match ports.is_empty() {
            true => shown.extend(addresses().map(str::to_owned)),
            false => shown.extend(
                ports.iter().flat_map(|port| addresses().map(move |address| host_port(address, *port))),
            ),
        }
    }
    let shown = if shown.is_empty() { NONE.to_owned() } else { few(&shown, SHOWN) };
    vec![object["metadata"]["name"].clone(), shown.into(), created(object, now)]
}

/// `10.0.0.1:80`, `[fd00::1]:80`
fn host_port(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// NAME ADDRESSTYPE PORTS ENDPOINTS AGE
pub fn endpoint_slice() -> Vec<Column> {
    vec![
        name(),
        column("AddressType", "string", "What the addresses are."),
        column("Ports", "string", "Ports of all endpoints."),
        column("Endpoints", "string", "Where the service is served."),
        age_column(),
    ]
}

/// Cells for [`endpoint_slice`].
pub fn endpoint_slice_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let port = |port: &Value| port["port"].as_i64().map_or_else(|| "*".to_owned(), |port| port.to_string());
    let ports: Vec<String> = items(&object["ports"]).map(port).collect();
    let addresses: Vec<String> = items(&object["endpoints"])
        .flat_map(|endpoint| items(&endpoint["addresses"]))
        .map(|address| text(address).to_owned())
        .collect();
    let shown = |texts: &[String]| if texts.is_empty() { UNSET.to_owned() } else { few(texts, SHOWN) };
    vec![
        object["metadata"]["name"].clone(),
        text(&object["addressType"]).into(),
        shown(&ports).into(),
        shown(&addresses).into(),
        created(object, now),
    ]
}
