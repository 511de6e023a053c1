//! Which devices a policy means. Pure.

use std::{collections::BTreeMap, sync::Arc};

use claw_schemas::{api::DevicePolicySpec, gpu::DRIVER};
use k8s_openapi::api::resource::v1::DeviceClassSpec;

use crate::scheduler::devices::{Device, Selector, Selectors};

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// The devices of our agents that a policy means.
#[derive(Debug)]
pub struct Scope {
    /// Each with where it stands, in words.
    selectors: Vec<(Arc<Selector>, String)>,
    node_selector: Labels,
}

impl Scope {
    /// That of a policy, with the class that it names.
    ///
    /// # Errors
    /// Why it cannot be told which devices are meant, in words.
    pub fn of<'a>(
        spec: &DevicePolicySpec,
        class: impl FnOnce(&str) -> Option<&'a DeviceClassSpec>,
        selectors: &mut Selectors,
    ) -> Result<Self, String> {
        let mut texts: Vec<(&str, String)> = Vec::new();
        if let Some(name) = spec.device_class_name.as_deref().filter(|name| !name.is_empty()) {
            let class = class(name).ok_or_else(|| format!("device class {name} does not exist"))?;
            let of_class = class.selectors.iter().flatten().enumerate();
            texts.extend(of_class.map(|(at, one)| {
                let text = one.cel.as_ref().map_or("", |cel| cel.expression.as_str());
                (text, format!("class {name}: selector #{at}"))
            }));
        }
        let own = spec.selectors.iter().enumerate();
        texts.extend(own.map(|(at, text)| (text.as_str(), format!("spec.selectors[{at}]"))));
        let compiled = texts.into_iter().map(|(text, whose)| {
            let selector = selectors.get(text).map_err(|why| format!("{whose}: CEL compile error: {why}"))?;
            Ok((selector, whose))
        });
        Ok(Self {
            selectors: compiled.collect::<Result<_, String>>()?,
            node_selector: spec.node_selector.clone(),
        })
    }

    /// Whether devices of a node with these labels may be meant.
    pub fn is_about_node(&self, labels: &Labels) -> bool {
        self.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether a device on a node with these labels is meant.
    ///
    /// # Errors
    /// Why it cannot be told, in words.
    pub fn means(&self, device: &Device, labels: &Labels) -> Result<bool, String> {
        if !self.is_about_node(labels) || &*device.id.driver != DRIVER {
            return Ok(false);
        }
        for (selector, whose) in &self.selectors {
            let verdict = selector.matches(device);
            if !verdict.map_err(|why| format!("{whose}: CEL runtime error: {why}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scheduler::devices::build::gpu;

    fn means(spec: Value) -> Result<bool, String> {
        let spec: DevicePolicySpec = serde_json::from_value(spec).unwrap();
        let class: DeviceClassSpec = serde_json::from_value(json!({
            "selectors": [{"cel": {"expression": "device.attributes['gpu.clawbernetes.io'].uuid == 'GPU-A'"}}],
        }))
        .unwrap();
        let class = |name: &str| (name == "a").then_some(&class);
        let scope = Scope::of(&spec, class, &mut Selectors::default())?;
        let labels = Labels::from([("pool".to_owned(), "training".to_owned())]);
        scope.means(&gpu("n", "GPU-A", json!({})), &labels)
    }

    #[test]
    fn class_selectors_and_labels_all_say_which_devices_are_meant() {
        let model = "device.attributes['gpu.clawbernetes.io'].productName.contains('H100')";
        for (spec, expected) in [
            (json!({}), true),
            (
                json!({"deviceClassName": "a", "selectors": [model], "nodeSelector": {"pool": "training"}}),
                true,
            ),
            (json!({"nodeSelector": {"pool": "other"}}), false),
            (json!({"selectors": [model, "false"]}), false),
        ] {
            assert_eq!(means(spec.clone()), Ok(expected), "{spec}");
        }
        assert_eq!(means(json!({"deviceClassName": "b"})), Err("device class b does not exist".to_owned()));
        let broken = means(json!({"selectors": ["device.attributes['a'].b == 1"]})).unwrap_err();
        assert!(broken.starts_with("spec.selectors[0]: CEL runtime error: "), "{broken}");
    }
}
