//! Taints of devices, in slices and by rules, and what tolerates them.

use super::{kinds::spoil, sound::object, *};

#[test]
fn broken_taints_of_devices_are_named() {
    let unsupported = |place: &str| {
        format!(
            "{place}: Unsupported value: \"PreferNoSchedule\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
        )
    };
    let of_rule = unsupported("spec.taint.effect");
    spoil(
        "DeviceTaintRule",
        &[
            (
                "/spec/deviceSelector/driver",
                json!("D_io"),
                "spec.deviceSelector.driver: Invalid value: \"D_io\"",
            ),
            ("/spec/deviceSelector/driver", json!(""), "spec.deviceSelector.driver: Required value"),
            ("/spec/deviceSelector/pool", json!("a//b"), "spec.deviceSelector.pool: Invalid value: \"a//b\""),
            (
                "/spec/deviceSelector/pool",
                json!("a".repeat(254)),
                "spec.deviceSelector.pool: Too long: may not be more than 253 bytes",
            ),
            (
                "/spec/deviceSelector/device",
                json!("g.0"),
                "spec.deviceSelector.device: Invalid value: \"g.0\"",
            ),
            (
                "/spec/taint/key",
                json!(""),
                "spec.taint.key: Invalid value: \"\": name part must be non-empty",
            ),
            ("/spec/taint/value", json!("a b"), "spec.taint.value: Invalid value: \"a b\""),
            ("/spec/taint/effect", json!("PreferNoSchedule"), of_rule.as_str()),
            ("/spec/taint/effect", json!(""), "spec.taint.effect: Required value"),
        ],
    );
    let of_slice = unsupported("spec.devices[0].taints[0].effect");
    let many = vec![json!({"key": "k", "effect": "None"}); 17];
    spoil(
        "ResourceSlice",
        &[
            (
                "/spec/devices/0/taints",
                json!([{"key": "k", "effect": "PreferNoSchedule"}]),
                of_slice.as_str(),
            ),
            (
                "/spec/devices/0/taints",
                json!(many),
                "spec.devices[0].taints: Too many: 17: must have at most 16 items",
            ),
        ],
    );
    let tolerations = "/spec/devices/requests/0/exactly/tolerations";
    spoil(
        "ResourceClaim",
        &[
            (
                tolerations,
                json!([{"key": "k", "operator": "Exists", "value": "v"}]),
                "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
            ),
            (
                tolerations,
                json!([{"key": "k", "effect": "Never"}]),
                "spec.devices.requests[0].exactly.tolerations[0].effect: Unsupported value: \"Never\"",
            ),
        ],
    );
}

#[test]
fn conditions_of_a_rule_about_taints_are_judged_and_few() {
    let (api_version, old) = object("DeviceTaintRule");
    let judged = |conditions: Value| {
        let mut new = old.clone();
        new["status"] = json!({"conditions": conditions});
        faults_of_update(api_version, "DeviceTaintRule", &old, &new)
    };
    let condition = |of: &str| {
        json!({
            "type": of, "status": "True", "reason": "R", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        })
    };
    assert_eq!(judged(json!([condition("EvictionInProgress")])), Vec::<String>::new());
    let nine: Vec<Value> = (0..9).map(|at| condition(&format!("C{at}"))).collect();
    assert_eq!(judged(json!(nine)), ["status.conditions: Too many: 9: must have at most 8 items"]);
    assert_eq!(
        judged(json!([condition("A"), condition("A")])),
        ["status.conditions[1].type: Duplicate value: \"A\""]
    );
    let mut vague = condition("A");
    vague["status"] = "Maybe".into();
    vague["reason"] = "".into();
    let said = judged(json!([vague]));
    assert!(said[0].starts_with("status.conditions[0].status: Unsupported value: \"Maybe\""), "{said:?}");
    assert_eq!(said[1], "status.conditions[0].reason: Required value");
}
