//! Graphs of tensor operations: what they are made of, what shapes and types come out, and what they cost.
//!
//! Owns the one truth about operations that the API server (which refuses wrong graphs), node agents (which run them) and
//! `claw-compute` (which does the arithmetic) share, how graphs are written down, what workers are told and say, and what is
//! known of devices. Must not know anything that computes or stores.
//!
//! A [`Graph`] that exists is right: every operation was checked when it was added, and the types of all values are known.

#![deny(missing_docs)]

mod cost;
pub mod document;
mod dtype;
mod graph;
mod infer;
pub mod known;
mod op;
pub mod order;
pub mod qualification;
mod shape;

pub use cost::Cost;
pub use dtype::DType;
pub use graph::{Graph, GraphError, Node, Value};
pub use op::{Binary, Distribution, Op, Reduction, Unary};
pub use shape::{ELEMENTS_MAX, RANK_MAX, Shape, ShapeError, TensorType};
