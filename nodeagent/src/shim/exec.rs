//! Runs one command inside a running container, for probes and hooks.

use std::{
    fs::File,
    io::Read as _,
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::Pid,
};

use super::{
    ExecJob, ExecReply,
    processes::kill_tree,
    starter::answer,
    sys,
    talk::exit_code,
    tenant::{self, Ends},
};
use crate::Error;

/// How much output is kept, as in kubelet's probes.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// How often to look whether the command is over; it does not matter to a probe's period of seconds.
const POLL_MS: u8 = 10;

pub(super) fn run(job: &ExecJob, reply: UnixStream) {
    let _ = std::fs::write("/proc/self/comm", "claw-exec");
    sys::become_subreaper();
    let outcome = match start(job) {
        Ok((pid, output)) => finish(pid, output, Duration::from_millis(job.timeout_ms)),
        Err(error) => ExecReply::Failed(error.full()),
    };
    answer(&reply, &outcome);
}

fn start(job: &ExecJob) -> Result<(Pid, File), Error> {
    sys::detach_standard_streams().map_err(Error::io("opening", "/dev/null"))?;
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(Error::system("making a pipe"))?;
    let second = writer.try_clone().map_err(Error::io("duplicating", "a pipe"))?;
    let null = File::open("/dev/null").map_err(Error::io("opening", "/dev/null"))?;
    let (pid, _) = tenant::start(&job.tenant, Ends::Streams(null.into(), writer, second))?;
    let reader = File::from(reader);
    sys::set_nonblocking(&reader).map_err(Error::io("making non-blocking", "a pipe"))?;
    Ok((pid, reader))
}

fn finish(pid: Pid, mut pipe: File, timeout: Duration) -> ExecReply {
    let deadline = Instant::now() + timeout;
    let mut output = Vec::new();
    let mut open = true;
    loop {
        if open {
            let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut polled, PollTimeout::from(POLL_MS));
            open = read_some(&mut pipe, &mut output);
        } else {
            let _ = poll(&mut [], PollTimeout::from(POLL_MS));
        }
        if let Some(code) = exit_code(pid) {
            while open && output.len() < OUTPUT_BYTES_MAX && read_some(&mut pipe, &mut output) {
                if !has_more(&pipe) {
                    break;
                }
            }
            output.truncate(OUTPUT_BYTES_MAX);
            return ExecReply::Exited { code, output: String::from_utf8_lossy(&output).into_owned() };
        }
        if Instant::now() >= deadline {
            kill_tree(pid);
            return ExecReply::TimedOut;
        }
    }
}

/// Reads what is there; what is over the limit is thrown away. `false` at the end of the stream.
fn read_some(pipe: &mut File, output: &mut Vec<u8>) -> bool {
    let mut buffer = [0_u8; 4096];
    match pipe.read(&mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            if output.len() < OUTPUT_BYTES_MAX {
                output.extend_from_slice(&buffer[..length]);
            }
            true
        }
        Err(error) => {
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
        }
    }
}

fn has_more(pipe: &File) -> bool {
    let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(count) if count > 0)
}
