//! Eight-bit values are moved as parts of words.

use super::Cube;
use super::kernels::bytes as kernels;
use crate::memory::View;
use cubecl::prelude::*;
use cubecl::server::Handle;

impl<R: Runtime> Cube<R> {
    pub fn copy_bytes(&self, from: &View, to: &View, figures: &[u32], axes: usize) {
        let (count, dim) = self.units(from.of.shape.elements());
        let [from, to] = [from, to].map(|view| self.words(view.buffer.memory::<Handle>().clone()));
        kernels::copy::launch(&self.client, count, dim, from, to, self.figures(figures), axes);
    }

    pub fn gather_bytes(&self, operands: &[View], to: &View, fault: ArrayArg<R>, figures: &[u32]) {
        let (count, dim) = self.units(to.of.shape.elements());
        let [from, words] = [&operands[0], to].map(|view| self.words(view.buffer.memory::<Handle>().clone()));
        kernels::gather::launch(
            &self.client,
            count,
            dim,
            from,
            self.array(&operands[1], 1),
            words,
            fault,
            self.figures(figures),
        );
    }
}
