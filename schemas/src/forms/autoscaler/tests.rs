//! What an autoscaler of one version is in the other.

use super::*;

fn v2(spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"note": "kept"}},
        "spec": spec, "status": status,
    })
}

fn cpu(share: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": share}}})
}

fn annotation(object: &Value, name: &str) -> Value {
    let text = object["metadata"]["annotations"][name].as_str().unwrap_or("null");
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_share_of_the_cpu_is_a_plain_field_in_v1() {
    let of = json!({"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"});
    let object = v2(
        json!({"scaleTargetRef": of, "minReplicas": 1, "maxReplicas": 5, "metrics": [cpu(70)]}),
        json!({"desiredReplicas": 0}),
    );
    let shown = served(object.clone());
    assert_eq!(shown["apiVersion"], "autoscaling/v1");
    assert_eq!(
        shown["spec"],
        json!({"scaleTargetRef": of, "minReplicas": 1, "maxReplicas": 5, CPU_TARGET: 70})
    );
    assert_eq!(shown["metadata"], object["metadata"], "nothing has to be kept in annotations");
    assert_eq!(stored(shown), object);
}

#[test]
fn what_v1_has_no_field_for_is_kept_in_annotations_and_comes_back() {
    let selector = json!({"matchLabels": {"a": "b"}});
    let of = json!({"kind": "Service", "name": "s"});
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 60}});
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "Pods", "pods": {"metric": {"name": "m", "selector": selector}, "target": {"type": "AverageValue", "averageValue": "10"}}},
        {"type": "Object", "object": {"describedObject": of, "metric": {"name": "m"}, "target": {"type": "Value", "value": "5"}}},
        {"type": "Object", "object": {"describedObject": of, "metric": {"name": "n"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
        {"type": "External", "external": {"metric": {"name": "q", "selector": selector}, "target": {"type": "Value", "value": "30"}}},
        cpu(80),
    ]);
    let conditions = json!([{"type": "AbleToScale", "status": "True", "reason": "R"}]);
    let measured = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "120m"}}}]);
    let object = v2(
        json!({"maxReplicas": 9, "metrics": metrics, "behavior": behavior}),
        json!({"currentReplicas": 2, "currentMetrics": measured, "conditions": conditions}),
    );
    let shown = served(object.clone());
    assert_eq!(shown["spec"], json!({"maxReplicas": 9, CPU_TARGET: 80}));
    assert_eq!(shown["status"], json!({"currentReplicas": 2, CPU_CURRENT: 12}));
    assert_eq!(
        annotation(&shown, METRICS),
        json!([
            {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "targetAverageUtilization": 50}},
            {"type": "Pods", "pods": {"metricName": "m", "selector": selector, "targetAverageValue": "10"}},
            {"type": "Object", "object": {"target": of, "metricName": "m", "targetValue": "5"}},
            {"type": "Object", "object": {"target": of, "metricName": "n", "targetValue": "0", "averageValue": "5"}},
            {"type": "External", "external": {"metricName": "q", "metricSelector": selector, "targetValue": "30"}},
        ])
    );
    assert_eq!(
        annotation(&shown, CURRENT_METRICS),
        json!([{"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 12, "currentAverageValue": "120m"}}])
    );
    assert_eq!(annotation(&shown, BEHAVIOR), behavior);
    assert_eq!(annotation(&shown, CONDITIONS), conditions);
    assert_eq!(stored(shown), object);
}

#[test]
fn annotations_that_hold_nonsense_are_dropped() {
    let v1 = json!({
        "apiVersion": "autoscaling/v1",
        "metadata": {"annotations": {METRICS: "{", BEHAVIOR: "[]", CONDITIONS: "7"}},
        "spec": {"maxReplicas": 3, CPU_TARGET: 50},
    });
    let expected = json!({"apiVersion": "autoscaling/v2", "metadata": {}, "spec": {"maxReplicas": 3, "metrics": [cpu(50)]}});
    assert_eq!(stored(v1), expected);
}
