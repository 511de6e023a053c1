//! A pipe or a terminal, read and written without a thread that waits for it.
#![expect(unsafe_code, reason = "tokio watches a descriptor only for who promises to keep it")]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{Error, shim::sys};

/// Our end.
pub(super) struct End(AsyncFd<OwnedFd>);

impl End {
    pub fn new(descriptor: OwnedFd) -> Result<Self, Error> {
        let flags = fcntl(descriptor.as_raw_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        flags
            .and_then(|flags| fcntl(descriptor.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)))
            .map_err(Error::system("making a pipe non-blocking"))?;
        // SAFETY: it owns the descriptor, which is closed with it and not before.
        let watched = unsafe { AsyncFd::register(descriptor) };
        watched.map(Self).map_err(|error| Error::io("watching", "a pipe")(error.into()))
    }

    /// Another for the same terminal.
    pub fn double(&self) -> Result<Self, Error> {
        let double = self.0.get_ref().try_clone();
        double.map_err(Error::io("duplicating", "a terminal")).and_then(Self::new)
    }

    /// What is there; 0 at the end.
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match nix::unistd::read(self.0.as_raw_fd(), buffer) {
            // How a terminal ends that nobody has open any more.
            Err(Errno::EIO) => Ok(0),
            read => Ok(read?),
        }
    }

    /// What comes next; 0 at the end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |_| self.read_now(buffer)).await
    }

    pub async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let write = |inner: &OwnedFd| Ok(nix::unistd::write(inner.as_fd(), data)?);
            let written = self.0.async_io(Interest::WRITABLE, write).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Gives a terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        sys::resize(self.0.get_ref().as_fd(), columns, rows)
    }
}
