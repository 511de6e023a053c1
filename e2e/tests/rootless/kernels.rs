//! Workers that calculate there: the machine's libraries are shown to them as on every node.

use claw_e2e::{host, user::User, wait};
use claw_graph::order::{Report, State};
use serde_json::{Value, json};

use crate::{can_run, cluster, delete_all, folder};

#[test]
fn a_worker_of_an_ordinary_user_calculates() {
    if !can_run("a_worker_of_an_ordinary_user_calculates") {
        return;
    }
    let (cluster, _) = cluster(User::new);
    let kubectl = cluster.kubectl();
    let order = json!({
        "inputs": [{"name": "x", "dtype": "f32", "shape": [3], "source": {"values": [1.5, -2, 4]}}],
        "operations": [{"name": "sum", "op": "ReduceSum", "inputs": ["x"]}],
        "outputs": [{"value": "sum"}], "backends": ["vulkan", "cpu"], "runs": 2, "warmups": 0, "runTimeoutSeconds": 600,
    });
    let order = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "order"},
        "data": {"order.json": order.to_string()},
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [order, pod()]});
    kubectl.ok_with(&["apply", "-f", "-"], &list.to_string());
    let ended = wait::until("the worker has ended", wait::LATER, || {
        let pod: Value = serde_json::from_str(&kubectl.ok(&["get", "pod", "worker", "-o", "json"])).unwrap();
        let ended = pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        if ended.is_object() { Ok(ended) } else { Err(pod["status"].to_string()) }
    });
    let report: Report = serde_json::from_str(ended["message"].as_str().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {ended}; {}", kubectl.run(&["logs", "worker"]).stdout));
    assert_eq!(report.state, State::Complete, "{report:?}");
    assert_eq!(report.outputs[0].values, ["3.5"]);
    // It could write there: nothing else is kept of what processors calculate.
    let kept = host::files_in(&folder(&cluster), "kept-of-kernels");
    assert!(!kept.is_empty() || report.device.is_some_and(|device| device.id == "cpu"), "{kept:?}");
    delete_all(&cluster, &kubectl);
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "order", "configMap": {"name": "order"}}],
            "containers": [{
                "name": "worker",
                "image": "clawbernetes.io/kernels:1",
                "volumeMounts": [{"name": "order", "mountPath": "/job"}],
            }],
        },
    })
}
