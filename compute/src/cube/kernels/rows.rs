//! What is calculated along rows. A row belongs to one unit, or to a cube of a power of two of them.
//!
//! What needs a row's elements more than once has them in its units' own memory where they fit (`held.rs`); here they are read again.

use super::functions::{exponential, maximum, minimum};
use claw_graph::Reduction;
use cubecl::prelude::*;

/// Who works on a row together. Compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Team {
    /// Units: a power of two.
    pub units: u32,
    /// Units that can hand each other numbers without shared memory, a power of two as well; 1 where there are none.
    pub plane: u32,
}

/// A row: its number, whether there is one, where it begins, and how far apart its elements are.
#[derive(CubeType, Clone, Copy)]
pub struct Row {
    pub number: usize,
    pub exists: bool,
    pub base: usize,
    pub step: usize,
    pub n: u32,
}

/// The row of this unit, or of this cube. `figures`: how many rows, elements of a row, rows side by side.
#[cube]
pub fn row(figures: &Array<u32>, #[comptime] team: Team) -> Row {
    let mut number = ABSOLUTE_POS;
    if comptime!(team.units > 1) {
        number = CUBE_POS;
    }
    let inner = figures[2] as usize;
    let n = figures[1];
    Row {
        number,
        exists: number < figures[0] as usize,
        base: number / inner * (n as usize * inner) + number % inner,
        step: inner,
        n,
    }
}

/// The first element of this unit.
#[cube]
pub fn first(#[comptime] team: Team) -> u32 {
    let mut first = 0u32;
    if comptime!(team.units > 1) {
        first = UNIT_POS;
    }
    first
}

/// How two units' results become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Joined {
    Sum,
    Product,
    Max,
    Min,
}

#[cube]
fn joined(a: f32, b: f32, #[comptime] how: Joined) -> f32 {
    match comptime!(how) {
        Joined::Sum => a + b,
        Joined::Product => a * b,
        Joined::Max => maximum(a, b),
        Joined::Min => minimum(a, b),
    }
}

/// All units' results as one, known to all of them.
#[cube]
pub fn together(own: f32, #[comptime] how: Joined, #[comptime] team: Team) -> f32 {
    let mut result = own;
    if comptime!(team.plane > 1) {
        result = of_planes(own, how, team);
    } else if comptime!(team.units > 1) {
        let mut shared = SharedMemory::<f32>::new(comptime!(team.units as usize));
        shared[UNIT_POS as usize] = own;
        sync_cube();
        #[unroll]
        for level in 0..comptime!(team.units.ilog2()) {
            let distance = comptime!(team.units >> (level + 1));
            if UNIT_POS < distance {
                let a = shared[UNIT_POS as usize];
                let b = shared[(UNIT_POS + distance) as usize];
                shared[UNIT_POS as usize] = joined(a, b, how);
            }
            sync_cube();
        }
        result = shared[0];
        // The memory may be used for the next result as soon as all have read this one.
        sync_cube();
    }
    result
}

/// The same by planes: within each by handing on, then across them through shared memory.
#[cube]
fn of_planes(own: f32, #[comptime] how: Joined, #[comptime] team: Team) -> f32 {
    let mut result = own;
    #[unroll]
    for level in 0..comptime!(team.plane.ilog2()) {
        result = joined(result, plane_shuffle_xor(result, comptime!(1u32 << level)), how);
    }
    let planes = comptime!(team.units / team.plane);
    if comptime!(planes > 1) {
        let mut shared = SharedMemory::<f32>::new(comptime!(planes as usize));
        if (UNIT_POS & comptime!(team.plane - 1)) == 0u32 {
            shared[(UNIT_POS / comptime!(team.plane)) as usize] = result;
        }
        sync_cube();
        result = shared[0];
        #[unroll]
        for plane in 1..comptime!(planes as usize) {
            result = joined(result, shared[plane], how);
        }
        sync_cube();
    }
    result
}

/// A row's elements as one number. In stretches, so that a long sum is not one long chain of roundings.
#[cube]
fn gathered<F: Float>(x: &Array<F>, row: Row, #[comptime] how: Joined, #[comptime] team: Team) -> f32 {
    let start = first(team);
    // An element of the row, which changes no extreme; or what changes no sum and no product.
    let mut neutral = f32::cast_from(x[row.base]);
    if comptime!(how == Joined::Sum) {
        neutral = f32::new(0.0);
    } else if comptime!(how == Joined::Product) {
        neutral = f32::new(1.0);
    }
    let mut total = neutral;
    let mut at = start;
    while at < row.n {
        let mut stretch = neutral;
        let end = min(row.n, at + comptime!(64 * team.units));
        while at < end {
            stretch = joined(stretch, f32::cast_from(x[row.base + at as usize * row.step]), how);
            at += comptime!(team.units);
        }
        total = joined(total, stretch, how);
    }
    together(total, how, team)
}

#[cube(launch)]
pub fn reduce<F: Float>(
    x: &Array<F>,
    to: &mut Array<F>,
    figures: &Array<u32>,
    #[comptime] reduction: Reduction,
    #[comptime] team: Team,
    #[define(F)] _dtype: StorageType,
) {
    let row = row(figures, team);
    if row.exists {
        let result = match comptime!(reduction) {
            Reduction::Sum => gathered::<F>(x, row, Joined::Sum, team),
            Reduction::Mean => gathered::<F>(x, row, Joined::Sum, team) / f32::cast_from(row.n),
            Reduction::Prod => gathered::<F>(x, row, Joined::Product, team),
            Reduction::Max => gathered::<F>(x, row, Joined::Max, team),
            Reduction::Min => gathered::<F>(x, row, Joined::Min, team),
        };
        if first(team) == 0u32 {
            to[row.number] = F::cast_from(result);
        }
    }
}

/// Whether the first of two elements comes before the second: NaN before numbers, then the larger (smaller), then the lower index.
#[cube]
pub fn comes_before(a: f32, a_at: u32, b: f32, b_at: u32, #[comptime] largest: bool) -> bool {
    let mut further = a < b;
    if comptime!(largest) {
        further = a > b;
    }
    let neither = !a.is_nan() && !b.is_nan();
    let alike = (a.is_nan() && b.is_nan()) || a == b;
    (a.is_nan() && !b.is_nan()) || (neither && further) || (alike && a_at < b_at)
}

/// The best of all units' candidates; who has none gives `none` as its place.
#[cube]
pub fn best_of_all(value: f32, at: u32, none: u32, #[comptime] largest: bool, #[comptime] team: Team) -> u32 {
    let mut result = at;
    if comptime!(team.units > 1) {
        let mut values = SharedMemory::<f32>::new(comptime!(team.units as usize));
        let mut places = SharedMemory::<u32>::new(comptime!(team.units as usize));
        values[UNIT_POS as usize] = value;
        places[UNIT_POS as usize] = at;
        sync_cube();
        #[unroll]
        for level in 0..comptime!(team.units.ilog2()) {
            let distance = comptime!(team.units >> (level + 1));
            if UNIT_POS < distance {
                let own = UNIT_POS as usize;
                let other = (UNIT_POS + distance) as usize;
                let is_other = places[own] == none
                    || comes_before(values[other], places[other], values[own], places[own], largest);
                if places[other] != none && is_other {
                    values[own] = values[other];
                    places[own] = places[other];
                }
            }
            sync_cube();
        }
        result = places[0];
        sync_cube();
    }
    result
}

#[cube(launch)]
pub fn arg_reduce<F: Float>(
    x: &Array<F>,
    to: &mut Array<i32>,
    figures: &Array<u32>,
    #[comptime] largest: bool,
    #[comptime] team: Team,
    #[define(F)] _dtype: StorageType,
) {
    let row = row(figures, team);
    if row.exists {
        let mut best_at = 0u32;
        let mut best = f32::cast_from(x[row.base]);
        let mut at = first(team);
        while at < row.n {
            let value = f32::cast_from(x[row.base + at as usize * row.step]);
            if comes_before(value, at, best, best_at, largest) {
                best = value;
                best_at = at;
            }
            at += comptime!(team.units);
        }
        let place = best_of_all(best, best_at, row.n, largest, team);
        if first(team) == 0u32 {
            to[row.number] = i32::cast_from(place);
        }
    }
}

#[cube(launch)]
pub fn softmax<F: Float>(
    x: &Array<F>,
    to: &mut Array<F>,
    figures: &Array<u32>,
    #[comptime] log: bool,
    #[comptime] team: Team,
    #[define(F)] _dtype: StorageType,
) {
    let row = row(figures, team);
    if row.exists {
        let largest = gathered::<F>(x, row, Joined::Max, team);
        let start = first(team);
        let mut own = f32::new(0.0);
        let mut at = start;
        while at < row.n {
            own += exponential(f32::cast_from(x[row.base + at as usize * row.step]) - largest);
            at += comptime!(team.units);
        }
        let sum = together(own, Joined::Sum, team);
        let mut again = start;
        while again < row.n {
            let place = row.base + again as usize * row.step;
            let less = f32::cast_from(x[place]) - largest;
            if comptime!(log) {
                to[place] = F::cast_from(less - sum.ln());
            } else {
                to[place] = F::cast_from(exponential(less) / sum);
            }
            again += comptime!(team.units);
        }
    }
}

/// With a shift about the mean, without one as it is.
#[cube(launch)]
pub fn norm<F: Float>(
    x: &Array<F>,
    scale: &Array<F>,
    shift: &Array<F>,
    to: &mut Array<F>,
    figures: &Array<u32>,
    epsilon: f32,
    #[comptime] shifted: bool,
    #[comptime] team: Team,
    #[define(F)] _dtype: StorageType,
) {
    let row = row(figures, team);
    if row.exists {
        let mut mean = f32::new(0.0);
        if comptime!(shifted) {
            mean = gathered::<F>(x, row, Joined::Sum, team) / f32::cast_from(row.n);
        }
        let start = first(team);
        let mut own = f32::new(0.0);
        let mut at = start;
        while at < row.n {
            let off = f32::cast_from(x[row.base + at as usize]) - mean;
            own += off * off;
            at += comptime!(team.units);
        }
        let squares = together(own, Joined::Sum, team) / f32::cast_from(row.n);
        let over = 1.0 / (squares + epsilon).sqrt();
        let mut again = start;
        while again < row.n {
            let place = row.base + again as usize;
            let normal = (f32::cast_from(x[place]) - mean) * over * f32::cast_from(scale[again as usize]);
            if comptime!(shifted) {
                to[place] = F::cast_from(normal + f32::cast_from(shift[again as usize]));
            } else {
                to[place] = F::cast_from(normal);
            }
            again += comptime!(team.units);
        }
    }
}

/// A unit turns a pair. `turns`: cosine and sine of each pair of each position. `figures`: pairs, half the width, positions.
#[cube(launch)]
pub fn rotary<F: Float>(
    x: &Array<F>,
    turns: &Array<f32>,
    to: &mut Array<F>,
    figures: &Array<u32>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < figures[0] as usize {
        let half = figures[1] as usize;
        let number = ABSOLUTE_POS / half;
        let at = ABSOLUTE_POS % half;
        let turn = (number % figures[2] as usize * half + at) * 2;
        let left = number * half * 2 + at;
        let a = f32::cast_from(x[left]);
        let b = f32::cast_from(x[left + half]);
        to[left] = F::cast_from(a * turns[turn] - b * turns[turn + 1]);
        to[left + half] = F::cast_from(a * turns[turn + 1] + b * turns[turn]);
    }
}
