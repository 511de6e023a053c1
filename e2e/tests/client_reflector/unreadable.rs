//! Objects that do not parse into the type of the cache: passed over, by name, and never taken for deleted.

use std::{
    cell::RefCell,
    fmt::{Debug, Write as _},
    sync::{Arc, Once},
};

use claw_client::{
    Cached, DynamicObject, Reflector, ResourceRef, Verb,
    request::{DeleteOptions, PatchKind, WriteOptions},
};
use claw_testing::{TestCluster, object};
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{Event, Metadata, Subscriber, field::Field, span};

use super::{
    names, reached, run, server, so_far, synced, told,
    wire::{Fault, Wire},
};

/// What this program takes a gauge to be. The server's schema says less.
#[derive(Clone, Debug, Deserialize)]
struct Gauge {
    metadata: ObjectMeta,
    spec: GaugeSpec,
}

#[derive(Clone, Debug, Deserialize)]
struct GaugeSpec {
    level: u32,
}

impl Cached for Gauge {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

fn gauges() -> ResourceRef {
    ResourceRef::collection("example.com", "v1", "gauges").in_namespace("default")
}

async fn server_with_gauges() -> Arc<TestCluster> {
    let server = server().await;
    let definition: CustomResourceDefinition = object(json!({
        "metadata": {"name": "gauges.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gauges", "kind": "Gauge"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    }));
    server.client.all::<CustomResourceDefinition>().create(&definition).await.expect("a sound definition");
    let established = |definition: &CustomResourceDefinition| {
        let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
    };
    server.until("the kind is served", "", "gauges.example.com", established).await;
    server
}

async fn call(server: &TestCluster, resource: ResourceRef, verb: Verb) -> String {
    let response = server.client.call(resource, verb).await.expect("the server does it");
    let object: DynamicObject = serde_json::from_slice(&response.body).expect("an object comes back");
    object.metadata.resource_version.unwrap_or_default()
}

async fn create(server: &TestCluster, name: &str, level: Value) -> String {
    let body = json!({"metadata": {"name": name}, "spec": {"level": level}}).to_string().into();
    call(server, gauges(), Verb::Create { body, options: WriteOptions::default() }).await
}

async fn set(server: &TestCluster, name: &str, level: Value) -> String {
    let (kind, body) = (PatchKind::Merge, json!({"spec": {"level": level}}).to_string().into());
    let patch = Verb::Patch { kind, body, options: WriteOptions::default(), force: false };
    call(server, gauges().named(name), patch).await
}

async fn delete(server: &TestCluster, name: &str) {
    call(server, gauges().named(name), Verb::Delete(DeleteOptions::default())).await;
}

#[tokio::test]
async fn objects_that_do_not_parse_are_named_and_stop_nothing() {
    Warnings::listen();
    let server = server_with_gauges().await;
    create(&server, "good", json!(1)).await;
    create(&server, "words", json!("high")).await;
    let wire = Wire::to(&server, &[]);
    let (store, _running) = run(Reflector::<Gauge>::of(wire.clone(), gauges()));
    synced(&store).await;
    assert_eq!(names(&store), ["good"]);
    Warnings::tell_of("default/words", "invalid type: string \"high\"");

    reached(&store, &create(&server, "more-words", json!("low")).await).await;
    Warnings::tell_of("default/more-words", "invalid type: string \"low\"");
    reached(&store, &set(&server, "words", json!(2)).await).await;
    reached(&store, &create(&server, "last", json!(3)).await).await;
    assert_eq!(names(&store), ["good", "last", "words"]);
    assert_eq!(store.get("default", "words").expect("mended").spec.level, 2);
    assert_eq!(wire.moments("list").len(), 1, "{:?}", wire.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_object_stays_while_it_does_not_parse_and_goes_with_it() {
    let server = server_with_gauges().await;
    create(&server, "a", json!(1)).await;
    create(&server, "b", json!(1)).await;
    // The list after the second event sees objects of which it can read the names alone.
    let wire = Wire::to(&server, &[Fault::EndAfter(2), Fault::Forbid]);
    let reflector = Reflector::<Gauge>::of(wire.clone(), gauges());
    let log = told(&reflector.store());
    let (store, _running) = run(reflector);
    synced(&store).await;
    set(&server, "a", json!("high")).await;
    reached(&store, &set(&server, "b", json!("high")).await).await;
    reached(&store, &create(&server, "after-the-list", json!(1)).await).await;
    assert_eq!(wire.moments("list").len(), 2, "{:?}", wire.asked());
    assert_eq!(store.get("default", "a").expect("it is there").spec.level, 1);

    delete(&server, "a").await;
    delete(&server, "b").await;
    create(&server, "b", json!("another")).await;
    reached(&store, &create(&server, "last", json!(1)).await).await;
    assert_eq!(names(&store), ["after-the-list", "last"]);
    let news: Vec<_> = so_far(&log).into_iter().filter(|told| told != "synced").collect();
    assert_eq!(news, ["new a", "new b", "new after-the-list", "gone a", "gone b", "new last"]);
}

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the warnings of each thread, one text each. It listens for the whole process, because a place in the code that another test
/// comes to first would otherwise learn there that nobody listens, and keep silent for ever.
struct Warnings;

impl Warnings {
    fn listen() {
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| {
            tracing::subscriber::set_global_default(Self).expect("nobody else listens in this process");
            // Whoever came between the subscriber's making and its place has heard that there was none.
            tracing::callsite::rebuild_interest_cache();
        });
    }

    fn tell_of(name: &str, why: &str) {
        HEARD.with_borrow(|heard| {
            assert!(heard.iter().any(|text| text.contains(name) && text.contains(why)), "{heard:#?}");
        });
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut |field: &Field, value: &dyn Debug| {
            let _ = write!(text, "{field}={value:?} ");
        });
        // A thread that is ending has nobody left to ask.
        let _ = HEARD.try_with(|heard| heard.borrow_mut().push(text));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
