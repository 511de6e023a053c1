//! The life of one container, seen from its shim.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::ExitStatusExt as _,
        },
    },
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};

use super::{
    ExitReason, ExitRecord, Frame, FrameKind, RunJob, RunReply, ShimRecord, ShimRequest, Stdin,
    attach::{ATTACHED_MAX, Attached, Input, is_passing},
    create::{self, Created, chain},
    files,
    logs::{LogStream, LogWriter},
    mounts, short_path,
    starter::answer,
    sys,
};
use crate::{
    Error,
    runtime::{cgroups, devices, records},
};

/// After the exit: how long to wait for the log pipes to end. The kernel kills everything in the
/// container's process namespace with its first process, so they end within milliseconds.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A client that connects and says nothing must not keep the shim from its container.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);

/// How much of a log is read at a time; a pipe holds 64 KiB.
const READ_BYTES: usize = 64 * 1024;

/// How often to look whether a client, or a disk without room, still makes the container wait.
const HELD_UP_POLL_MS: u16 = 500;

/// Connections held by waiters. One agent waits once; a few more survive its restarts.
const WAITERS_MAX: usize = 16;

/// Runs the container to its end. The caller then exits this process.
pub(super) fn run(job: &RunJob, reply: UnixStream, starter: Pid) {
    let _ = std::fs::write("/proc/self/comm", "claw-shim");
    let _ = nix::unistd::setsid();
    sys::become_subreaper();
    if let Err(error) = create::take_bundle(job, starter) {
        // The bundle is somebody else's by now: nothing in it is touched.
        return answer(&reply, &RunReply::Failed(error.full()));
    }
    match create::create(job).and_then(Shim::start) {
        Ok(mut shim) => {
            answer(&reply, &RunReply::Started(shim.record.clone()));
            drop(reply);
            // Hundreds of shims wait for hundreds of containers: none needs what it took to start one.
            sys::let_go_of_program();
            let exit = shim.watch();
            shim.finish(&exit);
        }
        Err(error) => {
            clean_up(job);
            mounts::remove_root(job);
            // The program never ran.
            let _ = std::fs::remove_file(job.bundle.join(files::SHIM));
            answer(&reply, &RunReply::Failed(error.full()));
        }
    }
}

/// What a shim waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Listener,
    /// Standard output, standard error.
    Pipe(usize),
    Input,
    Client(usize),
}

/// A container that runs, and everything that can happen to it.
struct Shim<'a> {
    job: &'a RunJob,
    record: ShimRecord,
    signals: SignalFd,
    listener: UnixListener,
    waiters: Vec<UnixStream>,
    attached: Vec<Attached>,
    input: Option<Input>,
    terminal: Option<File>,
    log: LogWriter,
    pipes: [Option<(File, LogStream)>; 2],
    /// For reading from the pipes.
    buffer: Vec<u8>,
    exit: Option<(i32, Option<i32>)>,
}

impl<'a> Shim<'a> {
    fn start(created: Created<'a>) -> Result<Self, Error> {
        let Created { job, mut container, ends } = created;
        let init_pid =
            container.pid().ok_or_else(|| Error::Shim("the container has no process".to_owned()))?;
        // Not before create: the container would inherit the blocked signals and the listener.
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
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
            init_ticks: sys::start_ticks(init_pid.as_raw()).unwrap_or(0),
            started_at: Timestamp::now(),
        };
        devices::guard(&job.cgroup, &job.bundle)?;
        // Before start: whoever finds no such record knows that the program never ran.
        records::write(&job.bundle.join(files::SHIM), &record)?;
        records::reserve(&job.bundle.join(files::EXIT))?;
        container
            .start()
            .map_err(|error| Error::Shim(format!("starting the container: {}", chain(&error))))?;
        Ok(Self {
            job,
            record,
            signals,
            listener,
            waiters: Vec::new(),
            attached: Vec::new(),
            input: ends.input.map(Input::new),
            terminal: ends.terminal,
            log,
            pipes: [
                Some((ends.stdout, LogStream::new("stdout"))),
                ends.stderr.map(|stderr| (stderr, LogStream::new("stderr"))),
            ],
            buffer: vec![0; READ_BYTES],
            exit: None,
        })
    }

    /// Serves the container until it is over and its log is complete.
    fn watch(&mut self) -> ExitRecord {
        // It may be over already, with its SIGCHLD gone by before the mask was set.
        self.reap();
        let mut drain_until = None;
        loop {
            if self.exit.is_some() {
                let until = *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_LIMIT);
                let all_written = self.pipes.iter().all(Option::is_none) && self.log.flush();
                if all_written || Instant::now() >= until {
                    break;
                }
            }
            let timeout = if drain_until.is_some() { PollTimeout::from(100_u8) } else { PollTimeout::NONE };
            self.serve_once(timeout);
        }
        self.exit_record()
    }

    fn serve_once(&mut self, timeout: PollTimeout) {
        self.log.flush();
        let ready = self.ready(timeout);
        for index in 0..self.pipes.len() {
            if ready.contains(&Source::Pipe(index)) {
                self.read_log(index);
            }
        }
        if ready.contains(&Source::Signals) {
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap();
        }
        self.serve_attached(&ready);
        if ready.contains(&Source::Listener) {
            self.accept();
        }
    }

    /// What there is to do, or was when the time was over.
    fn ready(&self, timeout: PollTimeout) -> Vec<Source> {
        let sources = self.sources();
        let mut polled: Vec<PollFd<'_>> =
            sources.iter().map(|(_, descriptor, flags)| PollFd::new(*descriptor, *flags)).collect();
        let timeout = if self.is_held_up() { PollTimeout::from(HELD_UP_POLL_MS) } else { timeout };
        if poll(&mut polled, timeout).is_err() {
            return Vec::new();
        }
        let ready = sources.iter().zip(&polled).filter(|(_, poll)| poll.any().unwrap_or(false));
        ready.map(|((source, ..), _)| *source).collect()
    }

    fn sources(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut all = vec![
            (Source::Signals, self.signals.as_fd(), PollFlags::POLLIN),
            (Source::Listener, self.listener.as_fd(), PollFlags::POLLIN),
        ];
        if !self.is_held_up() {
            for (index, pipe) in self.pipes.iter().enumerate() {
                all.extend(
                    pipe.iter().map(|(file, _)| (Source::Pipe(index), file.as_fd(), PollFlags::POLLIN)),
                );
            }
        }
        if let Some(input) = self.input.as_ref().filter(|input| input.has_waiting()) {
            all.push((Source::Input, input.descriptor(), PollFlags::POLLOUT));
        }
        for (index, client) in self.attached.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, self.may_speak(client));
            flags.set(PollFlags::POLLOUT, client.has_waiting());
            // One with nothing to do would be told of at once, again and again, when it has hung up.
            if !flags.is_empty() {
                all.push((Source::Client(index), client.descriptor(), flags));
            }
        }
        all
    }

    fn read_log(&mut self, index: usize) {
        let Some((file, stream)) = &mut self.pipes[index] else { return };
        match file.read(&mut self.buffer) {
            Ok(length) if length > 0 => {
                let data = &self.buffer[..length];
                stream.push(&mut self.log, data, Timestamp::now());
                let kind = if index == 0 { FrameKind::Stdout } else { FrameKind::Stderr };
                for client in &mut self.attached {
                    // One that is gone is found readable next.
                    let _ = client.send(kind, data, Instant::now());
                }
            }
            Err(error) if is_passing(&error) => {}
            // The end; of a terminal that nobody has open any more, it is an error.
            Ok(_) | Err(_) => {
                stream.finish(&mut self.log, Timestamp::now());
                self.pipes[index] = None;
            }
        }
    }

    /// Whether the container is to wait, for a client or for room on the disk. Not once it is over: what it wrote is then all
    /// there is.
    fn is_held_up(&self) -> bool {
        self.exit.is_none() && (self.log.waits() || self.attached.iter().any(Attached::is_full))
    }

    /// Whether there is room for what a client may say.
    fn may_speak(&self, client: &Attached) -> bool {
        !client.writes || self.input.as_ref().is_none_or(Input::has_room)
    }

    fn serve_attached(&mut self, ready: &[Source]) {
        let now = Instant::now();
        for (index, mut client) in std::mem::take(&mut self.attached).into_iter().enumerate() {
            let is_there = !client.is_stalled(now)
                && (!ready.contains(&Source::Client(index)) || self.serve_client(&mut client, now).is_ok());
            if is_there {
                self.attached.push(client);
            } else if client.writes {
                self.input_done();
            }
        }
        if self.input.as_mut().is_some_and(|input| !input.flush()) {
            self.input = None;
        }
    }

    fn serve_client(&mut self, client: &mut Attached, now: Instant) -> std::io::Result<()> {
        client.flush(now)?;
        if !self.may_speak(client) {
            return Ok(());
        }
        for Frame { kind, data } in client.hear(&mut self.buffer)? {
            match kind {
                FrameKind::Stdin if client.writes => {
                    self.input.iter_mut().for_each(|input| input.push(&data));
                }
                FrameKind::StdinEnd if client.writes => self.input_done(),
                FrameKind::Resize => self.resize(&data),
                _ => {}
            }
        }
        Ok(())
    }

    /// A client that wrote to the process is done.
    fn input_done(&mut self) {
        if self.job.stdin == Stdin::Once {
            self.input.iter_mut().for_each(Input::end);
        }
    }

    fn resize(&self, data: &[u8]) {
        if let (Some(terminal), [a, b, c, d]) = (&self.terminal, data) {
            let (columns, rows) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            let _ = sys::resize(terminal.as_fd(), columns, rows);
        }
    }

    fn reap(&mut self) {
        let ran = self.exit.is_none();
        self.collect();
        if ran && self.exit.is_some() && self.job.shares_processes {
            // They hold the pipes of the log open.
            cgroups::kill_all_in(&self.job.cgroup);
        }
    }

    fn collect(&mut self) {
        let init = Pid::from_raw(self.record.init_pid);
        while let Some((pid, status)) = sys::reap_one() {
            if pid == init {
                let signal = status.signal();
                let code = status.code().or_else(|| Some(128 + signal?)).unwrap_or(255);
                self.exit = Some((code, signal));
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
            Ok(ShimRequest::Attach { stdin }) => self.attach(client, stdin),
            Ok(ShimRequest::Signal(number)) => {
                let answer = self.signal(number);
                let _ = writeln!(&client, "{answer}");
            }
            Err(error) => {
                let _ = writeln!(&client, "not a request: {error}");
            }
        }
    }

    fn attach(&mut self, client: UnixStream, stdin: bool) {
        if self.attached.len() >= ATTACHED_MAX {
            self.attached.retain(|client| !has_hung_up(client.descriptor()));
        }
        if self.exit.is_some() || self.attached.len() >= ATTACHED_MAX {
            let why = if self.exit.is_some() { "the container is over" } else { "too many are attached" };
            let _ = writeln!(&client, "{why}");
            return;
        }
        let writes = stdin && self.input.is_some();
        if writeln!(&client, "ok").is_ok()
            && let Ok(client) = Attached::new(client, writes)
        {
            self.attached.push(client);
        }
    }

    fn signal(&self, number: i32) -> String {
        // Once reaped, the process id may belong to somebody else.
        if self.exit.is_some() {
            return "ok".to_owned();
        }
        let sent = sys::signal(Pid::from_raw(self.record.init_pid), number);
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
        let mut exit = exit.clone();
        if !self.log.flush() {
            exit.message = "the end of its log is lost: there was no room for it on the disk".to_owned();
        }
        let _ = records::write_reserved(&self.job.bundle.join(files::EXIT), &exit);
        self.waiters.clear();
        self.attached.into_iter().for_each(Attached::finish);
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

/// Whether there is nobody at the other end.
fn has_hung_up(client: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(client, PollFlags::empty())];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(count) if count > 0)
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
