//! Proof of compute: a product of two matrices that only somebody with the claimed arithmetic rate has in time, checked in a
//! fraction of the work.
//!
//! 1. The verifier [issues](Verifier::issue) a [`Challenge`]: a fresh seed, a size, a type, a deadline.
//! 2. The prover [multiplies](Challenge::answer) the matrices that the seed stands for, and sends the [`Commitment`], 32 bytes, at once.
//!    The clock stops when it arrives; what the product's size takes to be sent does not count.
//! 3. The verifier [takes](Verifier::commit) the commitment, once, and if it is in time.
//! 4. The prover sends the product, and the verifier [checks](Verifier::check) it: that it is the one committed to, and, by Freivalds' test
//!    (`freivalds.rs`), that it is the product.
//!
//! *Replayed*: a challenge is answered once, and is forgotten afterwards. *Precomputed*: nothing is known of the matrices before the seed.
//! *Guessed*: the commitment is to all of the product, and what it is tested with is drawn after it has arrived.
//!
//! **Exactness.** Elements are whole numbers from -3 to 3, exact in every float type. With `n` at most 2^20, each sum of `n` products is at
//! most 9·2^20 < 2^24, as is every partial sum: exact in `f32` in whatever order a device adds. So an honest answer is the one right
//! answer, to the bit, on every device, and no tolerance has to be chosen that a cheat could live in.

mod calibration;
mod freivalds;

pub use calibration::{MODELS, Model, deadline, size_for};
pub use freivalds::{PRIME, is_product};

use crate::device::Device;
use crate::error::{Error, Result};
use claw_graph::{DType, Distribution, Graph, Op, Shape};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The largest size of a number in the matrices.
pub(crate) const ELEMENT_MAX: i32 = 3;
/// The largest size of a challenge: sums stay below 2^24.
pub const SIZE_MAX: usize = 1 << 20;
/// Challenges that are open at once. A verifier has one for each GPU that it is looking at.
const OPEN_MAX: usize = 4_096;

/// What is to be multiplied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the matrices follow from.
    pub seed: [u8; 32],
    /// Rows and columns of each.
    pub size: usize,
    /// The type that they are multiplied in.
    pub dtype: DType,
}

/// SHA-256 of the challenge and the product.
pub type Commitment = [u8; 32];

/// Why an answer is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Never issued, already answered, or forgotten.
    #[error("no such challenge is open")]
    Unknown,
    /// After the deadline.
    #[error("the commitment came {0:?} after the deadline")]
    Late(Duration),
    /// A second commitment, or a product before the first.
    #[error("one commitment is taken for a challenge, before its product")]
    Order,
    /// The product is not the one committed to.
    #[error("the product is not what was committed to")]
    Other,
    /// It is not the product of the matrices.
    #[error("it is not the product")]
    Wrong,
}

impl Challenge {
    /// The product, calculated on a device, row after row.
    ///
    /// # Errors
    /// What the device says: [`Error::Unsupported`] if it has not the type, [`Error::OutOfMemory`].
    pub fn answer(&self, device: &Device) -> Result<Vec<f32>> {
        let fits = |error: claw_graph::GraphError| Error::Data(error.to_string());
        let mut graph = Graph::new();
        let mut operands = Vec::new();
        for (which, name) in ["a", "b"].into_iter().enumerate() {
            operands.extend(graph.add(name, self.matrix(which), &[]).map_err(fits)?);
        }
        let product = graph
            .add("product", Op::MatMul { wide: true, transpose_lhs: false, transpose_rhs: false }, &operands)
            .map_err(fits)?;
        graph.output(product[0]);
        device.run(&graph, &[])?[0].to_vec()
    }

    /// What is sent before the product.
    #[must_use]
    pub fn commitment(&self, product: &[f32]) -> Commitment {
        let mut hash = Sha256::new();
        hash.update(b"clawbernetes proof of compute, product\0");
        hash.update(self.seed);
        hash.update((self.size as u64).to_le_bytes());
        hash.update(self.dtype.name());
        hash.update(bytemuck::cast_slice::<f32, u8>(product));
        hash.finalize().into()
    }

    /// One of the two matrices, as an operation that draws it.
    fn matrix(&self, which: usize) -> Op {
        let distribution = Distribution::Integers { low: -ELEMENT_MAX, high: ELEMENT_MAX };
        let shape = Shape::new([self.size, self.size]).expect("a verifier issues sizes up to 2^20");
        Op::Random { distribution, seed: self.seed_of(which), dtype: self.dtype, shape }
    }

    fn seed_of(&self, which: usize) -> u64 {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"clawbernetes proof of compute, matrix\0")
            .chain_update(self.seed)
            .chain_update([which as u8])
            .finalize()
            .into();
        u64::from_le_bytes(*digest.first_chunk().expect("32 bytes have 8"))
    }
}

/// Whoever issues challenges and judges answers. Knows no clock and draws no numbers: both are handed in.
#[derive(Debug, Default)]
pub struct Verifier {
    open: HashMap<[u8; 32], Open>,
}

#[derive(Debug)]
struct Open {
    challenge: Challenge,
    deadline: Instant,
    commitment: Option<Commitment>,
}

impl Verifier {
    /// A new challenge. `seed` must be drawn by a generator that nobody can foresee, and drawn anew for each.
    ///
    /// # Errors
    /// [`Error::Data`] if the size is 0 or over [`SIZE_MAX`], the type none to calculate with, the seed used already, or too many
    /// challenges are open.
    pub fn issue(
        &mut self,
        seed: [u8; 32],
        size: usize,
        dtype: DType,
        deadline: Instant,
    ) -> Result<Challenge> {
        if size == 0 || size > SIZE_MAX || !dtype.is_float() {
            return Err(Error::Data(format!(
                "a challenge multiplies floats in matrices of 1 to {SIZE_MAX}, not {dtype} in {size}"
            )));
        }
        if self.open.len() >= OPEN_MAX || self.open.contains_key(&seed) {
            return Err(Error::Data("too many challenges are open, or the seed was used already".to_owned()));
        }
        let challenge = Challenge { seed, size, dtype };
        self.open.insert(seed, Open { challenge: challenge.clone(), deadline, commitment: None });
        Ok(challenge)
    }

    /// Takes the commitment to an answer, which arrived at `now`.
    ///
    /// # Errors
    /// [`Refusal::Late`], after which the challenge is forgotten; [`Refusal::Order`], [`Refusal::Unknown`].
    pub fn commit(
        &mut self,
        seed: &[u8; 32],
        commitment: Commitment,
        now: Instant,
    ) -> std::result::Result<(), Refusal> {
        let open = self.open.get_mut(seed).ok_or(Refusal::Unknown)?;
        if open.commitment.is_some() {
            return Err(Refusal::Order);
        }
        let late = now.saturating_duration_since(open.deadline);
        if late > Duration::ZERO {
            self.open.remove(seed);
            return Err(Refusal::Late(late));
        }
        open.commitment = Some(commitment);
        Ok(())
    }

    /// Judges a product. The challenge is forgotten, whatever the answer. `drawn` must be random, and drawn after the commitment came.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(
        &mut self,
        seed: &[u8; 32],
        product: &[f32],
        drawn: [u8; 32],
    ) -> std::result::Result<(), Refusal> {
        if self.open.get(seed).ok_or(Refusal::Unknown)?.commitment.is_none() {
            return Err(Refusal::Order);
        }
        let Open { challenge, commitment, .. } = self.open.remove(seed).ok_or(Refusal::Unknown)?;
        if commitment != Some(challenge.commitment(product)) {
            return Err(Refusal::Other);
        }
        let matrix = |which| drawn_matrix(challenge.seed_of(which));
        if is_product(challenge.size, matrix(0), matrix(1), product, drawn) {
            Ok(())
        } else {
            Err(Refusal::Wrong)
        }
    }

    /// Forgets challenges whose deadline has passed without a commitment.
    pub fn forget(&mut self, now: Instant) {
        self.open.retain(|_, open| open.commitment.is_some() || now <= open.deadline);
    }
}

/// A matrix's elements, drawn again as they are needed: the verifier holds none of it.
pub(crate) fn drawn_matrix(seed: u64) -> impl Fn(usize) -> i64 {
    move |at| {
        let word = crate::philox::block((at / 4) as u64, seed)[at % 4];
        let range = i64::from(2 * ELEMENT_MAX + 1);
        i64::from(-ELEMENT_MAX) + ((i64::from(word) * range) >> 32)
    }
}

#[cfg(test)]
mod tests;
