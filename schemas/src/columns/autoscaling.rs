//! Columns of group `autoscaling`.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, UNKNOWN, UNSET, age_column, column, count, created, few, items, name, text};
use crate::registry::Column;

/// Metrics that one cell shows.
const METRICS_SHOWN: usize = 2;

/// NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE
pub fn horizontal_pod_autoscaler() -> Vec<Column> {
    vec![
        name(),
        column("Reference", "string", "What is scaled."),
        column("Targets", "string", "What is measured, and what it should be."),
        column("MinPods", "string", "Fewest replicas."),
        column("MaxPods", "string", "Most replicas."),
        column("Replicas", "string", "Replicas there are."),
        age_column(),
    ]
}

/// Cells for [`horizontal_pod_autoscaler`].
pub fn horizontal_pod_autoscaler_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let of = &spec["scaleTargetRef"];
    let fewest = spec["minReplicas"].as_i64().map_or_else(|| UNSET.to_owned(), |count| count.to_string());
    vec![
        object["metadata"]["name"].clone(),
        format!("{}/{}", text(&of["kind"]), text(&of["name"])).into(),
        targets(&spec["metrics"], &status["currentMetrics"]).into(),
        fewest.into(),
        count(&spec["maxReplicas"]),
        count(&status["currentReplicas"]),
        created(object, now),
    ]
}

fn targets(metrics: &Value, measured: &Value) -> String {
    let shown: Vec<String> =
        items(metrics).enumerate().map(|(index, metric)| target(metric, &measured[index])).collect();
    if shown.is_empty() { NONE.to_owned() } else { few(&shown, METRICS_SHOWN) }
}

/// `cpu: 12%/80%`, `5/10 (avg)`
fn target(metric: &Value, measured: &Value) -> String {
    let (source, is_resource) = match text(&metric["type"]) {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&metric[source]["target"], &measured[source]["current"]);
    if is_resource {
        return format!("{}: {}", text(&metric[source]["name"]), of_resource(target, current));
    }
    let average = source == "pods" || target["averageValue"].is_string();
    let field = if average { "averageValue" } else { "value" };
    let suffix = if average && source != "pods" { " (avg)" } else { "" };
    format!("{}/{}{suffix}", current[field].as_str().unwrap_or(UNKNOWN), text(&target[field]))
}

fn of_resource(target: &Value, current: &Value) -> String {
    if let Some(wanted) = target["averageValue"].as_str() {
        return format!("{}/{wanted}", current["averageValue"].as_str().unwrap_or(UNKNOWN));
    }
    let percent = |value: &Value, otherwise: &str| {
        value["averageUtilization"].as_i64().map_or_else(|| otherwise.to_owned(), |share| format!("{share}%"))
    };
    format!("{}/{}", percent(current, UNKNOWN), percent(target, "<auto>"))
}
