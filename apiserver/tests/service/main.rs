//! The object service and the REST layer, on a real store in process: each row of the contract that clients rely on.

mod changes;
mod deletes;
mod lists;
mod rest;
mod subresources;
mod watches;
mod world;
mod writes;
