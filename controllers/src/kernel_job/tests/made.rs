//! What is made for a try.

use super::*;

/// What the next step makes, by its line.
fn made(stage: &Stage, line: &str) -> Value {
    let plan = stage.plan();
    let found = plan.actions.iter().find(|action| action.to_string() == line);
    let Some(Step::Ensure(body)) = found.map(|action| &action.step) else {
        panic!("{line} is not in {:?}", describe(&plan.actions))
    };
    body.clone()
}

fn pod_of(spec: &Value) -> Value {
    let mut stage = Stage::set(spec);
    stage.step();
    made(&stage, "ensure pods default/sum-0")
}

fn mounts(pod: &Value) -> Vec<(String, String, bool)> {
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    mounts.iter().map(|one| (text(&one["name"]), text(&one["mountPath"]), one["readOnly"] == true)).collect()
}

#[test]
fn the_pod_is_the_jobs_and_its_worker_may_do_nothing_but_calculate() {
    let pod = pod_of(&json!({
        "resources": {"limits": {"cpu": "2"}}, "nodeSelector": {"zone": "a"}, "priorityClassName": "low",
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    }));
    assert_eq!(pod["metadata"]["labels"], json!({"clawbernetes.io/kernel-job": "sum"}));
    assert_eq!(pod["metadata"]["finalizers"], json!(["clawbernetes.io/kernel-job-tracking"]));
    let owner = &pod["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"], &owner["controller"]),
        (&json!("KernelJob"), &json!("uid-sum"), &json!(true))
    );
    let spec = &pod["spec"];
    assert_eq!((&spec["restartPolicy"], &spec["priorityClassName"]), (&json!("Never"), &json!("low")));
    assert_eq!(
        (&spec["automountServiceAccountToken"], &spec["enableServiceLinks"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(
        (&spec["nodeSelector"], &spec["tolerations"][0]["key"]),
        (&json!({"zone": "a"}), &json!("gpu"))
    );
    assert_eq!(
        (&spec["activeDeadlineSeconds"], &spec["affinity"], &spec["resourceClaims"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let worker = &spec["containers"][0];
    assert_eq!((&worker["name"], &worker["image"]), (&json!("worker"), &json!("clawbernetes.io/kernels:1")));
    assert_eq!((&worker["command"], &worker["resources"]["limits"]), (&Value::Null, &json!({"cpu": "2"})));
    assert_eq!(worker["terminationMessagePolicy"], "File");
    let rights = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
    assert_eq!(worker["securityContext"], rights);
    let profile = json!({"type": "RuntimeDefault"});
    assert_eq!(spec["securityContext"], json!({"seccompProfile": profile}), "its image says who it is");
}

#[test]
fn the_order_is_where_the_worker_looks_for_it_and_what_the_spec_says() {
    let mut stage = Stage::set(&json!({"runs": 7}));
    stage.step();
    let map = made(&stage, "ensure configmaps default/sum-order");
    assert_eq!(
        (&map["immutable"], &map["metadata"]["ownerReferences"][0]["uid"]),
        (&json!(true), &json!("uid-sum"))
    );
    let order: claw_graph::order::Order =
        serde_json::from_str(map["data"]["order.json"].as_str().unwrap()).unwrap();
    assert_eq!((order.runs, order.graph().is_ok()), (7, true));
    let pod = made(&stage, "ensure pods default/sum-0");
    assert_eq!(mounts(&pod), [("kernel-job-order".to_owned(), "/job".to_owned(), true),]);
    assert_eq!(
        pod["spec"]["volumes"][0],
        json!({"name": "kernel-job-order", "configMap": {"name": "sum-order"}})
    );
}

#[test]
fn inputs_are_mounted_one_key_each_and_volumes_may_be_written_only_where_outputs_go() {
    let of = |name: &str, source: Value| {
        let mut input = json!({"name": name, "dtype": "f32", "shape": [4]});
        json_patch_merge(&mut input, &source);
        input
    };
    let pod = pod_of(&json!({
        "inputs": [
            of("a", json!({"fill": 1.0})),
            of("c", json!({"configMap": {"name": "data", "key": "c.npy"}})),
            of("d", json!({"volume": {"name": "in", "path": "d.npy"}})),
        ],
        "outputs": [{"value": "b", "volume": {"name": "out", "path": "b.npy"}}],
        "volumes": [{"name": "in", "emptyDir": {}}, {"name": "out", "emptyDir": {}}, {"name": "kernel-job-order", "emptyDir": {}}],
    }));
    let expected = [
        ("in", "/volumes/in", true),
        ("out", "/volumes/out", false),
        ("kernel-job-order", "/volumes/kernel-job-order", true),
        ("kernel-job-order-x", "/job", true),
        ("kernel-job-input-1", "/inputs/1", true),
    ];
    assert_eq!(
        mounts(&pod),
        expected.map(|(name, path, read_only)| (name.to_owned(), path.to_owned(), read_only))
    );
    let items = json!({"name": "data", "items": [{"key": "c.npy", "path": "c.npy"}]});
    assert_eq!(pod["spec"]["volumes"][4], json!({"name": "kernel-job-input-1", "configMap": items}));
    assert_eq!(pod["spec"]["securityContext"]["runAsUser"], Value::Null);
}

#[test]
fn it_is_root_without_capabilities_only_where_an_output_goes_to_a_folder_of_the_machine() {
    let volumes = json!([{"name": "disk", "hostPath": {"path": "/srv"}}]);
    let read = pod_of(&json!({"volumes": volumes}));
    assert_eq!(read["spec"]["securityContext"]["runAsUser"], Value::Null);
    let outputs = json!([{"value": "b", "volume": {"name": "disk", "path": "b.npy"}}]);
    let written = pod_of(&json!({"volumes": volumes, "outputs": outputs}));
    let root = json!({"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}});
    assert_eq!(written["spec"]["securityContext"], root);
    assert_eq!(written["spec"]["containers"][0]["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
}

#[test]
fn a_device_of_a_class_is_claimed_from_a_template_of_the_job() {
    let expression = "device.attributes[\"x\"].y == 1";
    let mut stage = Stage::set(&json!({"device": {"class": "gpu.nvidia.com", "selectors": [expression]}}));
    stage.step();
    let lines = describe(&stage.plan().actions);
    let expected = [
        "ensure configmaps default/sum-order",
        "ensure resourceclaimtemplates default/sum-device",
        "ensure pods default/sum-0",
    ];
    assert_eq!(lines, expected);
    let template = made(&stage, expected[1]);
    let exactly =
        json!({"deviceClassName": "gpu.nvidia.com", "selectors": [{"cel": {"expression": expression}}]});
    assert_eq!(
        template["spec"]["spec"]["devices"]["requests"],
        json!([{"name": "device", "exactly": exactly}])
    );
    let pod = made(&stage, expected[2]);
    assert_eq!(
        pod["spec"]["resourceClaims"],
        json!([{"name": "device", "resourceClaimTemplateName": "sum-device"}])
    );
    assert_eq!(pod["spec"]["containers"][0]["resources"]["claims"], json!([{"name": "device"}]));
}

#[test]
fn a_name_that_somebody_else_has_fails_the_job_and_says_whose_fault_it_is() {
    let mut stage = Stage::set(&json!({}));
    stage.step();
    stage.failure = failed_with(Reason::AlreadyExists, "pods \"sum-0\" already exists");
    let plan = stage.plan();
    assert!(
        events(&plan).iter().any(|line| line.starts_with("event NameTaken: pods \"sum-0\" already exists")),
        "{plan:?}"
    );
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!((stage.phase(), stage.condition("Failed").1), ("Failed", "NameTaken"));
    assert_eq!(stage.step(), [""; 0], "and that is all");
}

#[test]
fn what_the_server_will_never_take_fails_the_job_and_what_it_may_take_later_is_waited_for() {
    let mut stage = Stage::set(&json!({}));
    stage.step();
    stage.failure = failed_with(Reason::Forbidden, "exceeded quota");
    assert_eq!(stage.step().len(), 2, "it tries again");
    assert_eq!((stage.phase(), stage.status().progress.as_deref()), ("Pending", Some("exceeded quota")));
    stage.failure = failed_with(Reason::Invalid, "spec.tolerations: no");
    stage.step();
    assert_eq!(stage.condition("Failed"), ("True", "Refused", "spec.tolerations: no"));
}

#[test]
fn an_order_that_cannot_be_made_fails_the_job_with_the_reason() {
    let mut stage =
        Stage::set(&json!({"operations": [{"name": "b", "op": "Add", "inputs": ["a", "nobody"]}]}));
    stage.step();
    assert_eq!(stage.step(), [""; 0]);
    let (_, reason, message) = stage.condition("Failed");
    assert_eq!(reason, "BadOrder");
    assert!(message.starts_with("spec.operations[0]") && message.contains("nobody"), "{message}");
    assert_eq!(stage.why().0, "BadOrder");
}
