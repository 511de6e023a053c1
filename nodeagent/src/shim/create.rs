//! Makes a container, up to the moment before its program starts.

use std::{fs::File, os::fd::OwnedFd};

use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    syscall::syscall::SyscallType,
};
use nix::unistd::Pid;

use super::{RunJob, Stdin, console::Console, files, filter::Inside, mounts, sys};
use crate::Error;

/// How willingly the kernel kills this process when memory runs out: later than any container.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";
const SHIM_OOM_SCORE: &str = "-998";

/// A container that is created but does not run yet.
pub(super) struct Created<'a> {
    pub job: &'a RunJob,
    pub container: Container,
    pub ends: Ends,
}

/// The shim's ends of what the first process reads and writes.
pub(super) struct Ends {
    pub input: Option<File>,
    pub stdout: File,
    /// A terminal has one stream.
    pub stderr: Option<File>,
    pub terminal: Option<File>,
}

/// Marks the bundle as this shim's, unless the run was given up meanwhile: whoever gives one up first makes sure that
/// its starter is gone, then looks at the lock.
pub(super) fn take_bundle(job: &RunJob, starter: Pid) -> Result<(), Error> {
    let lock = job.bundle.join(files::LOCK);
    sys::lock_for_life(&lock).map_err(Error::io("locking", &lock))?;
    if nix::unistd::getppid() == starter {
        Ok(())
    } else {
        Err(Error::Shim("the agent that asked for this run is gone".to_owned()))
    }
}

pub(super) fn create(job: &RunJob) -> Result<Created<'_>, Error> {
    sys::detach_standard_streams().map_err(Error::io("opening", "/dev/null"))?;
    mounts::enter_own_namespace(job)?;
    let own_score = std::fs::read_to_string(OOM_SCORE).unwrap_or_default();
    let builder = ContainerBuilder::new(job.id.clone(), SyscallType::default())
        .with_root_path(&job.state_root)
        .map_err(|error| creating(&error))?
        .with_executor(Inside::of(&job.bundle)?);
    let (builder, ends) = if job.tty { (builder, None) } else { with_pipes(builder, job.stdin)? };
    let console = ends.is_none().then(|| Console::listen(&job.bundle)).transpose()?;
    let container = builder
        .with_console_socket(console.as_ref().map(Console::path))
        .validate_id()
        .and_then(|builder| builder.as_init(&job.bundle).with_systemd(false).with_detach(true).build())
        .map_err(|error| creating(&error))?;
    let ends = match (ends, console) {
        (Some(ends), _) => ends,
        (None, console) => on_terminal(console, job.stdin)?,
    };
    // libcontainer gave this process the container's score; the shim must be the last to go.
    if std::fs::write(OOM_SCORE, SHIM_OOM_SCORE).is_err() {
        // Without CAP_SYS_RESOURCE nobody may go below what they were given.
        let _ = std::fs::write(OOM_SCORE, own_score.trim());
    }
    Ok(Created { job, container, ends })
}

fn creating(error: &dyn std::error::Error) -> Error {
    Error::Shim(format!("creating the container: {}", chain(error)))
}

fn with_pipes(builder: ContainerBuilder, stdin: Stdin) -> Result<(ContainerBuilder, Option<Ends>), Error> {
    let (stdout, stdout_end) = log_pipe()?;
    let (stderr, stderr_end) = log_pipe()?;
    let (stdin_end, input) = match stdin {
        Stdin::Null => (File::open("/dev/null").map_err(Error::io("opening", "/dev/null"))?.into(), None),
        Stdin::Open | Stdin::Once => {
            let (reader, writer) =
                nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(Error::system("making a pipe"))?;
            let writer = File::from(writer);
            sys::set_nonblocking(&writer).map_err(Error::io("making non-blocking", "a pipe"))?;
            (reader, Some(writer))
        }
    };
    let builder = builder.with_stdin(stdin_end).with_stdout(stdout_end).with_stderr(stderr_end);
    Ok((builder, Some(Ends { input, stdout, stderr: Some(stderr), terminal: None })))
}

fn on_terminal(console: Option<Console>, stdin: Stdin) -> Result<Ends, Error> {
    let console = console.ok_or_else(|| Error::Shim("nobody waited for the terminal".to_owned()))?;
    let stdout = console.receive()?;
    sys::set_nonblocking(&stdout).map_err(Error::io("making non-blocking", "a terminal"))?;
    let double = || stdout.try_clone().map_err(Error::io("duplicating", "a terminal"));
    let input = if stdin == Stdin::Null { None } else { Some(double()?) };
    Ok(Ends { input, terminal: Some(double()?), stdout, stderr: None })
}

fn log_pipe() -> Result<(File, OwnedFd), Error> {
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(Error::system("making a log pipe"))?;
    let reader = File::from(reader);
    sys::set_nonblocking(&reader).map_err(Error::io("making non-blocking", "a log pipe"))?;
    Ok((reader, writer))
}

/// libcontainer wraps the cause that people need several levels deep.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = source.source();
    }
    // Errors of create hide their cause from everything but `Debug`.
    if text.ends_with("io error") || text.ends_with("syscall error") {
        text = format!("{text} ({error:?})");
    }
    text
}
