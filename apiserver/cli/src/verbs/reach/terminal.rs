//! The user's own terminal, and what is typed on it.

use std::{
    io::{self, IsTerminal as _, Read as _},
    os::fd::AsRawFd as _,
    thread,
};

use bytes::Bytes;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::talk::{Listener, PIECES_MAX};
use crate::verbs::output::print_bytes;

/// Sizes that wait: only the last counts, but none is lost by a slow connection for long.
const SIZES_MAX: usize = 4;

/// Standard input as it comes at once.
const INPUT_BYTES: usize = 32 * 1024;

/// Whether somebody types.
pub fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// The terminal hands over every key as it is, for as long as this lives.
pub struct Raw(Termios);

impl Raw {
    /// From now on.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Columns and rows, as they are and as they change.
pub fn sizes() -> io::Result<mpsc::Receiver<(u16, u16)>> {
    let mut changes = signal(SignalKind::window_change())?;
    let (sender, receiver) = mpsc::channel(SIZES_MAX);
    tokio::spawn(async move {
        loop {
            if let Some(size) = size()
                && sender.send(size).await.is_err()
            {
                return;
            }
            changes.recv().await;
        }
    });
    Ok(receiver)
}

/// `None` where the terminal does not say.
#[expect(unsafe_code, reason = "the standard library has no way to ask a terminal for its size")]
fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the struct is what this request fills.
    let done = unsafe { libc::ioctl(io::stdin().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Standard input. It is read by a thread that nobody waits for: a read cannot be called off.
pub fn input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    thread::spawn(move || {
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..length])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Prints what a process writes, as it is.
pub struct Print;

impl Listener for Print {
    async fn stdout(&mut self, data: Bytes) -> io::Result<()> {
        print_bytes(&data)
    }

    async fn stderr(&mut self, data: Bytes) -> io::Result<()> {
        io::Write::write_all(&mut io::stderr().lock(), &data)
    }
}
