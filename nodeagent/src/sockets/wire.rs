//! What agent and holder say to each other: a letter, a name, perhaps a socket. It must stay as it is, for the holder may be older
//! than the agent.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
        listen, sendmsg, socket, socketpair,
    },
};

use crate::shim::{receive_descriptors, short_path, sys};

/// How long either end may take to read what it was told, or to say what it has to say.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Nobody waits in the kernel.
const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// Far above the longest name, which has an address and a port in it.
const MESSAGE_BYTES_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The holder's first word: the network that its sockets are in.
    Network(String),
    /// With a socket: keep it under this name; or, from the holder, this is one.
    Keep(String),
    /// From the holder: that was all.
    All,
    /// Close what has this name.
    Close(String),
    /// Close all, and end.
    End,
}

impl Message {
    fn parts(&self) -> (u8, &str) {
        match self {
            Self::Network(name) => (b'@', name),
            Self::Keep(name) => (b'+', name),
            Self::All => (b'.', ""),
            Self::Close(name) => (b'-', name),
            Self::End => (b'!', ""),
        }
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (letter, name) = bytes.split_first()?;
        let name = || String::from_utf8_lossy(name).into_owned();
        Some(match letter {
            b'@' => Self::Network(name()),
            b'+' => Self::Keep(name()),
            b'.' => Self::All,
            b'-' => Self::Close(name()),
            b'!' => Self::End,
            _ => return None,
        })
    }
}

/// Whole messages, in order; the end of one end is told to the other.
fn new() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)
}

pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, FLAGS)?)
}

pub(super) fn connect(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    let wire = new()?;
    let (_folder, path) = short_path(folder, name).map_err(io::Error::other)?;
    nix::sys::socket::connect(wire.as_raw_fd(), &UnixAddr::new(&path)?)?;
    Ok(wire)
}

/// In place of whoever listened there before.
pub(super) fn serve(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    let listener = new()?;
    let (_folder, path) = short_path(folder, name).map_err(io::Error::other)?;
    let _ = std::fs::remove_file(&path);
    bind(listener.as_raw_fd(), &UnixAddr::new(&path)?)?;
    listen(&listener, Backlog::new(8)?)?;
    Ok(listener)
}

pub(super) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(sys::own(accept4(listener.as_raw_fd(), FLAGS)?))
}

/// The other end does nothing else, and is waited for.
fn wait(wire: &OwnedFd, until: PollFlags) -> io::Result<()> {
    let limit = PollTimeout::try_from(ANSWER_LIMIT).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(wire.as_fd(), until)], limit) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            done => return Ok(done.map(drop)?),
        }
    }
}

pub(super) fn send(wire: &OwnedFd, message: &Message, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let (letter, name) = message.parts();
    let parts = [IoSlice::new(std::slice::from_ref(&letter)), IoSlice::new(name.as_bytes())];
    let descriptors: Vec<RawFd> = socket.iter().map(|socket| socket.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    wait(wire, PollFlags::POLLOUT)?;
    sendmsg::<()>(wire.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// `None` when the other end is gone.
pub(super) fn receive(wire: &OwnedFd) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    wait(wire, PollFlags::POLLIN)?;
    let (length, mut sockets) = receive_descriptors(wire, &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let message = Message::of(&buffer[..length]).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((message, sockets.pop())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (one, other) = pair().unwrap();
        let name = || "dns/udp 10.88.0.1:53".to_owned();
        let all = [
            Message::Network("4026531840".to_owned()),
            Message::Keep(name()),
            Message::All,
            Message::Close(name()),
            Message::End,
        ];
        for message in &all {
            send(&one, message, None).unwrap();
        }
        for message in all {
            assert_eq!(receive(&other).unwrap().unwrap().0, message);
        }
        drop(one);
        assert!(receive(&other).unwrap().is_none());
    }
}
