//! Freivalds' test: whether `C = A·B`, in O(n²).
//!
//! Draw a vector `r` and compare `A·(B·r)` with `C·r`. If `C` is the product they are equal. If it is not, some row `d` of `A·B - C` is
//! not zero, and `d·r = 0` has to happen by chance. Over the field of integers modulo a prime `p`, with `r` drawn evenly from `pⁿ`
//! vectors and an element of `d` that is not 0 modulo `p`, exactly `pⁿ⁻¹` vectors do that: **probability 1/p**. (Freivalds, "Fast
//! probabilistic algorithms", MFCS 1979; the bound is Schwartz and Zippel's for degree 1.)
//!
//! `p = 2⁶¹ - 1`: elements of `A·B` and `C` are less than 2²⁴ in size, so that a difference is less than 2²⁵ and not 0 modulo `p` unless it
//! is 0. A wrong product is accepted with probability 2⁻⁶¹, about 4·10⁻¹⁹.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// 2^61 - 1, a Mersenne prime: its remainders are taken by shifts.
pub const PRIME: u64 = (1 << 61) - 1;
/// The largest size of an element of a product.
const SUM_MAX: f32 = 16_777_216.0;

/// Whether `product` is the product of two matrices of `n` by `n`, given by their elements in row-major order.
/// `drawn` must be random, and unknown to whoever made the product.
pub fn is_product(
    n: usize,
    a: impl Fn(usize) -> i64 + Sync,
    b: impl Fn(usize) -> i64 + Sync,
    product: &[f32],
    drawn: [u8; 32],
) -> bool {
    if product.len() != n * n || !product.par_iter().all(|c| c.fract() == 0.0 && c.abs() < SUM_MAX) {
        return false;
    }
    let r = vector::<PRIME>(n, &drawn);
    let c = |at: usize| product[at] as i64;
    agrees::<PRIME>(n, &a, &b, &c, &r)
}

/// `A·(B·r) = C·r`, modulo a prime below 2^61.
pub fn agrees<const P: u64>(
    n: usize,
    a: &(impl Fn(usize) -> i64 + Sync),
    b: &(impl Fn(usize) -> i64 + Sync),
    c: &(impl Fn(usize) -> i64 + Sync),
    r: &[u64],
) -> bool {
    let by_r = times::<P>(n, b, r);
    times::<P>(n, a, &by_r) == times::<P>(n, c, r)
}

/// A matrix times a vector.
fn times<const P: u64>(n: usize, matrix: &(impl Fn(usize) -> i64 + Sync), vector: &[u64]) -> Vec<u64> {
    let row = |row: usize| {
        // Elements are less than 2^25 in size and vectors' less than 2^61: 2^40 of the products fit.
        let sum: i128 = vector
            .iter()
            .enumerate()
            .map(|(column, x)| i128::from(matrix(row * n + column)) * i128::from(*x))
            .sum();
        u64::try_from(sum.rem_euclid(i128::from(P))).unwrap_or(0)
    };
    if n < 64 { (0..n).map(row).collect() } else { (0..n).into_par_iter().map(row).collect() }
}

/// `n` numbers below a prime, evenly: words of SHA-256 in counter mode, those beyond the last multiple of the prime left out.
pub fn vector<const P: u64>(n: usize, drawn: &[u8; 32]) -> Vec<u64> {
    let words = (0u64..).flat_map(|counter| {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"clawbernetes proof of compute, vector\0")
            .chain_update(drawn)
            .chain_update(counter.to_le_bytes())
            .finalize()
            .into();
        digest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>()
    });
    let end = u64::MAX / P * P;
    words.filter(|word| *word < end).map(|word| word % P).take(n).collect()
}
