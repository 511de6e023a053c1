//! A process that writes to a store, reports what was acknowledged, and gets killed.

use std::{
    collections::BTreeMap,
    env,
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{self, ChildStdout, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use claw_apiserver::store::{self as api, Change, Expect, Key, Revision, Store, Write};

use super::{SMALL, draft, put};

const FOLDER: &str = "CLAW_TEST_STORE_FOLDER";
const WRITERS: &str = "CLAW_TEST_STORE_WRITERS";
const KEYS: usize = 10;

/// Longer than a child ever takes between two acknowledgements.
const PATIENCE: Duration = Duration::from_secs(120);

/// The child's end: writes for ever.
pub fn run() {
    let folder = PathBuf::from(env::var_os(FOLDER).expect("started by another test, which names a folder"));
    let count = env::var(WRITERS).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = api::open_sled_with(&folder, SMALL).unwrap();
        let writers = (0..count).map(|writer| tokio::spawn(write(store.clone(), writer)));
        futures::future::join_all(writers).await;
    });
}

/// Goes round a few keys. Each key counts its writes; every seventh write deletes.
async fn write(store: Arc<dyn Store>, writer: usize) {
    for turn in 0usize.. {
        let key = Key::object("", "configmaps", &format!("w{writer}"), &(turn % KEYS).to_string());
        let found = store.get(&key).await.unwrap();
        let count = found.as_ref().map_or(turn as u64 * 1000, |record| counter_in(&record.value) + 1);
        // Most are small; some are larger than a segment, or than what sled keeps in its log.
        let size = [100, 1000, 1400, 30_000, 100_000][[0, 1, 2, 1, 0, 2, 1, 3, 1, 2, 0, 4][turn % 12]];
        let change = match &found {
            Some(_) if turn % 7 == 0 => Change::Delete(draft("gone", 100)),
            _ => Change::Put(draft(&count.to_string(), size)),
        };
        let deleted = matches!(change, Change::Delete(_));
        let expect = found.map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        let mut writes = vec![Write { key: key.clone(), expect, change }];
        let twin = Key::object("", "configmaps", &format!("t{writer}"), &format!("{turn}-{}", process::id()));
        if turn % 5 == 0 {
            writes.push(put(&twin, Expect::Absent, "0", 10));
        }
        let twin = (writes.len() == 2).then_some(twin);
        let revision = store.commit(writes).await.unwrap();
        let state = if deleted { "gone".to_owned() } else { count.to_string() };
        let mut line = format!("\nack {revision} {} {state}\n", key.as_str());
        if let Some(twin) = twin {
            line += &format!("ack {revision} {} 0\n", twin.as_str());
        }
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
    }
}

/// The count that an object holds.
pub fn counter_in(value: &[u8]) -> u64 {
    let object: serde_json::Value = serde_json::from_slice(value).unwrap();
    object["data"].as_str().unwrap().parse().unwrap()
}

/// What was acknowledged.
#[derive(Default)]
pub struct Ledger {
    pub last_revision: Revision,
    /// What was given out before the child began: no revision up to here may be given again.
    pub floor: Revision,
    pub keys: BTreeMap<String, Acked>,
}

/// The last acknowledged state of a key.
#[derive(Clone, Copy, Debug)]
pub enum Acked {
    Count(u64),
    Gone,
}

impl Acked {
    /// Whether a key may hold this: the acknowledged state, or that of the one write after it.
    pub fn allows(self, found: Option<u64>) -> bool {
        match (self, found) {
            (Self::Count(acked), Some(found)) => found == acked || found == acked + 1,
            // Deleted, or written anew, by a write that was on its way.
            (Self::Count(_), None) | (Self::Gone, _) => true,
        }
    }
}

impl Ledger {
    fn add(&mut self, line: &str) {
        let mut words = line.split(' ').skip(1);
        let revision: Revision = words.next().unwrap().parse().unwrap();
        assert!(revision > self.floor, "revision {revision} was given twice");
        let key = words.next().unwrap().to_owned();
        let state = match words.next().unwrap() {
            "gone" => Acked::Gone,
            count => Acked::Count(count.parse().unwrap()),
        };
        // Of one key, acknowledgements come in order.
        self.keys.insert(key, state);
        self.last_revision = self.last_revision.max(revision);
    }
}

/// A running child.
pub struct Child {
    process: process::Child,
    lines: mpsc::Receiver<String>,
}

impl Child {
    /// Starts a child on a folder, with so many writers: one commits in its own thread, several together.
    pub fn start(folder: &Path, writers: usize) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["child_writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(WRITERS, writers.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = forward(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// Reads so many acknowledgements.
    pub fn read_acks(&mut self, ledger: &mut Ledger, count: usize) {
        for _ in 0..count {
            ledger.add(&self.lines.recv_timeout(PATIENCE).expect("the child goes on writing"));
        }
    }

    /// Reads what was acknowledged before the child was frozen.
    pub fn read_waiting_acks(&mut self, ledger: &mut Ledger) {
        self.lines.try_iter().for_each(|line| ledger.add(&line));
    }

    /// Stops all threads of the child where they are, and waits until they have stopped.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.process.id());
        let stopped = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            status.rsplit(')').next().unwrap_or_default().trim_start().starts_with('T')
        };
        super::wait_until("the child stops", || std::fs::read_dir(&tasks).unwrap().flatten().all(stopped));
    }

    /// Kills the child, and reads the rest of what it had acknowledged.
    pub fn kill(&mut self, ledger: &mut Ledger) {
        self.signal(libc::SIGKILL);
        self.process.wait().unwrap();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            ledger.add(&line);
        }
    }

    fn signal(&self, signal: i32) {
        let status =
            Command::new("kill").args([format!("-{signal}"), self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Hands on the acknowledgements. A line cut short by a kill is none.
fn forward(out: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut out = BufReader::new(out);
        let mut line = String::new();
        while out.read_line(&mut line).is_ok_and(|read| read > 0) {
            if line.starts_with("ack ") && line.ends_with('\n') {
                let _ = sender.send(line.trim_end().to_owned());
            }
            line.clear();
        }
    });
    lines
}
