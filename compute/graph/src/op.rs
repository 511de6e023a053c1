//! The operations.

use crate::{DType, Shape};
use std::fmt;

/// One step of a [`Graph`](crate::Graph). What comes out, and which operands are accepted, is in `infer.rs`; axes are those of
/// the first operand and are already counted from 0.
///
/// Whatever is calculated with floats is calculated in `f32` (or better) and rounded once to the type of the result.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The same number everywhere.
    Fill {
        /// The number, rounded to `dtype`.
        value: f64,
        /// A float type, or `I32`.
        dtype: DType,
        /// How many of it.
        shape: Shape,
    },
    /// Seeded numbers: the same ones on every device, integers to the bit, the others to a rounding or a few.
    Random {
        /// From what they are drawn.
        distribution: Distribution,
        /// The seed; element `i` depends on nothing but the seed and `i`.
        seed: u64,
        /// A float type, or `I32` for integers.
        dtype: DType,
        /// How many.
        shape: Shape,
    },
    /// Each element for itself.
    Unary(Unary),
    /// Two operands, element by element, broadcast to one shape.
    Binary(Binary),
    /// `(condition, a, b)`, broadcast to one shape: `a` where the condition is not zero, `b` where it is.
    Where,
    /// To another element type: rounded to nearest, ties to even; to integers toward zero, held to the range, NaN becomes 0.
    Cast(DType),
    /// Another shape over the same elements in row-major order.
    Reshape(Shape),
    /// Axes in another order: axis `i` of the result is axis `order[i]` of the operand.
    Permute(Vec<usize>),
    /// Repeated to a shape, by the rules of broadcasting.
    Broadcast(Shape),
    /// A part of one axis.
    Slice {
        /// The axis that is cut.
        axis: usize,
        /// The first index that is kept.
        start: usize,
        /// How many are kept.
        len: usize,
    },
    /// Any number of operands, one after the other along an axis.
    Concat {
        /// The axis that grows.
        axis: usize,
    },
    /// One number for each row along an axis.
    Reduce {
        /// Which number.
        reduction: Reduction,
        /// The axis along which rows lie.
        axis: usize,
        /// Whether the axis stays, with extent 1.
        keep: bool,
    },
    /// The index (`I32`) of the largest or smallest element along an axis: the first of equals; a NaN is taken before any number.
    ArgReduce {
        /// The largest, else the smallest.
        largest: bool,
        /// The axis along which is searched.
        axis: usize,
        /// Whether the axis stays, with extent 1.
        keep: bool,
    },
    /// `(a, b)`: how many (`I32`) of their elements differ in any bit, along an axis. Both `F32`, or both `I32`, of one shape. Tells whether
    /// two results are the same without moving them, NaNs and signs of zeros among them.
    CountDifferent {
        /// The axis along which is counted.
        axis: usize,
        /// Whether the axis stays, with extent 1.
        keep: bool,
    },
    /// `exp(x - max) / Σ exp(x - max)` along an axis, or its logarithm.
    Softmax {
        /// The axis that sums to 1.
        axis: usize,
        /// The logarithm, calculated without taking one of a softmax.
        log: bool,
    },
    /// `(x, scale, shift)`: `(x - mean) / √(variance + epsilon) * scale + shift` along the last axis.
    LayerNorm {
        /// Added to the variance.
        epsilon: f64,
    },
    /// `(x, scale)`: `x / √(mean of squares + epsilon) * scale` along the last axis.
    RmsNorm {
        /// Added to the mean of squares.
        epsilon: f64,
    },
    /// Rotary position embedding of `[…, positions, width]`: elements `i` and `i + width/2` turn by `position / base^(2i/width)`.
    Rotary {
        /// 10,000 as published.
        base: f64,
        /// The position of the first row.
        offset: usize,
    },
    /// `[…, m, k] × […, k, n]`, batches broadcast; sums are kept in `f32`.
    MatMul {
        /// The result is `f32`, not of the operands' type.
        wide: bool,
        /// The first operand is `[…, k, m]`.
        transpose_lhs: bool,
        /// The second operand is `[…, n, k]`.
        transpose_rhs: bool,
    },
    /// `(query, key, value)`, each `[batch, heads, positions, width]`: `softmax(query·keyᵀ · scale) · value`.
    Attention {
        /// A query sees keys up to its own position only; the last query is at the last key's.
        causal: bool,
        /// `1/√width` where absent.
        scale: Option<f64>,
    },
    /// The `k` largest (smallest) along the last axis, in order, and their indices (`I32`): two results.
    /// NaN counts as larger than all numbers; of equals the first come first.
    TopK {
        /// How many.
        k: usize,
        /// The largest, else the smallest.
        largest: bool,
    },
    /// `(x, indices)`: parts of `x` along an axis, by an `I32` vector of indices. An index outside is an error when it runs.
    Gather {
        /// The axis that is indexed.
        axis: usize,
    },
    /// `(x, indices, updates)`: `x` with updates added along an axis; equal indices add up, in their order.
    ScatterAdd {
        /// The axis that is indexed.
        axis: usize,
    },
    /// Eight bits for each element, and a scale (`f32`) for each row along the last axis: `scale = max|x| / 127`,
    /// `q = round(x / scale)`, ties to even. A row of zeros has scale 0. Two results.
    Quantize,
    /// `(q, scale)`: `q * scale`.
    Dequantize(DType),
}

/// Functions of one number. NaN stays NaN in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the function of its name")]
pub enum Unary {
    Neg,
    Abs,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Recip,
    Tanh,
    Sigmoid,
    Relu,
    /// `x/2 · (1 + erf(x/√2))`, not its approximation by tanh.
    Gelu,
    /// `x · sigmoid(x)`.
    Silu,
    Erf,
    Sin,
    Cos,
    Floor,
    Ceil,
}

/// Functions of two numbers. Comparisons give 1 and 0, in the type of their operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the function of its name")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// NaN if either is.
    Min,
    /// NaN if either is.
    Max,
    Pow,
    Equal,
    Less,
    LessEqual,
}

/// What a row is reduced to. NaN if any element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the number of its name")]
pub enum Reduction {
    /// 0 for an empty row.
    Sum,
    /// 1 for an empty row.
    Prod,
    /// NaN for an empty row.
    Mean,
    Max,
    Min,
}

/// What random numbers are drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Evenly from `low` up to, and without, `high`.
    Uniform {
        /// The least.
        low: f64,
        /// What is not reached.
        high: f64,
    },
    /// The normal distribution, by Box and Muller's method.
    Normal {
        /// The centre.
        mean: f64,
        /// The standard deviation.
        deviation: f64,
    },
    /// Whole numbers, both ends among them.
    Integers {
        /// The least.
        low: i32,
        /// The largest.
        high: i32,
    },
}

/// Names of a fieldless enum in manifests, and back.
macro_rules! named {
    ($kind:ident { $($variant:ident),+ $(,)? }) => {
        impl $kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in manifests and messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }
    };
}

named!(Unary {
    Neg,
    Abs,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Recip,
    Tanh,
    Sigmoid,
    Relu,
    Gelu,
    Silu,
    Erf,
    Sin,
    Cos,
    Floor,
    Ceil
});
named!(Binary { Add, Sub, Mul, Div, Min, Max, Pow, Equal, Less, LessEqual });
named!(Reduction { Sum, Prod, Mean, Max, Min });

impl Op {
    /// Its name in manifests and messages. Reductions are told apart from functions of two numbers by `Reduce` before them.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fill { .. } => "Fill",
            Self::Random { .. } => "Random",
            Self::Unary(unary) => unary.name(),
            Self::Binary(binary) => binary.name(),
            Self::Where => "Where",
            Self::Cast(_) => "Cast",
            Self::Reshape(_) => "Reshape",
            Self::Permute(_) => "Permute",
            Self::Broadcast(_) => "Broadcast",
            Self::Slice { .. } => "Slice",
            Self::Concat { .. } => "Concat",
            Self::Reduce { reduction, .. } => match reduction {
                Reduction::Sum => "ReduceSum",
                Reduction::Prod => "ReduceProd",
                Reduction::Mean => "ReduceMean",
                Reduction::Max => "ReduceMax",
                Reduction::Min => "ReduceMin",
            },
            Self::ArgReduce { largest: true, .. } => "ArgMax",
            Self::ArgReduce { largest: false, .. } => "ArgMin",
            Self::CountDifferent { .. } => "CountDifferent",
            Self::Softmax { log: false, .. } => "Softmax",
            Self::Softmax { log: true, .. } => "LogSoftmax",
            Self::LayerNorm { .. } => "LayerNorm",
            Self::RmsNorm { .. } => "RmsNorm",
            Self::Rotary { .. } => "Rotary",
            Self::MatMul { .. } => "MatMul",
            Self::Attention { .. } => "Attention",
            Self::TopK { .. } => "TopK",
            Self::Gather { .. } => "Gather",
            Self::ScatterAdd { .. } => "ScatterAdd",
            Self::Quantize => "Quantize",
            Self::Dequantize(_) => "Dequantize",
        }
    }

    /// Whether each element of the result depends only on the elements at its place.
    #[must_use]
    pub const fn is_elementwise(&self) -> bool {
        matches!(self, Self::Unary(_) | Self::Binary(_) | Self::Where)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
