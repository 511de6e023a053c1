//! Shims: re-executed subcommands of this same binary, single-threaded, that outlive the agent.
//!
//! One *starter* serves each agent. It is executed once, stays small and single-threaded, and forks
//! a *shim* for every container and a helper for every exec: `libcontainer` must never run in the
//! agent, whose threads make its raw clone deadlock. The shim is the parent of its container. It
//! owns the log pipes, records the exit durably, removes what the kernel holds for the container,
//! and ends. So an agent may die and come back without losing a container, a log line or an exit code.
//!
//! A starter holds a lock for its life, and a shim goes on only if its starter still lives once it has locked its
//! bundle. So when an agent finds no starter of an earlier one, whatever holds no lock will never run.
//!
//! What a bundle folder tells (see [`files`]): the lock is held → the shim lives; `shim.json` → the
//! container was created and may have run; `exit.json` → it is over, and how. Lock free and no
//! `exit.json`: the shim was killed, and the exit code is lost (never reported as 0).
//!
//! Must never know: pods, the API, tokio (except [`client`], which runs in the agent).

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gpu::mps;

mod attach;
pub mod client;
mod console;
mod container;
mod copy;
mod create;
mod exec;
mod filter;
mod logs;
mod mounts;
mod processes;
mod starter;
pub mod sys;
mod talk;
mod tenant;

pub use attach::{Frame, FrameKind};
pub(crate) use console::receive_descriptors;
pub use filter::Filter;
pub(crate) use tenant::{add_term, configuration};

/// First argument of a re-executed starter.
const STARTER_ARGUMENT: &str = "__clawbernetes-container-starter";

/// Names of the files in a bundle folder.
pub mod files {
    /// Made by the agent, locked by the shim (POSIX record lock) for as long as it lives.
    pub const LOCK: &str = "shim.lock";
    /// [`super::ShimRecord`], written after create and before start.
    pub const SHIM: &str = "shim.json";
    /// [`super::ExitRecord`], written durably once the container is over and its log is complete.
    pub const EXIT: &str = "exit.json";
    /// Where the shim answers [`super::ShimRequest`]s.
    pub const SOCKET: &str = "shim.sock";
    /// The log; rotated to `log.1`.
    pub const LOG: &str = "log";
    /// The log before the present one.
    pub const LOG_ROTATED: &str = "log.1";
    /// [`super::Filter`] of system calls, if there is one.
    pub const FILTER: &str = "filter.json";
    /// Mount point of the container's root, within the shim's own mount namespace.
    pub const ROOTFS: &str = "rootfs";
    /// Overlay upper folder: what the container wrote.
    pub const UPPER: &str = "upper";
    /// Overlay work folder.
    pub const WORK: &str = "work";
}

/// What the starter is asked to do. Each request comes with a socket for its reply.
#[derive(Debug, Serialize, Deserialize)]
pub enum StarterRequest {
    /// Create and start a container, and stay its parent.
    Run(RunJob),
    /// Run a command in a running container and report how it went.
    Exec(ExecJob),
    /// Run a program in a running container for somebody who talks to it.
    Talk(TalkJob),
}

/// One container to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunJob {
    /// Identifier for libcontainer.
    pub id: String,
    /// Folder with `config.json`.
    pub bundle: PathBuf,
    /// Where libcontainer keeps its state.
    pub state_root: PathBuf,
    /// Folders of the image, topmost first, which stay as they are; the container gets a writable one over them.
    pub layers: Vec<PathBuf>,
    /// Cgroup path, as in `config.json`.
    pub cgroup: String,
    /// Whether somebody may write to its first process, and for how long.
    pub stdin: Stdin,
    /// Whether its first process has a terminal, as in `config.json`.
    pub tty: bool,
    /// Its processes are among others, so that the kernel does not end the rest of them with the first.
    #[serde(default)]
    pub shares_processes: bool,
}

/// The standard input of a container's first process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Empty.
    #[default]
    Null,
    /// Open for as long as the container runs.
    Open,
    /// Ends when the first who writes to it is done.
    Once,
}

/// A program for a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tenant {
    /// Identifier for libcontainer.
    pub id: String,
    /// Folder with `config.json`.
    pub bundle: PathBuf,
    /// Where libcontainer keeps its state.
    pub state_root: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// One command to run in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecJob {
    /// What and where.
    pub tenant: Tenant,
    /// Killed after so long.
    pub timeout_ms: u64,
}

/// One program to run in a container for somebody who talks to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TalkJob {
    /// What and where.
    pub tenant: Tenant,
    /// Somebody writes to it.
    pub stdin: bool,
    /// Somebody reads what it writes.
    pub stdout: bool,
    /// The same of its errors; with a terminal they are one.
    pub stderr: bool,
    /// It gets a terminal.
    pub tty: bool,
}

/// The starter's answers to [`StarterRequest::Talk`], one JSON line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TalkReply {
    /// It runs. With this come the descriptors: of its terminal; or of the pipes asked for, in order.
    Started,
    /// It has ended: exit code, 128 + signal for a signal.
    Exited(i32),
    /// It could not be started.
    Failed(String),
}

/// The starter's answer to [`StarterRequest::Run`].
#[derive(Debug, Serialize, Deserialize)]
pub enum RunReply {
    /// The container's first process runs.
    Started(ShimRecord),
    /// It does not, and nothing is left of it.
    Failed(String),
}

/// How an exec went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecReply {
    /// It ran to its end.
    Exited {
        /// Exit code, 128 + signal for a signal.
        code: i32,
        /// The beginning of its stdout and stderr.
        output: String,
    },
    /// It was killed after its time-out.
    TimedOut,
    /// It could not be started.
    Failed(String),
}

/// Who watches over a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// Process id of the shim.
    pub shim_pid: i32,
    /// Process id of the container's first process.
    pub init_pid: i32,
    /// When that process started, as the kernel counts: numbers are used again. 0 in records of earlier versions.
    #[serde(default)]
    pub init_ticks: u64,
    /// When it was started.
    pub started_at: Timestamp,
}

impl ShimRecord {
    /// Kills the container's first process, if it still is that.
    pub fn kill_init(&self) {
        if self.init_ticks != 0 && sys::start_ticks(self.init_pid) == Some(self.init_ticks) {
            let _ = sys::signal(nix::unistd::Pid::from_raw(self.init_pid), libc::SIGKILL);
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code, 128 + signal for a signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why, in the API's words.
    pub reason: ExitReason,
    /// A sentence for people; empty when the reason says it all.
    pub message: String,
    /// When its first process started; `None` if it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended, or was found to have ended.
    pub finished_at: Timestamp,
}

/// Why a container ended, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Any other exit code.
    Error,
    /// The kernel killed a process of it for want of memory.
    OOMKilled,
    /// It never started.
    StartError,
    /// Its shim was killed, so nobody saw the exit code.
    ContainerStatusUnknown,
}

impl ExitReason {
    /// As it stands in `state.terminated.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OOMKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::ContainerStatusUnknown => "ContainerStatusUnknown",
        }
    }
}

impl ExitRecord {
    /// Of a container whose start failed. 128 is what runtimes report for that.
    pub fn start_error(message: String, now: Timestamp) -> Self {
        Self {
            code: 128,
            signal: None,
            reason: ExitReason::StartError,
            message,
            started_at: None,
            finished_at: now,
        }
    }

    /// Of a container whose shim was killed.
    pub fn lost(started_at: Timestamp, now: Timestamp) -> Self {
        Self {
            code: 137,
            signal: None,
            reason: ExitReason::ContainerStatusUnknown,
            message: "the shim that watched over the container is gone, and its exit code with it".to_owned(),
            started_at: Some(started_at),
            finished_at: now,
        }
    }
}

/// What a shim may be asked over its socket, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
pub enum ShimRequest {
    /// Send a signal to the container's first process. Answered with a line.
    Signal(i32),
    /// Answered, by closing the connection, once `exit.json` is written.
    Wait,
    /// Answered with a line; then the connection carries [`Frame`]s until one side is done.
    Attach {
        /// The client may write to the first process.
        stdin: bool,
    },
}

/// Runs as starter or becomes a daemon of GPUs, and does not return, if this process was executed as one. Call it first thing
/// in `main`, before any thread exists.
pub fn run_if_asked() {
    mps::launch::run_if_asked(std::env::args_os().skip(1));
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == STARTER_ARGUMENT) {
        starter::serve(&arguments.next().map(PathBuf::from).unwrap_or_default())
    }
}

/// A path that names `file` in `folder` however long the path of the folder is: socket addresses
/// end at 107 bytes. The descriptor must stay open while the path is used.
pub fn short_path(folder: &Path, file: &str) -> Result<(OwnedFd, PathBuf), crate::Error> {
    let opened = std::fs::File::open(folder).map_err(crate::Error::io("opening", folder))?;
    let descriptor = OwnedFd::from(opened);
    let path = format!("/proc/self/fd/{}/{file}", std::os::fd::AsRawFd::as_raw_fd(&descriptor));
    Ok((descriptor, PathBuf::from(path)))
}
