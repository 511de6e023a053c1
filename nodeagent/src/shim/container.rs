//! The life of one container, seen from its shim.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    syscall::syscall::SyscallType,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    ExitReason, ExitRecord, RunJob, RunReply, ShimRecord, ShimRequest, files,
    logs::{LogStream, LogWriter},
    mounts, short_path,
    starter::answer,
    sys,
};
use crate::{
    Error,
    runtime::{cgroups, records},
};

/// After the exit: how long to wait for the log pipes to end. The kernel kills everything in the
/// container's process namespace with its first process, so they end within milliseconds.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A client that connects and says nothing must not keep the shim from its container.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);

/// How much of a log is read at a time; a pipe holds 64 KiB.
const READ_BYTES: usize = 64 * 1024;

/// Connections held by waiters. One agent waits once; a few more survive its restarts.
const WAITERS_MAX: usize = 16;

/// How willingly the kernel kills this process when memory runs out: later than any container.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";
const SHIM_OOM_SCORE: &str = "-998";

/// Runs the container to its end. The caller then exits this process.
pub(super) fn run(job: &RunJob, reply: UnixStream, starter: Pid) {
    let _ = std::fs::write("/proc/self/comm", "claw-shim");
    let _ = nix::unistd::setsid();
    sys::become_subreaper();
    if let Err(error) = take_bundle(job, starter) {
        // The bundle is somebody else's by now: nothing in it is touched.
        return answer(&reply, &RunReply::Failed(error.full()));
    }
    match prepare(job).and_then(Shim::start) {
        Ok(mut shim) => {
            answer(&reply, &RunReply::Started(shim.record.clone()));
            drop(reply);
            let exit = shim.watch();
            shim.finish(&exit);
        }
        Err(error) => {
            clean_up(job);
            mounts::remove_root(job);
            answer(&reply, &RunReply::Failed(error.full()));
        }
    }
}

/// A container that is created but does not run yet.
struct Created<'a> {
    job: &'a RunJob,
    container: Container,
    stdout: File,
    stderr: File,
}

/// Marks the bundle as this shim's, unless the run was given up meanwhile: whoever gives one up first makes sure that
/// its starter is gone, then looks at the lock.
fn take_bundle(job: &RunJob, starter: Pid) -> Result<(), Error> {
    let lock = job.bundle.join(files::LOCK);
    sys::lock_for_life(&lock).map_err(Error::io("locking", &lock))?;
    if nix::unistd::getppid() == starter {
        Ok(())
    } else {
        Err(Error::Shim("the agent that asked for this run is gone".to_owned()))
    }
}

fn prepare(job: &RunJob) -> Result<Created<'_>, Error> {
    sys::detach_standard_streams().map_err(Error::io("opening", "/dev/null"))?;
    mounts::enter_own_namespace(job)?;
    let own_score = std::fs::read_to_string(OOM_SCORE).unwrap_or_default();
    let (stdout, stdout_end) = log_pipe()?;
    let (stderr, stderr_end) = log_pipe()?;
    let null = File::open("/dev/null").map_err(Error::io("opening", "/dev/null"))?;
    let container = ContainerBuilder::new(job.id.clone(), SyscallType::default())
        .with_root_path(&job.state_root)
        .and_then(|builder| {
            builder.with_stdin(null).with_stdout(stdout_end).with_stderr(stderr_end).validate_id()
        })
        .and_then(|builder| builder.as_init(&job.bundle).with_systemd(false).with_detach(true).build())
        .map_err(|error| Error::Shim(format!("creating the container: {}", chain(&error))))?;
    // libcontainer gave this process the container's score; the shim must be the last to go.
    if std::fs::write(OOM_SCORE, SHIM_OOM_SCORE).is_err() {
        // Without CAP_SYS_RESOURCE nobody may go below what they were given.
        let _ = std::fs::write(OOM_SCORE, own_score.trim());
    }
    Ok(Created { job, container, stdout, stderr })
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

/// A container that runs, and everything that can happen to it.
struct Shim<'a> {
    job: &'a RunJob,
    record: ShimRecord,
    signals: SignalFd,
    listener: UnixListener,
    waiters: Vec<UnixStream>,
    log: LogWriter,
    pipes: [Option<(File, LogStream)>; 2],
    /// For reading from the pipes.
    buffer: Vec<u8>,
    exit: Option<(i32, Option<i32>)>,
}

impl<'a> Shim<'a> {
    fn start(created: Created<'a>) -> Result<Self, Error> {
        let Created { job, mut container, stdout, stderr } = created;
        let init_pid =
            container.pid().ok_or_else(|| Error::Shim("the container has no process".to_owned()))?;
        // Not before create: the container would inherit the blocked signals and the listener.
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block().map_err(Error::system("blocking signals"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(Error::system("opening a signal descriptor"))?;
        let listener = listen(&job.bundle)?;
        let log = LogWriter::open(&job.bundle).map_err(Error::io("opening the log in", &job.bundle))?;
        let record = ShimRecord {
            shim_pid: nix::unistd::getpid().as_raw(),
            init_pid: init_pid.as_raw(),
            started_at: Timestamp::now(),
        };
        // Before start: whoever finds no such record knows that the program never ran.
        records::write(&job.bundle.join(files::SHIM), &record)?;
        container
            .start()
            .map_err(|error| Error::Shim(format!("starting the container: {}", chain(&error))))?;
        let pipes = [Some((stdout, LogStream::new("stdout"))), Some((stderr, LogStream::new("stderr")))];
        let buffer = vec![0; READ_BYTES];
        Ok(Self { job, record, signals, listener, waiters: Vec::new(), log, pipes, buffer, exit: None })
    }

    /// Serves the container until it is over and its log is complete.
    fn watch(&mut self) -> ExitRecord {
        // It may be over already, with its SIGCHLD gone by before the mask was set.
        self.reap();
        let mut drain_until = None;
        loop {
            if self.exit.is_some() {
                let until = *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_LIMIT);
                if self.pipes.iter().all(Option::is_none) || Instant::now() >= until {
                    break;
                }
            }
            let timeout = if drain_until.is_some() { PollTimeout::from(100_u8) } else { PollTimeout::NONE };
            self.serve_once(timeout);
        }
        self.exit_record()
    }

    fn serve_once(&mut self, timeout: PollTimeout) {
        let [signalled, asked, out, err] = self.ready(timeout);
        if out {
            self.read_log(0);
        }
        if err {
            self.read_log(1);
        }
        if signalled {
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap();
        }
        if asked {
            self.accept();
        }
    }

    /// Which of signals, listener, stdout and stderr have something.
    fn ready(&self, timeout: PollTimeout) -> [bool; 4] {
        let mut watched = vec![
            (0, PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)),
            (1, PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)),
        ];
        for (index, pipe) in self.pipes.iter().enumerate() {
            if let Some((file, _)) = pipe {
                watched.push((index + 2, PollFd::new(file.as_fd(), PollFlags::POLLIN)));
            }
        }
        let mut polled: Vec<PollFd<'_>> = watched.iter().map(|(_, poll)| *poll).collect();
        let mut ready = [false; 4];
        if poll(&mut polled, timeout).is_ok() {
            for ((index, _), poll) in watched.iter().zip(&polled) {
                ready[*index] = poll.any().unwrap_or(false);
            }
        }
        ready
    }

    fn read_log(&mut self, index: usize) {
        let Some((file, stream)) = &mut self.pipes[index] else { return };
        match file.read(&mut self.buffer) {
            Ok(0) => {
                stream.finish(&mut self.log, Timestamp::now());
                self.pipes[index] = None;
            }
            Ok(length) => stream.push(&mut self.log, &self.buffer[..length], Timestamp::now()),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.pipes[index] = None,
        }
    }

    fn reap(&mut self) {
        let init = Pid::from_raw(self.record.init_pid);
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == init => self.exit = Some((code, None)),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == init => {
                    self.exit = Some((128 + signal as i32, Some(signal as i32)));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    fn accept(&mut self) {
        let Ok((client, _)) = self.listener.accept() else { return };
        let _ = client.set_read_timeout(Some(CLIENT_TIMEOUT));
        let _ = client.set_write_timeout(Some(CLIENT_TIMEOUT));
        let mut line = String::new();
        if BufReader::new((&client).take(4096)).read_line(&mut line).is_err() {
            return;
        }
        match serde_json::from_str(&line) {
            Ok(ShimRequest::Wait) => {
                self.waiters.retain(is_connected);
                if self.waiters.len() < WAITERS_MAX {
                    self.waiters.push(client);
                }
            }
            Ok(ShimRequest::Signal(number)) => {
                let answer = self.signal(number);
                let _ = writeln!(&client, "{answer}");
            }
            Err(error) => {
                let _ = writeln!(&client, "not a request: {error}");
            }
        }
    }

    fn signal(&self, number: i32) -> String {
        // Once reaped, the process id may belong to somebody else.
        if self.exit.is_some() {
            return "ok".to_owned();
        }
        let sent =
            Signal::try_from(number).and_then(|signal| kill(Pid::from_raw(self.record.init_pid), signal));
        sent.map_or_else(|error| format!("signal {number}: {error}"), |()| "ok".to_owned())
    }

    fn exit_record(&self) -> ExitRecord {
        let (code, signal) = self.exit.unwrap_or((255, None));
        let reason = match code {
            0 => ExitReason::Completed,
            _ if cgroups::oom_kills(&self.job.cgroup) > 0 => ExitReason::OOMKilled,
            _ => ExitReason::Error,
        };
        ExitRecord {
            code,
            signal,
            reason,
            message: String::new(),
            started_at: Some(self.record.started_at),
            finished_at: Timestamp::now(),
        }
    }

    fn finish(mut self, exit: &ExitRecord) {
        for (_, stream) in self.pipes.iter_mut().flatten() {
            stream.finish(&mut self.log, Timestamp::now());
        }
        let _ = records::write_durably(&self.job.bundle.join(files::EXIT), exit);
        self.waiters.clear();
        clean_up(self.job);
        mounts::remove_root(self.job);
        let _ = std::fs::remove_file(self.job.bundle.join(files::SOCKET));
    }
}

fn listen(bundle: &Path) -> Result<UnixListener, Error> {
    let (_folder, path) = short_path(bundle, files::SOCKET)?;
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).map_err(Error::io("listening on", bundle.join(files::SOCKET)))
}

/// A waiter that hung up is readable (end of file).
fn is_connected(client: &UnixStream) -> bool {
    let mut polled = [PollFd::new(client.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut polled, PollTimeout::ZERO), Ok(count) if count > 0)
}

/// Removes what the kernel and libcontainer hold for a container that is over.
fn clean_up(job: &RunJob) {
    let _ = cgroups::kill_and_remove(&job.cgroup);
    let _ = std::fs::remove_dir_all(job.state_root.join(&job.id));
}
