//! Real kubectl empties a node, and waits for what budgets allow; and shows what quotas and limit ranges leave.

use claw_e2e::{
    Cluster, Kubectl, Options,
    kubectl::Background,
    need::{self, Need},
    wait,
};

const BUDGETED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: i}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
";

#[test]
fn kubectl_drains_a_node_as_fast_as_a_budget_allows() {
    if !need::all("kubectl_drains_a_node_as_fast_as_a_budget_allows", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(2).with(&["--hollow"]));
    for kubectl in &cluster.kubectls() {
        eprintln!("--- {}", kubectl.name);
        drain(&cluster, kubectl);
    }
}

/// How often kubectl was told that the budget allows nothing.
fn refusals(draining: &Background) -> usize {
    draining.output().matches("Cannot evict pod as it would violate the pod's disruption budget.").count()
}

fn drain(cluster: &Cluster, kubectl: &Kubectl) {
    kubectl.ok_with(&["apply", "-f", "-"], BUDGETED);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
    wait::until("the budget allows one", wait::SOON, || {
        let status = kubectl.ok(&[
            "get",
            "pdb",
            "web",
            "-o",
            "jsonpath={.status.expectedPods}/{.status.disruptionsAllowed}",
        ]);
        wait::check(status == "4/1", status)
    });
    let on = |node: &str| {
        let path = "jsonpath={.items[*].metadata.name}";
        let selector = format!("--field-selector=spec.nodeName={node}");
        let names = kubectl.ok(&["get", "pods", "-l", "app=web", &selector, "-o", path]);
        names.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let nodes = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    let nodes: Vec<&str> = nodes.split_whitespace().collect();
    let crowded = nodes.iter().max_by_key(|node| on(node).len()).expect("there are nodes");
    assert!(on(crowded).len() >= 2, "the node has to lose more than one");
    let said = kubectl.ok(&["drain", crowded, "--ignore-daemonsets", "--timeout=600s"]);
    assert!(said.contains("evicted"), "{said}");
    assert_eq!(on(crowded), Vec::<String>::new());
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
    kubectl.ok(&["uncordon", crowded]);

    // A budget that allows nothing holds the last of them.
    let none = r#"{"spec":{"maxUnavailable":0}}"#;
    kubectl.ok(&["patch", "pdb", "web", "--type=merge", "-p", none]);
    let other = nodes.iter().find(|node| *node != crowded).expect("there are two");
    // It goes on asking for as long as it is let.
    let mut draining =
        kubectl.spawn(&["drain", other, "--ignore-daemonsets"], &cluster.scratch().join("drain"));
    for what in ["is refused", "asks again, and is refused"] {
        let before = refusals(&draining);
        wait::until(&format!("kubectl {what}"), wait::LATER, || {
            wait::check(refusals(&draining) > before, draining.output())
        });
    }
    assert_eq!(draining.exit_code(), None, "{}", draining.output());
    drop(draining);
    assert_eq!(on(other).len(), 4);
    kubectl.ok(&["uncordon", other]);
    kubectl.ok(&["delete", "deployment,pdb", "web"]);
    wait::until("the pods are gone", wait::SOON, || {
        let left = kubectl.ok(&["get", "pods", "-o", "name"]);
        wait::check(left.is_empty(), left)
    });
}

#[test]
fn kubectl_shows_what_quotas_and_limit_ranges_leave() {
    if !need::all("kubectl_shows_what_quotas_and_limit_ranges_leave", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for (number, kubectl) in cluster.kubectls().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let namespace = format!("team-{number}");
        kubectl.ok(&["create", "namespace", &namespace]);
        let run = |args: &[&str]| kubectl.ok(&[&["-n", &namespace], args].concat());
        run(&["create", "quota", "small", "--hard=pods=1,requests.cpu=1"]);
        let manifest = r#"{"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "some"}, "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}}]}}"#;
        kubectl.ok_with(&["-n", &namespace, "create", "-f", "-"], manifest);
        run(&["run", "a", "--image=i", "--restart=Never"]);
        let given = run(&["get", "pod", "a", "-o", "jsonpath={.spec.containers[0].resources.requests.cpu}"]);
        assert_eq!(given, "500m");
        let described = run(&["describe", "quota", "small"]);
        let row = |name: &str| {
            let line = described.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("pods"), ["pods", "1", "1"], "{described}");
        assert_eq!(row("requests.cpu"), ["requests.cpu", "500m", "1"], "{described}");
        let refused = kubectl.fails(&["-n", &namespace, "run", "b", "--image=i", "--restart=Never"], "");
        let said = "pods \"b\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1";
        assert!(refused.contains(said), "{refused}");
    }
}
