//! Tensor operations on devices: GPUs through CubeCL (CUDA, Vulkan, Metal), and the CPU.
//!
//! Owns devices, memory on them, kernels, and the float64 reference that all of them are held to. Must not know any API type:
//! what is calculated arrives as a [`claw_graph::Graph`].
//!
//! *A wrong answer returned as success is the worst that can happen here.* Whatever was started on a device is asked how it
//! ended before anything of it is read, and what a device cannot do is an error when it is asked for, never zeros.
//!
//! ```
//! use claw_compute::{Device, Graph, Op, Shape, TensorType, Unary, DType};
//!
//! let device = Device::cpu();
//! let x = device.tensor(&[1.0f32, 4.0, 9.0], &Shape::new([3])?)?;
//! let mut graph = Graph::new();
//! let input = graph.input("x", x.of().clone())?;
//! let root = graph.add("root", Op::Unary(Unary::Sqrt), &[input])?;
//! graph.output(root[0]);
//! let results = device.run(&graph, &[x])?;
//! assert_eq!(results[0].to_vec::<f32>()?, [1.0, 2.0, 3.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(missing_docs)]

mod backend;
mod cpu;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
mod device;
mod error;
mod memory;
mod philox;
mod plan;
pub mod proof;
pub mod qualify;
pub mod reference;
mod tensor;
pub mod worker;

pub use backend::Properties;
pub use claw_graph::known::Known;
pub use claw_graph::{
    Binary, Cost, DType, Distribution, Graph, GraphError, Node, Op, Reduction, Shape, ShapeError, TensorType,
    Unary, Value,
};
pub use device::{Device, known, known_of};
pub use error::Error;
pub use tensor::{Element, Tensor};
