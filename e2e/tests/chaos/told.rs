//! What the server tells of the pods, followed over all of its deaths: one order, and nothing that contradicts what was told
//! before.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use claw_e2e::{capacity::Books, history::History, http::Http};
use serde_json::Value;
use tokio::time::sleep;

use crate::pods;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub code: i64,
    pub signal: Option<i64>,
    /// In the API's words.
    pub reason: String,
}

impl End {
    pub fn of(terminated: &Value) -> Option<Self> {
        Some(Self {
            code: terminated["exitCode"].as_i64()?,
            signal: terminated["signal"].as_i64(),
            reason: terminated["reason"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

/// Everything that was told.
pub struct Told {
    history: History,
    books: Books,
    /// By container id.
    ends: BTreeMap<String, End>,
    /// By pod uid.
    restarts: BTreeMap<String, u64>,
    wrong: Option<String>,
}

impl Told {
    /// Follows until the test ends.
    pub async fn follow(http: &Http) -> Arc<Mutex<Self>> {
        let list = http.get(pods::PATH).await.expect("lists");
        let mut books = Books::of("nvidia.com/gpu");
        books.node(&http.get("/api/v1/nodes/worker").await.expect("reads"));
        let history = History::from_list(&list).expect("a list");
        let (ends, restarts) = Default::default();
        let told = Arc::new(Mutex::new(Self { history, books, ends, restarts, wrong: None }));
        tokio::spawn(watch(http.clone(), Arc::clone(&told)));
        told
    }

    /// How a run ended, if that was ever told.
    pub fn end_of(&self, container_id: &str) -> Option<&End> {
        self.ends.get(container_id)
    }

    /// The first thing that was wrong.
    pub fn complaint(&self) -> Result<(), String> {
        self.wrong.clone().map_or(Ok(()), Err)
    }

    fn tell(&mut self, event: &Value) -> Result<(), String> {
        let (kind, pod) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
        self.history.tell(kind, pod)?;
        self.books.pod(pod, kind == "DELETED")?;
        let status = &pod["status"]["containerStatuses"][0];
        for (id, end) in ends_of(status) {
            let known = self.ends.entry(id.clone()).or_insert_with(|| end.clone());
            if *known != end {
                return Err(format!("{id} had ended as {known:?}, and is now said to have ended as {end:?}"));
            }
        }
        let count = status["restartCount"].as_u64().unwrap_or(0);
        let before = self.restarts.insert(pods::uid_of(pod), count).unwrap_or(0);
        if count < before {
            return Err(format!("restarts went back from {before} to {count}: {pod}"));
        }
        Ok(())
    }
}

async fn watch(http: Http, told: Arc<Mutex<Told>>) {
    loop {
        let revision = lock(&told).history.revision();
        let path = format!("{}?watch=true&resourceVersion={revision}", pods::PATH);
        let Ok(mut events) = http.watch(&path).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while let Ok(Some(event)) = events.next().await {
            let mut told = lock(&told);
            if let Err(wrong) = told.tell(&event) {
                told.wrong.get_or_insert(wrong);
                return;
            }
        }
    }
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of a container's status: the ends that it shows, by container id.
pub fn ends_of(status: &Value) -> BTreeMap<String, End> {
    ["state", "lastState"]
        .iter()
        .filter_map(|state| {
            let terminated = &status[*state]["terminated"];
            Some((id_of(terminated), End::of(terminated)?))
        })
        .collect()
}

/// Without scheme.
pub fn id_of(status: &Value) -> String {
    let id = status["containerID"].as_str().unwrap_or_default();
    id.rsplit("://").next().unwrap_or_default().to_owned()
}

pub fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
        && pod["metadata"]["deletionTimestamp"].is_null()
}
