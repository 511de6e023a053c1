//! The condition `DevicesFit` of Nodes: what policies have against their devices.
//!
//! It follows from DeviceTaintRules alone, whichever policy made them.

use std::sync::Arc;

use claw_client::ObjectKey;
use claw_runtime::{
    Action, Controller, Plan, Watches, World,
    conditions::{self, FALSE, TRUE},
};
use claw_schemas::{
    api::{DEVICES_FIT, DeviceCheck, NOT_FIT, OBJECTION},
    schema::time_text,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, NodeCondition},
    resource::v1beta2::DeviceTaintRule,
};
use serde_json::{Value, json};

use crate::{device_check::FIT, workers::clip};

/// Devices that a message names, and bytes of it.
const NAMED_MAX: usize = 8;
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Says of each Node whether its devices are fit.
pub struct DevicesFit;

impl Controller for DevicesFit {
    type Object = Node;

    fn name(&self) -> &'static str {
        "devices-fit"
    }

    fn watches(&self, watches: &mut Watches<Node>) {
        watches.mapped::<DeviceTaintRule>(|rule, _| {
            pool(rule).map(|pool| ObjectKey::new("", pool)).into_iter().collect()
        });
        watches.mapped::<DeviceCheck>(|check, _| vec![ObjectKey::new("", check.spec.device.pool.as_str())]);
    }

    fn plan(&self, node: &Arc<Node>, world: &World, now: Timestamp) -> Plan {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let known = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let known = conditions::find(known, DEVICES_FIT);
        let rules = world.kind::<DeviceTaintRule>();
        let against = rules.iter().filter(|rule| is_ours(rule) && pool(rule) == Some(name));
        let mut against: Vec<String> = against.map(|rule| words(rule)).collect();
        against.sort();
        against.dedup();
        let checks = world.kind::<DeviceCheck>();
        let is_fit = |check: &Arc<DeviceCheck>| {
            let status = check.status.as_ref();
            check.spec.device.pool == name && status.and_then(|status| status.verdict.as_deref()) == Some(FIT)
        };
        let wanted = match against.is_empty() {
            false => Some((FALSE, "DevicesNotFit", message(&against))),
            true if checks.iter().any(is_fit) => {
                Some((TRUE, "DevicesFit", "devices that were looked at are fit".to_owned()))
            }
            true => None,
        };
        let patch = match wanted {
            None if known.is_some() => json!([{"type": DEVICES_FIT, "$patch": "delete"}]),
            None => return Plan::nothing(),
            Some(wanted) if known.is_some_and(|known| is_said(known, &wanted)) => return Plan::nothing(),
            Some((status, reason, message)) => {
                let mut condition =
                    json!({"type": DEVICES_FIT, "status": status, "reason": reason, "message": message});
                if known.is_none_or(|known| known.status != status) {
                    condition["lastTransitionTime"] = json!(time_text(now));
                }
                let tell = Action::announce(status == FALSE, reason, message);
                return Plan::nothing().then(write(node, &json!([condition]))).then(tell);
            }
        };
        Plan::nothing().then(write(node, &patch))
    }
}

fn is_ours(rule: &DeviceTaintRule) -> bool {
    rule.spec.taint.key == NOT_FIT
}

fn pool(rule: &DeviceTaintRule) -> Option<&str> {
    rule.spec.device_selector.as_ref()?.pool.as_deref()
}

/// `gpu-a: Matrix: a product is wrong`
fn words(rule: &DeviceTaintRule) -> String {
    let device = rule.spec.device_selector.as_ref().and_then(|selector| selector.device.as_deref());
    let words = rule.metadata.annotations.as_ref().and_then(|all| all.get(OBJECTION));
    let words = words.map_or("it was found not to be fit", String::as_str);
    format!("{}: {words}", device.unwrap_or_default())
}

fn message(against: &[String]) -> String {
    let mut text = against.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
    if against.len() > NAMED_MAX {
        text.push_str(&format!("; and {} more", against.len() - NAMED_MAX));
    }
    clip(text, MESSAGE_BYTES_MAX)
}

fn is_said(known: &NodeCondition, (status, reason, message): &(&str, &str, String)) -> bool {
    known.status == *status
        && known.reason.as_deref() == Some(*reason)
        && known.message.as_deref() == Some(message.as_str())
}

fn write(node: &Node, conditions: &Value) -> Action {
    Action::strategic(node, json!({"status": {"conditions": conditions}})).in_status()
}
