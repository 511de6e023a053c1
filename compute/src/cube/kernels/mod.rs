//! Kernels. Each is generic over the type in memory and calculates in `f32`.

pub mod attention;
pub mod blocks;
pub mod bytes;
pub mod functions;
pub mod held;
pub mod index;
pub mod map;
pub mod random;
pub mod rows;
