//! What goes by indices.

use super::rows::{best_of_all, comes_before, row};
use cubecl::prelude::*;

/// A unit takes an element. `figures`: elements of the result, elements of the axis, indices, elements side by side, the word of
/// `fault` that an index outside sets; nothing is read for it.
#[cube(launch)]
pub fn gather<E: Numeric>(
    x: &Array<E>,
    indices: &Array<i32>,
    to: &mut Array<E>,
    fault: &mut Array<u32>,
    figures: &Array<u32>,
    #[define(E)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < figures[0] as usize {
        let inner = figures[3] as usize;
        let count = figures[2] as usize;
        let line = ABSOLUTE_POS / inner;
        let index = indices[line % count];
        if index >= 0 && u32::cast_from(index) < figures[1] {
            to[ABSOLUTE_POS] =
                x[(line / count * figures[1] as usize + index as usize) * inner + ABSOLUTE_POS % inner];
        } else {
            let word = figures[4] as usize;
            fault[word] = 1u32;
        }
    }
}

/// A unit makes an element of the result, and looks through all indices: equal ones add up in their order, on every run.
/// `figures`: elements, elements of the axis, indices, elements side by side, the word of `fault`.
#[cube(launch)]
pub fn scatter_add<F: Float>(
    x: &Array<F>,
    indices: &Array<i32>,
    updates: &Array<F>,
    to: &mut Array<F>,
    fault: &mut Array<u32>,
    figures: &Array<u32>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < figures[0] as usize {
        let inner = figures[3] as usize;
        let line = ABSOLUTE_POS / inner;
        let at = i32::cast_from(u32::cast_from(line) % figures[1]);
        let block = line / figures[1] as usize;
        let mut sum = f32::cast_from(x[ABSOLUTE_POS]);
        for number in 0..figures[2] {
            let index = indices[number as usize];
            if index == at {
                sum += f32::cast_from(
                    updates[(block * figures[2] as usize + number as usize) * inner + ABSOLUTE_POS % inner],
                );
            }
            if index < 0 || u32::cast_from(index) >= figures[1] {
                let word = figures[4] as usize;
                fault[word] = 1u32;
            }
        }
        to[ABSOLUTE_POS] = F::cast_from(sum);
    }
}

/// A cube finds the best of a row `k` times, each time of those that come after the last.
#[cube(launch)]
pub fn top_k<F: Float>(
    x: &Array<F>,
    values: &mut Array<F>,
    indices: &mut Array<i32>,
    figures: &Array<u32>,
    k: u32,
    #[comptime] largest: bool,
    #[comptime] units: u32,
    #[define(F)] _dtype: StorageType,
) {
    let row = row(figures, units);
    if row.exists {
        let mut last = f32::new(0.0);
        let mut last_at = 0u32;
        for round in 0..k {
            // Units without a candidate say so by a place behind the row.
            let mut best = f32::new(0.0);
            let mut best_at = row.n;
            let mut at = UNIT_POS;
            while at < row.n {
                let value = f32::cast_from(x[row.base + at as usize]);
                let is_left = round == 0u32 || comes_before(last, last_at, value, at, largest);
                if is_left && (best_at == row.n || comes_before(value, at, best, best_at, largest)) {
                    best = value;
                    best_at = at;
                }
                at += units;
            }
            last_at = best_of_all(best, best_at, row.n, largest, units);
            last = f32::cast_from(x[row.base + last_at as usize]);
            if UNIT_POS == 0u32 {
                let place = row.number * k as usize + round as usize;
                values[place] = x[row.base + last_at as usize];
                indices[place] = i32::cast_from(last_at);
            }
        }
    }
}
