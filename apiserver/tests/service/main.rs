//! The object service and the REST layer, on a real store in process: each row of the contract that clients rely on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod addresses;
mod applies;
mod changes;
mod contract;
mod conversion;
mod custom;
mod deletes;
mod evictions;
mod garbage;
mod lists;
mod mutations;
mod owners;
mod policies;
mod priorities;
mod programs;
mod quotas;
mod races;
mod ranges;
mod rest;
mod restarts;
mod subresources;
mod twins;
mod unattended;
mod usage;
mod versions;
mod watches;
mod webhooks;
mod world;
mod writes;
