//! The shim: a re-executed subcommand of this same binary, single-threaded, that is the parent of one container.

/// Runs as shim, and does not return, if this process was started as one. Call it first thing in
/// `main`, before any thread exists.
pub fn run_if_asked() {}
