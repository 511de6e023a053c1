//! Our own client in a container finds the cluster around it, as every client library does.

use std::path::Path;

use claw_e2e::{
    Cluster, Options,
    binary::clawbernetes,
    need::{self, Need},
    wait,
};
use serde_json::{Value, json};

/// What a program that is linked to the C library needs of the machine.
const SYSTEM: [&str; 3] = ["/usr", "/lib", "/lib64"];

/// A pod in which our binary lists pods.
fn inside() -> Value {
    let folder = clawbernetes().parent().map(Path::to_owned).unwrap_or_default();
    let system = SYSTEM.iter().filter(|path| Path::new(path).exists());
    let mounted: Vec<(String, String)> = system
        .map(|path| ((*path).to_owned(), (*path).to_owned()))
        .chain([(folder.to_string_lossy().into_owned(), "/claw".to_owned())])
        .collect();
    let name = |at: usize| format!("v{at}");
    let volumes = mounted
        .iter()
        .enumerate()
        .map(|(at, (host, _))| json!({"name": name(at), "hostPath": {"path": host}}));
    let mounts = mounted
        .iter()
        .enumerate()
        .map(|(at, (_, path))| json!({"name": name(at), "mountPath": path, "readOnly": true}));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "inside"},
        "spec": {
            "restartPolicy": "Never", "volumes": volumes.collect::<Vec<_>>(),
            "containers": [{
                "name": "main", "image": "clawbernetes.io/toolbox:1",
                "command": ["/claw/clawbernetes", "get", "pods", "-o", "name"],
                "volumeMounts": mounts.collect::<Vec<_>>(),
            }],
        },
    })
}

#[test]
fn a_verb_in_a_container_speaks_to_the_cluster_around_it_as_the_account_of_its_pod() {
    let story = "a_verb_in_a_container_speaks_to_the_cluster_around_it_as_the_account_of_its_pod";
    if !need::all(story, &[Need::Root, Need::Kubectl, Need::Networks]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    kubectl.ok(&["create", "role", "reader", "--verb=get,list", "--resource=pods"]);
    kubectl.ok(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:default"]);
    kubectl.ok_with(&["apply", "-f", "-"], &inside().to_string());
    let phase = wait::until("the pod ends", wait::LATER, || {
        let phase = kubectl.ok(&["get", "pod", "inside", "-o", "jsonpath={.status.phase}"]);
        wait::check(["Succeeded", "Failed"].contains(&phase.as_str()), phase.clone()).map(|()| phase)
    });
    let said = kubectl.ok(&["logs", "inside"]);
    assert_eq!((phase.as_str(), said.trim()), ("Succeeded", "pod/inside"));
}
