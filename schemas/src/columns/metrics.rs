//! Columns of group `metrics.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{column, items, name, text};
use crate::{
    metrics::{amounts, nanocores},
    quantity::Quantity,
    registry::Column,
};

/// NAME CPU MEMORY WINDOW
pub fn usage() -> Vec<Column> {
    vec![
        name(),
        column("Cpu", "string", "CPU used on average over the window."),
        column("Memory", "string", "Memory held, but for what the kernel drops when it needs room."),
        column("Window", "string", "The time that was measured over."),
    ]
}

/// Cells for [`usage`] of a node.
pub fn node_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    cells(object, std::iter::once(&object["usage"]))
}

/// Cells for [`usage`] of a pod: the sum of its containers.
pub fn pod_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    cells(object, items(&object["containers"]).map(|container| &container["usage"]))
}

fn cells<'a>(object: &Value, usages: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let (mut cpu, mut memory) = (0, 0);
    for usage in usages {
        cpu += nanocores(text(&usage["cpu"])).unwrap_or(0);
        let held = text(&usage["memory"]).parse::<Quantity>().map_or(0, Quantity::units);
        memory += u64::try_from(held).unwrap_or(0);
    }
    let amounts = amounts(cpu, memory);
    let amount = |resource: &str| Value::from(amounts[resource].0.clone());
    vec![object["metadata"]["name"].clone(), amount("cpu"), amount("memory"), text(&object["window"]).into()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_row_of_a_pod_is_the_sum_of_its_containers() {
        let pod = json!({
            "metadata": {"name": "web"}, "window": "15s", "containers": [
                {"name": "a", "usage": {"cpu": "1500001n", "memory": "1Mi"}},
                {"name": "b", "usage": {"cpu": "2m", "memory": "512Ki"}},
            ],
        });
        let row = pod_cells(&pod, Timestamp::UNIX_EPOCH);
        assert_eq!(row, [json!("web"), json!("3500001n"), json!("1536Ki"), json!("15s")]);
        let node = json!({"metadata": {"name": "n"}, "window": "1s", "usage": {"cpu": "2", "memory": "3Gi"}});
        let row = node_cells(&node, Timestamp::UNIX_EPOCH);
        assert_eq!(row, [json!("n"), json!("2"), json!("3Gi"), json!("1s")]);
    }
}
