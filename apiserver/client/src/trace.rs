//! Where the spans of traces are.
//!
//! A span is one thing that takes time: a request, a reconcile, the start of a container. All parts of a cluster make theirs by
//! `tracing`, at the level TRACE and with the target [`SPANS`]. Unless a process hands traces to a collector nobody listens to
//! that, and making one costs a look at a number.
//!
//! Must never know: collectors.

/// The target of all spans that traces are made of, and of nothing else.
pub const SPANS: &str = "clawbernetes_spans";
