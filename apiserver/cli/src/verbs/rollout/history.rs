//! Revisions of a Deployment: its ReplicaSets, numbered by an annotation.

use anyhow::{Context as _, bail};
use claw_client::request::PatchKind;
use claw_schemas::selector::LabelSelector;
use serde_json::{Value, json};

use super::Deployment;
use crate::verbs::{
    output::print,
    session::{Session, Write, text},
    targets::Selectors,
};

/// Number of the revision, on ReplicaSets and on their Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Why there is a revision, if somebody said so.
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
/// Told apart by the controller alone; no part of what a user wrote.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// One ReplicaSet of the Deployment.
#[derive(Debug)]
struct Revision {
    number: u64,
    cause: String,
    template: Value,
}

pub async fn print_history(
    session: &Session,
    deployment: &Deployment,
    number: Option<u64>,
) -> anyhow::Result<()> {
    let revisions = revisions(session, deployment).await?;
    let text = match number {
        None => table(&deployment.name, &revisions),
        Some(number) => {
            let revision = find(&revisions, number)?;
            let template = claw_schemas::yaml::to_string(&revision.template);
            format!("{} with revision #{number}\n{template}", deployment.name)
        }
    };
    Ok(print(&text)?)
}

pub async fn undo(session: &Session, deployment: &Deployment, to: u64) -> anyhow::Result<()> {
    if super::is_paused(deployment) {
        bail!("{} is paused and would not go back: resume it first (rollout resume)", deployment.name);
    }
    let revisions = revisions(session, deployment).await?;
    let target = choose(&revisions, to)?;
    if bare(&deployment.object["spec"]["template"]) == target.template {
        let text = format!("{} skipped: it already runs revision {}\n", deployment.name, target.number);
        return Ok(print(&text)?);
    }
    // Refused when somebody changed the Deployment meanwhile: their change must not be undone unseen.
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": deployment.object["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/spec/template", "value": target.template},
    ]);
    session.patch(deployment.resource.clone(), PatchKind::Json, &patch, &Write::default()).await?;
    Ok(print(&format!("{} rolled back\n", deployment.name))?)
}

async fn revisions(session: &Session, deployment: &Deployment) -> anyhow::Result<Vec<Revision>> {
    let kind = session.kind("apps/v1", "ReplicaSet")?;
    let selector = serde_json::from_value(deployment.object["spec"]["selector"].clone())
        .context("reading spec.selector")?;
    let selector = LabelSelector::from_meta(&selector)?.to_string();
    let selectors = Selectors { selector, ..Selectors::default() };
    let collection = Session::collection(&kind, Some(&session.namespace));
    let sets = session.list(&kind, &collection, &selectors.options()).await?;
    Ok(numbered(&sets, text(&deployment.object, "/metadata/uid")))
}

/// The Deployment's own ReplicaSets, oldest revision first.
fn numbered(sets: &[Value], owner: &str) -> Vec<Revision> {
    let mut revisions: Vec<Revision> = sets
        .iter()
        .filter(|set| {
            let owners = set["metadata"]["ownerReferences"].as_array();
            owners.into_iter().flatten().any(|reference| text(reference, "/uid") == owner)
        })
        .filter_map(|set| {
            let annotations = &set["metadata"]["annotations"];
            Some(Revision {
                number: annotations[REVISION].as_str()?.parse().ok()?,
                cause: annotations[CHANGE_CAUSE].as_str().unwrap_or("<none>").to_owned(),
                template: bare(&set["spec"]["template"]),
            })
        })
        .collect();
    revisions.sort_by_key(|revision| revision.number);
    revisions
}

/// A template as its author wrote it.
fn bare(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, value| key != "creationTimestamp" || !value.is_null());
    }
    template
}

fn find(revisions: &[Revision], number: u64) -> anyhow::Result<&Revision> {
    revisions.iter().find(|revision| revision.number == number).ok_or_else(|| {
        let known: Vec<String> = revisions.iter().map(|r| r.number.to_string()).collect();
        anyhow::anyhow!("unable to find revision {number}; there are: {}", known.join(", "))
    })
}

/// The revision to go back to; 0 is the one before the newest.
fn choose(revisions: &[Revision], to: u64) -> anyhow::Result<&Revision> {
    match (to, revisions) {
        (0, [.., before, _newest]) => Ok(before),
        (0, _) => bail!("no rollout history to go back to"),
        (number, _) => find(revisions, number),
    }
}

fn table(name: &str, revisions: &[Revision]) -> String {
    let mut text = format!("{name} \nREVISION  CHANGE-CAUSE\n");
    for revision in revisions {
        text.push_str(&format!("{:<10}{}\n", revision.number, revision.cause));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(number: &str, owner: &str, image: &str) -> Value {
        json!({
            "metadata": {
                "annotations": {REVISION: number}, "ownerReferences": [{"uid": owner}],
            },
            "spec": {"template": {
                "metadata": {"labels": {"app": "web", TEMPLATE_HASH: image}, "creationTimestamp": null},
                "spec": {"containers": [{"name": "a", "image": image}]},
            }},
        })
    }

    fn revisions() -> Vec<Revision> {
        numbered(&[set("10", "u", "c"), set("2", "u", "a"), set("9", "u", "b"), set("3", "other", "x")], "u")
    }

    #[test]
    fn revisions_are_ours_and_in_order_of_their_numbers() {
        assert_eq!(
            table("deployment.apps/web", &revisions()),
            "deployment.apps/web \nREVISION  CHANGE-CAUSE\n2         <none>\n9         <none>\n10        <none>\n\n"
        );
    }

    #[test]
    fn undo_goes_to_the_one_before_or_the_one_named() {
        let revisions = revisions();
        assert_eq!(choose(&revisions, 0).unwrap().number, 9);
        assert_eq!(choose(&revisions, 2).unwrap().number, 2);
        let error = choose(&revisions, 7).unwrap_err().to_string();
        assert_eq!(error, "unable to find revision 7; there are: 2, 9, 10");
        assert!(choose(&revisions[..1], 0).is_err());
    }

    #[test]
    fn a_template_goes_back_without_the_controllers_label() {
        let template = &revisions()[0].template;
        assert_eq!(template["metadata"], json!({"labels": {"app": "web"}}));
    }
}
