//! Machines without containers: what a pod comes to, a test says.
//!
//! Must never know: who made the pods.

use std::time::Duration;

use claw_client::{
    ApiError, Client, Store,
    request::{DeleteOptions, PatchKind},
};
use claw_schemas::status::Reason;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

/// What a machine reports of a pod, now; `None` leaves the pod as it is. Asked again and again.
pub type Script = fn(&Pod) -> Option<Report>;

/// What a machine says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Running and serving.
    Ready,
    /// Running, but not serving.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// Every pod serves at once, except those whose image says `broken`: they run and never serve.
pub fn healthy(pod: &Pod) -> Option<Report> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let broken = containers.iter().any(|c| c.image.as_deref().is_some_and(|image| image.contains("broken")));
    Some(if broken { Report::Running } else { Report::Ready })
}

/// Plays the node agent.
pub(crate) struct Machine {
    pub client: Client,
    pub script: Script,
}

/// A scripted machine looks at its pods this often, beside every change.
const LOOK: Duration = Duration::from_millis(50);

impl Machine {
    pub async fn run(&self, pods: Store<Pod>) {
        loop {
            for pod in pods.list() {
                if let Err(error) = self.look_at(&pod).await {
                    // The pod changed or went meanwhile: the next look sees it.
                    assert!(matches!(error.reason, Reason::NotFound | Reason::Conflict), "{error}");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look_at(&self, pod: &Pod) -> Result<(), ApiError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let pods = self.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        if pod.metadata.deletion_timestamp.is_some() {
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                precondition_uid: pod.metadata.uid.clone(),
                ..DeleteOptions::default()
            };
            return pods.delete(name, options).await;
        }
        let Some(report) = (self.script)(pod) else { return Ok(()) };
        let (phase, ready) = match report {
            Report::Ready => ("Running", "True"),
            Report::Running => ("Running", "False"),
            Report::Succeeded => ("Succeeded", "False"),
            Report::Failed => ("Failed", "False"),
        };
        let status = pod.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.unwrap_or_default();
        let reported = conditions.iter().any(|c| c.type_ == "Ready" && c.status == ready);
        if status.phase.as_deref() == Some(phase) && reported {
            return Ok(());
        }
        conditions.retain(|condition| condition.type_ != "Ready");
        let mut conditions: Vec<Value> = conditions.iter().map(|c| json!(c)).collect();
        conditions
            .push(json!({"type": "Ready", "status": ready, "lastTransitionTime": Time(Timestamp::now())}));
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"phase": phase, "conditions": conditions},
        });
        pods.patch(name, Some("status"), PatchKind::Merge, &patch).await.map(drop)
    }
}
