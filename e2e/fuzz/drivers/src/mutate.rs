//! Inputs made of kept ones, from a seed: what libFuzzer does, without what it learns on the way.

/// Longest input. What is found with more is found with less.
const BYTES_MAX: usize = 4096;

/// A stream of inputs that a seed decides.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn throw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.throw() % limit.max(1) as u64) as usize
    }

    /// The next input: new bytes, or a kept input with some changes.
    pub fn next(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        if kept.is_empty() || self.below(4) == 0 {
            let longest = 1 << (2 + self.below(9));
            let length = self.below(longest);
            return self.noise(length);
        }
        let mut input = kept[self.below(kept.len())].clone();
        let changes = 1 + self.below(5);
        for _ in 0..changes {
            self.change(&mut input, kept);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.throw() as u8).collect()
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let at = self.below(input.len());
        let end = at + self.below(input.len() - at + 1).min(32);
        match self.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 | 2 if !input.is_empty() => input[at] = self.throw() as u8,
            3 => {
                let length = 1 + self.below(4);
                let more = self.noise(length);
                drop(input.splice(at..at, more));
            }
            4 => drop(input.drain(at..end)),
            5 => input.extend_from_within(at..end),
            6 => input.truncate(at),
            _ => {
                let other = &kept[self.below(kept.len())];
                let from = self.below(other.len());
                let to = from + self.below(other.len() - from + 1).min(64);
                drop(input.splice(at..at, other[from..to].iter().copied()));
            }
        }
    }
}
