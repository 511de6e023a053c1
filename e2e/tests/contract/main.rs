//! What clients rely on, line by line, over a real port with requests as they send them.
//!
//! `docs/compatibility.md` names every line and the test that holds it; [`table`] keeps the two together. What takes a clock that
//! stands still, or a store that is asked directly, is tested beside the server, in `apiserver/tests/service/`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod apply;
mod deletes;
mod discovery;
mod errors;
mod lists;
mod objects;
mod openapi;
mod patches;
mod server;
mod table;
mod tables;
mod transport;
mod watches;
mod writes;
