//! Real kubectl, of every version at hand, and where it is said our own command line beside it. One program, so that stories run
//! beside each other: most wait for something most of the time.

mod admission;
mod apply;
mod attach;
mod auth;
mod custom_kinds;
mod drain;
mod everyday;
mod exec;
mod forward;
mod kernel_jobs;
mod kinds;
mod versions;
