//! Repeatable randomness: the same seed, the same throws. SplitMix64 (Steele, Lea, Flood 2014).

use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of numbers that a seed decides.
#[derive(Debug)]
pub struct Dice(AtomicU64);

impl Dice {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Sixty-four bits.
    pub fn throw(&self) -> u64 {
        mixed(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }

    /// A number below `limit`; 0 when there is none.
    pub fn below(&self, limit: u64) -> u64 {
        self.throw() % limit.max(1)
    }

    /// A number from `low` on, below `high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// Whether the lot falls on one of so many of a hundred.
    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        let at = self.below(choices.len() as u64);
        &choices[usize::try_from(at).expect("an index fits")]
    }

    /// A stream of its own, which the next throw decides.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.throw())
    }
}

/// Weyl sequence, mixed.
const fn mixed(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
