//! Clients that write, and remember what they were promised. No name is used twice, and each is one writer's own, so that a
//! late effect of a request without an answer can be told from a broken promise.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_e2e::{
    dice::Dice,
    history::revision_of,
    http::{Answer, Http},
};
use http::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::PATH;

const WRITERS: u64 = 6;

/// Between two writes of one: a hundred a second together, so that half an hour of them can be kept in memory.
const PAUSE: Duration = Duration::from_millis(50);

/// The label by which objects are in one half now and in the other then, and its values.
pub const HALF: &str = "half";
pub const HALVES: [&str; 2] = ["a", "b"];

/// Objects that a writer has at a time.
const OBJECTS: usize = 20;

/// Superseded states of more bytes than this are forgotten by the server (`apiserver/src/store/ring.rs`: 24 MiB).
const FORGOTTEN_BYTES: usize = 28 << 20;
const LARGE_BYTES: usize = 512 << 10;

/// The writers.
pub struct Writers {
    tasks: JoinSet<Promises>,
    over: CancellationToken,
}

/// What was acknowledged.
#[derive(Default)]
pub struct Promises {
    /// At this revision or a later one.
    there: BTreeMap<String, u64>,
    gone: Vec<String>,
    count: u64,
}

impl Writers {
    pub fn start(http: &Http, dice: &Dice) -> Self {
        let over = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            tasks.spawn(write(http.clone(), number, dice.fork(), over.clone()));
        }
        Self { tasks, over }
    }

    /// Fails when a promise to one of them was broken: until they are stopped, none ends.
    pub fn are_well(&mut self) {
        while let Some(one) = self.tasks.try_join_next() {
            one.expect("no writer found a broken promise");
        }
    }

    /// Ends them, and gives what they were promised.
    pub async fn stop(mut self) -> Promises {
        self.over.cancel();
        let mut all = Promises::default();
        while let Some(one) = self.tasks.join_next().await {
            let one = one.expect("no writer found a broken promise");
            all.there.extend(one.there);
            all.gone.extend(one.gone);
            all.count += one.count;
        }
        all
    }
}

impl Promises {
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether a list of what is there keeps them.
    pub fn are_in(&self, list: &Value) -> Result<(), String> {
        let items = list["items"].as_array().into_iter().flatten();
        let listed: BTreeMap<&str, u64> =
            items.filter_map(|item| item["metadata"]["name"].as_str().zip(revision_of(item).ok())).collect();
        for (name, promised) in &self.there {
            match listed.get(name.as_str()) {
                Some(found) if found >= promised => {}
                found => return Err(format!("{name} was acknowledged at {promised}, and is at {found:?}")),
            }
        }
        let back = self.gone.iter().find(|name| listed.contains_key(name.as_str()));
        back.map_or(Ok(()), |name| Err(format!("{name} was deleted, and is there")))
    }
}

async fn write(http: Http, number: u64, dice: Dice, over: CancellationToken) -> Promises {
    let mut promises = Promises::default();
    for step in 0.. {
        if over.is_cancelled() {
            break;
        }
        let mine: Vec<_> = promises.there.keys().cloned().collect();
        match dice.below(10) {
            _ if mine.len() < 2 => create(&http, format!("w{number}-{step:06}"), &mut promises).await,
            0..3 if mine.len() < OBJECTS => {
                create(&http, format!("w{number}-{step:06}"), &mut promises).await;
            }
            3 | 4 => delete(&http, dice.pick::<String>(&mine), &mut promises).await,
            _ => change(&http, dice.pick::<String>(&mine), step, &mut promises).await,
        }
        sleep(PAUSE).await;
    }
    promises
}

async fn create(http: &Http, name: String, promises: &mut Promises) {
    let metadata = json!({"name": name, "labels": {HALF: HALVES[0]}});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"n": "0"}});
    // Without an answer it may come to be, or not: nobody asks for it again.
    let Some(answer) = answered(http.ask(Method::POST, PATH, &[], object.to_string()).await) else { return };
    let made = answer.expect(201);
    promises.there.insert(name, revision_of(&made).unwrap());
    promises.count += 1;
}

async fn change(http: &Http, name: &str, step: u64, promises: &mut Promises) {
    let half = HALVES[usize::from(step.is_multiple_of(2))];
    let patch = json!({"metadata": {"labels": {HALF: half}}, "data": {"n": step.to_string()}}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let asked = http.ask(Method::PATCH, &format!("{PATH}/{name}"), &headers, patch).await;
    let Some(answer) = answered(asked) else { return };
    let now = revision_of(&answer.expect(200)).unwrap();
    let before = promises.there.insert(name.to_owned(), now);
    assert!(before < Some(now), "{name} went from {before:?} to {now}");
    promises.count += 1;
}

async fn delete(http: &Http, name: &str, promises: &mut Promises) {
    promises.there.remove(name);
    let Some(answer) = answered(http.ask(Method::DELETE, &format!("{PATH}/{name}"), &[], "").await) else {
        return;
    };
    answer.expect(200);
    promises.gone.push(name.to_owned());
    promises.count += 1;
}

/// The answer of a server that is there. One that is just stopping says so, and promises nothing.
fn answered(asked: anyhow::Result<Answer>) -> Option<Answer> {
    asked.ok().filter(|answer| answer.code != 503)
}

/// Changes one large object until the server forgets what was before.
pub async fn outgrow_history(direct: &Http) {
    let text = Arc::<str>::from("x".repeat(LARGE_BYTES));
    for number in 0..FORGOTTEN_BYTES / LARGE_BYTES {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"n": number.to_string(), "text": &*text}});
        let answer =
            direct.ask(Method::PUT, &format!("{PATH}/large"), &[], object.to_string()).await.unwrap();
        if answer.code == 404 {
            direct.post(PATH, &object).await.unwrap();
        } else {
            answer.expect(200);
        }
    }
}
