//! The starter process: waits for requests from its agent and forks a process for each.

use std::{
    io::IoSliceMut,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::{StarterRequest, container, exec, sys, talk};

/// Longest request. Arguments of an exec are the only part of unknown length; sockets carry about 200 KiB.
pub(super) const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// How often to try for the lock of a starter that is about to end.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Serves requests until the agent is gone, once no earlier starter holds `lock`.
pub(super) fn serve(lock: &Path) -> ! {
    let socket = sys::own(sys::STARTER_SOCKET);
    // A name of its own in `ps`; the kernel keeps 15 bytes.
    let _ = std::fs::write("/proc/self/comm", "claw-starter");
    // The agent may be stopped from a terminal; what runs here must not be.
    let _ = nix::unistd::setsid();
    sys::ignore_children();
    while let Err(error) = sys::lock_for_life(lock) {
        if !matches!(error.raw_os_error(), Some(nix::libc::EAGAIN | nix::libc::EACCES)) {
            std::process::exit(1);
        }
        std::thread::sleep(LOCK_POLL);
    }
    // One for all requests. A new one each time would be cleared while shims still share its pages,
    // and the kernel would first copy every page for them.
    let mut buffer = vec![0_u8; REQUEST_BYTES_MAX];
    loop {
        match receive(&socket, &mut buffer) {
            Ok(Some((request, reply))) => handle(request, reply, &socket),
            Ok(None) => std::process::exit(0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => std::process::exit(1),
        }
    }
}

fn handle(request: Result<StarterRequest, String>, reply: UnixStream, socket: &OwnedFd) {
    let starter = nix::unistd::getpid();
    match sys::fork() {
        Ok(Some(_)) => {}
        Ok(None) => {
            // Or the agent's next starter could not tell that this one is gone.
            let _ = nix::unistd::close(socket.as_raw_fd());
            sys::reset_signals();
            match request {
                Ok(StarterRequest::Run(job)) => container::run(&job, reply, starter),
                Ok(StarterRequest::Exec(job)) => exec::run(&job, reply),
                Ok(StarterRequest::Talk(job)) => talk::run(&job, &reply),
                Err(message) => answer(&reply, &super::RunReply::Failed(message)),
            }
            std::process::exit(0)
        }
        Err(error) => answer(&reply, &super::RunReply::Failed(format!("forking a shim: {error}"))),
    }
}

type Received = Option<(Result<StarterRequest, String>, UnixStream)>;

/// One request with its reply socket; `None` when the agent closed its end.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<Received> {
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let (length, descriptor) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let descriptor = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        (message.bytes, descriptor)
    };
    match descriptor {
        None if length == 0 => Ok(None),
        None => Err(nix::errno::Errno::EPROTO),
        Some(descriptor) => {
            let request = serde_json::from_slice(&buffer[..length]).map_err(|error| error.to_string());
            Ok(Some((request, UnixStream::from(sys::own(descriptor)))))
        }
    }
}

/// Sends a reply. Never panics: the agent may have been killed meanwhile.
pub(super) fn answer<T: serde::Serialize>(mut reply: &UnixStream, message: &T) {
    if let Ok(text) = serde_json::to_vec(message) {
        let _ = std::io::Write::write_all(&mut reply, &text);
    }
}
