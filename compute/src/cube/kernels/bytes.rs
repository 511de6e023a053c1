//! Words as they lie in memory: eight-bit values, four to a word, since not every device has bytes; and bits that are compared.

use super::functions::maximum;
use super::map::walk;
use super::rows::{Joined, Team, first, row, together};
use cubecl::prelude::*;

/// The scale of each row: its largest size over 127.
#[cube(launch)]
pub fn scales<F: Float>(
    x: &Array<F>,
    to: &mut Array<f32>,
    figures: &Array<u32>,
    #[comptime] team: Team,
    #[define(F)] _dtype: StorageType,
) {
    let row = row(figures, team);
    if row.exists {
        let mut own = f32::new(0.0);
        let mut at = first(team);
        while at < row.n {
            own = maximum(own, f32::cast_from(x[row.base + at as usize]).abs());
            at += comptime!(team.units);
        }
        let largest = together(own, Joined::Max, team);
        if first(team) == 0u32 {
            to[row.number] = largest / 127.0;
        }
    }
}

/// A unit makes a word. `figures`: elements, elements of a row.
#[cube(launch)]
pub fn quantize<F: Float>(
    x: &Array<F>,
    scales: &Array<f32>,
    to: &mut Array<u32>,
    figures: &Array<u32>,
    #[define(F)] _dtype: StorageType,
) {
    let count = figures[0] as usize;
    if ABSOLUTE_POS * 4 < count {
        let mut word = 0u32;
        #[unroll]
        for byte in 0..4usize {
            let at = ABSOLUTE_POS * 4 + byte;
            if at < count {
                let scale = scales[at / figures[1] as usize];
                let exact = (f32::cast_from(x[at]) / scale).round();
                let is_number = scale > 0.0 && !exact.is_nan();
                let q = i32::cast_from(select(is_number, clamp(exact, -127.0, 127.0), 0.0));
                word |= (u32::reinterpret(q) & 255u32) << comptime!(8 * byte as u32);
            }
        }
        to[ABSOLUTE_POS] = word;
    }
}

/// A unit makes an element. `figures`: elements, elements of a row.
#[cube(launch)]
pub fn dequantize<F: Float>(
    q: &Array<u32>,
    scales: &Array<f32>,
    to: &mut Array<F>,
    figures: &Array<u32>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < figures[0] as usize {
        let byte = byte_at(q, ABSOLUTE_POS as u32);
        // Moved up and down again, so that the sign comes along.
        let value = i32::reinterpret(byte << 24u32) >> 24i32;
        to[ABSOLUTE_POS] = F::cast_from(f32::cast_from(value) * scales[ABSOLUTE_POS / figures[1] as usize]);
    }
}

#[cube]
fn byte_at(words: &Array<u32>, at: u32) -> u32 {
    (words[(at / 4u32) as usize] >> (at % 4u32 * 8u32)) & 255u32
}

/// Puts a byte among its neighbours, which other units may be writing.
#[cube]
fn put(words: &mut Array<Atomic<u32>>, at: u32, byte: u32) {
    let shift = at % 4u32 * 8u32;
    let word = &words[(at / 4u32) as usize];
    word.fetch_and(!(255u32 << shift));
    word.fetch_or(byte << shift);
}

/// As `map::copy`, for bytes.
#[cube(launch)]
pub fn copy(from: &Array<u32>, to: &mut Array<Atomic<u32>>, figures: &Array<u32>, #[comptime] axes: usize) {
    if ABSOLUTE_POS < figures[0] as usize {
        let source = walk(ABSOLUTE_POS as u32, figures, comptime!(1 + axes), axes);
        let target = walk(ABSOLUTE_POS as u32, figures, comptime!(2 + 2 * axes), axes);
        put(to, target, byte_at(from, source));
    }
}

/// As `index::gather`, for bytes.
#[cube(launch)]
pub fn gather(
    from: &Array<u32>,
    indices: &Array<i32>,
    to: &mut Array<Atomic<u32>>,
    fault: &mut Array<u32>,
    figures: &Array<u32>,
) {
    if ABSOLUTE_POS < figures[0] as usize {
        let at = ABSOLUTE_POS as u32;
        let line = at / figures[3];
        let index = indices[(line % figures[2]) as usize];
        if index >= 0 && u32::cast_from(index) < figures[1] {
            let source =
                (line / figures[2] * figures[1] + u32::cast_from(index)) * figures[3] + at % figures[3];
            put(to, at, byte_at(from, source));
        } else {
            let word = figures[4] as usize;
            fault[word] = 1u32;
        }
    }
}

/// How many words of two rows differ.
#[cube(launch)]
pub fn count_different(
    a: &Array<u32>,
    b: &Array<u32>,
    to: &mut Array<u32>,
    figures: &Array<u32>,
    #[comptime] team: Team,
) {
    let row = row(figures, team);
    if row.exists {
        let mut own = 0u32;
        let mut at = first(team);
        while at < row.n {
            let place = row.base + at as usize * row.step;
            if a[place] != b[place] {
                own += 1u32;
            }
            at += comptime!(team.units);
        }
        let count = summed(own, team);
        if first(team) == 0u32 {
            to[row.number] = count;
        }
    }
}

/// The sum of all units' counts: whole numbers, which floats do not hold for long.
#[cube]
fn summed(own: u32, #[comptime] team: Team) -> u32 {
    let mut result = own;
    if comptime!(team.units > 1) {
        let mut shared = SharedMemory::<u32>::new(comptime!(team.units as usize));
        shared[UNIT_POS as usize] = own;
        sync_cube();
        #[unroll]
        for level in 0..comptime!(team.units.ilog2()) {
            let distance = comptime!(team.units >> (level + 1));
            if UNIT_POS < distance {
                let other = shared[(UNIT_POS + distance) as usize];
                shared[UNIT_POS as usize] += other;
            }
            sync_cube();
        }
        result = shared[0];
    }
    result
}
