//! Clients that follow what the writers do: some by hand, event by event over every resume, some with a reflector.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_client::{
    ApiError, Cached as _, Client, Reflector, Verb, WatchEvent,
    object::revision_of as revision,
    request::{ListOptions, View, WatchOptions},
};
use claw_e2e::{dice::Dice, told::Told};
use claw_schemas::status::Reason;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio_util::sync::CancellationToken;

use super::{
    net::{Wire, client},
    world::World,
    writers::{HALF, HALVES, maps, parse},
};

/// Before it tries again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a cache is written down for the end.
const LOOK: Duration = Duration::from_millis(500);

/// Starts with a list or with a stream, watches, resumes for as long as that works, and writes down what it was told. Some
/// select.
pub async fn by_hand(world: Arc<World>, name: String, wire: Wire, dice: Dice) -> turmoil::Result {
    let told = if dice.percent(50) {
        let half = dice.pick(&HALVES);
        Told::by_label(HALF, half)
    } else {
        Told::default()
    };
    // Whose host was away goes on as who it was.
    let selector = world.note(|notes| notes.watched.entry(name.clone()).or_insert(told).selector());
    let watcher = Watcher { selector, client: client(wire, &name), world, name, dice };
    loop {
        let how = if watcher.dice.percent(50) { "list" } else { "stream" };
        let started = match how {
            "list" => watcher.list().await,
            _ => watcher.stream().await,
        };
        watcher.world.did(&watcher.name, format!("{how}: {}", said(&started)));
        if started.is_ok() {
            watcher.follow().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Watcher {
    world: Arc<World>,
    name: String,
    selector: String,
    client: Client,
    dice: Dice,
}

fn said(outcome: &Result<(), ApiError>) -> String {
    outcome.as_ref().map_or_else(|error| format!("{:?}", error.reason), |()| "ended".to_owned())
}

impl Watcher {
    /// Looks at what it was told, or adds to it.
    fn told<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        self.world.note(|notes| look(notes.watched.entry(self.name.clone()).or_default()))
    }

    async fn list(&self) -> Result<(), ApiError> {
        let options = ListOptions { label_selector: self.selector.clone(), ..ListOptions::default() };
        let list = parse(&self.client.call(maps(), Verb::List(options)).await?.body)?;
        self.world.must(&self.name, self.told(|told| told.listed(&list)));
        Ok(())
    }

    /// Has what exists streamed, and goes on with the same watch.
    async fn stream(&self) -> Result<(), ApiError> {
        let starts = self.told(|told| told.starts().len());
        self.told(Told::opens);
        let ended = self
            .watch(WatchOptions { send_initial_events: true, allow_bookmarks: true, ..self.options() })
            .await;
        match self.told(|told| told.starts().len() > starts) {
            true => Ok(()),
            false => ended.and(Err(ApiError::internal("it ended before it began"))),
        }
    }

    /// Until what comes next is forgotten.
    async fn follow(&self) {
        loop {
            let resource_version = Some(self.told(|told| told.revision()).to_string());
            let allow_bookmarks = self.dice.percent(50);
            let ended =
                self.watch(WatchOptions { resource_version, allow_bookmarks, ..self.options() }).await;
            self.world.did(&self.name, format!("watch: {}", said(&ended)));
            match ended {
                Err(error) if error.reason == Reason::Expired => return,
                Err(_) => tokio::time::sleep(PAUSE).await,
                Ok(()) => {}
            }
        }
    }

    fn options(&self) -> WatchOptions {
        let (label_selector, timeout) = (self.selector.clone(), self.dice.between(3, 30));
        WatchOptions { label_selector, timeout_seconds: Some(timeout), ..WatchOptions::default() }
    }

    async fn watch(&self, options: WatchOptions) -> Result<(), ApiError> {
        let mut events = self.client.transport().watch(maps(), options, View::Object).await?;
        while let Some(event) = events.next().await {
            let (kind, body) = match event? {
                WatchEvent::Added(body) => ("ADDED", body),
                WatchEvent::Modified(body) => ("MODIFIED", body),
                WatchEvent::Deleted(body) => ("DELETED", body),
                WatchEvent::Bookmark(body) => ("BOOKMARK", body),
                WatchEvent::Error(error) => return Err(error),
            };
            let object = parse(&body)?;
            self.world.must(&self.name, self.told(|told| told.tell(kind, &object)));
        }
        Ok(())
    }
}

/// Keeps a cache, as controllers do.
pub async fn with_a_cache(world: Arc<World>, name: String, wire: Wire) -> turmoil::Result {
    let reflector = Reflector::new(&client(wire, &name).namespaced::<ConfigMap>("default"));
    let store = reflector.store();
    tokio::spawn(reflector.run(CancellationToken::new()));
    loop {
        let cached: BTreeMap<_, _> = store
            .list()
            .iter()
            .map(|map| (map.meta().name.clone().unwrap_or_default(), revision(map.meta())))
            .collect();
        world.note(|notes| notes.cached.insert(name.clone(), cached));
        tokio::time::sleep(LOOK).await;
    }
}
