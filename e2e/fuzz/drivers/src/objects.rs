//! Objects of built-in kinds, made after their schemas and then damaged: what is taken is stable and everybody can read it.

use std::sync::{Arc, LazyLock};

use claw_client::{Verb, request::PatchKind};
use claw_schemas::{Descriptor, Registry, api};
use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, core::v1 as core, networking::v1 as networking,
    resource::v1beta2 as resource,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{json, tape::Tape, world};

static KINDS: LazyLock<Vec<(Arc<Descriptor>, Value)>> = LazyLock::new(|| {
    let registry = Registry::builtin();
    registry.iter().map(|kind| (kind.clone(), kind.schema.document())).collect()
});

/// One object, and a change to the deployment that is there.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let (kind, document) = &KINDS[tape.below(KINDS.len())];
    let mut object = json::of_schema(&mut tape, document, document, 7);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), kind.api_version().into());
        fields.insert("kind".to_owned(), (&*kind.kind).into());
    }
    object["metadata"] = json!({"name": tape.text(&["x", "web", "kubernetes"]), "labels": {"app": "web"}});
    json::damage(&mut tape, &mut object);
    created(kind, &object);
    changed(&mut tape);
}

fn created(kind: &Descriptor, object: &Value) {
    let made =
        match world::within(|world| world.create(world::collection(kind), object.to_string().into_bytes())) {
            Ok(made) => made,
            Err(error) => return world::is_told(&error, &(&kind.kind, object)),
        };
    is_typed(kind, &made);
    // Defaults and canonical forms are found as they are when they come back.
    let mut again = made.clone();
    for given in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink"] {
        again["metadata"].as_object_mut().map(|metadata| metadata.remove(given));
    }
    let twice = world::within(|world| world.create(world::collection(kind), again.to_string().into_bytes()));
    let twice = match twice {
        Ok(twice) => twice,
        // Names and addresses that the server gave out are given once.
        Err(error) => return world::is_told(&error, &(&kind.kind, object, &again)),
    };
    for part in
        ["spec", "data", "rules", "webhooks", "subsets", "endpoints", "template", "parameters", "driver"]
    {
        assert_eq!(twice.get(part), made.get(part), "{}: {object}", kind.kind);
    }
}

/// The structures of the crate that Rust programs use read what is served, and lose nothing of it.
fn is_typed(kind: &Descriptor, made: &Value) {
    match &*kind.kind {
        "Pod" => typed::<core::Pod>(made),
        "Service" => typed::<core::Service>(made),
        "ConfigMap" => typed::<core::ConfigMap>(made),
        "Secret" => typed::<core::Secret>(made),
        "Node" => typed::<core::Node>(made),
        "PersistentVolume" => typed::<core::PersistentVolume>(made),
        "PersistentVolumeClaim" => typed::<core::PersistentVolumeClaim>(made),
        "LimitRange" => typed::<core::LimitRange>(made),
        "ResourceQuota" => typed::<core::ResourceQuota>(made),
        "Deployment" => typed::<apps::Deployment>(made),
        "ReplicaSet" => typed::<apps::ReplicaSet>(made),
        "DaemonSet" => typed::<apps::DaemonSet>(made),
        "StatefulSet" => typed::<apps::StatefulSet>(made),
        "Job" => typed::<batch::Job>(made),
        "CronJob" => typed::<batch::CronJob>(made),
        "DeviceTaintRule" => typed::<resource::DeviceTaintRule>(made),
        "KernelJob" => typed::<api::KernelJob>(made),
        "DeviceCheck" => typed::<api::DeviceCheck>(made),
        "DevicePolicy" => typed::<api::DevicePolicy>(made),
        "Ingress" => typed::<networking::Ingress>(made),
        "NetworkPolicy" => typed::<networking::NetworkPolicy>(made),
        _ => {}
    }
}

fn typed<K: DeserializeOwned + Serialize>(made: &Value) {
    let read: K = serde_json::from_value(made.clone()).unwrap_or_else(|error| panic!("{error}: {made}"));
    let mut written = serde_json::to_value(read).expect("a structure is JSON");
    // What is empty may be left out, and times may be written with fewer zeros.
    let mut made = made.clone();
    for object in [&mut written, &mut made] {
        object.as_object_mut().map(|object| object.remove("metadata"));
        drop_empty(object);
    }
    if made["apiVersion"] == "clawbernetes.io/v1" {
        // A number in Rust is one with a point; the server writes it as clients in Go do.
        let (registry, name) = (Registry::builtin(), made["kind"].as_str().unwrap_or_default());
        let kind = registry.kind("clawbernetes.io/v1", name).expect("it is served");
        kind.compiled().normalize(&mut written);
    }
    assert_eq!(written, made);
}

fn drop_empty(value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_empty);
            fields.retain(|_, value| !is_empty(value));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

/// Every way to write, with something that is nearly the deployment.
fn changed(tape: &mut Tape<'_>) {
    let mut object = world::deployment();
    json::damage(tape, &mut object);
    let options = world::dry_run;
    let body = || object.to_string().into();
    let verb = match tape.below(5) {
        0 => Verb::Update { body: body(), options: options() },
        kind => {
            let kind = [PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply, PatchKind::Json][kind - 1];
            Verb::Patch {
                kind,
                body: body(),
                options: options(),
                force: tape.flag() && kind == PatchKind::Apply,
            }
        }
    };
    match world::within(|world| world.ask(world::deployments().named("web"), verb)) {
        Ok(made) => typed::<apps::Deployment>(&made),
        Err(error) => world::is_told(&error, &object),
    }
}
