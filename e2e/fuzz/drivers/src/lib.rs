//! Drivers of the fuzzers: one function for each decoder, which takes bytes and panics when something does not hold.
//!
//! libFuzzer calls them (`e2e/fuzz/targets/`, `make fuzz`), and so does a test of the main workspace (`tests/replay.rs`), with
//! the inputs that are kept in `e2e/fuzz/corpus/` and with a few thousand more that a seed makes of them.
//!
//! A driver makes a structure of its bytes ([`tape`]) and says something about it that must hold: what is written is read
//! back, twice is once, a naive reference finds the same, a refusal is the client's fault and says so.
//!
//! Must never know: anything that is not public in the crates it drives.

#![expect(clippy::unwrap_used, reason = "a driver panics when something does not hold")]

mod applies;
mod backups;
mod cel;
mod credentials;
mod definitions;
mod fields;
mod graphs;
mod journals;
mod json;
mod manifests;
mod messages;
pub mod mutate;
mod objects;
mod patches;
mod picks;
mod protobufs;
mod quantities;
mod requests;
mod selectors;
pub mod tape;
mod world;
mod yaml;

/// One decoder under test.
#[derive(Clone, Copy)]
pub struct Driver {
    /// `selectors`
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
}

/// All of them, by name.
pub const DRIVERS: [Driver; 17] = [
    Driver { name: "applies", run: applies::run },
    Driver { name: "backups", run: backups::run },
    Driver { name: "cel", run: cel::run },
    Driver { name: "credentials", run: credentials::run },
    Driver { name: "definitions", run: definitions::run },
    Driver { name: "fields", run: fields::run },
    Driver { name: "graphs", run: graphs::run },
    Driver { name: "journals", run: journals::run },
    Driver { name: "manifests", run: manifests::run },
    Driver { name: "messages", run: messages::run },
    Driver { name: "objects", run: objects::run },
    Driver { name: "patches", run: patches::run },
    Driver { name: "picks", run: picks::run },
    Driver { name: "protobufs", run: protobufs::run },
    Driver { name: "quantities", run: quantities::run },
    Driver { name: "requests", run: requests::run },
    Driver { name: "selectors", run: selectors::run },
];

/// The driver of that name.
pub fn driver(name: &str) -> Option<Driver> {
    DRIVERS.into_iter().find(|driver| driver.name == name)
}
