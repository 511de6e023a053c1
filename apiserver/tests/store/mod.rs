//! What the store's tests share.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

pub mod child;
pub mod power;

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use claw_apiserver::store::{Change, Draft, Expect, Key, Sizes, Write};

/// Sizes at which segments end and states are written every few dozen writes.
pub const SMALL: Sizes = Sizes { segment: 64 << 10, journal: 256 << 10, part: 64 << 10 };

/// Says that a test did not run; with `CLAW_TEST_NEEDS=all`, as in CI, fails it.
pub fn skip(what: &str, why: &str) {
    let must = std::env::var_os("CLAW_TEST_NEEDS").is_some_and(|needs| needs == "all");
    assert!(!must, "{what} must run here, but cannot: {why}");
    // Not `eprintln!`: the test harness keeps to itself what a passing test prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// An object of about `size` bytes that says `text`.
pub fn draft(text: &str, size: usize) -> Draft {
    let head = r#"{"metadata":{"resourceVersion":""#;
    let bytes = format!(r#"{head}"}},"data":"{text}","padding":"{}"}}"#, "x".repeat(size)).into_bytes();
    Draft { bytes, revision_at: head.len() }
}

/// A put.
pub fn put(key: &Key, expect: Expect, text: &str, size: usize) -> Write {
    Write { key: key.clone(), expect, change: Change::Put(draft(text, size)) }
}

/// Tries until it holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::yield_now();
    }
}
