//! What an operation costs at least: arithmetic and traffic, as figures are made of them.

use crate::{Op, TensorType};

/// Arithmetic operations and bytes moved. Counted as literature does: a multiply-add is two, a comparison one, a transcendental
/// function one; each operand is read once and each result written once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Arithmetic operations.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops.saturating_add(other.flops), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// The cost of one operation. Views (another shape, order, a part) move nothing.
pub fn cost(op: &Op, operands: &[&TensorType], results: &[TensorType]) -> Cost {
    if matches!(op, Op::Reshape(_) | Op::Permute(_) | Op::Broadcast(_) | Op::Slice { .. }) {
        return Cost::default();
    }
    let moved: usize = operands.iter().map(|operand| operand.size_bytes()).sum::<usize>()
        + results.iter().map(TensorType::size_bytes).sum::<usize>();
    let flops = per_element(op, operands).saturating_mul(results[0].shape.elements() as u64);
    Cost { flops, bytes: moved as u64 }
}

/// Arithmetic for each element of the first result.
fn per_element(op: &Op, operands: &[&TensorType]) -> u64 {
    let extent = |operand: usize, from_last: usize| {
        let shape = &operands[operand].shape;
        shape[shape.rank() - from_last] as u64
    };
    match op {
        Op::MatMul { transpose_lhs, .. } => 2 * extent(0, if *transpose_lhs { 2 } else { 1 }),
        // Two products for each pair of positions; the softmax between them is not counted, as elsewhere.
        Op::Attention { causal, .. } => {
            let keys = extent(1, 2) * (extent(0, 1) + extent(2, 1)) * 2 / extent(2, 1).max(1);
            if *causal { keys / 2 } else { keys }
        }
        Op::Reduce { axis, .. } | Op::ArgReduce { axis, .. } | Op::CountDifferent { axis, .. } => {
            operands[0].shape[*axis] as u64
        }
        Op::Softmax { .. } => 5,
        Op::LayerNorm { .. } => 8,
        Op::RmsNorm { .. } => 4,
        Op::Rotary { .. } => 3,
        Op::TopK { .. } => extent(0, 1),
        Op::Quantize => 3,
        Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Dequantize(_) | Op::ScatterAdd { .. } => 1,
        _ => 0,
    }
}
