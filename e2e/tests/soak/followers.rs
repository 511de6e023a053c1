//! Clients that watch by hand, write down all that they are told, and start again only when they are told that history is
//! lost: with a list, with a stream of what exists, of everything or of a selection. And one beside the proxy, which is
//! spared most faults, to hold the others to.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use claw_e2e::{
    http::Http,
    told::Told,
    wait::{LATER, check, until_async},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::{
    PATH,
    writers::{HALF, HALVES},
};

const PAUSE: Duration = Duration::from_millis(50);

/// How a follower starts.
#[derive(Clone, Copy)]
enum Start {
    List,
    Stream,
}

/// What one follower was told.
type Notes = Arc<Mutex<Told>>;

/// The followers; the first is the witness.
pub struct Followers {
    all: Vec<Notes>,
    tasks: JoinSet<()>,
}

impl Followers {
    pub fn start(direct: &Http, http: &Http) -> Self {
        let (mut all, mut tasks) = (Vec::new(), JoinSet::new());
        for (http, told, start) in [
            (direct, Told::default(), Start::List),
            (http, Told::default(), Start::List),
            (http, Told::default(), Start::Stream),
            (http, Told::by_label(HALF, HALVES[0]), Start::List),
            (http, Told::by_label(HALF, HALVES[1]), Start::Stream),
        ] {
            let notes = Arc::new(Mutex::new(told));
            tasks.spawn(follow(http.clone(), notes.clone(), start));
            all.push(notes);
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
        let list = trimmed_list(list);
        until_async("every follower is told everything", LATER, || {
            self.are_well();
            let behind = self.all.iter().find_map(|notes| behind(&notes.lock().unwrap(), &list));
            std::future::ready(check(behind.is_none(), format!("{behind:?}")))
        })
        .await;
        let all: Vec<Told> = self.all.iter().map(|notes| notes.lock().unwrap().clone()).collect();
        let whole = all.iter().filter(|told| told.selector().is_empty());
        for other in whole {
            for told in &all {
                told.agrees_with(other).unwrap_or_else(|wrong| panic!("{}: {wrong}", told.selector()));
            }
        }
        let changes = all[0].starts().iter().map(|start| start.changes().len()).sum();
        (all.iter().map(|told| told.starts().len() - 1).sum(), changes)
    }
}

/// What a follower does not know yet of what there is.
fn behind(told: &Told, list: &Value) -> Option<String> {
    let Some(last) = told.starts().last() else { return Some("it has not begun".to_owned()) };
    let items =
        list["items"].as_array().unwrap().iter().filter(|item| told.selects(item)).collect::<Vec<_>>();
    last.ends_as(&json!({"metadata": list["metadata"], "items": items})).err()
}

async fn follow(http: Http, notes: Notes, start: Start) {
    loop {
        match start {
            Start::List => list(&http, &notes).await,
            Start::Stream => stream(&http, &notes).await,
        }
        // Until history is lost.
        loop {
            let from = notes.lock().unwrap().revision();
            if !watch(&http, &notes, &format!("&resourceVersion={from}")).await {
                break;
            }
        }
    }
}

fn path(notes: &Notes) -> String {
    format!("{PATH}?labelSelector={}", notes.lock().unwrap().selector().replace('=', "%3D"))
}

async fn list(http: &Http, notes: &Notes) {
    loop {
        if let Ok(list) = http.get(&path(notes)).await {
            return notes.lock().unwrap().listed(&trimmed_list(&list)).unwrap();
        }
        sleep(PAUSE).await;
    }
}

/// Until what exists has been told, and whatever came after it on the same watch.
async fn stream(http: &Http, notes: &Notes) {
    let starts = notes.lock().unwrap().starts().len();
    while notes.lock().unwrap().starts().len() == starts {
        notes.lock().unwrap().opens();
        watch(http, notes, "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan").await;
    }
}

/// Watches until the watch ends. False when that is because history is lost.
async fn watch(http: &Http, notes: &Notes, options: &str) -> bool {
    let path = format!("{}&watch=true&allowWatchBookmarks=true{options}", path(notes));
    let Ok(mut events) = http.watch(&path).await else {
        sleep(PAUSE).await;
        return true;
    };
    while let Ok(Some(event)) = events.next().await {
        let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
        if kind == "ERROR" {
            assert_eq!((&object["code"], &object["reason"]), (&json!(410), &json!("Expired")), "{event}");
            return false;
        }
        notes.lock().unwrap().tell(kind, &trimmed(object)).unwrap();
    }
    true
}

fn trimmed_list(list: &Value) -> Value {
    let items: Vec<_> = list["items"].as_array().unwrap().iter().map(trimmed).collect();
    json!({"metadata": list["metadata"], "items": items})
}

/// What is compared of an object: enough to tell its states apart, and no more than half an hour of them can take.
fn trimmed(object: &Value) -> Value {
    let (metadata, data) = (&object["metadata"], &object["data"]);
    let mut kept = json!({"data": {"n": data["n"]}});
    for field in ["namespace", "name", "resourceVersion", "labels", "annotations"] {
        kept["metadata"][field] = metadata[field].clone();
    }
    kept
}
