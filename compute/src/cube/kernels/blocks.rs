//! Attention of many queries: a cube works on a block of them, and each block of keys and values goes through its shared memory once for all
//! of these (Dao et al.: "FlashAttention", 2022). What was seen so far is a running maximum, sum and weighted sum of values for each query, in
//! `f32` (Milakov, Gimelshein: "Online normalizer calculation for softmax", 2018).
//!
//! The units of a cube are a square. Of the scores of a block of queries and a block of keys each has a square of its own, and of the result
//! the same queries with a few columns.

use super::functions::exponential;
use cubecl::prelude::*;

/// Queries of a block, and keys.
pub const BLOCK: usize = 64;
/// Units along a side of the square.
const SIDE: usize = 16;
/// Units of a cube.
pub const UNITS: usize = SIDE * SIDE;
/// Queries of a unit, and keys, and columns of values: what is read from shared memory at once.
const OWN: usize = BLOCK / SIDE;
/// Columns of queries and keys, or values of so many keys, that are in shared memory at once.
const DEPTH: usize = 16;
/// A row of queries or keys in shared memory, in fours. One more than there are, so that rows begin in different banks.
const ROW: usize = DEPTH / OWN + 1;
/// A row of weights.
const WEIGHTS_ROW: usize = SIDE + 1;
/// Bytes of shared memory.
pub const SHARED_BYTES: usize = 16 * (2 * BLOCK * ROW + BLOCK * WEIGHTS_ROW) + 4 * BLOCK * SIDE;

type Four = Vector<f32, Const<4>>;

/// What of it is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// Elements that are read at once: 1 or 4.
    pub lanes: usize,
    /// Pieces of the result's columns, of [`BLOCK`] each.
    pub pieces: usize,
    /// Queries do not see all keys.
    pub causal: bool,
}

/// `figures`: blocks of all heads, blocks of a head, queries of a head, keys, width, width of values, keys that the first query sees, keys more
/// for each next.
#[cube(launch)]
pub fn attention<F: Float, N: Size>(
    query: &Array<Vector<F, N>>,
    key: &Array<Vector<F, N>>,
    value: &Array<Vector<F, N>>,
    to: &mut Array<Vector<F, N>>,
    figures: &Array<u32>,
    scale: f32,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    if CUBE_POS < figures[0] as usize {
        let head = CUBE_POS / figures[1] as usize;
        let block = u32::cast_from(CUBE_POS % figures[1] as usize) * comptime!(BLOCK as u32);
        let queries = figures[2];
        let keys = figures[3];
        let width = figures[4];
        let width_out = figures[5];
        let row = UNIT_POS / comptime!(SIDE as u32);
        let column = UNIT_POS % comptime!(SIDE as u32);
        // Keys that the block's first query sees, and its last.
        let first_sees = min(keys, figures[6] + block * figures[7]);
        let last = min(block + comptime!(BLOCK as u32), queries) - 1;
        let last_sees = min(keys, figures[6] + last * figures[7]);

        let mut left = SharedMemory::<Four>::new(comptime!(BLOCK * ROW));
        let mut right = SharedMemory::<Four>::new(comptime!(BLOCK * ROW));
        let mut weights = SharedMemory::<Four>::new(comptime!(BLOCK * WEIGHTS_ROW));
        let mut lines = SharedMemory::<f32>::new(comptime!(BLOCK * SIDE));

        let mut sees = Array::<u32>::new(comptime!(OWN));
        let mut largest = Array::<f32>::new(comptime!(OWN));
        let mut sum = Array::<f32>::new(comptime!(OWN));
        let mut fade = Array::<f32>::new(comptime!(OWN));
        #[unroll]
        for own in 0..comptime!(OWN) {
            let at = block + row * comptime!(OWN as u32) + comptime!(own as u32);
            sees[own] = min(keys, figures[6] + at * figures[7]);
            // The least there is: scores that are infinitely low have no weight beside any other.
            largest[own] = f32::new(f32::MIN);
            sum[own] = f32::new(0.0);
        }
        let mut result = Array::<f32>::new(comptime!(form.pieces * OWN * OWN));
        #[unroll]
        for at in 0..comptime!(form.pieces * OWN * OWN) {
            result[at] = f32::new(0.0);
        }

        let mut start = 0u32;
        while start < last_sees {
            let mut scores = Array::<f32>::new(comptime!(OWN * OWN));
            #[unroll]
            for at in 0..comptime!(OWN * OWN) {
                scores[at] = f32::new(0.0);
            }
            let mut from = 0u32;
            while from < width {
                // Which row of a block, and which four of it, this unit brings; rows of one unit do not lie side by side.
                let line = UNIT_POS / comptime!((DEPTH / OWN) as u32);
                let four = UNIT_POS % comptime!((DEPTH / OWN) as u32);
                let place =
                    line % comptime!(OWN as u32) * comptime!(SIDE as u32) + line / comptime!(OWN as u32);
                let place = (place * comptime!(ROW as u32) + four) as usize;
                let at = from + four * comptime!(OWN as u32);
                let asks = head * queries as usize + (block + line) as usize;
                let asked = head * keys as usize + (start + line) as usize;
                // What was there before may still be read.
                sync_cube();
                left[place] = brought::<F, N>(query, asks, block + line < queries, at, width, form);
                right[place] = brought::<F, N>(key, asked, start + line < keys, at, width, form);
                sync_cube();
                // Not unrolled, nor below: a compiler takes its time with every line.
                for four in 0..comptime!(DEPTH / OWN) {
                    let mut a = Array::<Four>::new(comptime!(OWN));
                    let mut b = Array::<Four>::new(comptime!(OWN));
                    #[unroll]
                    for own in 0..comptime!(OWN) {
                        let lines_before = comptime!((own * SIDE) as u32);
                        a[own] = left[((lines_before + row) * comptime!(ROW as u32)) as usize + four];
                        b[own] = right[((lines_before + column) * comptime!(ROW as u32)) as usize + four];
                    }
                    #[unroll]
                    for i in 0..comptime!(OWN) {
                        #[unroll]
                        for j in 0..comptime!(OWN) {
                            let at = comptime!(i * OWN + j);
                            let (a, b) = (a[i], b[j]);
                            #[unroll]
                            for lane in 0..comptime!(OWN) {
                                scores[at] = fma(a[lane], b[lane], scores[at]);
                            }
                        }
                    }
                }
                from += comptime!(DEPTH as u32);
            }

            let own_key = start + column * comptime!(OWN as u32);
            #[unroll]
            for i in 0..comptime!(OWN) {
                let mut most = largest[i];
                #[unroll]
                for j in 0..comptime!(OWN) {
                    let at = comptime!(i * OWN + j);
                    scores[at] *= scale;
                    // NaN may be lost here: it is in the sum.
                    most = select(own_key + comptime!(j as u32) < sees[i], max(most, scores[at]), most);
                }
                lines[line_of(i, row) as usize * comptime!(SIDE) + column as usize] = most;
            }
            sync_cube();
            #[unroll]
            for i in 0..comptime!(OWN) {
                let line = line_of(i, row) as usize;
                let mut next = lines[line * comptime!(SIDE)];
                #[unroll]
                for other in 1..comptime!(SIDE) {
                    next = max(next, lines[line * comptime!(SIDE) + other]);
                }
                fade[i] = exponential(largest[i] - next);
                largest[i] = next;
                let mut four = Four::empty();
                let mut gained = f32::new(0.0);
                #[unroll]
                for j in 0..comptime!(OWN) {
                    let weight = exponential(scores[comptime!(i * OWN + j)] - next);
                    let weight = select(own_key + comptime!(j as u32) < sees[i], weight, 0.0);
                    four[j] = weight;
                    gained += weight;
                }
                sum[i] = fma(sum[i], fade[i], gained);
                weights[line * comptime!(WEIGHTS_ROW) + column as usize] = four;
            }

            let here = min(comptime!(BLOCK as u32), last_sees - start);
            #[unroll]
            for piece in 0..comptime!(form.pieces) {
                let mut gained = Array::<f32>::new(comptime!(OWN * OWN));
                #[unroll]
                for at in 0..comptime!(OWN * OWN) {
                    gained[at] = f32::new(0.0);
                }
                let mut from = 0u32;
                while from < here {
                    let own_key = start + from + row;
                    let at = comptime!((piece * BLOCK) as u32) + column * comptime!(OWN as u32);
                    let asked = head * keys as usize + own_key as usize;
                    sync_cube();
                    right[UNIT_POS as usize] =
                        brought::<F, N>(value, asked, own_key < last_sees, at, width_out, form);
                    sync_cube();
                    if comptime!(form.causal) {
                        if start + comptime!(BLOCK as u32) <= first_sees {
                            weigh(&weights, &right, &mut gained, &sees, start, from, row, column, false);
                        } else {
                            weigh(&weights, &right, &mut gained, &sees, start, from, row, column, true);
                        }
                    } else {
                        weigh(&weights, &right, &mut gained, &sees, start, from, row, column, false);
                    }
                    from += comptime!(DEPTH as u32);
                }
                #[unroll]
                for i in 0..comptime!(OWN) {
                    #[unroll]
                    for j in 0..comptime!(OWN) {
                        let own = comptime!(i * OWN + j);
                        let at = comptime!(piece * OWN * OWN + own);
                        result[at] = fma(result[at], fade[i], gained[own]);
                    }
                }
            }
            start += comptime!(BLOCK as u32);
        }

        #[unroll]
        for i in 0..comptime!(OWN) {
            lines[line_of(i, row) as usize * comptime!(SIDE) + column as usize] = sum[i];
        }
        sync_cube();
        #[unroll]
        for i in 0..comptime!(OWN) {
            let line = line_of(i, row) as usize;
            let mut whole = lines[line * comptime!(SIDE)];
            #[unroll]
            for other in 1..comptime!(SIDE) {
                whole += lines[line * comptime!(SIDE) + other];
            }
            let at = block + row * comptime!(OWN as u32) + comptime!(i as u32);
            if at < queries {
                let line = (head * queries as usize + at as usize) * width_out as usize;
                #[unroll]
                for piece in 0..comptime!(form.pieces) {
                    #[unroll]
                    for part in 0..comptime!(OWN / form.lanes) {
                        let first = comptime!(part * form.lanes);
                        let own_column =
                            comptime!((piece * BLOCK + first) as u32) + column * comptime!(OWN as u32);
                        if own_column < width_out {
                            let mut vector = Vector::<F, N>::empty();
                            #[unroll]
                            for lane in 0..comptime!(form.lanes) {
                                let own = comptime!((piece * OWN + i) * OWN + first + lane);
                                vector[lane] = F::cast_from(result[own] / whole);
                            }
                            to[(line + own_column as usize) / comptime!(form.lanes)] = vector;
                        }
                    }
                }
            }
        }
    }
}

/// The line of a unit's query in shared memory.
#[cube]
fn line_of(#[comptime] own: usize, row: u32) -> u32 {
    comptime!((own * SIDE) as u32) + row
}

/// Four neighbours of a row of `width`; zeros behind its end, and where there is no such row.
#[cube]
fn brought<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    line: usize,
    exists: bool,
    column: u32,
    width: u32,
    #[comptime] form: Form,
) -> Four {
    let mut four = Four::new(0.0f32);
    #[unroll]
    for part in 0..comptime!(OWN / form.lanes) {
        let at = column + comptime!((part * form.lanes) as u32);
        if exists && at < width {
            let vector = x[(line * width as usize + at as usize) / comptime!(form.lanes)];
            #[unroll]
            for lane in 0..comptime!(form.lanes) {
                four[comptime!(part * form.lanes + lane)] = f32::cast_from(vector[lane]);
            }
        }
    }
    four
}

/// Adds values by their weights, [`DEPTH`] keys. What a query does not see has no weight; where values may be no numbers, that is not enough.
#[cube]
fn weigh(
    weights: &SharedMemory<Four>,
    values: &SharedMemory<Four>,
    gained: &mut Array<f32>,
    sees: &Array<u32>,
    start: u32,
    from: u32,
    row: u32,
    column: u32,
    #[comptime] guarded: bool,
) {
    for four in 0..comptime!(DEPTH / OWN) {
        let mut own = Array::<Four>::new(comptime!(OWN));
        #[unroll]
        for i in 0..comptime!(OWN) {
            let place = line_of(i, row) * comptime!(WEIGHTS_ROW as u32) + from / comptime!(OWN as u32);
            own[i] = weights[place as usize + four];
        }
        #[unroll]
        for lane in 0..comptime!(OWN) {
            let key = four * comptime!(OWN) + lane;
            let value = values[key * comptime!(SIDE) + column as usize];
            #[unroll]
            for i in 0..comptime!(OWN) {
                let weight = own[i];
                #[unroll]
                for j in 0..comptime!(OWN) {
                    let at = comptime!(i * OWN + j);
                    let next = fma(weight[lane], value[j], gained[at]);
                    if comptime!(guarded) {
                        let is_seen = start + from + u32::cast_from(key) < sees[i];
                        gained[at] = select(is_seen, next, gained[at]);
                    } else {
                        gained[at] = next;
                    }
                }
            }
        }
    }
}
