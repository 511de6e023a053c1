//! Any JSON at all, through patching, defaulting and validating: they may refuse it, they may not fall over it.

use claw_client::request::PatchKind;
use claw_schemas::Registry;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{defaults, patch};

/// Names that lead deep into the code, among them every directive of strategic merge.
const NAMES: [&str; 52] = [
    "metadata",
    "spec",
    "status",
    "template",
    "containers",
    "initContainers",
    "volumes",
    "env",
    "ports",
    "name",
    "image",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "strategy",
    "rollingUpdate",
    "selector",
    "matchLabels",
    "resources",
    "limits",
    "tolerations",
    "data",
    "livenessProbe",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$setElementOrder/finalizers",
    "$deleteFromPrimitiveList/finalizers",
    "items",
    "type",
    "clusterIP",
    "clusterIPs",
    "subsets",
    "addresses",
    "endpoints",
    "jobTemplate",
    "podFailurePolicy",
    "rules",
    "http",
    "paths",
    "backend",
    "ingress",
    "from",
    "ipBlock",
    "webhooks",
    "clientConfig",
    "devices",
    "requests",
    "firstAvailable",
    "metrics",
    "behavior",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        proptest::sample::select(vec!["", "a", "merge", "replace", "delete", "1Gi", "25%", "ü"])
            .prop_map(Value::from),
    ]
}

fn garbage() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(8, 64, 6, |inner| {
        let name = proptest::sample::select(NAMES.to_vec());
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..6).prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
            }),
        ]
    })
}

/// Whether a directive of strategic merge was stored as if it were a field.
fn holds_directive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.starts_with('$') || holds_directive(value))
        }
        Value::Array(items) => items.iter().any(holds_directive),
        _ => false,
    }
}

fn without_directives(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with('$'));
            fields.values_mut().for_each(without_directives);
        }
        Value::Array(items) => items.iter_mut().for_each(without_directives),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_sent_makes_the_server_fall_over(old in garbage(), new in garbage()) {
        for kind in Registry::builtin().iter() {
            let (mut old, mut new) = (old.clone(), new.clone());
            for object in [&mut old, &mut new] {
                defaults::apply(kind, object);
                defaults::admit(kind, object);
                create(kind, object);
            }
            update(kind, &old, &new);
        }
    }

    #[test]
    fn no_directive_of_a_patch_is_ever_stored(target in garbage(), sent in garbage()) {
        let mut target = json!({"metadata": target, "spec": target});
        without_directives(&mut target);
        let sent = json!({"metadata": sent, "spec": sent}).to_string();
        let registry = Registry::builtin();
        for kind in [registry.kind("v1", "Pod"), registry.kind("apps/v1", "Deployment")].into_iter().flatten() {
            let result = patch::apply(PatchKind::Strategic, &target, sent.as_bytes(), Some(kind.compiled()));
            if let Ok(result) = result {
                prop_assert!(!holds_directive(&result), "{target} + {sent} = {result}");
            }
        }
    }
}
