//! A service on a store of its own, and short ways to ask it.

use std::sync::Arc;

use claw_apiserver::{
    auth::{Action, Authorizer, Identity},
    service::ObjectService,
    store::{self, Store},
};
use claw_client::{
    Request, ResourceRef, Response, Verb, WatchEvent, WatchStream,
    request::{DeleteOptions, ListOptions, PatchKind, View, WatchOptions, WriteOptions},
};
use claw_schemas::{ApiError, Registry};
use futures::StreamExt as _;
use serde_json::{Value, json};

/// Longer than anything here takes, shorter than anybody waits.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// These tests are about objects, not about who may touch them.
struct Everyone;

impl Authorizer for Everyone {
    fn allows(&self, _: &Identity, _: &Action<'_>) -> bool {
        true
    }
}

pub struct World {
    pub service: Arc<ObjectService>,
    pub who: Identity,
}

pub async fn world() -> World {
    World::on(store::memory()).await
}

impl World {
    pub async fn on(store: Arc<dyn Store>) -> Self {
        let service = Arc::new(ObjectService::new(store, Registry::builtin(), Arc::new(Everyone)));
        service.ensure_bootstrap_objects().await.unwrap();
        service.serve_definitions().await.unwrap();
        tokio::spawn(service.clone().follow_definitions());
        tokio::spawn(service.clone().keep_quotas());
        Self { service, who: Identity::loopback("test") }
    }

    pub async fn ask(&self, resource: ResourceRef, verb: Verb) -> Result<Value, ApiError> {
        self.ask_whole(resource, verb, View::Object).await.map(|response| parse(&response.body))
    }

    pub async fn ask_whole(
        &self,
        resource: ResourceRef,
        verb: Verb,
        view: View,
    ) -> Result<Response, ApiError> {
        self.service.call(&self.who, Request { resource, verb, view }).await
    }

    pub async fn get(&self, resource: ResourceRef) -> Result<Value, ApiError> {
        self.ask(resource, Verb::Get).await
    }

    pub async fn create(&self, resource: ResourceRef, object: &Value) -> Result<Value, ApiError> {
        let body = object.to_string().into();
        self.ask(resource, Verb::Create { body, options: WriteOptions::default() }).await
    }

    pub async fn update(&self, resource: ResourceRef, object: &Value) -> Result<Value, ApiError> {
        let body = object.to_string().into();
        self.ask(resource, Verb::Update { body, options: WriteOptions::default() }).await
    }

    pub async fn patch(
        &self,
        resource: ResourceRef,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Value, ApiError> {
        let (body, options) = (patch.to_string().into(), WriteOptions::default());
        self.ask(resource, Verb::Patch { kind, body, options, force: false }).await
    }

    /// Applies on the server's side.
    pub async fn apply(
        &self,
        resource: ResourceRef,
        manager: &str,
        config: &Value,
        force: bool,
    ) -> Result<Response, ApiError> {
        let (body, options) = (config.to_string().into(), by(manager));
        self.ask_whole(resource, Verb::Patch { kind: PatchKind::Apply, body, options, force }, View::Object)
            .await
    }

    pub async fn merge(&self, resource: ResourceRef, patch: &Value) -> Result<Value, ApiError> {
        self.patch(resource, PatchKind::Merge, patch).await
    }

    pub async fn delete(&self, resource: ResourceRef, options: DeleteOptions) -> Result<Value, ApiError> {
        self.ask(resource, Verb::Delete(options)).await
    }

    pub async fn list(&self, resource: ResourceRef, options: ListOptions) -> Result<Value, ApiError> {
        self.ask(resource, Verb::List(options)).await
    }

    pub async fn watch(&self, resource: ResourceRef, options: WatchOptions) -> Watched {
        self.watch_as(resource, options, View::Object).await
    }

    pub async fn watch_as(&self, resource: ResourceRef, options: WatchOptions, view: View) -> Watched {
        Watched(self.service.watch(&self.who, resource, options, view).await.unwrap())
    }

    pub async fn try_watch(&self, resource: ResourceRef) -> Result<Watched, ApiError> {
        self.service.watch(&self.who, resource, WatchOptions::default(), View::Object).await.map(Watched)
    }

    /// Creates a ConfigMap and tells its revision.
    pub async fn configmap(&self, name: &str, labels: &Value) -> String {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}});
        revision(&self.create(configmaps(), &object).await.unwrap())
    }
}

/// An open watch, read one event at a time.
pub struct Watched(WatchStream);

impl Watched {
    /// The next event: its type and its object.
    pub async fn next(&mut self) -> Option<(&'static str, Value)> {
        tokio::time::timeout(PATIENCE, self.next_at_last()).await.expect("an event, or the end, in time")
    }

    /// The next event however long it takes: for tests in which the clock stands still while anybody works.
    pub async fn next_at_last(&mut self) -> Option<(&'static str, Value)> {
        let event = self.0.next().await?;
        Some(match event.unwrap() {
            WatchEvent::Added(object) => ("ADDED", parse(&object)),
            WatchEvent::Modified(object) => ("MODIFIED", parse(&object)),
            WatchEvent::Deleted(object) => ("DELETED", parse(&object)),
            WatchEvent::Bookmark(object) => ("BOOKMARK", parse(&object)),
            WatchEvent::Error(error) => ("ERROR", serde_json::to_value(error).unwrap()),
        })
    }

    /// The next `count` events, in short.
    pub async fn take(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            let Some((kind, object)) = self.next().await else { break };
            events.push(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or("-")));
        }
        events
    }

    /// Whether nothing is there now.
    pub fn is_silent(&mut self) -> bool {
        futures::FutureExt::now_or_never(self.0.next()).is_none()
    }
}

/// Options of a write by that manager.
pub fn by(manager: &str) -> WriteOptions {
    WriteOptions { field_manager: Some(manager.to_owned()), ..WriteOptions::default() }
}

pub fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

pub fn revision(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

pub fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

pub fn configmaps() -> ResourceRef {
    ResourceRef::collection("", "v1", "configmaps").in_namespace("default")
}

pub fn namespaces() -> ResourceRef {
    ResourceRef::collection("", "v1", "namespaces")
}

pub fn pods() -> ResourceRef {
    ResourceRef::collection("", "v1", "pods").in_namespace("default")
}

pub fn deployments() -> ResourceRef {
    ResourceRef::collection("apps", "v1", "deployments").in_namespace("default")
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "clawbernetes.io/toolbox:1"}]},
    })
}

pub fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "clawbernetes.io/toolbox:1"}]},
            },
        },
    })
}

/// A pod that is bound to a node.
pub async fn bound_pod(world: &World, name: &str) -> Value {
    world.create(pods(), &pod(name)).await.unwrap();
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    world.create(pods().named(name).sub("binding"), &binding).await.unwrap();
    world.get(pods().named(name)).await.unwrap()
}
