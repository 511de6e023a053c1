//! Real kubectl meets kinds that are served in several versions and groups.

use claw_e2e::{
    Cluster, Kubectl, Options,
    need::{self, Need},
};

#[test]
fn kubectl_scales_by_any_version_and_reads_events_of_both_groups() {
    let name = "kubectl_scales_by_any_version_and_reads_events_of_both_groups";
    if !need::all(name, &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    cluster.kubectl().ok(&["create", "deployment", "web", "--image=i"]);
    for kubectl in &cluster.kubectls() {
        eprintln!("--- {}", kubectl.name);
        autoscaling(kubectl);
        events(kubectl);
    }
}

fn autoscaling(kubectl: &Kubectl) {
    let scale = ["autoscale", "deployment", "web", "--min=2", "--max=5", "--cpu-percent=65"];
    assert!(kubectl.ok(&scale).contains("web autoscaled"));
    let table = kubectl.ok(&["get", "hpa", "web"]);
    let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..6], ["web", "Deployment/web", "cpu:", "<unknown>/65%", "2", "5"], "{table}");
    let field =
        |resource: &str, path: &str| kubectl.ok(&["get", resource, "web", "-o", &format!("jsonpath={path}")]);
    assert_eq!(
        field("horizontalpodautoscalers.v1.autoscaling", "{.spec.targetCPUUtilizationPercentage}"),
        "65"
    );
    assert_eq!(
        field(
            "horizontalpodautoscalers.v2.autoscaling",
            "{.spec.metrics[0].resource.target.averageUtilization}"
        ),
        "65"
    );
    // Whatever version it asks for, there is one to describe.
    let described = kubectl.ok(&["describe", "hpa", "web"]);
    assert!(described.contains("Deployment/web"), "{described}");
    let patch = r#"{"spec":{"targetCPUUtilizationPercentage":40}}"#;
    kubectl.ok(&["patch", "horizontalpodautoscalers.v1.autoscaling", "web", "-p", patch]);
    assert_eq!(field("hpa", "{.spec.metrics[*].resource.target.averageUtilization}"), "40");
    kubectl.ok(&["delete", "hpa", "web"]);
}

fn events(kubectl: &Kubectl) {
    let event = r#"{
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "told", "namespace": "default"},
        "regarding": {"kind": "Deployment", "name": "web", "namespace": "default"}, "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "c-1",
        "action": "Act", "reason": "Told", "note": "as it is"
    }"#;
    kubectl.ok_with(&["create", "-f", "-"], event);
    for resource in ["events", "events.events.k8s.io"] {
        let table = kubectl.ok(&["get", resource]);
        let row = table.lines().find(|line| line.contains("Told")).unwrap_or_default();
        assert!(row.contains("deployment/web") && row.contains("as it is"), "{resource}: {table}");
    }
    kubectl.ok(&["delete", "events.events.k8s.io", "told"]);
}
