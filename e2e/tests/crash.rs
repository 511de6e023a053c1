//! The server is killed again and again under write load: what it acknowledged is there, revisions never go back,
//! and a watcher sees every change once, in order, across all of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use claw_e2e::{Cluster, Options, history::History, http::Http, promises::Promises, wait};
use http::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

/// As many kills as the promise names.
const ROUNDS: u64 = 50;

/// Enough to have several writes in every batch that a kill can hit.
const WRITERS: u64 = 8;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// What names of counters begin with.
const COUNTER: &str = "counter-";

/// What the writers know.
#[derive(Default)]
struct Notes {
    /// What the server has promised.
    promises: Mutex<Promises>,
    /// Writers stop.
    over: AtomicBool,
}

impl Notes {
    fn acknowledged(&self) -> usize {
        self.promises.lock().expect("no writer panics").len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_load_lose_nothing_and_repeat_nothing() {
    let mut cluster = Cluster::start(Options::server());
    let http = Http::admin(&cluster);
    let notes = Arc::new(Notes::default());
    let start = History::from_list(&http.get(PATH).await.expect("lists")).expect("a list");
    let watcher = tokio::spawn(watch_across_kills(http.clone(), start, Arc::clone(&notes)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_across_kills(http.clone(), writer, Arc::clone(&notes)));
    }
    for round in 0..ROUNDS {
        let before = notes.acknowledged();
        // Some acknowledgements first, or the round proves nothing; then a moment that differs by round.
        wait::until_async("writes are acknowledged", wait::SOON, || {
            let now = notes.acknowledged();
            async move { wait::check(now >= before + 20, format!("{now} after {before}")) }
        })
        .await;
        sleep(Duration::from_millis(round * 7 % 50)).await;
        cluster.kill();
        cluster.restart();
    }
    notes.over.store(true, Ordering::SeqCst);
    while let Some(done) = writers.join_next().await {
        done.expect("no writer found a broken promise");
    }
    create(&http, "end").await.expect("the server is up");
    let seen = watcher.await.expect("the watcher found no gap");
    seen.ends_as(&http.get(PATH).await.expect("lists")).expect("the watcher missed nothing");
    let promises = notes.promises.lock().expect("no writer panicked");
    promises.kept(&seen).expect("every promise is kept");
    counters_never_went_back(&seen);
}

/// Creates object after object and counts up in one of its own; every acknowledgement is a promise.
async fn write_across_kills(http: Http, writer: u64, notes: Arc<Notes>) {
    let counter = format!("{COUNTER}{writer}");
    for number in 0.. {
        if notes.over.load(Ordering::SeqCst) {
            return;
        }
        let floor = || notes.promises.lock().expect("nobody panics with it").floor();
        let promised = |asked, object: &Value| {
            notes
                .promises
                .lock()
                .expect("nobody panics with it")
                .written(asked, object)
                .expect("a newer revision");
        };
        let asked = floor();
        let Ok(created) = create(&http, &format!("w{writer}-{number:06}")).await else {
            // Killed: perhaps written, perhaps not, and nobody was told otherwise.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        promised(asked, &created);

        let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": counter}, "data": {"n": number.to_string()}});
        let path = format!("{PATH}/{counter}");
        let headers = [("content-type", "application/merge-patch+json")];
        let asked = floor();
        match http.ask(Method::PATCH, &path, &headers, patch.to_string()).await {
            Ok(answer) if answer.code == 404 => drop(http.post(PATH, &patch).await),
            Ok(answer) if answer.code == 200 => promised(asked, &answer.json()),
            _ => {}
        }
    }
}

async fn create(http: &Http, name: &str) -> anyhow::Result<Value> {
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"name": name}});
    http.post(PATH, &object).await
}

/// Watches on from a list, resumes after every kill, and ends at the object `end`.
async fn watch_across_kills(http: Http, mut seen: History, notes: Arc<Notes>) -> History {
    loop {
        let path = format!("{PATH}?watch=true&resourceVersion={}", seen.revision());
        let Ok(mut events) = http.watch(&path).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        while let Ok(Some(event)) = events.next().await {
            assert_ne!(event["type"], "ERROR", "history of seconds ago must be there: {event}");
            let object = &event["object"];
            seen.tell(event["type"].as_str().expect("a type"), object).expect("the next change");
            if object["metadata"]["name"] == "end" {
                assert!(notes.over.load(Ordering::SeqCst), "the end comes last");
                return seen;
            }
        }
    }
}

/// A writer counts up only after an answer, so what a kill swallowed must not come after it.
fn counters_never_went_back(seen: &History) {
    let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
    for change in seen.changes().values().filter(|change| change.name.contains(COUNTER)) {
        let now = change.object["data"]["n"].as_str().expect("a number").parse().expect("a number");
        let before = counters.insert(&change.name, now).unwrap_or(0);
        assert!(now >= before, "{} went back from {before} to {now}", change.name);
    }
}
