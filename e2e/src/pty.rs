//! A command on a terminal of its own, as a person would use it.
#![expect(unsafe_code, reason = "taking a terminal over happens between fork and exec")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::pty::{Winsize, openpty};

use crate::wait;

/// A running command and its terminal. Dropped, it is killed.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts a command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let pair = openpty(&winsize(columns, rows), None).expect("the system has terminals");
        let double = || pair.slave.try_clone().expect("a descriptor can be doubled");
        command.stdin(double()).stdout(double()).stderr(double());
        // SAFETY: both calls are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // The command would keep its copies open in ours, and its end would not show.
        *command = Command::new("true");
        drop(pair.slave);
        let screen = Arc::default();
        watch(&pair.master, &screen);
        Self { child, keyboard: File::from(pair.master), screen }
    }

    /// What is on the screen so far.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Types something.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("somebody reads the keyboard");
    }

    /// Waits until something is on the screen.
    ///
    /// # Panics
    /// With the screen, when it never is.
    pub fn shows(&self, text: &str) {
        wait::until(&format!("the screen shows {text:?}"), wait::LATER, || {
            let screen = self.screen();
            wait::check(screen.contains(text), screen)
        });
    }

    /// Drags the window to another size.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = winsize(columns, rows);
        // SAFETY: the descriptor is open and the struct is a valid winsize.
        let done = unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0, "a terminal can be resized");
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and gives its exit code.
    ///
    /// # Panics
    /// With the screen, when it does not end.
    pub fn exit_code(&mut self) -> i32 {
        let screen = self.screen();
        wait::until("the command ends", wait::LATER, || {
            let status = self.child.try_wait().map_err(|error| error.to_string())?;
            status.map(|status| status.code().unwrap_or(-1)).ok_or_else(|| screen.clone())
        })
    }
}

fn watch(terminal: &OwnedFd, screen: &Arc<Mutex<Vec<u8>>>) {
    let mut terminal = File::from(terminal.try_clone().expect("a descriptor can be doubled"));
    let screen = Arc::clone(screen);
    // Ends with the command: reading a terminal that nobody has open fails.
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = terminal.read(&mut buffer) {
            screen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
        }
    });
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the screen shows:\n{}\n---", self.screen());
        }
    }
}
