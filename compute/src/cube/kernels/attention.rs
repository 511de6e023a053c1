//! Attention of few queries, in one pass over the keys for each: a cube holds a query, and what it has seen so far as a running maximum, sum and mean of values
//! (Milakov, Gimelshein: "Online normalizer calculation for softmax", 2018; Dao et al.: "FlashAttention", 2022).

use super::functions::exponential;
use super::rows::{Joined, Team, together};
use cubecl::prelude::*;

/// What of it is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    pub team: Team,
    pub width: usize,
    /// Columns of the result that a unit holds.
    pub columns: usize,
}

/// `figures`: queries of all heads, queries of a head, keys, width of values, keys that the first query sees, keys more for each next.
#[cube(launch)]
pub fn attention<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    to: &mut Array<F>,
    figures: &Array<u32>,
    scale: f32,
    #[comptime] form: Form,
    #[define(F)] _dtype: StorageType,
) {
    let width = comptime!(form.width);
    let width_out = figures[3] as usize;
    if CUBE_POS < figures[0] as usize {
        let mut own = SharedMemory::<f32>::new(comptime!(form.width));
        let mut weights = SharedMemory::<f32>::new(comptime!(form.team.units as usize));
        let mut at = UNIT_POS as usize;
        while at < width {
            own[at] = f32::cast_from(query[CUBE_POS * width + at]);
            at += comptime!(form.team.units as usize);
        }
        sync_cube();
        let head = CUBE_POS / figures[1] as usize;
        let keys = figures[2];
        let seen = min(keys, figures[4] + u32::cast_from(CUBE_POS % figures[1] as usize) * figures[5]);
        let mut result = Array::<f32>::new(comptime!(form.columns));
        #[unroll]
        for column in 0..comptime!(form.columns) {
            result[column] = f32::new(0.0);
        }
        // The least there is: scores that are infinitely low have no weight beside any other.
        let mut largest = f32::new(f32::MIN);
        let mut sum = f32::new(0.0);
        let mut start = 0u32;
        while start < seen {
            let position = start + UNIT_POS;
            let place = head * keys as usize + position as usize;
            // Units behind the last key repeat the first of this round, which changes no maximum.
            let mut used = place;
            if position >= seen {
                used = head * keys as usize + start as usize;
            }
            let mut score = f32::new(0.0);
            for at in 0..width {
                score = fma(own[at], f32::cast_from(key[used * width + at]), score);
            }
            score *= scale;
            let round = together(score, Joined::Max, comptime!(form.team));
            let next = select(round.is_nan() || round > largest, round, largest);
            let fade = exponential(largest - next);
            let weight = select(position < seen, exponential(score - next), 0.0);
            weights[UNIT_POS as usize] = weight;
            sum = sum * fade + together(weight, Joined::Sum, comptime!(form.team));
            largest = next;
            let count = min(comptime!(form.team.units), seen - start);
            #[unroll]
            for column in 0..comptime!(form.columns) {
                let own_column = UNIT_POS as usize + comptime!(column * form.team.units as usize);
                if own_column < width_out {
                    let mut part = f32::new(0.0);
                    for other in 0..count {
                        let row = head * keys as usize + (start + other) as usize;
                        part = fma(
                            weights[other as usize],
                            f32::cast_from(value[row * width_out + own_column]),
                            part,
                        );
                    }
                    result[column] = result[column] * fade + part;
                }
            }
            sync_cube();
            start += comptime!(form.team.units);
        }
        #[unroll]
        for column in 0..comptime!(form.columns) {
            let own_column = UNIT_POS as usize + comptime!(column * form.team.units as usize);
            if own_column < width_out {
                to[CUBE_POS * width_out + own_column] = F::cast_from(result[column] / sum);
            }
        }
    }
}
