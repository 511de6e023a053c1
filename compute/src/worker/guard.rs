//! Ends the process: when a run takes too long, when somebody asks, when anything panics, and when all is done.
//!
//! Never by returning from `main`, nor by handlers of `exit`: both ask drivers to let go of their devices, and one that hangs would hold the
//! process for good.
#![expect(unsafe_code, reason = "signal handlers, and an end without anything after it")]

use super::report::Reporter;
use super::{failure, say};
use claw_graph::order::{Failure, Reason};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the clock and the signals are looked at: whoever asks for an end waits so long at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often the report's file follows: every so many looks.
const LOOKS_A_TELLING: u32 = 6;

/// What a process that was asked to stop ends with, by convention: 128 and the signal.
const STOPPED_CODE: i32 = 128 + libc::SIGTERM;

/// The signal that asked for the end; 0 if none did.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Async-signal-safe: stores a number.
extern "C" fn ask(signal: libc::c_int) {
    ASKED.store(signal.unsigned_abs(), Ordering::Relaxed);
}

/// Watches over the process.
pub struct Guard(Arc<Shared>);

struct Shared {
    reporter: Reporter,
    /// What must be over by when.
    watched: Mutex<Option<Watched>>,
    /// Panics are answers: a device is being opened.
    is_opening: AtomicBool,
    panics: Mutex<Vec<String>>,
}

struct Watched {
    what: String,
    since: Instant,
    limit: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    /// One that does not watch yet.
    pub fn new(reporter: Reporter) -> Self {
        Self(Arc::new(Shared {
            reporter,
            watched: Mutex::default(),
            is_opening: AtomicBool::new(false),
            panics: Mutex::default(),
        }))
    }

    /// One that watches. Once a process: signals and panics are the process's.
    pub fn start(reporter: Reporter) -> Self {
        let guard = Self::new(reporter);
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // SAFETY: the handler stores a number, which is safe at any moment. The first process of a namespace gets no signal without one.
            unsafe { libc::signal(signal, ask as *const () as libc::sighandler_t) };
        }
        let for_panics = Arc::clone(&guard.0);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            for_panics.panicked(info);
            before(info);
            if !for_panics.is_opening.load(Ordering::Acquire) {
                for_panics.give_up(failure(Reason::DeviceFailed, words(info)), 1);
            }
        }));
        let for_watch = Arc::clone(&guard.0);
        thread::spawn(move || for_watch.watch());
        guard
    }

    /// Does something that must be over after so long; otherwise the process ends.
    pub fn within<T>(&self, limit: Duration, what: &str, work: impl FnOnce() -> T) -> T {
        *lock(&self.0.watched) = Some(Watched { what: what.to_owned(), since: Instant::now(), limit });
        let done = work();
        *lock(&self.0.watched) = None;
        done
    }

    /// Does something whose panics, on any thread, are no end. Gives what they said.
    pub fn tolerant<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<String>) {
        self.0.is_opening.store(true, Ordering::Release);
        let done = work();
        self.0.is_opening.store(false, Ordering::Release);
        (done, std::mem::take(&mut *lock(&self.0.panics)))
    }

    /// All is done.
    pub fn complete(&self) -> ! {
        self.0.end(None, 0)
    }

    /// It could not be done.
    pub fn fail(&self, failure: Failure) -> ! {
        self.0.end(Some(failure), 1)
    }
}

impl Shared {
    fn watch(&self) {
        for look in 0u32.. {
            thread::sleep(LOOK_EVERY);
            if ASKED.load(Ordering::Relaxed) != 0 {
                self.give_up(failure(Reason::Stopped, "the worker was told to stop"), STOPPED_CODE);
            }
            if let Some(hung) = self.hung() {
                self.give_up(hung, 1);
            }
            if look.is_multiple_of(LOOKS_A_TELLING) {
                self.reporter.tell();
            }
        }
    }

    fn hung(&self) -> Option<Failure> {
        let watched = lock(&self.watched);
        let watched = watched.as_ref().filter(|watched| watched.since.elapsed() > watched.limit)?;
        let seconds = watched.limit.as_secs();
        Some(failure(Reason::Hung, format!("{} was not over after {seconds} s", watched.what)))
    }

    fn panicked(&self, info: &PanicHookInfo<'_>) {
        lock(&self.panics).push(words(info));
    }

    /// Ends the process, unless its end was told already: then whoever told it ends it.
    fn give_up(&self, failure: Failure, code: i32) {
        let words = failure.message.clone();
        if self.reporter.end(Some(failure)) {
            say(format_args!("failed: {words}"));
            exit(code);
        }
    }

    fn end(&self, failure: Option<Failure>, code: i32) -> ! {
        let words = failure.as_ref().map(|failure| failure.message.clone());
        if self.reporter.end(failure) {
            match words {
                Some(words) => say(format_args!("failed: {words}")),
                None => say("complete"),
            }
            exit(code);
        }
        loop {
            thread::park();
        }
    }
}

fn words(info: &PanicHookInfo<'_>) -> String {
    let said = info.payload_as_str().unwrap_or("without a word");
    let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
    format!("panicked: {said}{}", place.unwrap_or_default())
}

fn exit(code: i32) -> ! {
    // SAFETY: no state of this process is used after it.
    unsafe { libc::_exit(code) }
}
