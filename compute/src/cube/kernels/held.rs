//! Softmax, norms and the largest few of rows that a cube's units hold in their own memory: each element is read once, `N` at a time.

use super::functions::exponential;
use super::rows::{Joined, Team, best_of_all, comes_before, together};
use cubecl::prelude::*;

/// How a row is held. Compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub team: Team,
    /// Vectors of a unit: all of the row's are no more than all units' are.
    pub items: usize,
    /// Elements of a vector: `N`.
    pub lanes: usize,
}

/// Where an item of this unit is in a row.
#[cube]
fn place(#[comptime] item: usize, #[comptime] form: Held) -> u32 {
    UNIT_POS + comptime!(item as u32 * form.team.units)
}

/// This unit's elements of a row of `n` vectors. Those behind its end are the row's first, which changes no extreme.
#[cube]
fn load<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    base: usize,
    n: u32,
    #[comptime] form: Held,
) -> Array<f32> {
    let mut held = Array::<f32>::new(comptime!(form.items * form.lanes));
    #[unroll]
    for item in 0..comptime!(form.items) {
        let at = place(item, form);
        let vector = x[base + select(at < n, at, 0u32) as usize];
        #[unroll]
        for lane in 0..comptime!(form.lanes) {
            held[comptime!(item * form.lanes + lane)] = f32::cast_from(vector[lane]);
        }
    }
    held
}

/// `figures`: how many rows, vectors of a row.
#[cube(launch)]
pub fn softmax<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    to: &mut Array<Vector<F, N>>,
    figures: &Array<u32>,
    #[comptime] log: bool,
    #[comptime] form: Held,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS < figures[0] as usize {
        let n = figures[1];
        let base = CUBE_POS * n as usize;
        let mut held = load::<F, N>(x, base, n, form);
        let mut own = held[0];
        #[unroll]
        for at in 1..comptime!(form.items * form.lanes) {
            own = max(own, held[at]);
        }
        // NaN may be lost here: it is in the sum.
        let largest = together(own, Joined::Max, form.team);
        let mut sum = f32::new(0.0);
        #[unroll]
        for item in 0..comptime!(form.items) {
            let exists = place(item, form) < n;
            #[unroll]
            for lane in 0..comptime!(form.lanes) {
                let at = comptime!(item * form.lanes + lane);
                let less = held[at] - largest;
                let e = exponential(less);
                sum += select(exists, e, 0.0);
                if comptime!(log) {
                    held[at] = less;
                } else {
                    held[at] = e;
                }
            }
        }
        let whole = together(sum, Joined::Sum, form.team);
        let logarithm = whole.ln();
        #[unroll]
        for item in 0..comptime!(form.items) {
            let at = place(item, form);
            if at < n {
                let mut result = Vector::<F, N>::empty();
                #[unroll]
                for lane in 0..comptime!(form.lanes) {
                    let value = held[comptime!(item * form.lanes + lane)];
                    if comptime!(log) {
                        result[lane] = F::cast_from(value - logarithm);
                    } else {
                        result[lane] = F::cast_from(value / whole);
                    }
                }
                to[base + at as usize] = result;
            }
        }
    }
}

/// With a shift about the mean, without one as it is. `figures`: how many rows, vectors of a row.
#[cube(launch)]
pub fn norm<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    scale: &Array<Vector<F, N>>,
    shift: &Array<Vector<F, N>>,
    to: &mut Array<Vector<F, N>>,
    figures: &Array<u32>,
    epsilon: f32,
    #[comptime] shifted: bool,
    #[comptime] form: Held,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS < figures[0] as usize {
        let n = figures[1];
        let elements = f32::cast_from(n) * comptime!(form.lanes as f32);
        let base = CUBE_POS * n as usize;
        let held = load::<F, N>(x, base, n, form);
        let mut mean = f32::new(0.0);
        if comptime!(shifted) {
            mean = together(summed(&held, f32::new(0.0), n, false, form), Joined::Sum, form.team) / elements;
        }
        let squares = together(summed(&held, mean, n, true, form), Joined::Sum, form.team) / elements;
        let over = 1.0 / (squares + epsilon).sqrt();
        #[unroll]
        for item in 0..comptime!(form.items) {
            let at = place(item, form);
            if at < n {
                let scales = scale[at as usize];
                let mut result = Vector::<F, N>::empty();
                #[unroll]
                for lane in 0..comptime!(form.lanes) {
                    let off = held[comptime!(item * form.lanes + lane)] - mean;
                    let normal = off * over * f32::cast_from(scales[lane]);
                    if comptime!(shifted) {
                        let shifts = shift[at as usize];
                        result[lane] = F::cast_from(normal + f32::cast_from(shifts[lane]));
                    } else {
                        result[lane] = F::cast_from(normal);
                    }
                }
                to[base + at as usize] = result;
            }
        }
    }
}

/// The sum of this unit's elements, or of the squares of how far they are from the mean.
#[cube]
fn summed(held: &Array<f32>, mean: f32, n: u32, #[comptime] squared: bool, #[comptime] form: Held) -> f32 {
    let mut sum = f32::new(0.0);
    #[unroll]
    for item in 0..comptime!(form.items) {
        if place(item, form) < n {
            #[unroll]
            for lane in 0..comptime!(form.lanes) {
                let value = held[comptime!(item * form.lanes + lane)] - mean;
                if comptime!(squared) {
                    sum += value * value;
                } else {
                    sum += value;
                }
            }
        }
    }
    sum
}

/// As `index::top_k`. `figures`: how many rows, vectors of a row.
#[cube(launch)]
pub fn top_k<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    values: &mut Array<F>,
    indices: &mut Array<i32>,
    figures: &Array<u32>,
    k: u32,
    #[comptime] largest: bool,
    #[comptime] form: Held,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS < figures[0] as usize {
        let n = figures[1];
        let none = n * comptime!(form.lanes as u32);
        let held = load::<F, N>(x, CUBE_POS * n as usize, n, form);
        let mut found = SharedMemory::<f32>::new(1usize);
        let mut last = f32::new(0.0);
        let mut last_at = 0u32;
        for round in 0..k {
            // Units without a candidate say so by a place behind the row.
            let mut best = f32::new(0.0);
            let mut best_at = none;
            #[unroll]
            for item in 0..comptime!(form.items) {
                if place(item, form) < n {
                    #[unroll]
                    for lane in 0..comptime!(form.lanes) {
                        let at = place(item, form) * comptime!(form.lanes as u32) + comptime!(lane as u32);
                        let value = held[comptime!(item * form.lanes + lane)];
                        let is_left = round == 0u32 || comes_before(last, last_at, value, at, largest);
                        if is_left && (best_at == none || comes_before(value, at, best, best_at, largest)) {
                            best = value;
                            best_at = at;
                        }
                    }
                }
            }
            last_at = best_of_all(best, best_at, none, largest, form.team);
            // It is one unit's.
            if best_at == last_at {
                found[0] = best;
            }
            sync_cube();
            last = found[0];
            sync_cube();
            if UNIT_POS == 0u32 {
                let to = CUBE_POS * k as usize + round as usize;
                values[to] = F::cast_from(last);
                indices[to] = i32::cast_from(last_at);
            }
        }
    }
}
