//! Attention, a few queries at a time: their scores stay in the cache.

use super::matmul::{Matrix, multiply};
use super::rows::scaled_softmax;
use super::{Float, read, through_wide, widened, write};
use crate::memory::View;
use gemm::Parallelism;
use rayon::prelude::*;

/// Scores that a thread calculates at once: a quarter of a second-level cache, and enough rows for the keys to be packed seldom.
const SCORES_BYTES: usize = 512 << 10;

pub fn attention<T: Float>(causal: bool, scale: f32, operands: &[View], to: &View) {
    let extents = |view: &View| <[usize; 4]>::try_from(&view.of.shape[..]).expect("four axes");
    let ([_, _, positions, width], [_, _, keys, _], [_, _, _, width_out]) =
        (extents(&operands[0]), extents(&operands[1]), extents(&operands[2]));
    let elements: Vec<_> = operands.iter().map(read).collect();
    let wide: Vec<_> =
        elements.iter().zip(operands).map(|(elements, view)| widened(elements.of::<T>(view))).collect();
    let at_once = (SCORES_BYTES / 4 / keys).clamp(1, positions);
    let blocks = positions.div_ceil(at_once);
    let mut result = write(to);
    let results: Vec<&mut [T]> = result
        .of::<T>(to)
        .chunks_mut(positions * width_out)
        .flat_map(|head| head.chunks_mut(at_once * width_out))
        .collect();
    let scratch = || (Vec::new(), Vec::new(), Vec::new());
    results.into_par_iter().enumerate().for_each_init(
        scratch,
        |(scores, scratch_row, wide_result), (number, to)| {
            let (head, first) = (number / blocks, number % blocks * at_once);
            let count = to.len() / width_out;
            // What is not seen has weight 0, and must not count even where it is no number.
            let first_sees = if causal { keys - positions + first + 1 } else { keys };
            let seen = if causal { first_sees + count - 1 } else { keys };
            scores.resize(count * seen, 0.0);
            scratch_row.resize(seen, 0.0);
            let query = Matrix::rows(&wide[0], head * positions + first, width);
            let turned_keys = Matrix::rows(&wide[1], head * keys, width).turned();
            multiply([count, seen, width], query, turned_keys, scores, Parallelism::None);
            for (at, row) in scores.chunks_mut(seen).enumerate() {
                let own = if causal { first_sees + at } else { keys };
                scaled_softmax(scale, &mut row[..own], &mut scratch_row[..own]);
                row[own..].fill(0.0);
            }
            let values = Matrix::rows(&wide[2], head * keys, width_out);
            // What some of them do not see: weights of 0 keep out numbers only.
            let hidden = &wide[2][(head * keys + first_sees) * width_out..(head * keys + seen) * width_out];
            let are_numbers = hidden.iter().all(|value| value.is_finite());
            through_wide(to, wide_result, |product| {
                if are_numbers {
                    let weights = Matrix::rows(scores, 0, seen);
                    return multiply([count, width_out, seen], weights, values, product, Parallelism::None);
                }
                for (at, row) in product.chunks_mut(width_out).enumerate() {
                    let weights = Matrix::rows(scores, at, seen);
                    multiply([1, width_out, first_sees + at], weights, values, row, Parallelism::None);
                }
            });
        },
    );
}
