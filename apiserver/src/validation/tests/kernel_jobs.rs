//! Kernel jobs that are sound but for one thing.

use super::{kinds::spoil, sound::object, *};

#[test]
fn broken_kernel_jobs_are_named() {
    let of = |fields: Value| {
        let mut input = json!({"name": "a", "dtype": "f32", "shape": [2]});
        input.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!([input])
    };
    let deep = json!({"name": "p", "op": "Softmax", "inputs": ["product"], "axis": 2});
    spoil(
        "KernelJob",
        &[
            ("/metadata/name", json!("x".repeat(60)), "metadata.name: Invalid value"),
            ("/spec/runs", json!(0), "spec.runs: Invalid value: 0: must be between 1 and 1000000, inclusive"),
            ("/spec/runs", json!(1_000_001), "spec.runs: Invalid value"),
            ("/spec/warmups", json!(10_001), "spec.warmups: Invalid value"),
            ("/spec/backoffLimit", json!(-1), "spec.backoffLimit: Invalid value"),
            ("/spec/backoffLimit", json!(101), "spec.backoffLimit: Invalid value"),
            ("/spec/runTimeoutSeconds", json!(0), "spec.runTimeoutSeconds: Invalid value"),
            ("/spec/activeDeadlineSeconds", json!(0), "spec.activeDeadlineSeconds: Invalid value"),
            ("/spec/ttlSecondsAfterFinished", json!(-1), "spec.ttlSecondsAfterFinished: Invalid value"),
            (
                "/spec/outputs",
                json!([]),
                "spec.outputs: Required value: there are 0, and 1 to 12 are possible",
            ),
            (
                "/spec/outputs",
                json!(vec![json!({"value": "p"}); 13]),
                "spec.outputs: Invalid value: 13: there are 13",
            ),
            (
                "/spec/outputs",
                json!([{"value": "q"}]),
                "spec.outputs[0].value: Invalid value: \"q\": no input or operation",
            ),
            ("/spec/outputs", json!([{}]), "spec.outputs[0].value: Required value"),
            (
                "/spec/outputs",
                json!([{"value": "p", "volume": {"name": "other", "path": "p"}}]),
                "spec.outputs[0].volume.name: Invalid value: \"other\": no volume in spec.volumes",
            ),
            (
                "/spec/outputs",
                json!([{"value": "p", "volume": {"name": "results", "path": "../p"}}]),
                "spec.outputs[0].volume.path: Invalid value: \"../p\"",
            ),
            (
                "/spec/operations/1",
                deep,
                "spec.operations[1].axis: Invalid value: 2: \"p\" (Softmax): there is no axis 2 in [2,4]",
            ),
            (
                "/spec/operations/0/transposeFirst",
                json!(true),
                "spec.operations[0]: Invalid value: \"product\": \"product\" (MatMul): f32[2,3] and f32[3,4]: the inner extents 2 and 3 differ",
            ),
            (
                "/spec/operations/0/k",
                json!(1),
                "spec.operations[0].k: Invalid value: 1: \"product\" (MatMul) has no use",
            ),
            ("/spec/operations/0/op", Value::Null, "spec.operations[0].op: Required value"),
            (
                "/spec/operations/0/op",
                json!("MatMull"),
                "spec.operations[0].op: Invalid value: \"MatMull\": there is no operation",
            ),
            ("/spec/operations/0/name", Value::Null, "spec.operations[0].name: Required value"),
            (
                "/spec/operations/1/name",
                json!("product"),
                "spec.operations[1].name: Invalid value: \"product\"",
            ),
            ("/spec/operations/1/inputs", json!(["p"]), "spec.operations[1].inputs[0]: Invalid value: \"p\""),
            (
                "/spec/inputs/0/values",
                json!([1]),
                "spec.inputs[0].values: Invalid value: 1: \"a\" is f32[2,3], and has 1 values",
            ),
            (
                "/spec/inputs",
                of(json!({"dtype": "i8", "values": [1, 200]})),
                "spec.inputs[0].values[1]: Invalid value: 200: 200 is no i8",
            ),
            (
                "/spec/inputs",
                of(json!({"dtype": "f64", "fill": 1})),
                "spec.inputs[0].dtype: Unsupported value: \"f64\"",
            ),
            ("/spec/inputs", of(json!({"name": "", "fill": 1})), "spec.inputs[0].name: Required value"),
            (
                "/spec/inputs",
                of(json!({"shape": [-1], "fill": 1})),
                "spec.inputs[0].shape[0]: Invalid value: -1",
            ),
            (
                "/spec/inputs",
                of(json!({"shape": [1_u64 << 20, 1_u64 << 21], "fill": 1})),
                "spec.inputs[0].shape: Invalid value: 2: more than 2^40 elements",
            ),
            (
                "/spec/inputs",
                of(json!({})),
                "spec.inputs[0]: Invalid value: \"a\": \"a\" needs exactly one of",
            ),
            (
                "/spec/inputs",
                of(json!({"fill": 1, "random": {}})),
                "spec.inputs[0]: Invalid value: \"a\": \"a\" needs exactly one of",
            ),
            (
                "/spec/inputs",
                of(json!({"random": {"distribution": "Cauchy"}})),
                "spec.inputs[0].random.distribution: Invalid value: \"Cauchy\"",
            ),
            (
                "/spec/inputs",
                of(json!({"configMap": {"key": "a/b"}})),
                "spec.inputs[0].configMap.name: Required value",
            ),
            (
                "/spec/inputs",
                of(json!({"configMap": {"name": "c", "key": "a/b"}})),
                "spec.inputs[0].configMap.key: Invalid value",
            ),
            ("/spec/volumes", json!([{"name": "A"}]), "spec.volumes[0].name: Invalid value: \"A\""),
            (
                "/spec/resources",
                json!({"limits": {"nvidia.com/gpu": "0.5"}}),
                "spec.resources.limits[nvidia.com/gpu]: Invalid value",
            ),
            (
                "/spec/resources/claims",
                json!([{"name": "gpu"}]),
                "spec.resources.claims: Forbidden: ask for a device by `device.class`",
            ),
            ("/spec/nodeSelector", json!({"a b": "c"}), "spec.nodeSelector: Invalid value"),
            (
                "/spec/tolerations",
                json!([{"operator": "Exist", "key": "a"}]),
                "spec.tolerations[0].operator: Unsupported value",
            ),
            ("/spec/priorityClassName", json!("A"), "spec.priorityClassName: Invalid value"),
            ("/spec/device/class", json!("A"), "spec.device.class: Invalid value"),
            (
                "/spec/device/class",
                Value::Null,
                "spec.device.selectors: Forbidden: may only be given with a class",
            ),
            (
                "/spec/device/selectors",
                json!(["device."]),
                "spec.device.selectors[0]: Invalid value: \"device.\": compilation failed",
            ),
            (
                "/spec/device/backends",
                json!(["metal"]),
                "spec.device.backends[0]: Unsupported value: \"metal\": supported values: \"cuda\", \"vulkan\", \"cpu\"",
            ),
        ],
    );
}

#[test]
fn all_that_is_wrong_with_a_kernel_job_is_said_once_and_together() {
    let (api_version, mut object) = object("KernelJob");
    for (pointer, value) in [
        ("/spec/runs", json!(0)),
        ("/spec/inputs/0/dtype", json!("f64")),
        ("/spec/inputs/1/dtype", json!("")),
        ("/spec/device/backends", json!(["metal"])),
        ("/spec/volumes/0/name", json!("A")),
    ] {
        set(&mut object, pointer, &value);
    }
    let fields: Vec<String> = faults_of(api_version, "KernelJob", &object)
        .into_iter()
        .map(|fault| fault.split(": ").next().unwrap_or_default().to_owned())
        .collect();
    let expected = [
        "spec.runs",
        "spec.volumes[0].name",
        "spec.device.backends[0]",
        "spec.inputs[0].dtype",
        "spec.inputs[1].dtype",
        "spec.outputs[0].volume.name",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn what_is_said_of_a_kernel_job_can_be_read_by_who_counts_on_its_types() {
    let (api_version, old) = object("KernelJob");
    let judged = |condition: Value| {
        let mut new = old.clone();
        new["status"] = json!({"conditions": [condition]});
        faults_of_update(api_version, "KernelJob", &old, &new)
    };
    let sound = json!({"type": "Complete", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    assert_eq!(judged(sound.clone()), Vec::<String>::new());
    for (field, value, expected) in [
        ("type", json!(""), "status.conditions[0].type: Required value"),
        ("status", json!("Yes"), "status.conditions[0].status: Unsupported value"),
        ("reason", Value::Null, "status.conditions[0].reason: Required value"),
        ("lastTransitionTime", Value::Null, "status.conditions[0].lastTransitionTime: Required value"),
    ] {
        let mut condition = sound.clone();
        condition[field] = value;
        assert!(judged(condition)[0].starts_with(expected), "{field}");
    }
}

#[test]
fn an_order_that_no_config_map_can_hold_is_refused() {
    let (api_version, mut object) = object("KernelJob");
    let inputs = vec!["p"; 1 << 18];
    object["spec"]["operations"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "all", "op": "Concat", "inputs": inputs, "axis": 0}));
    assert_eq!(
        faults_of(api_version, "KernelJob", &object),
        ["spec: Too long: may not be more than 1048576 bytes"]
    );
}
