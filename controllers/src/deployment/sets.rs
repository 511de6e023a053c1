//! The ReplicaSets of a Deployment while a plan is made: decided first, turned into actions at the end.
//!
//! Must never know: how sizes are decided.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use claw_runtime::Action;
use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSet, ReplicaSetStatus};
use serde_json::{Map, json};

use super::{Rollout, revision, scaling, template};

/// Annotation of a set: replicas its Deployment wanted when the set was last sized.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a set: the most replicas its Deployment may have had then, surge included.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// One ReplicaSet and what is to become of it.
pub struct Set {
    pub object: Arc<ReplicaSet>,
    /// Size it shall have.
    pub replicas: i32,
    /// Annotations it shall have besides.
    pub annotations: BTreeMap<String, String>,
    pub min_ready_seconds: Option<i32>,
    pub delete: bool,
    /// Not stored yet.
    pub create: bool,
}

/// All ReplicaSets of a Deployment.
pub struct Sets {
    /// The one with the Deployment's template.
    pub new: Option<Set>,
    /// The others, oldest first.
    pub old: Vec<Set>,
}

impl Set {
    pub fn existing(object: Arc<ReplicaSet>) -> Self {
        let replicas = size(&object);
        let annotations = BTreeMap::new();
        Self { object, replicas, annotations, min_ready_seconds: None, delete: false, create: false }
    }

    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Size it has now.
    pub fn size(&self) -> i32 {
        if self.create { 0 } else { size(&self.object) }
    }

    pub fn available(&self) -> i32 {
        self.status().available_replicas.unwrap_or(0)
    }

    /// Available replicas that will stay: a set that was just shrunk has not told yet which ones it lost.
    pub fn reliable(&self) -> i32 {
        self.available().min(self.replicas)
    }

    /// Pods it has or may have at any moment: one that was just shrunk has not lost them yet.
    pub fn occupied(&self) -> i32 {
        self.replicas.max(self.status().replicas)
    }

    pub fn status(&self) -> ReplicaSetStatus {
        self.object.status.clone().unwrap_or_default()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        let stored = || self.object.metadata.annotations.as_ref()?.get(key);
        self.annotations.get(key).or_else(stored).map(String::as_str)
    }

    pub fn number(&self, key: &str) -> Option<i32> {
        self.annotation(key).and_then(|text| text.parse().ok())
    }

    /// Gives it a size, and notes for which size of the Deployment.
    pub fn resize(&mut self, rollout: &Rollout<'_>, replicas: i32) {
        self.replicas = replicas.max(0);
        self.note_deployment_size(rollout);
    }

    pub fn note_deployment_size(&mut self, rollout: &Rollout<'_>) {
        let (desired, max) = (rollout.replicas(), rollout.replicas() + rollout.limits.surge);
        self.annotations.insert(DESIRED.into(), desired.to_string());
        self.annotations.insert(MAX.into(), max.to_string());
    }

    fn action(&self, _rollout: &Rollout<'_>) -> Option<Action> {
        if self.create {
            let mut object = (*self.object).clone();
            object.metadata.annotations.get_or_insert_default().extend(self.annotations.clone());
            object.spec.get_or_insert_default().replicas = Some(self.replicas);
            let failure = format!("Failed to create new replica set \"{}\": {{error}}", self.name());
            let create = Action::create(&object).on_failure("ReplicaSetCreateError", failure);
            return Some(if self.replicas > 0 {
                scaling(create, self.name(), 0, self.replicas)
            } else {
                create
            });
        }
        if self.delete {
            return Some(Action::delete(&*self.object));
        }
        let patch = self.patch();
        if patch.is_empty() {
            return None;
        }
        let patch = Action::merge_unchanged(&*self.object, patch.into());
        let resized = self.replicas != self.size();
        Some(if resized { scaling(patch, self.name(), self.size(), self.replicas) } else { patch })
    }

    /// What has to change in the stored set.
    fn patch(&self) -> Map<String, serde_json::Value> {
        let stored = self.object.metadata.annotations.clone().unwrap_or_default();
        let new = self.annotations.iter().filter(|(key, value)| stored.get(*key) != Some(value));
        let annotations: BTreeMap<_, _> = new.collect();
        let (mut patch, mut spec) = (Map::new(), Map::new());
        if !annotations.is_empty() {
            patch.insert("metadata".into(), json!({"annotations": annotations}));
        }
        if self.replicas != self.size() {
            spec.insert("replicas".into(), self.replicas.into());
        }
        let min_ready = self.object.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        if let Some(seconds) = self.min_ready_seconds.filter(|seconds| *seconds != min_ready) {
            spec.insert("minReadySeconds".into(), seconds.into());
        }
        if !spec.is_empty() {
            patch.insert("spec".into(), spec.into());
        }
        patch
    }
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

impl Sets {
    /// Tells the set with the Deployment's template from the others. Of several, the oldest is the one.
    pub fn new(spec: &DeploymentSpec, mut all: Vec<Arc<ReplicaSet>>) -> Self {
        all.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, set.metadata.name.clone())
        });
        let has_template = |set: &Arc<ReplicaSet>| {
            let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.is_some_and(|own| template::same(own, &spec.template))
        };
        let new = all.iter().position(has_template).map(|index| Set::existing(all.remove(index)));
        Self { new, old: all.into_iter().map(Set::existing).collect() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Set> {
        self.new.iter().chain(&self.old)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        self.new.iter_mut().chain(&mut self.old)
    }

    /// Replicas that all sets together shall have.
    pub fn total(&self) -> i32 {
        self.iter().map(|set| set.replicas).sum()
    }

    pub fn old_total(&self) -> i32 {
        self.old.iter().map(|set| set.replicas).sum()
    }

    pub fn available(&self) -> i32 {
        self.iter().map(Set::available).sum()
    }

    pub fn reliable(&self) -> i32 {
        self.iter().map(Set::reliable).sum()
    }

    /// Pods that there are or may be at any moment.
    pub fn occupied(&self) -> i32 {
        self.iter().map(Set::occupied).sum()
    }

    /// Keeps as many old, empty sets as the Deployment wants for rolling back, and marks the others for deletion.
    pub fn forget_history(&mut self, limit: usize) {
        let mut past: Vec<&mut Set> =
            self.old.iter_mut().filter(|set| set.object.metadata.deletion_timestamp.is_none()).collect();
        past.sort_by_key(|set| Reverse(revision::of_set(&set.object)));
        for set in past.into_iter().skip(limit) {
            let meta = &set.object.metadata;
            let settled = set.status().observed_generation.unwrap_or(0) >= meta.generation.unwrap_or(0);
            set.delete = set.replicas == 0 && set.size() == 0 && set.status().replicas == 0 && settled;
        }
    }

    /// The new set first, so that room is made only once the new pods are asked for.
    pub fn actions(&self, rollout: &Rollout<'_>) -> Vec<Action> {
        self.iter().filter_map(|set| set.action(rollout)).collect()
    }
}
