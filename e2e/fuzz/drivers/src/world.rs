//! An object service to send things to. Writes are dry runs, so that every input meets the same world.

use std::{cell::OnceCell, sync::Arc};

use claw_apiserver::{
    auth::{Action, Authorizer, Identity},
    service::ObjectService,
    store,
};
use claw_client::{
    Request, ResourceRef, Verb,
    request::{FieldValidation, View, WriteOptions},
};
use claw_schemas::{ApiError, Descriptor, Registry};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// These drivers are about what is sent, not about who may.
struct Everyone;

impl Authorizer for Everyone {
    fn allows(&self, _: &Identity, _: &Action<'_>) -> bool {
        true
    }
}

/// A service and what runs it.
pub struct World {
    pub runtime: Runtime,
    pub service: Arc<ObjectService>,
    pub who: Identity,
    /// The service over HTTP.
    pub router: axum::Router,
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

/// Does something in this thread's world.
pub fn within<T>(work: impl FnOnce(&World) -> T) -> T {
    WORLD.with(|world| work(world.get_or_init(World::begin)))
}

impl World {
    fn begin() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let service = Arc::new(ObjectService::new(store::memory(), Registry::builtin(), Arc::new(Everyone)));
        let router = claw_apiserver::rest::router(service.clone());
        let world = Self { runtime, service, who: Identity::loopback("fuzz"), router };
        world.runtime.block_on(async {
            world.service.ensure_bootstrap_objects().await.unwrap();
            world.service.serve_definitions().await.unwrap();
            world.service.set_ready(true);
        });
        world.define();
        for (resource, object) in [(configmaps(), configmap()), (deployments(), deployment())] {
            let body = object.to_string().into();
            world.ask(resource, Verb::Create { body, options: WriteOptions::default() }).unwrap();
        }
        world
    }

    /// A kind that keeps whatever it is given.
    fn define(&self) {
        let definition = json!({
            "metadata": {"name": "things.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {"x-kubernetes-preserve-unknown-fields": true}},
                }}}],
            },
        });
        let definitions = ResourceRef::collection("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let body = definition.to_string().into();
        self.ask(definitions, Verb::Create { body, options: WriteOptions::default() }).unwrap();
        self.runtime.block_on(self.service.serve_definitions()).unwrap();
    }

    /// Asks, and reads the answer.
    pub fn ask(&self, resource: ResourceRef, verb: Verb) -> Result<Value, ApiError> {
        let request = Request { resource, verb, view: View::Object };
        let answer = self.runtime.block_on(self.service.call(&self.who, request))?;
        Ok(serde_json::from_slice(&answer.body).expect("an answer is JSON"))
    }

    /// What creating an object would make.
    pub fn create(&self, resource: ResourceRef, body: Vec<u8>) -> Result<Value, ApiError> {
        self.ask(resource, Verb::Create { body: body.into(), options: dry_run() })
    }
}

/// Options of a write that changes nothing.
pub fn dry_run() -> WriteOptions {
    WriteOptions {
        field_manager: Some("fuzz".to_owned()),
        field_validation: FieldValidation::Ignore,
        dry_run: true,
        ..WriteOptions::default()
    }
}

/// Where objects of a kind are created.
pub fn collection(kind: &Descriptor) -> ResourceRef {
    let resource = ResourceRef::collection(&kind.group, &kind.version, &kind.plural);
    if kind.namespaced() { resource.in_namespace("default") } else { resource }
}

/// Where things are created, which keep whatever they are given.
pub fn things() -> ResourceRef {
    ResourceRef::collection("example.com", "v1", "things").in_namespace("default")
}

pub fn configmaps() -> ResourceRef {
    ResourceRef::collection("", "v1", "configmaps").in_namespace("default")
}

pub fn deployments() -> ResourceRef {
    ResourceRef::collection("apps", "v1", "deployments").in_namespace("default")
}

fn configmap() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "labels": {"app": "web"}}, "data": {"k": "v"}})
}

/// The deployment that is there.
pub fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "finalizers": ["example.com/a"]},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "main", "image": "a:1", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]},
                    {"name": "side", "image": "b:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                ], "volumes": [{"name": "v", "emptyDir": {}}]},
            },
        },
    })
}

/// The refusal is the client's fault, and says what is wrong.
pub fn is_told(error: &ApiError, about: &dyn std::fmt::Debug) {
    assert!((400..500).contains(&error.code), "{about:?}: {error:?}");
    assert!(!error.message.is_empty(), "{about:?}: {error:?}");
    if error.code == 422 {
        let named =
            error.details.causes.iter().all(|cause| !cause.field.is_empty() || !cause.message.is_empty());
        assert!(named, "{about:?}: {error:?}");
    }
}
