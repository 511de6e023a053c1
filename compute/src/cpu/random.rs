//! Philox numbers, eight at a time.

use super::{Float, write};
use crate::memory::View;
use crate::philox::block;
use claw_graph::{DType, Distribution};
use half::{bf16, f16};
use rayon::prelude::*;

/// Elements that a thread draws at once. Whole blocks of every distribution.
const BLOCK: usize = 4_096;

pub fn fill(distribution: Distribution, seed: u64, to: &View) {
    let mut elements = write(to);
    match to.of.dtype {
        DType::I32 => blocks(elements.of::<i32>(to), |start, to| {
            let Distribution::Integers { low, high } = distribution else {
                unreachable!("the graph draws i32 from integers")
            };
            words(start, seed, to, |word| integer(word, low, high));
        }),
        DType::F16 => blocks(elements.of::<f16>(to), |start, to| floats(distribution, seed, start, to)),
        DType::Bf16 => blocks(elements.of::<bf16>(to), |start, to| floats(distribution, seed, start, to)),
        _ => blocks(elements.of::<f32>(to), |start, to| floats(distribution, seed, start, to)),
    }
}

fn blocks<T: Send>(to: &mut [T], draw: impl Fn(usize, &mut [T]) + Sync) {
    to.par_chunks_mut(BLOCK).enumerate().for_each(|(number, to)| draw(number * BLOCK, to));
}

fn floats<T: Float>(distribution: Distribution, seed: u64, start: usize, to: &mut [T]) {
    match distribution {
        Distribution::Uniform { low, high } => {
            let (low, range) = (low as f32, (high - low) as f32);
            words(start, seed, to, |word| T::of(fraction(word).mul_add(range, low)));
        }
        Distribution::Integers { low, high } => {
            words(start, seed, to, |word| T::of(integer(word, low, high) as f32))
        }
        Distribution::Normal { mean, deviation } => {
            for (number, pair) in to.chunks_mut(2).enumerate() {
                let words = block((start / 2 + number) as u64, seed);
                for (to, words) in pair.iter_mut().zip(words.as_chunks::<2>().0) {
                    *to = T::of(normal(*words).mul_add(deviation as f32, mean as f32));
                }
            }
        }
    }
}

/// `f` of each element's word.
fn words<T>(start: usize, seed: u64, to: &mut [T], f: impl Fn(u32) -> T) {
    for (number, four) in to.chunks_mut(4).enumerate() {
        let words = block((start / 4 + number) as u64, seed);
        for (to, word) in four.iter_mut().zip(words) {
            *to = f(word);
        }
    }
}

/// From 0 up to 1, in steps of 2^-24.
fn fraction(word: u32) -> f32 {
    (word >> 8) as f32 / 16_777_216.0
}

fn integer(word: u32, low: i32, high: i32) -> i32 {
    let range = (i64::from(high) - i64::from(low) + 1) as u64;
    (i64::from(low) + ((u64::from(word) * range) >> 32) as i64) as i32
}

fn normal([first, second]: [u32; 2]) -> f32 {
    let radius = (-2.0 * (((first >> 8) + 1) as f32 / 16_777_216.0).ln()).sqrt();
    radius * (std::f32::consts::TAU * fraction(second)).cos()
}
