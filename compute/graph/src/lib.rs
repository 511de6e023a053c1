//! Graphs of tensor operations: what they are made of, what shapes and types come out, and what they cost.
//!
//! Owns the one truth about operations that the API server (which refuses wrong graphs), node agents (which run them) and
//! `claw-compute` (which does the arithmetic) share. Must not know anything that computes, stores or serialises.
//!
//! A [`Graph`] that exists is right: every operation was checked when it was added, and the types of all values are known.

#![deny(missing_docs)]

mod cost;
mod dtype;
mod graph;
mod infer;
mod op;
mod shape;

pub use cost::Cost;
pub use dtype::DType;
pub use graph::{Graph, GraphError, Node, Value};
pub use op::{Binary, Distribution, Op, Reduction, Unary};
pub use shape::{ELEMENTS_MAX, RANK_MAX, Shape, ShapeError, TensorType};
