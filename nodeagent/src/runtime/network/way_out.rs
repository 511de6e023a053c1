//! Pods' way out of a network of the agent's own: a program that carries their packets as connections of the user. It is not of ours,
//! it has to be installed, and it outlives agents. Without it pods have each other, services, DNS and the API server.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::home::Home;
use crate::{Error, runtime::records, shim::sys};

/// The program.
const PROGRAM: &str = "slirp4netns";

/// Which process it is.
const RECORD: &str = "way-out.json";

/// The program as it runs.
pub(super) struct WayOut {
    record: PathBuf,
    /// If this agent started it: who starts a process has to take leave of it.
    started: Mutex<Option<Child>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Running {
    pid: i32,
    ticks: u64,
}

impl Running {
    fn is_there(self) -> bool {
        sys::start_ticks(self.pid) == Some(self.ticks)
    }
}

impl WayOut {
    pub(super) fn new(root_dir: &Path) -> Self {
        Self { record: root_dir.join(RECORD), started: Mutex::default() }
    }

    /// Sees to it that there is one, where it can be. Says so where it cannot.
    pub(super) fn open(&self, home: &Home) {
        let Some(namespace) = home.own() else { return };
        let mut started = self.started.lock();
        if started.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            *started = None;
        }
        if self.running().is_some() {
            return;
        }
        match start(namespace, &self.record.with_extension("log"))
            .and_then(|child| self.note(&child).map(|()| child))
        {
            Ok(child) => *started = Some(child),
            Err(error) => tracing::warn!(
                error = %error.full(),
                "pods have no way out of this machine: {PROGRAM} gives them one, if it is installed"
            ),
        }
    }

    fn running(&self) -> Option<Running> {
        records::read_if_whole::<Running>(&self.record).ok().flatten().filter(|running| running.is_there())
    }

    fn note(&self, child: &Child) -> Result<(), Error> {
        let pid = i32::try_from(child.id()).unwrap_or(0);
        records::write(&self.record, &Running { pid, ticks: sys::start_ticks(pid).unwrap_or(0) })
    }

    /// Ends it.
    pub(super) fn close(&self) {
        if let Some(running) = self.running() {
            let _ = kill(Pid::from_raw(running.pid), Signal::SIGKILL);
        }
        if let Some(mut child) = self.started.lock().take() {
            let _ = child.wait();
        }
        let _ = fs::remove_file(&self.record);
    }
}

/// Returns once packets can go. What it has to say against that is in a file, since it lives longer than who reads it.
fn start(namespace: &Path, log: &Path) -> Result<Child, Error> {
    let (mut ready, ready_end) = std::io::pipe().map_err(Error::io("making", "a pipe"))?;
    let said = File::create(log).map_err(Error::io("creating", log))?;
    // The machine's own services, on its loopback, are not for pods.
    let mut command = Command::new(PROGRAM);
    command.args(["--configure", "--disable-host-loopback", "--ready-fd=0", "--netns-type=path"]);
    command.arg(namespace).arg("tap0");
    // Away from the agent's terminal.
    command.process_group(0);
    command.stdin(ready_end).stdout(Stdio::null()).stderr(said);
    let mut child = command.spawn().map_err(Error::io("starting", PROGRAM))?;
    // Or this process would have the end of the pipe, too, and wait for itself.
    drop(command);
    if ready.read_exact(&mut [0]).is_ok() {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(log).unwrap_or_default();
    Err(Error::Network(format!("{PROGRAM}: {}", said.trim().replace('\n', "; "))))
}
