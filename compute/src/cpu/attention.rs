//! Attention, a few queries at a time: their scores stay in the cache.

use super::matmul::{Matrix, multiply};
use super::rows::scaled_softmax;
use super::scratch::BLOCK_BYTES;
use super::{Float, read, through_wide, widened, write};
use crate::memory::View;
use gemm::Parallelism;
use rayon::prelude::*;

pub fn attention<T: Float>(causal: bool, scale: f32, operands: &[View], to: &View) {
    let extents = |view: &View| <[usize; 4]>::try_from(&view.of.shape[..]).expect("four axes");
    let ([_, _, positions, width], [_, _, keys, _], [_, _, _, width_out]) =
        (extents(&operands[0]), extents(&operands[1]), extents(&operands[2]));
    let elements: Vec<_> = operands.iter().map(read).collect();
    let wide: Vec<_> =
        elements.iter().zip(operands).map(|(elements, view)| widened(elements.of::<T>(view))).collect();
    let at_once = (BLOCK_BYTES / 4 / keys).clamp(1, positions);
    let blocks = positions.div_ceil(at_once);
    let mut result = write(to);
    let results: Vec<&mut [T]> = result
        .of::<T>(to)
        .chunks_mut(positions * width_out)
        .flat_map(|head| head.chunks_mut(at_once * width_out))
        .collect();
    results.into_par_iter().enumerate().for_each_init(Vec::new, |scores, (number, to)| {
        let (head, first) = (number / blocks, number % blocks * at_once);
        let count = to.len() / width_out;
        scores.resize(count * keys, 0.0);
        let query = Matrix {
            values: &wide[0],
            offset: (head * positions + first) * width,
            row_stride: width,
            column_stride: 1,
        };
        let turned_keys =
            Matrix { values: &wide[1], offset: head * keys * width, row_stride: 1, column_stride: width };
        multiply([count, keys, width], query, turned_keys, scores, Parallelism::None);
        for (at, row) in scores.chunks_mut(keys).enumerate() {
            let seen = if causal { keys - positions + first + at + 1 } else { keys };
            let (seen, unseen) = row.split_at_mut(seen);
            scaled_softmax(scale, seen);
            unseen.fill(0.0);
        }
        let weights = Matrix { values: scores, offset: 0, row_stride: keys, column_stride: 1 };
        // What is not seen has weight 0, and must not count even where it is no number.
        let last_seen = if causal { keys - positions + first + count } else { keys };
        let values = Matrix {
            values: &wide[2],
            offset: head * keys * width_out,
            row_stride: width_out,
            column_stride: 1,
        };
        through_wide(to, &mut Vec::new(), |product| {
            multiply([count, width_out, last_seen], weights, values, product, Parallelism::None);
        });
    });
}
