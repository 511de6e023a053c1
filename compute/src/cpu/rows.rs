//! What is calculated along rows: reductions, softmax, norms, rotation, quantisation.

use super::math::{self, vectored};
use super::{Float, read, scratch, widened, write};
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
    fn softmax_rows(log: bool, n: usize, rows: &mut [f32]) {
        for row in rows.chunks_mut(n) {
            softmax_row(log, row);
        }
    }

    /// The softmax of a row's multiple.
    pub fn scaled_softmax(scale: f32, row: &mut [f32]) {
        math::each(row, |x| x * scale);
        softmax_row(false, row);
    }

    /// Rows of `n` elements: with a shift about the mean, without one as they are.
    fn norm_rows(epsilon: f32, n: usize, rows: &mut [f32], scale: &[f32], shift: Option<&[f32]>) {
        for row in rows.chunks_mut(n) {
            norm_row(epsilon, row, scale, shift);
        }
    }
}

#[inline(always)]
fn softmax_row(log: bool, row: &mut [f32]) {
    let max = math::max(row, 1.0);
    if log {
        let sum = math::sum(row, |x| f64::from(math::exp(x - max)));
        // In f64, since what is subtracted can be much larger than what is left.
        let less = f64::from(max) + sum.ln();
        math::each(row, |x| (f64::from(x) - less) as f32);
    } else {
        math::each(row, |x| math::exp(x - max));
        let over = (1.0 / math::sum(row, f64::from)) as f32;
        math::each(row, |e| e * over);
    }
}

#[inline(always)]
fn norm_row(epsilon: f32, row: &mut [f32], scale: &[f32], shift: Option<&[f32]>) {
    let n = row.len() as f64;
    let mean = if shift.is_some() { math::sum(row, f64::from) / n } else { 0.0 };
    let squares = math::sum(row, |x| (f64::from(x) - mean) * (f64::from(x) - mean)) / n;
    let over = 1.0 / (squares + f64::from(epsilon)).sqrt();
    for (at, x) in row.iter_mut().enumerate() {
        let normal = ((f64::from(*x) - mean) * over) as f32;
        *x = normal.mul_add(scale[at], shift.map_or(0.0, |shift| shift[at]));
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
    scratch::in_place(rows, from.of::<T>(x), to_elements.of::<T>(to), |_, block| {
        softmax_rows(log, rows.n, block);
    });
}

pub fn norm<T: Float>(epsilon: f32, rows: Rows, operands: &[View], to: &View) {
    let wide = |view: &View| widened(read(view).of::<T>(view)).into_owned();
    let scale = wide(&operands[1]);
    let shift = operands.get(2).map(wide);
    let (from, mut to_elements) = (read(&operands[0]), write(to));
    scratch::in_place(rows, from.of::<T>(&operands[0]), to_elements.of::<T>(to), |_, block| {
        norm_rows(epsilon, rows.n, block, &scale, shift.as_deref());
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
    scratch::in_place(rows, from.of::<T>(x), to_elements.of::<T>(to), |first, block| {
        for (number, row) in block.chunks_mut(width).enumerate() {
            let turns = &turns[(first + number) % positions * half..][..half];
            let (left, right) = row.split_at_mut(half);
            for ((a, b), (cos, sin)) in left.iter_mut().zip(right).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    });
}

pub fn quantize<T: Float>(rows: Rows, x: &View, results: &[View]) {
    let (from, mut q, mut scales) = (read(x), write(&results[0]), write(&results[1]));
    let (from, q, scales) = (from.of::<T>(x), q.of::<i8>(&results[0]), scales.of::<f32>(&results[1]));
    let whole = from.par_chunks(rows.n).zip(q.par_chunks_mut(rows.n)).zip(scales);
    whole.for_each_init(Vec::new, |row, ((from, q), scale)| {
        row.resize(rows.n, 0.0);
        T::widen(from, row);
        *scale = math::max(row, 1.0).max(math::max(row, -1.0)) / 127.0;
        if row.iter().any(|x| x.is_nan()) {
            *scale = f32::NAN;
        }
        for (q, x) in q.iter_mut().zip(row.iter()) {
            // The cast holds to the range, and makes 0 of NaN.
            *q = if *scale == 0.0 { 0 } else { (x / *scale).round_ties_even() as i8 };
        }
    });
}

pub fn dequantize<T: Float>(rows: Rows, operands: &[View], to: &View) {
    let (q, scales, mut to_elements) = (read(&operands[0]), read(&operands[1]), write(to));
    let (q, scales) = (q.of::<i8>(&operands[0]), scales.of::<f32>(&operands[1]));
    let whole = to_elements.of::<T>(to).par_chunks_mut(rows.n).zip(q.par_chunks(rows.n)).zip(scales);
    whole.for_each(|((to, q), scale)| {
        for (to, q) in to.iter_mut().zip(q) {
            *to = T::of(f32::from(*q) * scale);
        }
    });
}
