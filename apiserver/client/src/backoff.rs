//! Growing, jittered pauses between attempts.
//!
//! Owns no clock: it says how long to wait, the caller waits.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Pauses that double from `base` to `cap`, each drawn from the upper half of its range so that a
/// thousand clients that lost one server do not return in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    random: u64,
}

impl Backoff {
    /// Pauses from `base` to `cap`, with jitter nobody can predict.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self::seeded(base, cap, RandomState::new().hash_one(0_u8))
    }

    /// The same, with jitter that `seed` decides.
    pub fn seeded(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, attempt: 0, random: seed }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        let full = self.base.saturating_mul(factor).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        full / 2 + full.mul_f64(self.fraction() / 2.0)
    }

    /// After a success: start again from `base`.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// A number in [0, 1), by SplitMix64 (Steele, Lea, Flood 2014).
    pub fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper 32 bits are enough, and convert exactly.
        let upper = u32::try_from(z >> 32).expect("32 bits remain after the shift");
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_never_exceed_it() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::seeded(base, cap, 7);
        for attempt in 0..70_u32 {
            let full = base.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(cap);
            let pause = backoff.pause();
            assert!(pause >= full / 2 && pause <= full, "attempt {attempt}: {pause:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= base);
    }

    #[test]
    fn two_seeds_give_different_pauses_and_one_seed_the_same() {
        let make = |seed| Backoff::seeded(Duration::from_secs(1), Duration::from_secs(60), seed).pause();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
