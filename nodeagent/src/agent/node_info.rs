//! The Node object that opens a session.

use std::collections::BTreeMap;

use claw_schemas::{gpu::FOUND_LABELS, quantity::Quantity};
use k8s_openapi::{
    api::core::v1::{Node, NodeAddress, NodeSpec, NodeStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::AgentConfig;
use crate::runtime::{Machine, machine::api_quantities};

/// Labels, taints, capacity, addresses and identity of the machine.
pub(super) fn node(config: &AgentConfig, machine: &Machine) -> Node {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
        ("kubernetes.io/os".to_owned(), machine.info.operating_system.clone()),
        ("kubernetes.io/arch".to_owned(), machine.info.architecture.clone()),
    ]);
    labels.extend(machine.labels.clone());
    labels.extend(config.labels.clone());
    let found: Vec<&str> = machine.labels.keys().map(String::as_str).collect();
    let overridden = |amounts: &BTreeMap<String, Quantity>| {
        let mut amounts = amounts.clone();
        amounts.extend(config.capacity.clone());
        Some(api_quantities(&amounts))
    };
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(FOUND_LABELS.to_owned(), found.join(","))])),
            ..ObjectMeta::default()
        },
        spec: (!config.taints.is_empty())
            .then(|| NodeSpec { taints: Some(config.taints.clone()), ..NodeSpec::default() }),
        status: Some(NodeStatus {
            addresses: Some(vec![
                address("InternalIP", config.host_ip.to_string()),
                address("Hostname", config.node_name.clone()),
            ]),
            capacity: overridden(&machine.capacity),
            allocatable: overridden(&machine.allocatable),
            node_info: Some(machine.info.clone()),
            conditions: (!machine.conditions.is_empty()).then(|| machine.conditions.clone()),
            ..NodeStatus::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Taint;

    use super::*;

    #[test]
    fn what_the_configuration_says_comes_beside_what_the_machine_has() {
        let mut config = AgentConfig::new("n");
        config.capacity.insert("cpu".to_owned(), "500m".parse().unwrap());
        config.labels.insert("zone".to_owned(), "a".to_owned());
        config.taints.push(Taint {
            key: "t".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
        let node = node(&config, &Machine::pretend(8, 1 << 30));
        let status = node.status.unwrap();
        assert_eq!(status.capacity.unwrap()["cpu"].0, "500m");
        assert_eq!(status.allocatable.unwrap()["memory"].0, (1_u64 << 30).to_string());
        assert_eq!(node.metadata.labels.unwrap()["zone"], "a");
        assert_eq!(node.spec.unwrap().taints.unwrap()[0].key, "t");
    }
}
