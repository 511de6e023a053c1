//! What really is on the machine: processes of containers, bundles, logs.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::unistd::Pid;
use serde_json::Value;

use crate::{pods::VISIBLE, told::End};

/// How often it is looked whether something runs twice.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What the program says when it is asked to stop.
const STOPPING: &str = "F received SIGTERM, stopping\n";

/// One run of the one container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub pod_uid: String,
    pub attempt: u32,
}

/// What there is on disk of a run that has started.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub key: Key,
    /// The API's id of the run.
    pub id: String,
    pub shim_pid: i32,
    pub init_pid: i32,
    pub exit: Option<End>,
    folder: PathBuf,
}

impl Bundle {
    /// Whether the process is still what was written down.
    pub fn is(&self, shim: bool) -> bool {
        if shim {
            return fs::read_to_string(format!("/proc/{}/comm", self.shim_pid))
                .is_ok_and(|name| name.trim() == "claw-shim");
        }
        process(self.init_pid).is_some_and(|process| process.container_id == self.id)
    }
}

/// One process of a container.
#[derive(Clone, Debug)]
struct Process {
    pod_uid: String,
    container_id: String,
    gpus: String,
    /// Since boot, in ticks: a process id may be somebody else's later.
    started: String,
}

/// The machine that the pods run on.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// All runs that have started.
    pub fn bundles(&self) -> Vec<Bundle> {
        names(&self.root.join("pods")).iter().flat_map(|uid| self.bundles_of(uid)).collect()
    }

    /// Of one pod.
    pub fn bundles_of(&self, uid: &str) -> Vec<Bundle> {
        let folder = self.root.join("pods").join(uid).join("containers/main");
        let attempts = names(&folder).into_iter().filter_map(|name| name.parse().ok());
        attempts.filter_map(|attempt| bundle(&folder, uid, attempt)).collect()
    }

    /// Who starts containers for the agent.
    pub fn starter(&self) -> Option<Pid> {
        let lock = self.root.join("starter.lock").to_string_lossy().into_owned();
        processes().into_iter().find(|pid| is_starter(*pid, &lock)).map(Pid::from_raw)
    }

    /// What runs, by uid of the pod and id of the container, with one of its processes.
    pub fn running(&self) -> BTreeMap<(String, String), i32> {
        let all = processes().into_iter().filter_map(|pid| Some((pid, process(pid)?)));
        all.filter(|(_, process)| self.root.join("pods").join(&process.pod_uid).exists())
            .map(|(pid, process)| ((process.pod_uid, process.container_id), pid))
            .collect()
    }

    /// Whether a pod has two containers, or a GPU two pods, at one moment.
    fn nothing_twice(&self) -> Result<(), String> {
        let mut by_pod: BTreeMap<String, (i32, Process)> = BTreeMap::new();
        let mut by_gpu: BTreeMap<String, (i32, Process)> = BTreeMap::new();
        for pid in processes() {
            let Some(found) = process(pid) else { continue };
            if !self.root.join("pods").join(&found.pod_uid).exists() {
                continue;
            }
            // Whoever was seen first may be gone by now; else both are there.
            let both = |(earlier, first): &(i32, Process)| {
                first.container_id != found.container_id
                    && process(*earlier).is_some_and(|now| now.started == first.started)
            };
            if let Some(other) = by_pod.get(&found.pod_uid).filter(|other| both(other)) {
                return Err(format!("two containers of one pod: {other:?} and {pid} {found:?}"));
            }
            if let Some(other) = by_gpu.get(&found.gpus).filter(|other| both(other)) {
                return Err(format!("two holders of one GPU: {other:?} and {pid} {found:?}"));
            }
            if found.gpus.starts_with("GPU-") {
                by_gpu.insert(found.gpus.clone(), (pid, found.clone()));
            }
            by_pod.insert(found.pod_uid.clone(), (pid, found));
        }
        Ok(())
    }
}

fn bundle(folder: &Path, uid: &str, attempt: u32) -> Option<Bundle> {
    let folder = folder.join(attempt.to_string());
    let record = |name: &str| serde_json::from_slice::<Value>(&fs::read(folder.join(name)).ok()?).ok();
    let shim = record("shim.json");
    let exit = record("exit.json").map(|exit| End {
        code: exit["code"].as_i64().unwrap_or_default(),
        signal: exit["signal"].as_i64(),
        reason: exit["reason"].as_str().unwrap_or_default().to_owned(),
    });
    if shim.is_none() && exit.is_none() {
        return None;
    }
    let pid =
        |name: &str| shim.as_ref().and_then(|shim| shim[name].as_i64()).and_then(|pid| pid.try_into().ok());
    Some(Bundle {
        key: Key { pod_uid: uid.to_owned(), attempt },
        id: record("run.json")?["id"].as_str()?.to_owned(),
        shim_pid: pid("shim_pid").unwrap_or(0),
        init_pid: pid("init_pid").unwrap_or(0),
        exit,
        folder,
    })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn processes() -> Vec<i32> {
    names(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).collect()
}

/// A process that lives in a container of ours and has begun to be the container's program.
fn process(pid: i32) -> Option<Process> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.split_once("/clawbernetes/pod"))?.1;
    let (pod_uid, container_id) = group.split_once('/')?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything, the start is the twentieth.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let environment = String::from_utf8_lossy(&environment);
    // One that is dead already has none; one that is not yet the program has not this.
    environment.split('\0').find(|pair| pair.starts_with("HOSTNAME="))?;
    let gpus = environment.split('\0').find_map(|pair| pair.strip_prefix(VISIBLE)?.strip_prefix('='));
    Some(Process {
        pod_uid: pod_uid.to_owned(),
        container_id: container_id.to_owned(),
        gpus: gpus.unwrap_or_default().to_owned(),
        started,
    })
}

fn is_starter(pid: i32, lock: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // Shims are its children, with the same command line.
    name.trim() == "claw-starter" && String::from_utf8_lossy(&line).contains(lock)
}

/// Looks all the time whether something runs twice.
pub struct Sampler {
    over: Arc<AtomicBool>,
    wrong: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub fn start(machine: Machine) -> Self {
        let (over, wrong) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Option<String>>>::default());
        let (ends, found) = (Arc::clone(&over), Arc::clone(&wrong));
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                if let Err(wrong) = machine.nothing_twice() {
                    found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(wrong);
                }
                thread::sleep(SAMPLE_EVERY);
            }
        });
        Self { over, wrong, thread: Some(thread) }
    }

    /// What was found.
    pub fn complaint(&self) -> Result<(), String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Ends it; panics with what was found.
    pub fn stop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it only looks");
        }
        self.complaint().expect("nothing ran twice");
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// How far each log was read, so that every line is looked at once.
#[derive(Debug, Default)]
pub struct Logs(BTreeMap<Key, Place>);

#[derive(Debug, Default)]
struct Place {
    /// Bytes.
    read: u64,
    /// Lines.
    lines: u64,
}

impl Logs {
    /// Reads on: the next line is the next number. One that is asked to stop may say so.
    pub fn go_on(&mut self, bundle: &Bundle, is_going: bool) -> Result<(), String> {
        let place = self.0.entry(bundle.key.clone()).or_default();
        let Ok(mut file) = fs::File::open(bundle.folder.join("log")) else { return Ok(()) };
        let mut text = String::new();
        let read = file.seek(SeekFrom::Start(place.read)).and_then(|_| file.read_to_string(&mut text));
        read.map_err(|error| format!("{}: {error}", bundle.folder.display()))?;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            place.read += line.len() as u64;
            if is_going && line.ends_with(STOPPING) {
                continue;
            }
            place.lines += 1;
            let number = line.trim_end().rsplit(' ').next().and_then(|number| number.parse().ok());
            if number != Some(place.lines) || line.split(' ').nth(2) != Some("F") {
                return Err(format!("{:?}: line {} is {line:?}", bundle.key, place.lines));
            }
        }
        Ok(())
    }
}

/// How many lines there are, when each is `NAME NUMBER` and none is missing, doubled or out of order.
pub fn numbered(name: &str, text: &str) -> Result<u64, String> {
    let mut count = 0;
    for line in text.lines() {
        count += 1;
        if line != format!("{name} {count}") {
            return Err(format!("line {count} is {line:?}"));
        }
    }
    Ok(count)
}
