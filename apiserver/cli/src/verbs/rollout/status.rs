//! How far a rollout is, in the words kubectl uses, because scripts look for them.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use super::Deployment;
use crate::verbs::{
    output::print,
    session::{Session, integer, text},
};

/// What can be said of a rollout.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Not there yet, and why.
    Waiting(String),
    Done(String),
    /// It will not get there by itself.
    Failed(String),
}

fn progress(deployment: &Value) -> Progress {
    let name = text(deployment, "/metadata/name");
    if integer(deployment, "/metadata/generation") > integer(deployment, "/status/observedGeneration") {
        return Progress::Waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let conditions = deployment.pointer("/status/conditions").and_then(Value::as_array);
    if conditions.into_iter().flatten().any(|condition| {
        text(condition, "/type") == "Progressing" && text(condition, "/reason") == "ProgressDeadlineExceeded"
    }) {
        return Progress::Failed(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let updated = integer(deployment, "/status/updatedReplicas");
    let replicas = integer(deployment, "/status/replicas");
    let available = integer(deployment, "/status/availableReplicas");
    let waiting = |what: String| {
        Progress::Waiting(format!("Waiting for deployment \"{name}\" rollout to finish: {what}..."))
    };
    if updated < wanted {
        return waiting(format!("{updated} out of {wanted} new replicas have been updated"));
    }
    if replicas > updated {
        return waiting(format!("{} old replicas are pending termination", replicas - updated));
    }
    if available < updated {
        return waiting(format!("{available} of {updated} updated replicas are available"));
    }
    Progress::Done(format!("deployment \"{name}\" successfully rolled out"))
}

pub async fn run(
    session: &Session,
    deployment: &Deployment,
    watch: bool,
    timeout: Duration,
) -> anyhow::Result<()> {
    if !watch {
        return match progress(&deployment.object) {
            Progress::Waiting(words) | Progress::Done(words) => Ok(print(&format!("{words}\n"))?),
            Progress::Failed(why) => bail!(why),
        };
    }
    let follow = follow(session, deployment);
    if timeout.is_zero() {
        return follow.await;
    }
    match tokio::time::timeout(timeout, follow).await {
        Ok(result) => result,
        Err(_) => bail!("timed out waiting for the rollout; it goes on (see `describe {}`)", deployment.name),
    }
}

async fn follow(session: &Session, deployment: &Deployment) -> anyhow::Result<()> {
    let uid = text(&deployment.object, "/metadata/uid");
    let mut observed = session.observe(&deployment.resource);
    let mut said = String::new();
    loop {
        let Some(now) = observed.now().await? else {
            bail!("{} was deleted while its rollout was followed", deployment.name);
        };
        if text(&now, "/metadata/uid") != uid {
            bail!("{} was deleted and created again while its rollout was followed", deployment.name);
        }
        match progress(&now) {
            Progress::Done(words) => return Ok(print(&format!("{words}\n"))?),
            Progress::Failed(why) => bail!(why),
            Progress::Waiting(words) if words != said => {
                print(&format!("{words}\n"))?;
                said = words;
            }
            Progress::Waiting(_) => {}
        }
        observed.changed().await?;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(updated: i64, replicas: i64, available: i64) -> Value {
        json!({
            "metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 3},
            "status": {
                "observedGeneration": 2, "updatedReplicas": updated, "replicas": replicas, "availableReplicas": available,
            },
        })
    }

    #[test]
    fn a_rollout_is_told_step_by_step() {
        let words = |deployment: &Value| match progress(deployment) {
            Progress::Waiting(words) | Progress::Done(words) | Progress::Failed(words) => words,
        };
        let waiting = "Waiting for deployment \"web\" rollout to finish: ";
        assert_eq!(
            words(&deployment(1, 4, 3)),
            format!("{waiting}1 out of 3 new replicas have been updated...")
        );
        assert_eq!(
            words(&deployment(3, 4, 3)),
            format!("{waiting}1 old replicas are pending termination...")
        );
        assert_eq!(words(&deployment(3, 3, 2)), format!("{waiting}2 of 3 updated replicas are available..."));
        assert_eq!(words(&deployment(3, 3, 3)), "deployment \"web\" successfully rolled out");
    }

    #[test]
    fn a_status_of_an_older_spec_says_nothing() {
        let mut stale = deployment(3, 3, 3);
        stale["metadata"]["generation"] = json!(3);
        assert!(matches!(progress(&stale), Progress::Waiting(words) if words.contains("to be observed")));
    }

    #[test]
    fn a_passed_deadline_is_a_failure() {
        let mut stuck = deployment(1, 4, 3);
        stuck["status"]["conditions"] = json!([
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
        ]);
        assert_eq!(
            progress(&stuck),
            Progress::Failed("deployment \"web\" exceeded its progress deadline".to_owned())
        );
    }
}
