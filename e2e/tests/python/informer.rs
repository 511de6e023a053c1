//! A picture of a collection that is kept in Python, as informers keep it, while there are writers and the server is
//! killed; and while the client stands still for so long that the store forgets where it was.
//!
//! `informer.py` holds each event against the one before; here the whole is held against what the server promised.

use std::{
    collections::BTreeMap,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use claw_e2e::{
    Cluster, Options,
    http::Http,
    kubectl::Background,
    need::{self, Need},
    python::python_of,
    wait,
};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::script;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

const WRITERS: usize = 4;

/// A writer waits this long after each round, so that the client keeps up on a busy machine.
const PAUSE: Duration = Duration::from_millis(40);

/// A ConfigMap holds no more than 1 MiB; some seventy of these make the store write its state.
const FLOOD_BYTES: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_kept_in_python_equals_the_server_over_kills_and_compaction() {
    if !need::all("a_picture_kept_in_python", &[Need::Python]) {
        return;
    }
    let mut cluster = Cluster::start(Options::server());
    let follower = Follower::start(&cluster).await;
    let writers = Writers::start(&Http::admin(&cluster));
    for _ in 0..3 {
        follower.sees_more().await;
        cluster.kill();
        cluster.restart();
    }
    follower.sees_more().await;
    assert_eq!(follower.lists().len(), 1, "history of seconds ago is there, over restarts too");

    follower.process.signal(Signal::SIGSTOP);
    flood(&cluster).await;
    follower.process.signal(Signal::SIGCONT);
    follower.lists_again().await;
    follower.sees_more().await;
    cluster.kill();
    cluster.restart();
    follower.sees_more().await;

    let acknowledged = writers.stop().await;
    let http = Http::admin(&cluster);
    http.post(MAPS, &map("end", "")).await.expect("the server is up");
    let end = follower.end().await;
    let served = served(&http).await;
    assert_eq!(end["picture"], served, "the picture that the script keeps");
    assert_eq!(end["cached"], served, "the picture that the client's own informer keeps");
    follower.missed_nothing(&acknowledged);
}

/// `informer.py`, and what it says.
struct Follower {
    process: Background,
    file: PathBuf,
}

impl Follower {
    async fn start(cluster: &Cluster) -> Self {
        let file = cluster.scratch().join("informer.log");
        let process = Background::start(python_of(cluster).arg(script("informer.py")), &file);
        let follower = Self { process, file };
        follower.until("the first list", |lines| !named(lines, "listed").is_empty()).await;
        follower
    }

    /// What it has said so far; what is no JSON is a complaint, and its end.
    fn lines(&self) -> Vec<Value> {
        let text = self.process.output();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}: see {text}"));
        whole.lines().map(parse).collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        wait::until_async(what, wait::SOON, || async {
            let lines = self.lines();
            wait::check(holds(&lines), format!("{:?}, in {}", lines.last(), self.file.display()))
        })
        .await;
    }

    /// Waits for enough events to say that it goes on.
    async fn sees_more(&self) {
        let before = named(&self.lines(), "seen").len();
        self.until("events go on", |lines| named(lines, "seen").len() > before + 20).await;
    }

    fn lists(&self) -> Vec<u64> {
        named(&self.lines(), "listed").iter().map(|at| at.as_u64().expect("a revision")).collect()
    }

    async fn lists_again(&self) {
        let before = self.lists().len();
        self.until("it lists again", |lines| named(lines, "listed").len() > before).await;
    }

    /// Its last words.
    async fn end(&self) -> Value {
        self.until("the end", |lines| !named(lines, "picture").is_empty()).await;
        self.lines().pop().expect("it has spoken")
    }

    /// Between a list and the last event before the next one, every acknowledged change was seen.
    fn missed_nothing(&self, acknowledged: &BTreeMap<u64, String>) {
        let (mut start, mut seen, mut compared) = (u64::MAX, BTreeMap::new(), 0);
        for line in self.lines() {
            if let Some(event) = line["seen"].as_array() {
                let revision = event[2].as_u64().expect("a revision");
                seen.insert(revision, event[1].as_str().expect("a name").to_owned());
            } else if let Some(last) = seen.last_key_value().map(|(last, _)| *last)
                && (line["listed"].is_u64() || line["picture"].is_object())
            {
                for (revision, name) in acknowledged.range((Bound::Excluded(start), Bound::Included(last))) {
                    assert_eq!(seen.get(revision), Some(name), "of the change at {revision}");
                    compared += 1;
                }
                seen.clear();
            }
            start = line["listed"].as_u64().unwrap_or(start);
        }
        assert!(compared > 60, "only {compared} changes were compared");
    }
}

/// What the lines hold under a name.
fn named<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter_map(|line| line.get(name)).collect()
}

/// They create, change and delete, and know what was acknowledged.
struct Writers {
    tasks: JoinSet<()>,
    over: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl Writers {
    fn start(http: &Http) -> Self {
        let mut writers = Self { tasks: JoinSet::new(), over: Arc::default(), acknowledged: Arc::default() };
        for writer in 0..WRITERS {
            let (http, over) = (http.clone(), Arc::clone(&writers.over));
            let acknowledged = Arc::clone(&writers.acknowledged);
            writers.tasks.spawn(async move {
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    // Killed in between: perhaps written, perhaps not, and nobody was told otherwise.
                    let _ = live(&http, &format!("w{writer}-{number}"), number, &acknowledged).await;
                    sleep(PAUSE).await;
                }
            });
        }
        writers
    }

    /// Ends them. Gives revision → name of what was acknowledged.
    async fn stop(mut self) -> BTreeMap<u64, String> {
        self.over.store(true, Ordering::SeqCst);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("no writer panics");
        }
        self.acknowledged.lock().expect("no writer panics").clone()
    }
}

/// The life of one object; three of four end.
async fn live(
    http: &Http,
    name: &str,
    number: usize,
    acknowledged: &Mutex<BTreeMap<u64, String>>,
) -> anyhow::Result<()> {
    let note = |object: &Value| {
        let revision = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        let revision = revision.unwrap_or_else(|| panic!("no revision in {object}"));
        acknowledged.lock().expect("nobody panics with it").insert(revision, name.to_owned());
    };
    note(&http.post(MAPS, &map(name, "1")).await?);
    let path = format!("{MAPS}/{name}");
    let headers = [("content-type", "application/merge-patch+json")];
    let change = json!({"data": {"value": "2"}}).to_string();
    let changed = http.ask(Method::PATCH, &path, &headers, change).await?;
    assert_eq!(changed.code, 200, "{}", changed.text());
    note(&changed.json());
    if !number.is_multiple_of(4) {
        let deleted = http.ask(Method::DELETE, &path, &[], "").await?;
        assert_eq!(deleted.code, 200, "{}", deleted.text());
    }
    Ok(())
}

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"value": value},
        "metadata": {"name": name, "labels": {"story": "informer"}}})
}

/// Writes until the store has written its state anew, and what was before can be watched no more.
async fn flood(cluster: &Cluster) {
    let http = Http::admin(cluster);
    let first = http.post(MAPS, &map("flood", "")).await.expect("the server is up");
    let before = first["metadata"]["resourceVersion"].as_str().expect("a revision");
    let states_before = states(cluster);
    wait::until_async("the store compacts", wait::LATER, || async {
        for value in ["x", "y"].repeat(4) {
            replace(&http, &map("flood", &value.repeat(FLOOD_BYTES))).await;
        }
        let (gone, states) = (is_gone(&http, before).await, states(cluster));
        wait::check(gone && states != states_before, format!("gone: {gone}, {states:?}"))
    })
    .await;
    replace(&http, &map("flood", "over")).await;
}

async fn replace(http: &Http, map: &Value) {
    let path = format!("{MAPS}/{}", map["metadata"]["name"].as_str().expect("a name"));
    let answer = http.ask(Method::PUT, &path, &[], map.to_string()).await.expect("the server is up");
    assert_eq!(answer.code, 200, "{}", answer.text());
}

/// Whether the changes after a revision are gone: the watch's only event says so.
async fn is_gone(http: &Http, revision: &str) -> bool {
    let path = format!("{MAPS}?watch=true&timeoutSeconds=1&resourceVersion={revision}");
    let mut events = http.watch(&path).await.expect("the server is up");
    let first = events.next().await.expect("no broken watch").expect("changes, or that they are gone");
    first["type"] == "ERROR" && first["object"]["code"] == 410
}

/// The states that the store has written.
fn states(cluster: &Cluster) -> Vec<String> {
    let entries = std::fs::read_dir(cluster.data_dir().join("store")).expect("the store has a folder");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut states: Vec<_> = names.filter(|name| name.starts_with("state-") && !name.contains('.')).collect();
    states.sort();
    states
}

/// Name → revision, as the server has it.
async fn served(http: &Http) -> Value {
    let list = http.get(&format!("{MAPS}?labelSelector=story%3Dinformer")).await.expect("lists");
    let entry = |item: &Value| {
        let revision = item["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
        (item["metadata"]["name"].as_str().expect("a name").to_owned(), json!(revision.expect("a revision")))
    };
    list["items"].as_array().expect("items").iter().map(entry).collect::<serde_json::Map<_, _>>().into()
}
