//! What goes by indices.

use super::rows::{Joined, Team, best_of_all, comes_before, row, together};
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

/// A part of a result that a cube adds up in shared memory. Compiled in; all are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub team: Team,
    pub lines: usize,
    /// No more than there are units.
    pub columns: usize,
}

/// A cube adds up a tile of the result. All cubes look at all indices, as many at a time as they have units, and a sum is always the
/// same unit's: equal indices add up in their order, on every run. `figures`: tiles, tiles along a line, tiles along the axis,
/// elements of the axis, indices, elements side by side, the word of `fault`.
#[cube(launch)]
pub fn scatter_add<F: Float>(
    x: &Array<F>,
    indices: &Array<i32>,
    updates: &Array<F>,
    to: &mut Array<F>,
    fault: &mut Array<u32>,
    figures: &Array<u32>,
    #[comptime] tile: Tile,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS < figures[0] as usize {
        let n = figures[3];
        let count = figures[4];
        let inner = figures[5] as usize;
        let side = CUBE_POS / figures[1] as usize;
        let block = side / figures[2] as usize;
        let first_line = (side % figures[2] as usize) as u32 * comptime!(tile.lines as u32);
        let group = UNIT_POS / comptime!(tile.columns as u32);
        let own_column = UNIT_POS as usize % comptime!(tile.columns);
        let column = CUBE_POS % figures[1] as usize * comptime!(tile.columns) + own_column;
        let mut sums = SharedMemory::<f32>::new(comptime!(tile.lines * tile.columns));
        let mut places = SharedMemory::<u32>::new(comptime!(tile.team.units as usize));
        // The unit that loads a sum is the one that adds to it and stores it: nobody waits.
        let mut loaded = group;
        while loaded < comptime!(tile.lines as u32) {
            if first_line + loaded < n && column < inner {
                let place = (block * n as usize + (first_line + loaded) as usize) * inner + column;
                sums[loaded as usize * comptime!(tile.columns) + own_column] = f32::cast_from(x[place]);
            }
            loaded += comptime!(tile.team.units / tile.columns as u32);
        }
        let mut start = 0u32;
        while start < count {
            // A line behind all of the tile's where the update is not for it.
            let mut line = u32::new(comptime!(tile.lines as i64));
            if start + UNIT_POS < count {
                let index = indices[(start + UNIT_POS) as usize];
                if index < 0 || u32::cast_from(index) >= n {
                    let word = figures[6] as usize;
                    fault[word] = 1u32;
                } else if u32::cast_from(index) >= first_line {
                    line = min(u32::cast_from(index) - first_line, line);
                }
            }
            places[UNIT_POS as usize] = line;
            let nearest = together(-f32::cast_from(line), Joined::Max, tile.team);
            sync_cube();
            if nearest > comptime!(-(tile.lines as f32)) && column < inner {
                for other in 0..min(comptime!(tile.team.units), count - start) {
                    let to_line = places[other as usize];
                    let is_own = to_line % comptime!(tile.team.units / tile.columns as u32) == group;
                    if to_line < comptime!(tile.lines as u32) && is_own {
                        let number = block * count as usize + (start + other) as usize;
                        sums[to_line as usize * comptime!(tile.columns) + own_column] +=
                            f32::cast_from(updates[number * inner + column]);
                    }
                }
            }
            sync_cube();
            start += comptime!(tile.team.units);
        }
        let mut stored = group;
        while stored < comptime!(tile.lines as u32) {
            if first_line + stored < n && column < inner {
                let place = (block * n as usize + (first_line + stored) as usize) * inner + column;
                to[place] = F::cast_from(sums[stored as usize * comptime!(tile.columns) + own_column]);
            }
            stored += comptime!(tile.team.units / tile.columns as u32);
        }
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
    #[comptime] team: Team,
    #[define(F)] _dtype: StorageType,
) {
    let row = row(figures, team);
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
                at += comptime!(team.units);
            }
            last_at = best_of_all(best, best_at, row.n, largest, team);
            last = f32::cast_from(x[row.base + last_at as usize]);
            if UNIT_POS == 0u32 {
                let place = row.number * k as usize + round as usize;
                values[place] = x[row.base + last_at as usize];
                indices[place] = i32::cast_from(last_at);
            }
        }
    }
}
