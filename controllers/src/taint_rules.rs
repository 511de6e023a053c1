//! DeviceTaintRules: which devices one is about, and the taint that these have by it.
//!
//! Must never know: who asks.

use k8s_openapi::api::resource::{v1::DeviceTaint, v1beta2::DeviceTaintRuleSpec};

/// Whether a rule is about a device. Without a selector it is about none, with an empty one about all.
pub fn selects(rule: &DeviceTaintRuleSpec, driver: &str, pool: &str, device: &str) -> bool {
    let selected = rule.device_selector.as_ref().and_then(|selector| selector.device.as_deref());
    selects_in(rule, driver, pool) && selected.is_none_or(|selected| selected == device)
}

/// Whether a rule may be about devices of a pool, whichever these are.
pub fn selects_in(rule: &DeviceTaintRuleSpec, driver: &str, pool: &str) -> bool {
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    rule.device_selector
        .as_ref()
        .is_some_and(|selector| is(&selector.driver, driver) && is(&selector.pool, pool))
}

/// The taint of a rule, as slices have it.
pub fn taint(rule: &DeviceTaintRuleSpec) -> DeviceTaint {
    let taint = rule.taint.clone();
    DeviceTaint { effect: taint.effect, key: taint.key, time_added: taint.time_added, value: taint.value }
}

#[cfg(test)]
pub mod build {
    //! Builders for tests.

    use k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
    use serde_json::{Value, json};

    /// A rule with the taint `example.com/NAME`.
    pub fn rule(name: &str, selector: Value, effect: &str) -> DeviceTaintRule {
        let taint = json!({
            "key": format!("example.com/{name}"), "value": "yes", "effect": effect,
            "timeAdded": "1970-01-01T00:00:00Z",
        });
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1},
            "spec": {"deviceSelector": selector, "taint": taint},
        }))
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{build::rule, *};

    #[test]
    fn a_rule_is_about_what_all_of_its_selector_names() {
        let is_about = |selector: Value| selects(&rule("r", selector, "None").spec, "d", "p", "x");
        for (selector, expected) in [
            (Value::Null, false),
            (json!({}), true),
            (json!({"driver": "d"}), true),
            (json!({"pool": "p", "device": "x"}), true),
            (json!({"driver": "e"}), false),
            (json!({"driver": "d", "pool": "q"}), false),
            (json!({"driver": "d", "pool": "p", "device": "y"}), false),
        ] {
            assert_eq!(is_about(selector.clone()), expected, "{selector}");
        }
    }
}
