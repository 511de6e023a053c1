//! Rows of any axis as rows one after the other, in `f32`, and how much memory that and the like take.

use super::{Float, through_wide, widened, widened_into};
use crate::backend::{Rows, Step};
use crate::plan::{Place, Planned};
use claw_graph::DType;
use rayon::prelude::*;

/// Bytes of scratch memory that a thread works on at once: the second-level cache of a core, less than half of it.
pub const BLOCK_BYTES: usize = 256 << 10;

/// How many rows a thread takes at once.
pub const fn rows_at_once(n: usize) -> usize {
    let rows = BLOCK_BYTES / 4 / if n == 0 { 1 } else { n };
    if rows == 0 { 1 } else { rows }
}

/// Calls `work` with rows one after the other, `n` elements each, and with where what becomes of them goes.
/// `work` is given the number of the first row, and runs in many threads.
pub fn through<T: Float>(
    rows: Rows,
    from: &[T],
    to: &mut [T],
    work: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) {
    let at_once = rows_at_once(rows.n);
    let block = at_once * rows.n;
    if rows.inner == 1 {
        to.par_chunks_mut(block).zip(from.par_chunks(block)).enumerate().for_each_init(
            || (Vec::new(), Vec::new()),
            |(wide, scratch), (number, (to, from))| {
                let from = widened_into(from, wide);
                through_wide(to, scratch, |to| work(number * at_once, from, to));
            },
        );
        return;
    }
    let mut turned = turned(rows, from);
    turned.par_chunks_mut(block).enumerate().for_each_init(Vec::new, |scratch, (number, rows)| {
        scratch.resize(rows.len(), 0.0);
        work(number * at_once, rows, scratch);
        rows.copy_from_slice(scratch);
    });
    to.par_chunks_mut(rows.inner).enumerate().for_each(|(line, to)| {
        let (block, at) = (line / rows.n, line % rows.n);
        for (column, to) in to.iter_mut().enumerate() {
            *to = T::of(turned[(block * rows.inner + column) * rows.n + at]);
        }
    });
}

/// One result for each row, in the order of rows.
pub fn each<T: Float, R: Send>(rows: Rows, from: &[T], results: &mut [R], work: impl Fn(&[f32]) -> R + Sync) {
    if rows.inner == 1 {
        let block = rows_at_once(rows.n);
        results.par_chunks_mut(block).zip(from.par_chunks(block * rows.n)).for_each(|(results, from)| {
            for (result, row) in results.iter_mut().zip(widened(from).chunks(rows.n)) {
                *result = work(row);
            }
        });
        return;
    }
    let turned = turned(rows, from);
    results.par_iter_mut().zip(turned.par_chunks(rows.n)).for_each(|(result, row)| *result = work(row));
}

/// `[outer, n, inner]` as `[outer, inner, n]`.
fn turned<T: Float>(rows: Rows, from: &[T]) -> Vec<f32> {
    let mut turned = vec![0.0; from.len()];
    turned.par_chunks_mut(rows.n).enumerate().for_each(|(row, to)| {
        let (block, column) = (row / rows.inner, row % rows.inner);
        for (at, to) in to.iter_mut().enumerate() {
            *to = from[(block * rows.n + at) * rows.inner + column].wide();
        }
    });
    turned
}

/// Bytes that a step takes beside its tensors, at most, but for some blocks a thread.
pub fn scratch_bytes(planned: &Planned) -> u64 {
    let wide = |place: &Place| 4 * place.of.shape.elements() as u64;
    let widened = |place: &Place| if place.of.dtype == DType::F32 { 0 } else { wide(place) };
    let (operands, results) = (&planned.operands, &planned.results);
    let turned = |rows: &Rows| if rows.inner == 1 { 0 } else { wide(&operands[0]) };
    match &planned.step {
        Step::MatMul | Step::Attention { .. } => operands.iter().chain(results).map(widened).sum(),
        Step::Map(_) | Step::Copy | Step::Cast | Step::Random { .. } | Step::CountDifferent { .. } => 0,
        Step::Reduce { rows, .. } | Step::ArgReduce { rows, .. } | Step::Softmax { rows, .. } => turned(rows),
        Step::Norm { rows, .. } | Step::Quantize { rows } | Step::Dequantize { rows } => turned(rows),
        Step::Rotary { .. } => wide(&operands[0]),
        // A list for each row, and a value with an index for each of its elements.
        Step::TopK { rows, .. } => {
            turned(rows) + 24 * rows.outer as u64 + 2 * wide(&results[0]) + 8 * rows.n as u64
        }
        Step::Gather { .. } => 2 * wide(&operands[1]),
        Step::ScatterAdd { .. } => 2 * wide(&operands[1]) + wide(&operands[0]),
    }
}
