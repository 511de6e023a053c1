//! What becomes of a spec, and what is said of one that is wrong.

use serde_json::{Value, json};

use super::*;

fn spec(change: impl FnOnce(&mut Value)) -> KernelJobSpec {
    let mut spec = json!({
        "inputs": [
            {"name": "a", "dtype": "f32", "shape": [2, 3], "values": [1, 2, 3, 4, 5, 6]},
            {"name": "b", "dtype": "f32", "shape": [3, 4], "random": {"seed": 7}},
            {"name": "c", "dtype": "f32", "shape": [4], "configMap": {"name": "weights", "key": "c.npy"}},
        ],
        "operations": [
            {"name": "product", "op": "MatMul", "inputs": ["a", "b"]},
            {"name": "shifted", "op": "Add", "inputs": ["product", "c"]},
            {"name": "p", "op": "Softmax", "inputs": ["shifted"], "axis": -1},
        ],
        "outputs": [{"value": "p", "volume": {"name": "results", "path": "deep/p.npy"}}],
        "volumes": [{"name": "results", "emptyDir": {}}],
    });
    change(&mut spec);
    serde_json::from_value(spec).expect("its fields have their types")
}

fn fault(change: impl FnOnce(&mut Value)) -> String {
    spec(change).order().expect_err("it is wrong").to_string()
}

#[test]
fn an_order_names_the_files_that_its_pod_mounts() {
    let order = spec(|_| ()).order().unwrap();
    assert_eq!(order.inputs[2].source, Source::File("/inputs/2/c.npy".into()));
    assert_eq!(order.outputs[0].file, Some("/volumes/results/deep/p.npy".into()));
    assert_eq!((order.backends, order.runs, order.warmups), (vec![Backend::Cpu], 1, 0));
}

#[test]
fn who_asks_for_a_device_is_not_given_processors() {
    for device in
        [json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}}), json!({"device": {"class": "gpu"}})]
    {
        let order =
            spec(|spec| spec.as_object_mut().unwrap().extend(device.as_object().unwrap().clone())).order();
        assert_eq!(order.unwrap().backends, [Backend::Cuda, Backend::Vulkan]);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_its_operation() {
    let transposed = fault(|spec| spec["operations"][0]["transposeFirst"] = json!(true));
    assert!(transposed.starts_with("operations[0]: \"product\" (MatMul): "), "{transposed}");
    let axis = fault(|spec| spec["operations"][2]["axis"] = json!(2));
    assert!(axis.starts_with("operations[2].axis: \"p\" (Softmax): there is no axis 2"), "{axis}");
    let unused = fault(|spec| spec["operations"][0]["k"] = json!(2));
    assert_eq!(unused, "operations[0].k: \"product\" (MatMul) has no use for it");
    let count = fault(|spec| spec["inputs"][0]["values"] = json!([1]));
    assert!(count.starts_with("inputs[0].values: "), "{count}");
    let two = fault(|spec| spec["inputs"][0]["fill"] = json!(1));
    assert_eq!(two, "inputs[0]: \"a\" needs exactly one of values, fill, random, configMap and volume");
    let escape = fault(|spec| spec["outputs"][0]["volume"]["path"] = json!("../p"));
    assert!(escape.starts_with("outputs[0].volume.path: "), "{escape}");
    let volume = fault(|spec| spec["outputs"][0]["volume"]["name"] = json!("other"));
    assert!(volume.starts_with("outputs[0].volume.name: no volume"), "{volume}");
    let unknown = fault(|spec| spec["outputs"][0]["value"] = json!("q"));
    assert_eq!(unknown, "outputs[0].value: no input or operation is called \"q\"");
    let runs = fault(|spec| spec["runs"] = json!(0));
    assert_eq!(runs, "runs: 0 is less than 1");
}

#[test]
fn the_reference_names_every_field() {
    let reference = include_str!("../../../../docs/kernel-jobs.md");
    let schema = crate::kinds::schema_of::<KernelJob>();
    let types = schema["$defs"].as_object().expect("types").iter();
    let ours = types.filter(|(name, _)| name.starts_with("io.clawbernetes."));
    let fields = ours.flat_map(|(name, of)| {
        of["properties"].as_object().into_iter().flatten().map(move |(field, _)| (name, field))
    });
    let unnamed: Vec<_> = fields
        .filter(|(_, field)| {
            !["`", "."].iter().any(|before| reference.contains(&format!("{before}{field}`")))
        })
        .collect();
    assert!(unnamed.is_empty(), "docs/kernel-jobs.md says nothing of {unnamed:?}");
}

#[test]
fn what_a_schema_demands_may_still_be_missing_where_it_is_read() {
    let schema = crate::kinds::schema_of::<KernelJob>();
    let input = &schema["$defs"]["io.clawbernetes.v1.KernelInput"];
    assert_eq!(input["required"], json!(["name", "dtype"]));
    let bare = json!({"spec": {"inputs": [{}], "operations": [{}], "outputs": [{}]}, "status": {"attempts": [{}], "figures": {}, "outputs": [{}]}});
    let job: KernelJob = serde_json::from_value(bare).expect("it is read");
    let said = job.spec.order().expect_err("it is wrong").to_string();
    assert!(said.starts_with("inputs[0]: "), "{said}");
}
