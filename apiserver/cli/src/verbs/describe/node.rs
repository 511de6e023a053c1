//! Nodes: how they are, what they have, and what is promised of it.

use claw_client::request::ListOptions;
use claw_schemas::quantity::Quantity;
use serde_json::Value;

use super::{Sheet, describe_conditions, describe_metadata, items};
use crate::verbs::session::{Session, text};

/// The resources summed up.
const SUMMED: [&str; 2] = ["cpu", "memory"];

/// The pods bound to a node that have not ended.
pub async fn pods(session: &Session, node: &Value) -> anyhow::Result<Vec<Value>> {
    let kind = session.kind("v1", "Pod")?;
    let field_selector = format!(
        "spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed",
        text(node, "/metadata/name")
    );
    let options = ListOptions { field_selector, ..ListOptions::default() };
    Ok(session.list(&kind, &Session::collection(&kind, None), &options).await?)
}

pub fn describe(sheet: &mut Sheet, node: &Value, pods: &[Value]) {
    describe_metadata(sheet, node);
    let taints: Vec<String> = items(&node["spec"]["taints"]).map(taint).collect();
    sheet.pair(0, "Taints", if taints.is_empty() { "<none>".to_owned() } else { taints.join("\n") });
    sheet.pair(0, "Unschedulable", (node["spec"]["unschedulable"] == true).to_string());
    sheet.known(0, "PodCIDR", text(node, "/spec/podCIDR"));
    describe_conditions(sheet, node);
    sheet.heading(0, "Addresses");
    for address in items(&node["status"]["addresses"]) {
        sheet.pair(1, text(address, "/type"), text(address, "/address"));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        sheet.heading(0, title);
        for (name, amount) in node["status"][field].as_object().into_iter().flatten() {
            sheet.pair(1, name, super::plain(amount));
        }
    }
    sheet.heading(0, "System Info");
    for (key, value) in node["status"]["nodeInfo"].as_object().into_iter().flatten() {
        sheet.known(1, key, value.as_str().unwrap_or_default());
    }
    describe_pods(sheet, node, pods);
}

fn taint(taint: &Value) -> String {
    let value = text(taint, "/value");
    let value = if value.is_empty() { String::new() } else { format!("={value}") };
    format!("{}{value}:{}", text(taint, "/key"), text(taint, "/effect"))
}

fn describe_pods(sheet: &mut Sheet, node: &Value, pods: &[Value]) {
    sheet.heading(0, &format!("Non-terminated Pods ({} in total)", pods.len()));
    let mut rows = vec![
        ["Namespace", "Name", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut totals = [[0_i128; 2]; 2];
    for pod in pods {
        let mut row =
            vec![text(pod, "/metadata/namespace").to_owned(), text(pod, "/metadata/name").to_owned()];
        for (i, resource) in SUMMED.iter().enumerate() {
            for (j, field) in ["requests", "limits"].iter().enumerate() {
                let milli = of_pod(pod, field, resource);
                totals[i][j] += milli;
                row.push(shown(resource, milli));
            }
        }
        rows.push(row);
    }
    sheet.table(1, &rows);
    sheet.heading(0, "Allocated resources");
    let mut rows = vec![["Resource", "Requests", "Limits"].map(str::to_owned).to_vec()];
    for (resource, total) in SUMMED.iter().zip(totals) {
        let has = milli(&node["status"]["allocatable"][*resource]);
        let share = |amount: i128| {
            let percent = if has > 0 { amount * 100 / has } else { 0 };
            format!("{} ({percent}%)", shown(resource, amount))
        };
        rows.push(vec![(*resource).to_owned(), share(total[0]), share(total[1])]);
    }
    // Devices have a domain in their name; a share of them says less than their number.
    let allocatable = node["status"]["allocatable"].as_object();
    for device in allocatable.into_iter().flatten().map(|(name, _)| name).filter(|name| name.contains('/')) {
        let total = |field: &str| {
            let all: i128 = pods.iter().map(|pod| of_pod(pod, field, device)).sum();
            (all / 1000).to_string()
        };
        rows.push(vec![device.clone(), total("requests"), total("limits")]);
    }
    sheet.table(1, &rows);
}

/// Thousandths that a pod asks for: its containers together, or its largest init container.
fn of_pod(pod: &Value, field: &str, resource: &str) -> i128 {
    let of = |list: &str| {
        let amounts = items(&pod["spec"][list]).map(|c| milli(&c["resources"][field][resource]));
        amounts.collect::<Vec<_>>()
    };
    let together: i128 = of("containers").iter().sum();
    together.max(of("initContainers").into_iter().max().unwrap_or(0))
}

fn milli(amount: &Value) -> i128 {
    amount.as_str().and_then(|text| text.parse::<Quantity>().ok()).map_or(0, Quantity::milli)
}

fn shown(resource: &str, milli: i128) -> String {
    if resource == "cpu" {
        return if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") };
    }
    let bytes = milli / 1000;
    for (size, unit) in [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] {
        if bytes >= size && bytes % size == 0 {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_tells_what_is_promised_of_it() {
        let node = json!({
            "metadata": {"name": "gpu-02", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"taints": [{"key": "gpu", "value": "bad", "effect": "NoSchedule"}], "unschedulable": true},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                "capacity": {"cpu": "4", "memory": "8Gi"}, "allocatable": {"cpu": "4", "memory": "8Gi"},
                "nodeInfo": {"kernelVersion": "6.1"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            },
        });
        let pod = |name: &str, cpu: &str, init: &str| {
            json!({
                "metadata": {"name": name, "namespace": "n"},
                "spec": {
                    "containers": [{"resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}],
                    "initContainers": [{"resources": {"requests": {"cpu": init}}}],
                },
            })
        };
        let mut sheet = Sheet::default();
        describe(&mut sheet, &node, &[pod("a", "500m", "1"), pod("b", "1", "100m")]);
        crate::verbs::describe::golden::check("node", &sheet.render());
    }
}
