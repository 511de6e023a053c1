//! Random numbers.

use super::Cube;
use super::kernels::random::{Drawn, random};
use super::launch::{figure, storage};
use crate::memory::View;
use crate::philox::halves;
use claw_graph::Distribution;
use cubecl::prelude::*;

impl<R: Runtime> Cube<R> {
    pub fn random(&self, distribution: Distribution, seed: u64, to: &View) {
        let elements = to.of.shape.elements();
        let (drawn, scale, shift, [low, range], per_unit) = match distribution {
            Distribution::Uniform { low, high } => {
                (Drawn::Uniform, (high - low) as f32, low as f32, [0, 0], 4)
            }
            Distribution::Normal { mean, deviation } => {
                (Drawn::Normal, deviation as f32, mean as f32, [0, 0], 2)
            }
            // The range of all integers is 2^32, which is 0 in 32 bits and is read as that.
            Distribution::Integers { low, high } => (
                Drawn::Integers,
                0.0,
                0.0,
                [low.cast_unsigned(), high.wrapping_sub(low).wrapping_add(1).cast_unsigned()],
                4,
            ),
        };
        let [seed_low, seed_high] = halves(seed);
        let figures = self.figures(&[figure(elements), seed_low, seed_high, low, range]);
        let (count, dim) = self.units(elements.div_ceil(per_unit));
        random::launch(
            &self.client,
            count,
            dim,
            self.array(to, 1),
            figures,
            scale,
            shift,
            drawn,
            storage(to.of.dtype),
        );
    }
}
