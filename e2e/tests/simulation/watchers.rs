//! Clients that follow what the writers do: some by hand, event by event over every resume, some with a reflector.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_client::{
    ApiError, Cached as _, Client, Reflector, Verb, WatchEvent,
    object::revision_of as revision,
    request::{ListOptions, View, WatchOptions},
};
use claw_e2e::{dice::Dice, history::History};
use claw_schemas::status::Reason;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use tokio_util::sync::CancellationToken;

use super::{
    net::{Wire, client},
    world::World,
    writers::{maps, parse},
};

/// Before it tries again.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a cache is written down for the end.
const LOOK: Duration = Duration::from_millis(500);

/// Lists and watches, resumes for as long as that works, and writes down what it was told.
pub async fn by_hand(world: Arc<World>, name: String, wire: Wire, dice: Dice) -> turmoil::Result {
    let client = client(wire, &name);
    loop {
        match list(&client).await {
            Ok(history) => {
                world.note(|notes| notes.watched.entry(name.clone()).or_default().push(history));
                follow(&world, &name, &client, &dice).await;
            }
            Err(error) => world.did(&name, format!("list: {:?}", error.reason)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn list(client: &Client) -> Result<History, ApiError> {
    let answer = client.call(maps(), Verb::List(ListOptions::default())).await?;
    History::from_list(&parse(&answer.body)?).map_err(ApiError::internal)
}

/// Until what comes next is forgotten.
async fn follow(world: &World, name: &str, client: &Client, dice: &Dice) {
    loop {
        let ended = watch_once(world, name, client, dice).await;
        let told = ended.as_ref().map_or_else(|error| format!("{:?}", error.reason), |()| "ended".to_owned());
        world.did(name, format!("watch: {told}"));
        match ended {
            Err(error) if error.reason == Reason::Expired => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
            Ok(()) => {}
        }
    }
}

async fn watch_once(world: &World, name: &str, client: &Client, dice: &Dice) -> Result<(), ApiError> {
    let latest = |world: &World| world.note(|notes| notes.watched[name].last().map_or(0, History::revision));
    let options = WatchOptions {
        resource_version: Some(latest(world).to_string()),
        allow_bookmarks: dice.percent(50),
        timeout_seconds: Some(dice.between(3, 30)),
        ..WatchOptions::default()
    };
    let opening = client.transport().watch(maps(), options, View::Object);
    let mut events = opening.await?;
    while let Some(event) = events.next().await {
        let (kind, body) = match event? {
            WatchEvent::Added(body) => ("ADDED", body),
            WatchEvent::Modified(body) => ("MODIFIED", body),
            WatchEvent::Deleted(body) => ("DELETED", body),
            WatchEvent::Bookmark(body) => ("BOOKMARK", body),
            WatchEvent::Error(error) => return Err(error),
        };
        let object = parse(&body)?;
        let told = world.note(|notes| match notes.watched.get_mut(name).and_then(|all| all.last_mut()) {
            Some(history) => history.tell(kind, &object),
            None => Ok(()),
        });
        world.must(name, told);
    }
    Ok(())
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
