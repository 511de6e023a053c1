//! Devices that a policy holds back until a real look has found them fit. Software stands for a GPU, as in `vulkan`.

use std::time::Duration;

use claw_e2e::{
    Cluster, Kubectl, Options,
    http::Http,
    need::{self, Need},
    wait::{self, check},
};
use serde_json::{Value, json};

use crate::{holder, vulkan::has_llvmpipe};

/// A look compiles kernels and fills memory, on a machine that does other things.
const LOOK: Duration = Duration::from_secs(900);

fn policy(minimums: &Value) -> String {
    json!({"apiVersion": "clawbernetes.io/v1", "kind": "DevicePolicy", "metadata": {"name": "every"}, "spec": {
        "deviceClassName": "gpu.vulkan", "minimums": minimums,
    }})
    .to_string()
}

fn field(kubectl: &Kubectl, what: &str, path: &str) -> String {
    kubectl.ok(&["get", what, "-o", &format!("jsonpath={path}")])
}

/// Waits until the policy counts one device, and that so.
fn until_counted(kubectl: &Kubectl, fit: &str) {
    wait::until(&format!("the device counts as {fit}"), LOOK, || {
        let counts = field(kubectl, "devicepolicy/every", "{.status.fit} {.status.notFit} {.status.running}");
        check(counts == fit, format!("{counts}\n{}", kubectl.ok(&["get", "devicechecks", "-o", "wide"])))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_look_decides_whether_a_device_is_given_to_anybody() {
    let story = "a_real_look_decides_whether_a_device_is_given_to_anybody";
    if !need::all(story, &[Need::Root, Need::Kubectl]) || !has_llvmpipe(story) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &policy(&json!({"copyBytesPerSecond": "1P"})));
    cluster.join_node("worker", &["--software-gpus"]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let counted = holder("counted", "").replace("nvidia.com/gpu: 1", "clawbernetes.io/gpu: 1");
    kubectl.ok_with(&["apply", "-f", "-"], &counted);
    wait::until("the pod says why it waits", wait::LATER, || {
        let why = field(&kubectl, "pod/counted", "{.status.conditions[?(@.type==\"PodScheduled\")].message}");
        check(why.contains("clawbernetes.io/unchecked"), why)
    });

    // No processor copies a petabyte a second.
    until_counted(&kubectl, "0 1 0");
    let table = kubectl.ok(&["get", "devicechecks", "-o", "wide"]);
    assert!(table.contains("NotFit") && table.contains("worker"), "{table}");
    let checks: Value =
        serde_json::from_str(&kubectl.ok(&["get", "dchk", "-o", "json"])).expect("it is JSON");
    let status = &checks["items"][0]["status"];
    let findings = status["findings"].as_array().expect("there are findings");
    let against: Vec<&str> = findings
        .iter()
        .filter(|one| one["passed"] == false)
        .filter_map(|one| one["check"].as_str())
        .collect();
    assert_eq!(against, ["Minimums"], "{findings:?}");
    assert!(
        findings
            .iter()
            .any(|one| one["figures"]["copyBytesPerSecond"].as_f64().is_some_and(|rate| rate > 1e6))
    );
    assert!(status["device"]["bootID"].as_str().is_some_and(|id| !id.is_empty()), "{status}");
    let described = kubectl.ok(&["describe", "node", "worker"]);
    assert!(described.contains("DevicesNotFit") && described.contains("must be at least 1P"), "{described}");
    let rule = field(&kubectl, "devicetaintrules", "{.items[*].spec.taint.key}");
    assert_eq!(rule, "clawbernetes.io/not-fit");
    wait::until("the pod says why it waits", wait::LATER, || {
        let why = field(&kubectl, "pod/counted", "{.status.conditions[?(@.type==\"PodScheduled\")].message}");
        check(why.contains("clawbernetes.io/not-fit"), why)
    });

    // It need not be so quick: that is another question, so it is looked at again, and then the pod runs.
    kubectl.ok(&[
        "patch",
        "dpol",
        "every",
        "--type=merge",
        "-p",
        r#"{"spec":{"minimums":{"copyBytesPerSecond":"1M"}}}"#,
    ]);
    until_counted(&kubectl, "1 0 0");
    kubectl.ok(&["wait", "--for=condition=Checked", "devicepolicy/every", "--timeout=60s"]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/counted", "--timeout=180s"]);
    let described = kubectl.ok(&["describe", "node", "worker"]);
    assert!(described.contains("devices that were looked at are fit"), "{described}");
    assert_eq!(field(&kubectl, "devicetaintrules", "{.items[*].metadata.name}"), "");
}
