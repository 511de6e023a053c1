//! The load generator behind `make bench`: a release server as a child process, on real TLS sockets with the durable
//! store, and this process as its clients.
//!
//! Clients are as cheap as they can be (one thread, HTTP/1.1 written by hand, answers not parsed), because they share
//! the machine's cores with the server; what they cost is reported apart. It must know of the server only what
//! any client can: its URL, its kubeconfig, and what `/proc` says of its process.

pub mod connection;
pub mod crud;
pub mod pods;
pub mod process;
pub mod report;
pub mod scale;
pub mod watchers;

pub use connection::{Connection, Target};
pub use report::Report;
