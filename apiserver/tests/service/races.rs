//! What happens between the moment a request looks and the moment it writes.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use claw_apiserver::store::{
    self, Change, Draft, Expect, Key, Page, Record, Revision, Store, StoreError, Watch, Write,
};
use claw_client::ResourceRef;
use claw_schemas::status::Reason;
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    custom::{define, definition, definitions, in_service, until, version, widget, widgets},
    world::{World, names, namespaces},
};

/// A store in which something happens right before the first object of a kind is written.
struct Interrupted {
    inner: Arc<dyn Store>,
    kind: Key,
    meanwhile: Box<dyn Fn(Arc<dyn Store>) -> BoxFuture<'static, ()> + Send + Sync>,
    done: AtomicBool,
}

impl Interrupted {
    fn new(
        kind: Key,
        meanwhile: impl Fn(Arc<dyn Store>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (meanwhile, done) = (Box::new(meanwhile), AtomicBool::new(false));
        Arc::new(Self { inner: store::memory(), kind, meanwhile, done })
    }
}

/// A record as it would be written again.
fn draft_of(record: &Record) -> Draft {
    let text = std::str::from_utf8(&record.value).unwrap();
    let (head, rest) = text.split_once(r#""resourceVersion":""#).unwrap();
    let head = format!(r#"{head}"resourceVersion":""#);
    let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    Draft { bytes: format!("{head}{rest}").into(), revision_at: head.len() }
}

#[async_trait]
impl Store for Interrupted {
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit, at).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let is_due = writes.iter().any(|write| write.key.is_in(&self.kind));
        if is_due && !self.done.swap(true, Ordering::SeqCst) {
            (self.meanwhile)(self.inner.clone()).await;
        }
        self.inner.commit(writes).await
    }

    fn watch(&self, prefix: &Key, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, after)
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn snapshot(&self, to: &Path) -> Result<Revision, StoreError> {
        self.inner.snapshot(to).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A cluster with the namespace `team`, which changes as soon as somebody creates something in it.
async fn interrupted(meanwhile: fn(Draft) -> Change) -> World {
    let store = Interrupted::new(Key::collection("", "configmaps", None), move |store| {
        async move {
            let namespace = Key::object("", "namespaces", "", "team");
            let record = store.get(&namespace).await.unwrap().unwrap();
            let (expect, change) = (Expect::Revision(record.revision), meanwhile(draft_of(&record)));
            store.commit(vec![Write { key: namespace, expect, change }]).await.unwrap();
        }
        .boxed()
    });
    let world = World::on(store).await;
    world.create(namespaces(), &json!({"metadata": {"name": "team"}})).await.unwrap();
    world
}

fn maps() -> ResourceRef {
    ResourceRef::collection("", "v1", "configmaps")
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_went_after_the_request_had_looked() {
    let world = interrupted(Change::Delete).await;
    let made = world.create(maps().in_namespace("team"), &json!({"metadata": {"name": "orphan"}})).await;
    assert_eq!(made.unwrap_err().reason, Reason::NotFound);
    assert!(names(&world.list(maps(), Default::default()).await.unwrap()).is_empty());
}

#[tokio::test]
async fn a_namespace_that_is_only_written_meanwhile_is_no_obstacle() {
    let world = interrupted(Change::Put).await;
    let made = world.create(maps().in_namespace("team"), &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(made.unwrap()["metadata"]["name"], "x");
}

/// How long new rules are given to overtake a write, which they must not.
const OVERTAKING: std::time::Duration = std::time::Duration::from_secs(1);

#[tokio::test]
async fn what_is_written_by_old_rules_is_read_by_the_new_ones_however_late_it_is_stored() {
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let store = Interrupted::new(Key::collection("example.com", "widgets", None), {
        let (reached, go_on) = (reached.clone(), go_on.clone());
        move |_| {
            let (reached, go_on) = (reached.clone(), go_on.clone());
            async move {
                reached.notify_one();
                go_on.notified().await;
            }
            .boxed()
        }
    });
    let world = Arc::new(World::on(store).await);
    let mut defined = define(&world, &definition(&[version("v1", true)])).await;
    let slow = tokio::spawn({
        let world = world.clone();
        async move { world.create(widgets("v1"), &widget("a", &json!({"color": "red"}))).await }
    });
    reached.notified().await;
    let schema = &mut defined["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["size"] = json!({"type": "string", "default": "m"});
    let name = "widgets.example.com";
    let changed = world.update(definitions().named(name), &defined).await.unwrap();
    let is_new = |object: &serde_json::Value| {
        object["metadata"]["generation"] == changed["metadata"]["generation"] && in_service(object)
    };
    let _ = tokio::time::timeout(OVERTAKING, until(&world, name, is_new)).await;
    go_on.notify_one();
    slow.await.unwrap().unwrap();
    until(&world, name, is_new).await;
    assert_eq!(world.get(widgets("v1").named("a")).await.unwrap()["spec"]["size"], "m");
}
