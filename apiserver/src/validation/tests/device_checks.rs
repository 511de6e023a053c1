//! Looks at devices, and policies about them, that are sound but for one thing.

use super::{kinds::spoil, *};

#[test]
fn broken_looks_at_devices_are_named() {
    spoil(
        "DeviceCheck",
        &[
            (
                "/metadata/name",
                json!("x".repeat(64)),
                "metadata.name: Invalid value: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": must be no more than 63 characters",
            ),
            ("/spec/device/pool", json!(null), "spec.device.pool: Required value"),
            ("/spec/device/name", json!("a.b"), "spec.device.name: Invalid value: \"a.b\""),
            (
                "/spec/device/driver",
                json!("gpu.nvidia.com"),
                "spec.device.driver: Unsupported value: \"gpu.nvidia.com\": supported values: \"gpu.clawbernetes.io\"",
            ),
            (
                "/spec/level",
                json!("Slow"),
                "spec.level: Unsupported value: \"Slow\": supported values: \"Quick\", \"Full\"",
            ),
            (
                "/spec/timeoutSeconds",
                json!(0),
                "spec.timeoutSeconds: Invalid value: 0: must be between 1 and 86400",
            ),
            ("/spec/ttlSecondsAfterFinished", json!(-1), "spec.ttlSecondsAfterFinished: Invalid value: -1"),
            (
                "/spec/minimums",
                json!({"speed": "5"}),
                "spec.minimums[speed]: Unsupported value: \"speed\": supported values: \"copyBytesPerSecond\"",
            ),
            (
                "/spec/minimums",
                json!({"copyBytesPerSecond": "0"}),
                "spec.minimums[copyBytesPerSecond]: Invalid value: \"0\": must be greater than zero",
            ),
        ],
    );
}

#[test]
fn broken_policies_about_devices_are_named() {
    spoil(
        "DevicePolicy",
        &[
            ("/metadata/name", json!("x".repeat(41)), "metadata.name: Invalid value"),
            ("/spec/deviceClassName", json!("A"), "spec.deviceClassName: Invalid value: \"A\""),
            ("/spec/selectors", json!([""]), "spec.selectors[0]: Required value"),
            (
                "/spec/selectors",
                json!(["device.driver =="]),
                "spec.selectors[0]: Invalid value: \"device.driver ==\": compilation failed: ",
            ),
            ("/spec/nodeSelector", json!({"a b": "c"}), "spec.nodeSelector: Invalid value: \"a b\""),
            ("/spec/effect", json!("Perhaps"), "spec.effect: Unsupported value: \"Perhaps\""),
            ("/spec/recheckAfterSeconds", json!(0), "spec.recheckAfterSeconds: Invalid value: 0"),
            ("/spec/maxParallel", json!(0), "spec.maxParallel: Invalid value: 0"),
            ("/spec/maxParallelPerNode", json!(0), "spec.maxParallelPerNode: Invalid value: 0"),
            ("/spec/level", json!("Half"), "spec.level: Unsupported value: \"Half\""),
            (
                "/spec/minimums",
                json!({"soakFlopsPerSecond": "-1"}),
                "spec.minimums[soakFlopsPerSecond]: Invalid value: \"-1\": must be greater than zero",
            ),
        ],
    );
}
