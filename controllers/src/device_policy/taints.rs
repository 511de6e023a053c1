//! The DeviceTaintRules of a policy: one for each device that is not fit, as long as it is not. Pure.

use std::collections::BTreeMap;

use claw_runtime::{Action, owner};
use claw_schemas::api::{DeviceName, DevicePolicy, NOT_FIT, OBJECTION, POLICY_LABEL};
use k8s_openapi::api::resource::v1beta2::{
    DeviceTaint, DeviceTaintRule, DeviceTaintRuleSpec, DeviceTaintSelector,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use std::sync::Arc;

/// The effect where a policy names none.
const EFFECT_DEFAULT: &str = "NoSchedule";

/// What speaks against a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The check that found it.
    pub check: String,
    /// In words.
    pub words: String,
}

/// What a device's rule is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is not fit.
    Rule(Objection),
    /// It is fit, or gone.
    None,
    /// Nobody knows: what was found before holds.
    AsItIs,
}

/// What makes the rules of a policy such: `wanted` by the names that rules have.
pub fn level(
    policy: &DevicePolicy,
    rules: &[Arc<DeviceTaintRule>],
    wanted: &BTreeMap<String, (DeviceName, Wanted)>,
) -> Vec<Action> {
    let name = |rule: &DeviceTaintRule| rule.metadata.name.clone().unwrap_or_default();
    let known: BTreeMap<String, &Arc<DeviceTaintRule>> =
        rules.iter().map(|rule| (name(rule), rule)).collect();
    let mut actions = Vec::new();
    for (name, (device, wanted)) in wanted {
        let Wanted::Rule(objection) = wanted else { continue };
        let rule = rule(policy, name, device, objection);
        match known.get(name) {
            None => {
                let why =
                    format!("Device {} of {} is not fit: {}", device.name, device.pool, objection.words);
                actions.extend([Action::create(&rule), Action::announce(true, "DeviceNotFit", why)]);
            }
            Some(there) if is_same(there, &rule) => {}
            Some(there) => {
                let patch = json!({
                    "metadata": {"annotations": rule.metadata.annotations},
                    "spec": {"taint": {"value": rule.spec.taint.value, "effect": rule.spec.taint.effect}},
                });
                actions.push(Action::merge(&***there, patch));
            }
        }
    }
    let is_over = |name: &String| wanted.get(name).is_none_or(|(_, wanted)| *wanted == Wanted::None);
    let over =
        known.iter().filter(|(name, rule)| is_over(name) && rule.metadata.deletion_timestamp.is_none());
    actions.extend(over.map(|(_, rule)| Action::delete(&***rule)));
    actions
}

/// Whether a rule says what it is to say; when it began to is its own.
fn is_same(there: &DeviceTaintRule, wanted: &DeviceTaintRule) -> bool {
    let said = |rule: &DeviceTaintRule| {
        let taint = &rule.spec.taint;
        let words = rule.metadata.annotations.as_ref().and_then(|all| all.get(OBJECTION).cloned());
        (taint.value.clone(), taint.effect.clone(), words)
    };
    said(there) == said(wanted)
}

fn rule(policy: &DevicePolicy, name: &str, device: &DeviceName, objection: &Objection) -> DeviceTaintRule {
    let effect = policy.spec.effect.clone().unwrap_or_else(|| EFFECT_DEFAULT.to_owned());
    let policy_name = policy.metadata.name.clone().unwrap_or_default();
    DeviceTaintRule {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(POLICY_LABEL.to_owned(), policy_name)])),
            annotations: Some(BTreeMap::from([(OBJECTION.to_owned(), objection.words.clone())])),
            owner_references: Some(vec![owner::reference_to(policy)]),
            ..ObjectMeta::default()
        },
        spec: DeviceTaintRuleSpec {
            device_selector: Some(DeviceTaintSelector {
                driver: Some(device.driver.clone()),
                pool: Some(device.pool.clone()),
                device: Some(device.name.clone()),
            }),
            taint: DeviceTaint {
                key: NOT_FIT.to_owned(),
                value: Some(objection.check.clone()),
                effect,
                time_added: None,
            },
        },
        status: None,
    }
}
