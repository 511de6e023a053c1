//! Runs a program inside a running container for somebody who talks to it.
//!
//! The agent gets the ends of its pipes, or its terminal, and this process waits for its exit. When the agent hangs up
//! or dies, the program is told so, and soon ended with everything it has started.

use std::{
    fs,
    io::IoSlice,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill, killpg},
        signalfd::{SfdFlags, SignalFd},
        socket::{ControlMessage, MsgFlags, sendmsg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2},
};

use super::{
    TalkJob, TalkReply,
    processes::kill_session,
    sys,
    tenant::{self, Ends},
};
use crate::Error;

/// How long a program whose user is gone may take to end by itself.
const HANG_UP_LIMIT: Duration = Duration::from_secs(1);

/// How often to look whether it has.
const POLL_MS: u8 = 20;

pub(super) fn run(job: &TalkJob, reply: &UnixStream) {
    let _ = fs::write("/proc/self/comm", "claw-exec");
    sys::become_subreaper();
    match start(job) {
        Ok((pid, ends)) => {
            // From here on: before, the program would have inherited the mask.
            let signals = watch_children();
            tell(reply, &TalkReply::Started, &ends);
            drop(ends);
            let Ok(signals) = signals else {
                hang_up(pid);
                return;
            };
            if let Some(code) = wait(pid, &signals, reply) {
                tell(reply, &TalkReply::Exited(code), &[]);
            }
        }
        Err(error) => tell(reply, &TalkReply::Failed(error.full()), &[]),
    }
}

/// The program, and what the agent needs to talk to it: its terminal, or the pipes that were asked for, in order.
fn start(job: &TalkJob) -> Result<(Pid, Vec<OwnedFd>), Error> {
    sys::detach_standard_streams().map_err(Error::io("opening", "/dev/null"))?;
    if job.tty {
        let (pid, terminal) = tenant::start(&job.tenant, Ends::Terminal)?;
        return Ok((pid, terminal.into_iter().map(OwnedFd::from).collect()));
    }
    let mut ours = Vec::new();
    let stdin = if job.stdin {
        let (reader, writer) = new_pipe()?;
        ours.push(writer);
        reader
    } else {
        null(false)?
    };
    let mut output = |asked: bool| -> Result<OwnedFd, Error> {
        if !asked {
            return null(true);
        }
        let (reader, writer) = new_pipe()?;
        ours.push(reader);
        Ok(writer)
    };
    let (stdout, stderr) = (output(job.stdout)?, output(job.stderr)?);
    let (pid, _) = tenant::start(&job.tenant, Ends::Streams(stdin, stdout, stderr))?;
    Ok((pid, ours))
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    pipe2(OFlag::O_CLOEXEC).map_err(Error::system("making a pipe"))
}

fn null(for_writing: bool) -> Result<OwnedFd, Error> {
    let opened = fs::OpenOptions::new().read(!for_writing).write(for_writing).open("/dev/null");
    opened.map(OwnedFd::from).map_err(Error::io("opening", "/dev/null"))
}

fn watch_children() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.add(Signal::SIGPIPE);
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// One line, with descriptors beside it.
fn tell(reply: &UnixStream, message: &TalkReply, ends: &[OwnedFd]) {
    let Ok(mut line) = serde_json::to_vec(message) else { return };
    line.push(b'\n');
    let descriptors: Vec<RawFd> = ends.iter().map(|end| end.as_raw_fd()).collect();
    let control = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[] } else { &control[..] };
    let _ = sendmsg::<()>(reply.as_raw_fd(), &[IoSlice::new(&line)], control, MsgFlags::MSG_NOSIGNAL, None);
}

/// How the program ended; `None` when the agent was gone before.
fn wait(pid: Pid, signals: &SignalFd, reply: &UnixStream) -> Option<i32> {
    loop {
        if let Some(code) = exit_code(pid) {
            return Some(code);
        }
        let mut polled =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(reply.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut polled, PollTimeout::NONE);
        while let Ok(Some(_)) = signals.read_signal() {}
        // The agent says nothing, so what can be read is its end.
        if polled[1].any().unwrap_or(false) {
            hang_up(pid);
            return None;
        }
    }
}

pub(super) fn exit_code(pid: Pid) -> Option<i32> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Ok(_) => None,
        // The container's end took it along before it could be waited for.
        Err(_) => Some(137),
    }
}

/// Ends a program whose user is gone. Its pipes and its terminal are closed by now.
fn hang_up(pid: Pid) {
    let _ = killpg(pid, Signal::SIGHUP);
    let deadline = Instant::now() + HANG_UP_LIMIT;
    while exit_code(pid).is_none() {
        if Instant::now() >= deadline {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            break;
        }
        let _ = poll(&mut [], PollTimeout::from(POLL_MS));
    }
    // What it started, in its session: libcontainer makes it the leader of one.
    kill_session(pid);
}
