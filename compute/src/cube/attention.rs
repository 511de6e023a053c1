//! Attention.

use super::Cube;
use super::kernels::attention::{Form, attention};
use super::launch::{figure, storage};
use crate::memory::View;
use cubecl::prelude::*;

impl<R: Runtime> Cube<R> {
    pub fn attention(&self, causal: bool, scale: f32, operands: &[View], to: &View) {
        let extents = |view: &View| <[usize; 4]>::try_from(&view.of.shape[..]).expect("four axes");
        let ([batch, heads, positions, width], [_, _, keys, _], [_, _, _, width_out]) =
            (extents(&operands[0]), extents(&operands[1]), extents(&operands[2]));
        let queries = batch * heads * positions;
        let team = self.team_of(self.units_of_a_row(keys.max(width_out)).min(128));
        let form = Form { team, width, columns: width_out.div_ceil(team.units as usize) };
        let (first, more) = if causal { (keys - positions + 1, 1) } else { (keys, 0) };
        let figures = self.figures(&[queries, positions, keys, width_out, first, more].map(figure));
        let [query, key, value] = [0, 1, 2].map(|operand: usize| self.array(&operands[operand], 1));
        let (count, dim, dtype) = (self.cubes(queries), CubeDim::new_1d(team.units), storage(to.of.dtype));
        attention::launch(
            &self.client,
            count,
            dim,
            query,
            key,
            value,
            self.array(to, 1),
            figures,
            scale,
            form,
            dtype,
        );
    }
}
