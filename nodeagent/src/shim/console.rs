//! Terminals of containers: libcontainer makes each inside its container, and sends the other end over a socket.

use std::{
    fs::File,
    io::IoSliceMut,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::{short_path, sys};
use crate::Error;

/// The socket's name, in a folder of its own process.
const SOCKET: &str = "console.sock";

/// Waits for one terminal.
pub(super) struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    /// In a folder that nobody else uses meanwhile.
    pub fn listen(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(SOCKET);
        let (_folder, short) = short_path(folder, SOCKET)?;
        let _ = std::fs::remove_file(&short);
        let listener = UnixListener::bind(&short).map_err(Error::io("listening on", &path))?;
        Ok(Self { path, listener })
    }

    /// For libcontainer.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The outer end of the terminal, once the process is made: it was sent before that.
    pub fn receive(self) -> Result<File, Error> {
        self.listener.set_nonblocking(true).map_err(Error::io("making non-blocking", &self.path))?;
        let received = self.listener.accept();
        let _ = std::fs::remove_file(&self.path);
        let (socket, _) = received.map_err(Error::io("receiving a terminal at", &self.path))?;
        let mut descriptors = receive_descriptors(&socket, &mut [0; 64])
            .map_err(Error::system("receiving a terminal"))?
            .1
            .into_iter();
        let terminal =
            descriptors.next().ok_or_else(|| Error::Shim("the container sent no terminal".to_owned()))?;
        Ok(File::from(terminal))
    }
}

/// Bytes and descriptors of one message.
pub(crate) fn receive_descriptors(
    socket: &impl AsFd,
    buffer: &mut [u8],
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; 3]);
    let mut parts = [IoSliceMut::new(buffer)];
    let descriptor = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(descriptor, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            received.extend(descriptors.into_iter().map(sys::own));
        }
    }
    Ok((message.bytes, received))
}
