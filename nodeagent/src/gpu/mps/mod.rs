//! CUDA's Multi-Process Service: containers that share a GPU run on it side by side, each with a part of its memory and processors. A daemon
//! of NVIDIA's for each set of such GPUs hands out the parts (`nvidia-cuda-mps-control`, of the driver).
//!
//! | module | owns |
//! |---|---|
//! | `sets` | which GPUs have a daemon together, and what its clients may use (pure) |
//! | `launch` | the process that becomes a daemon: what it shares of the machine's memory |
//!
//! A daemon outlives the agent, as its clients do. It is asked at each look; GPUs whose daemon does not answer are withheld, and it is
//! started anew.
//!
//! Sources: NVIDIA's "Multi-Process Service"; NVIDIA's device plugin for Kubernetes (`cmd/mps-control-daemon`).

pub(crate) mod launch;
mod sets;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use self::sets::Set;
pub(super) use self::sets::edits;
use super::{Inventory, apart::Apart};
use crate::ids::hex;

/// The program that is daemon, and asks one.
const CONTROL: &str = "nvidia-cuda-mps-control";
/// The program that changes how GPUs may be used.
const SMI: &str = "nvidia-smi";

/// What a question may take; it takes a few milliseconds.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// What a start may take, and each change of a GPU: the driver wakes it up first.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Between starts that fail.
const RETRY: Duration = Duration::from_secs(30);

/// A question that every daemon answers.
const QUESTION: &str = "get_default_active_thread_percentage";

/// Where daemons and clients meet: below `/run`, whose content ends with the machine's uptime, as daemons do. Not below `/dev/shm`, where
/// daemons see something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// Of the agent with this folder. Its name is short: addresses of sockets end at 107 bytes.
    pub fn of(root_dir: &Path) -> Self {
        let digest = Sha256::digest(root_dir.as_os_str().as_encoded_bytes());
        Self { folder: Path::new("/run").join(format!("clawbernetes-mps-{}", &hex(&digest)[..12])) }
    }

    /// What is memory that the clients of all daemons share.
    fn memory(&self) -> PathBuf {
        self.folder.join("shm")
    }

    /// Where the daemon of a set is reached.
    fn pipe(&self, set: &str) -> PathBuf {
        self.folder.join(set).join("pipe")
    }

    fn log(&self, set: &str) -> PathBuf {
        self.folder.join(set).join("log")
    }

    /// For what the daemon of a set was started.
    fn record(&self, set: &str) -> PathBuf {
        self.folder.join(set).join("set.json")
    }

    /// Makes the folder, which nobody else may enter; what is in it is for users of containers.
    fn make(&self) -> io::Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).create(&self.folder);
        let found = fs::symlink_metadata(&self.folder)?;
        if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(made.err().unwrap_or_else(|| io::Error::other("it is somebody else's")));
        }
        fs::create_dir_all(self.memory())?;
        fs::set_permissions(self.memory(), fs::Permissions::from_mode(0o1777))
    }
}

/// The daemons of a machine.
#[derive(Debug)]
pub(super) struct Daemons {
    place: Place,
    /// What turns into a daemon; see `launch`.
    launcher: Vec<OsString>,
    control: OsString,
    smi: OsString,
    apart: Apart,
    /// Those that answered when they were asked last.
    alive: BTreeSet<String>,
    /// Why those cannot be started that were tried last, and when.
    failed: BTreeMap<String, (String, Instant)>,
}

impl Daemons {
    pub fn new(place: Place) -> Self {
        Self {
            place,
            launcher: launch::command(),
            control: CONTROL.into(),
            smi: SMI.into(),
            apart: Apart::default(),
            alive: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Sees to it that each set of GPUs has its daemon, and withholds those that have none.
    pub fn keep(&mut self, inventory: &mut Inventory) {
        let sets = sets::sets(inventory);
        self.end_others(&sets);
        let mut without: BTreeMap<String, String> = BTreeMap::new();
        for (name, set) in &sets {
            if let Err(why) = self.keep_one(name, set) {
                without.extend(set.gpus.iter().map(|(uuid, _)| (uuid.clone(), why.clone())));
            }
        }
        for gpu in inventory.gpus.iter_mut().filter(|gpu| gpu.withheld.is_none()) {
            gpu.withheld = without.get(&gpu.uuid).cloned().or_else(|| sets::too_many(gpu));
        }
    }

    /// One that answered and does not any more is told of before it is started anew: what it served has ended with it.
    fn keep_one(&mut self, name: &str, set: &Set) -> Result<(), String> {
        let is_known = record(&self.place, name).as_ref() == Some(set);
        if is_known && self.ask(name, QUESTION).is_ok() {
            self.alive.insert(name.to_owned());
            self.failed.remove(name);
            return Ok(());
        }
        if self.alive.remove(name) && is_known {
            return Err("its MPS daemon has ended, and with it what ran there; it is started anew".to_owned());
        }
        if let Some((why, when)) = self.failed.get(name)
            && when.elapsed() < RETRY
        {
            return Err(why.clone());
        }
        match self.start(name, set) {
            Ok(()) => {
                tracing::info!(
                    name,
                    gpus = set.gpus.len(),
                    replicas = set.replicas,
                    "an MPS daemon is started"
                );
                self.alive.insert(name.to_owned());
                self.failed.remove(name);
                Ok(())
            }
            Err(why) => {
                let why = format!("its MPS daemon cannot be started: {why}");
                tracing::warn!(name, why, "GPUs cannot be shared; it is tried again in half a minute");
                self.failed.insert(name.to_owned(), (why.clone(), Instant::now()));
                Err(why)
            }
        }
    }

    fn start(&mut self, name: &str, set: &Set) -> Result<(), String> {
        // One that hangs, or was started for something else, must not stand in the way.
        let _ = self.ask(name, "quit");
        for (uuid, _) in &set.gpus {
            self.set_mode(uuid, "EXCLUSIVE_PROCESS")?;
        }
        let folders = || -> io::Result<()> {
            self.place.make()?;
            [self.place.pipe(name), self.place.log(name)].iter().try_for_each(fs::create_dir_all)
        };
        folders().map_err(|error| format!("{}: {error}", self.place.folder.display()))?;
        let (program, arguments) =
            self.launcher.split_first().ok_or("there is no program to start it with")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(self.place.memory()).arg(&self.control).arg("-d");
        command.envs(self.environment(name)).envs(set.environment());
        self.apart.start(command, START_LIMIT).map_err(|error| format!("{CONTROL}: {error}"))?;
        for line in set.limits() {
            self.ask(name, &line)?;
        }
        // Only now is it what the set wants.
        let text = serde_json::to_vec(set).map_err(|error| error.to_string())?;
        let written = fs::write(self.place.record(name), text);
        written.map_err(|error| format!("{}: {error}", self.place.record(name).display()))
    }

    /// Ends daemons that nothing is shared by any more.
    fn end_others(&mut self, sets: &BTreeMap<String, Set>) {
        for (name, set) in recorded(&self.place) {
            if sets.contains_key(&name) {
                continue;
            }
            let _ = self.ask(&name, "quit");
            for (uuid, _) in &set.gpus {
                let _ = self.set_mode(uuid, "DEFAULT");
            }
            if let Err(error) = fs::remove_dir_all(self.place.folder.join(&name)) {
                tracing::warn!(name, %error, "what an MPS daemon left cannot be removed");
            }
            self.alive.remove(&name);
        }
    }

    /// Nobody but the daemon may use such a GPU, so that nobody goes round it.
    fn set_mode(&mut self, uuid: &str, mode: &str) -> Result<(), String> {
        let mut command = Command::new(&self.smi);
        command.args(["-i", uuid, "-c", mode]);
        let done = self.apart.ask(command, "", START_LIMIT);
        done.map(drop).map_err(|error| format!("{SMI} -i {uuid} -c {mode}: {error}"))
    }

    /// What the daemon of a set says to a line.
    fn ask(&mut self, name: &str, line: &str) -> Result<String, String> {
        let mut command = Command::new(&self.control);
        command.envs(self.environment(name));
        let said = self.apart.ask(command, &format!("{line}\n"), ASK_LIMIT);
        said.map_err(|error| format!("{CONTROL} ({line}): {error}"))
    }

    fn environment(&self, name: &str) -> [(&'static str, PathBuf); 2] {
        [("CUDA_MPS_PIPE_DIRECTORY", self.place.pipe(name)), ("CUDA_MPS_LOG_DIRECTORY", self.place.log(name))]
    }
}

/// For what a daemon was started, if it was.
fn record(place: &Place, name: &str) -> Option<Set> {
    serde_json::from_slice(&fs::read(place.record(name)).ok()?).ok()
}

fn recorded(place: &Place) -> Vec<(String, Set)> {
    let entries = fs::read_dir(&place.folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| Some((name.clone(), record(place, &name)?))).collect()
}

/// Ends all daemons of an agent that will not come back.
pub fn end_all(root_dir: &Path) {
    let place = Place::of(root_dir);
    if !place.folder.exists() {
        return;
    }
    Daemons::new(place.clone()).end_others(&BTreeMap::new());
    let _ = fs::remove_dir_all(&place.folder);
}

#[cfg(test)]
mod tests;
