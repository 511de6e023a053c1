//! What is calculated along rows: reductions, softmax, norms, rotation, quantisation.

use super::math::{self, vectored};
use super::{Float, read, scratch, through_wide, widened, widened_into, write};
use crate::backend::Rows;
use crate::memory::View;
use claw_graph::Reduction;
use rayon::prelude::*;

vectored! {
    fn reduced(reduction: Reduction, row: &[f32]) -> f32 {
        match reduction {
            Reduction::Sum => math::sum(row, f64::from) as f32,
            Reduction::Mean => (math::sum(row, f64::from) / row.len() as f64) as f32,
            Reduction::Prod => row.iter().map(|x| f64::from(*x)).product::<f64>() as f32,
            Reduction::Max => math::max(row, 1.0),
            Reduction::Min => -math::max(row, -1.0),
        }
    }

    fn extreme(row: &[f32], sign: f32) -> f32 {
        math::max(row, sign)
    }

    /// Rows of `n` elements.
    fn softmax_rows(log: bool, n: usize, from: &[f32], to: &mut [f32]) {
        let mut largest = math::largest_number(&from[..n]);
        for (number, (row, to)) in from.chunks(n).zip(to.chunks_mut(n)).enumerate() {
            let next = from.get((number + 1) * n..(number + 2) * n).unwrap_or(row);
            // NaN, if there is one, is in the sum, and so in all results.
            let (sum, next_largest) = math::exponentials(row, largest, to, next);
            if log {
                // Neither is over 0: nothing cancels.
                let sum = sum.ln() as f32;
                for (x, to) in row.iter().zip(to) {
                    *to = (x - largest) - sum;
                }
            } else {
                let over = (1.0 / sum) as f32;
                math::each(to, |e| e * over);
            }
            largest = next_largest;
        }
    }

    /// A row becomes the softmax of its multiple.
    pub fn scaled_softmax(scale: f32, row: &mut [f32], scratch: &mut [f32]) {
        for (x, scaled) in row.iter().zip(scratch.iter_mut()) {
            *scaled = x * scale;
        }
        let (sum, _) = math::exponentials(scratch, math::largest_number(scratch), row, scratch);
        let over = (1.0 / sum) as f32;
        math::each(row, |e| e * over);
    }

    /// Rows of `n` elements: with a shift about the mean, without one as they are.
    fn norm_rows(epsilon: f32, n: usize, from: &[f32], to: &mut [f32], scale: &[f32], shift: Option<&[f32]>) {
        for (row, to) in from.chunks(n).zip(to.chunks_mut(n)) {
            match shift {
                Some(shift) => layer_norm_row(epsilon, row, to, scale, shift),
                None => root_mean_square_row(epsilon, row, to, scale),
            }
        }
    }

    fn turn_row(turns: &[(f32, f32)], row: &[f32], to: &mut [f32]) {
        let (left, right) = row.split_at(turns.len());
        let (to_left, to_right) = to.split_at_mut(turns.len());
        for (at, (cos, sin)) in turns.iter().enumerate() {
            to_left[at] = left[at] * cos - right[at] * sin;
            to_right[at] = left[at] * sin + right[at] * cos;
        }
    }

    /// Writes a row in eight bits, and returns its scale.
    fn quantize_row(row: &[f32], q: &mut [i8]) -> f32 {
        let scale = math::largest_size(row) / 127.0;
        if scale == 0.0 {
            q.fill(0);
        } else {
            for (x, q) in row.iter().zip(q) {
                *q = math::to_i8(x / scale);
            }
        }
        scale
    }

    fn dequantize_row(scale: f32, q: &[i8], to: &mut [f32]) {
        for (q, to) in q.iter().zip(to) {
            *to = f32::from(*q) * scale;
        }
    }
}

#[inline(always)]
fn layer_norm_row(epsilon: f32, row: &[f32], to: &mut [f32], scale: &[f32], shift: &[f32]) {
    let n = row.len() as f64;
    let mean = math::sum(row, f64::from) / n;
    // In two parts, so that what is taken away is exact where the row is far from 0.
    let high = mean as f32;
    let low = (mean - f64::from(high)) as f32;
    let squares = math::sum(row, |x| f64::from((x - high) - low) * f64::from((x - high) - low)) / n;
    let over = (1.0 / (squares + f64::from(epsilon)).sqrt()) as f32;
    for ((x, to), (scale, shift)) in row.iter().zip(to).zip(scale.iter().zip(shift)) {
        *to = (((x - high) - low) * over).mul_add(*scale, *shift);
    }
}

#[inline(always)]
fn root_mean_square_row(epsilon: f32, row: &[f32], to: &mut [f32], scale: &[f32]) {
    let squares = math::sum(row, |x| f64::from(x) * f64::from(x)) / row.len() as f64;
    let over = (1.0 / (squares + f64::from(epsilon)).sqrt()) as f32;
    for ((x, to), scale) in row.iter().zip(to).zip(scale) {
        *to = x * over * scale;
    }
}

pub fn reduce<T: Float>(reduction: Reduction, rows: Rows, x: &View, to: &View) {
    let (from, mut to_elements) = (read(x), write(to));
    scratch::each(rows, from.of::<T>(x), to_elements.of::<T>(to), |row| T::of(reduced(reduction, row)));
}

pub fn arg_reduce<T: Float>(largest: bool, rows: Rows, x: &View, to: &View) {
    let (from, mut to_elements) = (read(x), write(to));
    let sign = if largest { 1.0 } else { -1.0 };
    scratch::each(rows, from.of::<T>(x), to_elements.of::<i32>(to), |row| {
        let extreme = extreme(row, sign);
        let is_it = |x: &f32| if extreme.is_nan() { x.is_nan() } else { sign * x == extreme };
        row.iter().position(is_it).map_or(-1, |at| i32::try_from(at).unwrap_or(-1))
    });
}

pub fn count_different(rows: Rows, operands: &[View], to: &View) {
    let (a, b, mut counts) = (read(&operands[0]), read(&operands[1]), write(to));
    // Bits are compared: floats are taken for what lies in memory, too.
    let (a, b) = (a.of::<i32>(&operands[0]), b.of::<i32>(&operands[1]));
    let block = rows.n * rows.inner;
    let counts = counts.of::<i32>(to).par_chunks_mut(rows.inner);
    counts.zip(a.par_chunks(block).zip(b.par_chunks(block))).for_each(|(counts, (a, b))| {
        counts.fill(0);
        for (a, b) in a.chunks(rows.inner).zip(b.chunks(rows.inner)) {
            for (count, (a, b)) in counts.iter_mut().zip(a.iter().zip(b)) {
                *count += i32::from(a != b);
            }
        }
    });
}

pub fn softmax<T: Float>(log: bool, rows: Rows, x: &View, to: &View) {
    let (from, mut to_elements) = (read(x), write(to));
    scratch::through(rows, from.of::<T>(x), to_elements.of::<T>(to), |_, from, to| {
        softmax_rows(log, rows.n, from, to);
    });
}

pub fn norm<T: Float>(epsilon: f32, rows: Rows, operands: &[View], to: &View) {
    let wide = |view: &View| widened(read(view).of::<T>(view)).into_owned();
    let scale = wide(&operands[1]);
    let shift = operands.get(2).map(wide);
    let (from, mut to_elements) = (read(&operands[0]), write(to));
    scratch::through(rows, from.of::<T>(&operands[0]), to_elements.of::<T>(to), |_, from, to| {
        norm_rows(epsilon, rows.n, from, to, &scale, shift.as_deref());
    });
}

pub fn rotary<T: Float>(base: f64, offset: usize, x: &View, to: &View) {
    let rank = x.of.shape.rank();
    let (positions, width) = (x.of.shape[rank - 2], x.of.shape[rank - 1]);
    let half = width / 2;
    // Angles in f64: positions reach far over what f32 turns by exactly.
    let turn = |at: usize| {
        let angle = (at / half + offset) as f64 / base.powf(2.0 * (at % half) as f64 / width as f64);
        (angle.cos() as f32, angle.sin() as f32)
    };
    let turns: Vec<(f32, f32)> = (0..positions * half).into_par_iter().map(turn).collect();
    let rows = Rows { outer: x.of.shape.elements() / width, n: width, inner: 1 };
    let (from, mut to_elements) = (read(x), write(to));
    scratch::through(rows, from.of::<T>(x), to_elements.of::<T>(to), |first, from, to| {
        for (number, (row, to)) in from.chunks(width).zip(to.chunks_mut(width)).enumerate() {
            turn_row(&turns[(first + number) % positions * half..][..half], row, to);
        }
    });
}

pub fn quantize<T: Float>(rows: Rows, x: &View, results: &[View]) {
    let (from, mut q, mut scales) = (read(x), write(&results[0]), write(&results[1]));
    let (from, q, scales) = (from.of::<T>(x), q.of::<i8>(&results[0]), scales.of::<f32>(&results[1]));
    let whole = from.par_chunks(rows.n).zip(q.par_chunks_mut(rows.n)).zip(scales);
    whole.for_each_init(Vec::new, |wide, ((from, q), scale)| {
        *scale = quantize_row(widened_into(from, wide), q);
    });
}

pub fn dequantize<T: Float>(rows: Rows, operands: &[View], to: &View) {
    let (q, scales, mut to_elements) = (read(&operands[0]), read(&operands[1]), write(to));
    let (q, scales) = (q.of::<i8>(&operands[0]), scales.of::<f32>(&operands[1]));
    let whole = to_elements.of::<T>(to).par_chunks_mut(rows.n).zip(q.par_chunks(rows.n)).zip(scales);
    whole.for_each_init(Vec::new, |scratch, ((to, q), scale)| {
        through_wide(to, scratch, |to| dequantize_row(*scale, q, to));
    });
}
