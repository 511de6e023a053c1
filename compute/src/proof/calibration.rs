//! Which size and deadline tell a model from a slower one.
//!
//! A challenge of size `n` takes `2n³ / rate` seconds. The claimed model is given twice what it needs at half of its published dense rate,
//! and the time that a message takes; a size is chosen at which this is well over what messages vary by.

use claw_graph::DType;
use std::time::Duration;

/// What a model's data sheet says: dense arithmetic rates in TFLOP/s, without sparsity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// How its driver names it, or the beginning of that.
    pub name: &'static str,
    /// In `f32`, outside of tensor cores: what sums of whole numbers are multiplied with.
    pub f32: f64,
    /// In `f16` and `bf16`, with sums in `f32`.
    pub half: f64,
}

/// From NVIDIA's data sheets: H100 (2023), H200 (2024), A100 (2021), L40S (2023), RTX 4090 and 3090 (Ada and Ampere whitepapers).
pub const MODELS: &[Model] = &[
    Model { name: "NVIDIA H200", f32: 67.0, half: 989.0 },
    Model { name: "NVIDIA H100", f32: 67.0, half: 989.0 },
    Model { name: "NVIDIA A100", f32: 19.5, half: 312.0 },
    Model { name: "NVIDIA L40S", f32: 91.6, half: 362.0 },
    Model { name: "NVIDIA GeForce RTX 4090", f32: 82.6, half: 165.2 },
    Model { name: "NVIDIA GeForce RTX 3090", f32: 35.6, half: 71.0 },
];

/// What a library reaches of a data sheet's rate at least, where it is tuned for the model at all.
const REACHED: f64 = 0.25;
/// How much more time than that is given.
const MARGIN: f64 = 2.0;

impl Model {
    /// The model that a driver's name stands for.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| name.starts_with(model.name))
    }

    /// Arithmetic operations a second that count on it in a type; `None` for types that are not calculated with.
    fn rate(&self, dtype: DType) -> Option<f64> {
        let tera = match dtype {
            DType::F32 => self.f32,
            DType::F16 | DType::Bf16 => self.half,
            DType::I32 | DType::I8 => return None,
        };
        Some(tera * 1e12 * REACHED)
    }
}

/// The smallest size, a multiple of 256, at which a model takes at least `time`. `None` for types that are not calculated with.
#[must_use]
pub fn size_for(model: &Model, dtype: DType, time: Duration) -> Option<usize> {
    let flops = model.rate(dtype)? * time.as_secs_f64();
    let size = (flops / 2.0).cbrt() as usize;
    Some((size + 1).next_multiple_of(256).min(super::SIZE_MAX))
}

/// How long a model is given for a size, `message` being the longest that a message takes there and back.
#[must_use]
pub fn deadline(model: &Model, dtype: DType, size: usize, message: Duration) -> Option<Duration> {
    let flops = 2.0 * (size as f64).powi(3);
    Some(Duration::from_secs_f64(MARGIN * flops / model.rate(dtype)?) + message)
}
