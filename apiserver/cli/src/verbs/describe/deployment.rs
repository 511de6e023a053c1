//! Deployments: how far the rollout is and which ReplicaSets carry it.

use claw_client::request::ListOptions;
use claw_schemas::selector::LabelSelector;
use serde_json::Value;

use super::{Sheet, describe_conditions, describe_metadata, items, pod, sheet::plain};
use crate::verbs::session::{Session, integer, text};

/// The Deployment's own ReplicaSets.
pub async fn sets(session: &Session, deployment: &Value) -> anyhow::Result<Vec<Value>> {
    let kind = session.kind("apps/v1", "ReplicaSet")?;
    let collection = Session::collection(&kind, Some(text(deployment, "/metadata/namespace")));
    let mut sets = session.list(&kind, &collection, &ListOptions::default()).await?;
    let uid = text(deployment, "/metadata/uid");
    sets.retain(|set| items(&set["metadata"]["ownerReferences"]).any(|owner| text(owner, "/uid") == uid));
    Ok(sets)
}

pub fn describe(sheet: &mut Sheet, deployment: &Value, sets: &[Value]) {
    describe_metadata(sheet, deployment);
    let selector = serde_json::from_value(deployment["spec"]["selector"].clone()).ok();
    let selector = selector.and_then(|selector| LabelSelector::from_meta(&selector).ok());
    sheet.pair(0, "Selector", selector.map_or_else(|| "<none>".to_owned(), |selector| selector.to_string()));
    let count = |field: &str| integer(deployment, &format!("/status/{field}"));
    sheet.pair(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            integer(deployment, "/spec/replicas"),
            count("updatedReplicas"),
            count("replicas"),
            count("availableReplicas"),
            count("unavailableReplicas"),
        ),
    );
    sheet.pair(0, "StrategyType", text(deployment, "/spec/strategy/type"));
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (down, up) = (plain(&rolling["maxUnavailable"]), plain(&rolling["maxSurge"]));
        sheet.pair(0, "RollingUpdateStrategy", format!("{down} max unavailable, {up} max surge"));
    }
    sheet.pair(0, "MinReadySeconds", integer(deployment, "/spec/minReadySeconds").to_string());
    if deployment["spec"]["paused"] == true {
        sheet.pair(0, "Paused", "True");
    }
    let template = &deployment["spec"]["template"];
    sheet.map(0, "Pod Labels", &template["metadata"]["labels"], "=");
    pod::containers(sheet, "Init Containers", &template["spec"]["initContainers"], &Value::Null);
    pod::containers(sheet, "Containers", &template["spec"]["containers"], &Value::Null);
    describe_conditions(sheet, deployment);
    describe_sets(sheet, sets);
}

fn describe_sets(sheet: &mut Sheet, sets: &[Value]) {
    let revision = |set: &Value| {
        let annotation = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
        annotation.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    let newest = sets.iter().map(revision).max().unwrap_or(0);
    let list = |wanted: &dyn Fn(&Value) -> bool| {
        let lines: Vec<String> = sets
            .iter()
            .filter(|set| wanted(set))
            .map(|set| {
                let (there, asked) = (integer(set, "/status/replicas"), integer(set, "/spec/replicas"));
                format!("{} ({there}/{asked} replicas created)", text(set, "/metadata/name"))
            })
            .collect();
        if lines.is_empty() { "<none>".to_owned() } else { lines.join("\n") }
    };
    sheet.pair(0, "OldReplicaSets", list(&|set| revision(set) != newest));
    sheet.pair(0, "NewReplicaSet", list(&|set| revision(set) == newest));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_in_a_rollout_tells_how_far_it_is() {
        let set = |name: &str, revision: &str, there: i64, asked: i64| {
            json!({
                "metadata": {"name": name, "annotations": {"deployment.kubernetes.io/revision": revision}},
                "spec": {"replicas": asked}, "status": {"replicas": there},
            })
        };
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "a", "image": "web:2"}]},
                },
            },
            "status": {
                "replicas": 4, "updatedReplicas": 2, "availableReplicas": 2, "unavailableReplicas": 2,
                "conditions": [{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}],
            },
        });
        let mut sheet = Sheet::default();
        describe(&mut sheet, &deployment, &[set("web-1", "1", 2, 2), set("web-2", "2", 2, 3)]);
        crate::verbs::describe::golden::check("deployment", &sheet.render());
    }
}
