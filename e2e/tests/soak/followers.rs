//! Clients that list and watch by hand, write down all that they are told, and list again only when they are told that
//! history is lost.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use claw_e2e::{
    history::{History, revision_of},
    http::Http,
    wait::{LATER, check, until_async},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::PATH;

const FOLLOWERS: usize = 3;

/// What one follower was told, from each of its lists on.
type Told = Arc<Mutex<Vec<History>>>;

/// The followers.
pub struct Followers {
    all: Vec<Told>,
    tasks: JoinSet<()>,
}

impl Followers {
    pub fn start(http: &Http) -> Self {
        let mut tasks = JoinSet::new();
        let all: Vec<Told> = (0..FOLLOWERS).map(|_| Told::default()).collect();
        for told in &all {
            tasks.spawn(follow(http.clone(), told.clone()));
        }
        Self { all, tasks }
    }

    /// Fails when one of them was told a contradiction.
    pub fn are_well(&mut self) {
        while let Some(done) = self.tasks.try_join_next() {
            done.expect("no follower was told a contradiction");
        }
    }

    /// Waits until everybody knows what is listed, and compares what they were told. Gives how often history was lost and how
    /// many changes there were.
    pub async fn end(mut self, list: &Value) -> (usize, usize) {
        let target = revision_of(list).unwrap();
        until_async("every follower is told everything", LATER, || {
            self.are_well();
            let behind =
                self.all.iter().map(|told| told.lock().unwrap().last().map_or(0, History::revision)).min();
            std::future::ready(check(behind >= Some(target), format!("{behind:?} of {target}")))
        })
        .await;
        let all: Vec<Vec<History>> = self.all.iter().map(|told| told.lock().unwrap().clone()).collect();
        let whole = together(&all);
        let trimmed = json!({"metadata": list["metadata"], "items": list["items"].as_array().unwrap().iter().map(trimmed).collect::<Vec<_>>()});
        for history in all.iter().flatten() {
            history.is_part_of(&whole).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        for told in &all {
            let last = told.last().unwrap();
            last.ends_as(&trimmed).unwrap_or_else(|wrong| panic!("at the end {wrong}"));
        }
        (all.iter().map(|told| told.len() - 1).sum(), whole.changes().len())
    }
}

/// Everything that anybody was told.
fn together(all: &[Vec<History>]) -> History {
    let mut changes = std::collections::BTreeMap::new();
    for history in all.iter().flatten() {
        for (revision, change) in history.changes() {
            let known = changes.entry(*revision).or_insert(change);
            assert_eq!(*known, change, "two followers were told different things of {revision}");
        }
    }
    let mut whole = History::default();
    changes.into_iter().for_each(|(revision, change)| whole.push(revision, change.clone()));
    whole
}

async fn follow(http: Http, told: Told) {
    loop {
        let Ok(list) = http.get(PATH).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let items: Vec<_> = list["items"].as_array().unwrap().iter().map(trimmed).collect();
        let start = History::from_list(&json!({"metadata": list["metadata"], "items": items})).unwrap();
        let before = told.lock().unwrap().last().map_or(0, History::revision);
        assert!(start.revision() >= before, "a list of {} after {before} was known", start.revision());
        told.lock().unwrap().push(start);
        watch(&http, &told).await;
    }
}

/// Watches on until history is lost.
async fn watch(http: &Http, told: &Told) {
    loop {
        let from = told.lock().unwrap().last().unwrap().revision();
        let path = format!("{PATH}?watch=true&allowWatchBookmarks=true&resourceVersion={from}");
        let Ok(mut events) = http.watch(&path).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while let Ok(Some(event)) = events.next().await {
            let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
            if kind == "ERROR" {
                assert_eq!((&object["code"], &object["reason"]), (&json!(410), &json!("Expired")), "{event}");
                return;
            }
            told.lock().unwrap().last_mut().unwrap().tell(kind, &trimmed(object)).unwrap();
        }
    }
}

/// What is compared of an object: enough to tell its states apart, and no more than half an hour of them can take.
fn trimmed(object: &Value) -> Value {
    let (metadata, data) = (&object["metadata"], &object["data"]);
    json!({
        "metadata": {"namespace": metadata["namespace"], "name": metadata["name"], "resourceVersion": metadata["resourceVersion"]},
        "data": {"n": data["n"]},
    })
}
