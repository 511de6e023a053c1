//! The server is killed again and again under write load: what it acknowledged is there, revisions never go back,
//! and a watcher sees every change once, in order, across all of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use claw_e2e::{Cluster, Options, http::Http, wait};
use http::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

/// As many kills as the promise names.
const ROUNDS: u64 = 50;

/// Enough to have several writes in every batch that a kill can hit.
const WRITERS: u64 = 8;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// What the story knows the server has promised.
#[derive(Default)]
struct Promises {
    /// Newest acknowledged revision.
    revision: AtomicU64,
    /// Acknowledged creations: name → revision.
    created: Mutex<BTreeMap<String, u64>>,
    /// The newest acknowledged value of each writer's counter.
    counters: Mutex<BTreeMap<String, u64>>,
    /// Writers stop.
    over: AtomicBool,
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_load_lose_nothing_and_repeat_nothing() {
    let mut cluster = Cluster::start(Options::server());
    let http = Http::admin(&cluster);
    let promises = Arc::new(Promises::default());
    let start = http.get(PATH).await.expect("lists");
    let start = start["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let watcher = tokio::spawn(watch_across_kills(http.clone(), start, Arc::clone(&promises)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_across_kills(http.clone(), writer, Arc::clone(&promises)));
    }
    for round in 0..ROUNDS {
        let before = promises.created.lock().expect("no writer panics").len();
        // Some acknowledgements first, or the round proves nothing; then a moment that differs by round.
        wait::until_async("writes are acknowledged", wait::SOON, || {
            let now = promises.created.lock().expect("no writer panics").len();
            async move { wait::check(now >= before + 10, format!("{now} after {before}")) }
        })
        .await;
        sleep(Duration::from_millis(round * 7 % 50)).await;
        cluster.kill();
        cluster.restart();
    }
    promises.over.store(true, Ordering::SeqCst);
    while let Some(done) = writers.join_next().await {
        done.expect("no writer found a broken promise");
    }
    let end = create(&http, "end").await.expect("the server is up");
    let seen = watcher.await.expect("the watcher found no gap");
    verify(&http, &promises, &seen, end).await;
}

/// Creates object after object and counts up in one of its own; every acknowledgement is a promise.
async fn write_across_kills(http: Http, writer: u64, promises: Arc<Promises>) {
    let counter = format!("counter-{writer}");
    for number in 0.. {
        if promises.over.load(Ordering::SeqCst) {
            return;
        }
        let floor = promises.revision.load(Ordering::SeqCst);
        let name = format!("w{writer}-{number:06}");
        let Ok(revision) = create(&http, &name).await else {
            // Killed: perhaps written, perhaps not, and nobody was told otherwise.
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        assert!(revision > floor, "{name} got revision {revision}, but {floor} was acknowledged before");
        promises.revision.fetch_max(revision, Ordering::SeqCst);
        promises.created.lock().expect("nobody panics with it").insert(name, revision);

        let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": counter}, "data": {"n": number.to_string()}});
        let path = format!("{PATH}/{counter}");
        let headers = [("content-type", "application/merge-patch+json")];
        match http.ask(Method::PATCH, &path, &headers, patch.to_string()).await {
            Ok(answer) if answer.code == 404 => drop(http.post(PATH, &patch).await),
            Ok(answer) if answer.code == 200 => {
                promises.counters.lock().expect("nobody panics with it").insert(counter.clone(), number);
            }
            _ => {}
        }
    }
}

async fn create(http: &Http, name: &str) -> anyhow::Result<u64> {
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"name": name}});
    revision_of(&http.post(PATH, &object).await?)
}

fn revision_of(object: &Value) -> anyhow::Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str();
    Ok(text.ok_or_else(|| anyhow::anyhow!("no revision in {object}"))?.parse()?)
}

/// Watches from `revision` on, resumes after every kill, and ends at the object `end`. Gives name → revisions.
async fn watch_across_kills(
    http: Http,
    start: String,
    promises: Arc<Promises>,
) -> BTreeMap<String, Vec<u64>> {
    let mut revision: u64 = start.parse().expect("revisions are numbers");
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    loop {
        let Ok(mut events) = http.watch(&format!("{PATH}?watch=true&resourceVersion={revision}")).await
        else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        while let Ok(Some(event)) = events.next().await {
            let object = &event["object"];
            assert_ne!(event["type"], "ERROR", "history of seconds ago must be there: {event}");
            let at = revision_of(object).expect("events carry revisions");
            assert!(at > revision, "revision {at} came after {revision}: {event}");
            revision = at;
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            let history = seen.entry(name.clone()).or_default();
            let wanted = if history.is_empty() { "ADDED" } else { "MODIFIED" };
            assert_eq!(event["type"], wanted, "{name} after {history:?}");
            history.push(at);
            if name == "end" {
                assert!(promises.over.load(Ordering::SeqCst), "the end comes last");
                return seen;
            }
        }
    }
}

/// Holds the promises, and what the watcher saw, against what is stored.
async fn verify(http: &Http, promises: &Promises, seen: &BTreeMap<String, Vec<u64>>, end: u64) {
    let list = http.get(PATH).await.expect("lists");
    let stored: BTreeMap<_, _> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| (item["metadata"]["name"].as_str().expect("a name").to_owned(), item))
        .collect();
    let created = promises.created.lock().expect("nobody panics with it").clone();
    assert!(created.len() as u64 > ROUNDS * 10, "only {} writes were acknowledged", created.len());
    for (name, revision) in &created {
        let item =
            stored.get(name).unwrap_or_else(|| panic!("{name} was acknowledged at {revision} and is gone"));
        assert_eq!(revision_of(item).expect("a revision"), *revision, "{name} has another revision");
        assert_eq!(item["data"]["name"], name.as_str(), "{name} has other data");
    }
    for (counter, value) in promises.counters.lock().expect("nobody panics with it").iter() {
        let now = stored[counter]["data"]["n"].as_str().expect("a number").parse::<u64>().expect("a number");
        assert!(now >= *value, "{counter} went back from {value} to {now}");
    }
    for (name, item) in stored.iter().filter(|(_, item)| revision_of(item).is_ok_and(|at| at <= end)) {
        let Some(history) = seen.get(name) else {
            // The cluster's own object, older than the watch.
            assert_eq!(name, "kube-root-ca.crt", "the watcher never saw {name}");
            continue;
        };
        let last = *history.last().expect("an entry has a revision");
        assert_eq!(
            last,
            revision_of(item).expect("a revision"),
            "the watcher missed the last change of {name}"
        );
    }
    let unknown: Vec<_> = seen.keys().filter(|name| !stored.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "the watcher saw what was never stored: {unknown:?}");
}
