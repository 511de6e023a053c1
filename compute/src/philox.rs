//! The random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A counter is scrambled with a key, so that any element of any tensor can be drawn without those before it, and every device
//! draws the same. The key is the seed. Element `i` is word `i % 4` of block `i / 4`, but for normal numbers, of which two take a block:
//! element `i` is made of words `2(i % 2)` and `2(i % 2) + 1` of block `i / 2`.

/// Multipliers and key increments of the published generator.
pub const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
pub const KEYS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
pub const ROUNDS: u32 = 10;

/// Four words for a block's number.
pub fn block(number: u64, seed: u64) -> [u32; 4] {
    let [low, high] = halves(number);
    let mut counter = [low, high, 0, 0];
    let mut key = halves(seed);
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        let ([low_0, high_0], [low_1, high_1]) = (halves(first), halves(second));
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0];
        key = [key[0].wrapping_add(KEYS[0]), key[1].wrapping_add(KEYS[1])];
    }
    counter
}

/// The lower and the upper 32 bits.
pub const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the paper's own distribution (`kat_vectors`), with the upper half of the counter at zero.
    #[test]
    fn the_first_block_is_the_published_one() {
        assert_eq!(block(0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn blocks_and_seeds_differ_in_about_half_of_their_bits() {
        let differing =
            |a: [u32; 4], b: [u32; 4]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        let sum: u32 = (0..1_000)
            .map(|n| differing(block(n, 7), block(n + 1, 7)) + differing(block(n, n), block(n, n + 1)))
            .sum();
        assert!((126_000..130_000).contains(&sum), "{sum} of 256,000 bits differ");
    }
}
