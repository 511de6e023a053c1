//! Revisions: numbers that name templates, annotations that carry them, the set for the current template.
//!
//! Must never know: how many replicas a revision gets.

use std::sync::Arc;

use claw_runtime::{Action, Plan, owner};
use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use super::{
    Rollout,
    sets::{Set, Sets},
    status::Conditions,
    template,
};

/// Annotation of sets and Deployments: the revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a set: the revisions it was before it was rolled back to.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Longest history kept in an annotation, in bytes: two thousand revisions of three digits, whatever else the object
/// carries. The oldest go first.
const HISTORY_BYTES_MAX: usize = 8000;

/// Annotations that belong to the Deployment itself and are not copied to its sets.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    super::sets::DESIRED,
    super::sets::MAX,
];

/// The revision of a stored set; 0 when it has none.
pub fn of_set(set: &ReplicaSet) -> i64 {
    let annotation = set.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Rollout<'_> {
    /// The set for the current template gets the highest revision and the Deployment's annotations.
    pub(super) fn sync_revision(&self, sets: &mut Sets, conditions: &mut Conditions) {
        let newest_old = sets.old.iter().map(|set| of_set(&set.object)).max().unwrap_or(0);
        let Some(new) = &mut sets.new else { return };
        conditions.found(self, new.name());
        for (key, value) in self.deployment.metadata.annotations.iter().flatten() {
            if !NOT_COPIED.contains(&key.as_str()) {
                new.annotations.insert(key.clone(), value.clone());
            }
        }
        new.min_ready_seconds = Some(self.spec.min_ready_seconds.unwrap_or(0));
        let current = of_set(&new.object);
        if current <= newest_old {
            new.annotations.insert(REVISION.into(), (newest_old + 1).to_string());
            if current > 0 {
                let history = with_history(new.annotation(HISTORY), current);
                new.annotations.insert(HISTORY.into(), history);
            }
        }
    }

    /// Plans the set for the current template if there is none. When its name is taken by something else, returns
    /// the plan that counts the collision, so that the next plan finds another name.
    pub(super) fn ensure_new(&self, sets: &mut Sets, conditions: &mut Conditions) -> Result<(), Box<Plan>> {
        if sets.new.is_some() {
            return Ok(());
        }
        let status = self.deployment.status.clone().unwrap_or_default();
        let collisions = status.collision_count.unwrap_or(0);
        let hash = template::hash(&self.spec.template, collisions);
        let name = format!("{}-{hash}", self.name());
        let namespace = self.deployment.metadata.namespace.as_deref().unwrap_or_default();
        if self.world.kind::<ReplicaSet>().get(namespace, &name).is_some() {
            let mut status = status;
            status.collision_count = Some(collisions + 1);
            let taken = Plan::wait(format!("the name {name} is taken by another template"));
            return Err(Box::new(taken.status(&status)));
        }
        let newest_old = sets.old.iter().map(|set| of_set(&set.object)).max().unwrap_or(0);
        let mut new = Set::existing(Arc::new(self.new_set(name, &hash)));
        new.create = true;
        new.replicas = 0;
        new.annotations.insert(REVISION.into(), (newest_old + 1).to_string());
        new.note_deployment_size(self);
        conditions.created(self, new.name());
        sets.new = Some(new);
        Ok(())
    }

    fn new_set(&self, name: String, hash: &str) -> ReplicaSet {
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(template::HASH_LABEL.into(), hash.to_owned());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(template::HASH_LABEL.into(), hash.to_owned());
        let mut annotations = self.deployment.metadata.annotations.clone().unwrap_or_default();
        annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: self.deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner::reference_to(self.deployment)]),
            ..ObjectMeta::default()
        };
        let spec = ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: self.spec.min_ready_seconds,
            selector,
            template: Some(template),
        };
        ReplicaSet { metadata, spec: Some(spec), status: None }
    }

    /// Sets the Deployment's own revision annotation to that of its new set.
    pub(super) fn revision_annotation(&self, sets: &Sets) -> Option<Action> {
        let wanted = sets.new.as_ref()?.annotation(REVISION)?;
        let own = self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
        if own.map(String::as_str) == Some(wanted) {
            return None;
        }
        let patch = json!({"metadata": {"annotations": {REVISION: wanted}}});
        Some(Action::merge(self.deployment, patch))
    }

    /// Deletes the oldest empty sets beyond the history the Deployment keeps.
    pub(super) fn clean_up(&self, sets: &mut Sets) {
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        sets.forget_history(usize::try_from(limit).unwrap_or(0));
    }
}

fn with_history(history: Option<&str>, revision: i64) -> String {
    let mut all: Vec<String> =
        history.unwrap_or_default().split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    all.push(revision.to_string());
    while all.len() > 1 && all.iter().map(|part| part.len() + 1).sum::<usize>() > HISTORY_BYTES_MAX {
        all.remove(0);
    }
    all.join(",")
}
