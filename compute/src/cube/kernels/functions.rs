//! Functions of numbers, NaN-honest on every device.

use claw_graph::{Binary, Unary};
use cubecl::prelude::*;

/// The larger of two, NaN if either is.
#[cube]
pub fn maximum(a: f32, b: f32) -> f32 {
    select(a.is_nan(), a, select(b.is_nan(), b, max(a, b)))
}

/// The smaller of two, NaN if either is.
#[cube]
pub fn minimum(a: f32, b: f32) -> f32 {
    select(a.is_nan(), a, select(b.is_nan(), b, min(a, b)))
}

#[cube]
pub fn unary(x: f32, #[comptime] function: Unary) -> f32 {
    match comptime!(function) {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => exponential(x),
        Unary::Log => select(x < 0.0, not_a_number(x), select(x.is_nan(), x, x.ln())),
        Unary::Sqrt => root(x),
        Unary::Rsqrt => 1.0 / root(x),
        Unary::Recip => 1.0 / x,
        Unary::Tanh => hyperbolic_tangent(x),
        Unary::Sigmoid => 1.0 / (1.0 + exponential(-x)),
        Unary::Relu => select(x < 0.0, 0.0, x),
        Unary::Gelu => gelu(x),
        Unary::Silu => x / (1.0 + exponential(-x)),
        Unary::Erf => error_function(x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
    }
}

#[cube]
pub fn binary(a: f32, b: f32, #[comptime] function: Binary) -> f32 {
    match comptime!(function) {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => minimum(a, b),
        Binary::Max => maximum(a, b),
        Binary::Pow => a.powf(b),
        Binary::Equal => select(a == b, 1.0, 0.0),
        Binary::Less => select(a < b, 1.0, 0.0),
        Binary::LessEqual => select(a <= b, 1.0, 0.0),
    }
}

/// A NaN, made at run time: shading languages know no constant for it.
#[cube]
pub fn not_a_number(x: f32) -> f32 {
    f32::from_bits(x.to_bits() | 0x7fff_ffffu32)
}

/// What a driver makes of NaN and of numbers far outside is its own affair: they do not get there.
#[cube]
pub fn exponential(x: f32) -> f32 {
    let held = clamp(x, -104.0, 89.0);
    select(x.is_nan(), x, select(x < -104.0, 0.0, held.exp()))
}

#[cube]
fn root(x: f32) -> f32 {
    select(x < 0.0, not_a_number(x), x.sqrt())
}

/// By the series near 0, where a difference of exponentials would cancel.
#[cube]
fn hyperbolic_tangent(x: f32) -> f32 {
    let square = x * x;
    let series = x
        * (1.0
            + square
                * (-0.333_333_34
                    + square * (0.133_333_34 + square * (-0.053_968_254 + square * 0.021_869_488))));
    let size = x.abs();
    let e = exponential(-2.0 * size);
    let far = (1.0 - e) / (1.0 + e);
    select(size < 0.25, series, select(x < 0.0, -far, far))
}

/// `1 - erf(x)` for numbers that are not negative, to 1.2e-7 of itself: a Chebyshev fit in `1 / (1 + x/2)`
/// (Press, Teukolsky, Vetterling, Flannery: Numerical Recipes, "erfc").
#[cube]
fn complement(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * x);
    let far = t * (-0.822_152_2 + t * 0.170_872_77);
    let inner = t * (-1.135_204 + t * (1.488_515_9 + far));
    let fit = t
        * (1.000_023_7
            + t * (0.374_091_96 + t * (0.096_784_18 + t * (-0.186_288_06 + t * (0.278_868_07 + inner)))));
    t * exponential(-x * x - 1.265_512_2 + fit)
}

/// By its series near 0.
#[cube]
fn error_function(x: f32) -> f32 {
    let square = x * x;
    let tail = square * (1.068_376_1e-4 * square - 7.575_757_6e-4);
    let series = 1.0
        + square
            * (-0.333_333_34 + square * (0.1 + square * (-0.023_809_524 + square * (4.629_629_6e-3 + tail))));
    let near = std::f32::consts::FRAC_2_SQRT_PI * x * series;
    let size = x.abs();
    let far = 1.0 - complement(size);
    select(size < 0.5, near, select(x < 0.0, -far, far))
}

#[cube]
fn gelu(x: f32) -> f32 {
    let beside = complement(x.abs() * 0.707_106_77);
    select(x < 0.0, 0.5 * x * beside, x * (1.0 - 0.5 * beside))
}
