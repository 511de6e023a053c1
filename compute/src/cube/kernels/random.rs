//! Philox numbers; see `crate::philox`.

use crate::philox::{KEYS, MULTIPLIERS, ROUNDS};
use cubecl::prelude::*;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drawn {
    /// `fraction * scale + shift`.
    Uniform,
    /// `normal * scale + shift`.
    Normal,
    /// `low + word * range / 2^32`.
    Integers,
}

/// The four words of a block.
#[cube]
fn block(number: u32, seed_low: u32, seed_high: u32) -> Array<u32> {
    let mut words = Array::<u32>::new(4usize);
    words[0] = number;
    words[1] = 0u32;
    words[2] = 0u32;
    words[3] = 0u32;
    let mut key_low = seed_low;
    let mut key_high = seed_high;
    #[unroll]
    for _ in 0..comptime!(ROUNDS) {
        let first = u32::new(comptime!(i64::from(MULTIPLIERS[0])));
        let second = u32::new(comptime!(i64::from(MULTIPLIERS[1])));
        let high_0 = first.mul_hi(words[0]);
        let low_0 = first * words[0];
        let high_1 = second.mul_hi(words[2]);
        let low_1 = second * words[2];
        let before_1 = words[1];
        let before_3 = words[3];
        words[0] = high_1 ^ before_1 ^ key_low;
        words[1] = low_1;
        words[2] = high_0 ^ before_3 ^ key_high;
        words[3] = low_0;
        key_low += u32::new(comptime!(i64::from(KEYS[0])));
        key_high += u32::new(comptime!(i64::from(KEYS[1])));
    }
    words
}

/// From 0 up to 1, in steps of 2^-24.
#[cube]
fn fraction(word: u32) -> f32 {
    f32::cast_from(word >> 8u32) * 5.960_464_5e-8
}

/// A unit draws a block. `figures`: how many elements, the seed's halves, the least integer, the range (0 for 2^32).
#[cube(launch)]
pub fn random<E: Numeric>(
    to: &mut Array<E>,
    figures: &Array<u32>,
    scale: f32,
    shift: f32,
    #[comptime] drawn: Drawn,
    #[define(E)] _dtype: StorageType,
) {
    let count = figures[0] as usize;
    let words = block(ABSOLUTE_POS as u32, figures[1], figures[2]);
    match comptime!(drawn) {
        Drawn::Normal =>
        {
            #[unroll]
            for pair in 0..2usize {
                let at = ABSOLUTE_POS * 2 + pair;
                if at < count {
                    let radius = (-2.0
                        * (f32::cast_from((words[comptime!(2 * pair)] >> 8u32) + 1u32) * 5.960_464_5e-8)
                            .ln())
                    .sqrt();
                    let angle = fraction(words[comptime!(2 * pair + 1)]);
                    to[at] = E::cast_from(fma(radius * turned(angle), scale, shift));
                }
            }
        }
        Drawn::Uniform =>
        {
            #[unroll]
            for word in 0..4usize {
                let at = ABSOLUTE_POS * 4 + word;
                if at < count {
                    to[at] = E::cast_from(fma(fraction(words[word]), scale, shift));
                }
            }
        }
        Drawn::Integers =>
        {
            #[unroll]
            for word in 0..4usize {
                let at = ABSOLUTE_POS * 4 + word;
                if at < count {
                    let above = select(figures[4] == 0u32, words[word], words[word].mul_hi(figures[4]));
                    to[at] = E::cast_from(i32::reinterpret(figures[3] + above));
                }
            }
        }
    }
}

/// The cosine of a part of a full turn: folded to an eighth, where every device is exact.
#[cube]
fn turned(part: f32) -> f32 {
    // cos(2πp) = cos(2π(1-p)), and from a quarter on it is the negative of half a turn less.
    let folded = select(part > 0.5, 1.0 - part, part);
    let is_back = folded > 0.25;
    let within = select(is_back, 0.5 - folded, folded);
    let by_sine = (std::f32::consts::TAU * (0.25 - within)).sin();
    let by_cosine = (std::f32::consts::TAU * within).cos();
    let cosine = select(within > 0.125, by_sine, by_cosine);
    select(is_back, -cosine, cosine)
}
