//! Attention: by blocks of queries, or where those do not pay or do not fit a query at a time.

use super::Cube;
use super::kernels::attention::{self as single, Form};
use super::kernels::blocks;
use super::launch::{figure, storage};
use crate::memory::View;
use cubecl::prelude::*;

/// From so many queries of a head on a block of them is quicker than each for itself.
const QUERIES_MIN: usize = 8;
/// Columns of the result whose share a unit can hold in registers.
const WIDTH_OUT_MAX: usize = 256;

/// Extents, and what is seen.
struct Sizes {
    heads: usize,
    positions: usize,
    keys: usize,
    width: usize,
    width_out: usize,
    causal: bool,
}

impl Sizes {
    fn of(operands: &[View], causal: bool) -> Self {
        let extents = |view: &View| <[usize; 4]>::try_from(&view.of.shape[..]).expect("four axes");
        let ([batch, heads, positions, width], [_, _, keys, _], [_, _, _, width_out]) =
            (extents(&operands[0]), extents(&operands[1]), extents(&operands[2]));
        Self { heads: batch * heads, positions, keys, width, width_out, causal }
    }

    /// Keys that the first query sees, and how many more each next.
    const fn seen(&self) -> (usize, usize) {
        if self.causal { (self.keys - self.positions + 1, 1) } else { (self.keys, 0) }
    }
}

impl<R: Runtime> Cube<R> {
    pub fn attention(&self, causal: bool, scale: f32, operands: &[View], to: &View) {
        let sizes = Sizes::of(operands, causal);
        let pays = sizes.positions >= QUERIES_MIN && sizes.width_out <= WIDTH_OUT_MAX;
        if pays && self.has_blocks() {
            self.attention_of_blocks(&sizes, scale, operands, to);
        } else {
            self.attention_of_each(&sizes, scale, operands, to);
        }
    }

    /// Whether the device has what a block needs.
    fn has_blocks(&self) -> bool {
        let hardware = &self.client.properties().hardware;
        hardware.max_units_per_cube as usize >= blocks::UNITS
            && hardware.max_shared_memory_size >= blocks::SHARED_BYTES
    }

    fn attention_of_blocks(&self, sizes: &Sizes, scale: f32, operands: &[View], to: &View) {
        let &Sizes { heads, positions, keys, width, width_out, causal } = sizes;
        let lanes = if width.is_multiple_of(4) && width_out.is_multiple_of(4) { 4 } else { 1 };
        let form = blocks::Form { lanes, pieces: width_out.div_ceil(blocks::BLOCK), causal };
        let of_a_head = positions.div_ceil(blocks::BLOCK);
        let (first, more) = sizes.seen();
        let figures = [heads * of_a_head, of_a_head, positions, keys, width, width_out, first, more];
        let [query, key, value] = [0, 1, 2].map(|operand: usize| self.array(&operands[operand], lanes));
        blocks::attention::launch(
            &self.client,
            self.cubes(heads * of_a_head),
            CubeDim::new_1d(figure(blocks::UNITS)),
            lanes,
            query,
            key,
            value,
            self.array(to, lanes),
            self.figures(&figures.map(figure)),
            scale,
            form,
            storage(to.of.dtype),
        );
    }

    fn attention_of_each(&self, sizes: &Sizes, scale: f32, operands: &[View], to: &View) {
        let &Sizes { heads, positions, keys, width, width_out, .. } = sizes;
        let queries = heads * positions;
        let team = self.team_of(self.units_of_a_row(keys.max(width_out)).min(128));
        let form = Form { team, width, columns: width_out.div_ceil(team.units as usize) };
        let (first, more) = sizes.seen();
        let figures = [queries, positions, keys, width_out, first, more];
        let [query, key, value] = [0, 1, 2].map(|operand: usize| self.array(&operands[operand], 1));
        single::attention::launch(
            &self.client,
            self.cubes(queries),
            CubeDim::new_1d(team.units),
            query,
            key,
            value,
            self.array(to, 1),
            self.figures(&figures.map(figure)),
            scale,
            form,
            storage(to.of.dtype),
        );
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::cube::vulkan;
    use crate::device::Device;
    use crate::memory::Layout;
    use crate::tensor::Tensor;
    use claw_graph::Shape;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn view(tensor: &Tensor) -> View {
        let of = tensor.of().clone();
        View { buffer: tensor.buffer.clone(), layout: Layout::rows(&of.shape), of }
    }

    /// Both are held to the reference in `tests/exact`, each where it is used; here one to the other where either could be. Says what they took.
    #[test]
    fn blocks_of_queries_and_single_ones_agree() {
        // Without a device, other tests say that they were skipped.
        let Ok(cube) = vulkan::cube(0) else { return };
        let cube = Arc::new(cube);
        let device = Device::with(Arc::clone(&cube) as Arc<dyn crate::backend::Backend>);
        assert!(cube.has_blocks(), "lavapipe has what they need");
        for (positions, keys, width) in [(200, 333, 64), (130, 130, 33)] {
            let tensor = |length: usize, factor: usize| {
                let values: Vec<f32> =
                    (0..2 * length * width).map(|at| (at * factor % 61) as f32 / 30.0 - 1.0).collect();
                device.tensor(&values, &Shape::new([1, 2, length, width]).expect("a shape")).expect("fits")
            };
            let operands = [tensor(positions, 7), tensor(keys, 11), tensor(keys, 13)];
            let views = operands.each_ref().map(view);
            for causal in [false, true] {
                let sizes = Sizes::of(&views, causal);
                let (mut results, mut took) = (Vec::new(), Vec::new());
                for in_blocks in [false, true] {
                    let to = tensor(positions, 1);
                    let mut best = Duration::MAX;
                    // The first one is compiled.
                    for _ in 0..4 {
                        let start = Instant::now();
                        if in_blocks {
                            cube.attention_of_blocks(&sizes, 0.125, &views, &view(&to));
                        } else {
                            cube.attention_of_each(&sizes, 0.125, &views, &view(&to));
                        }
                        device.finish().expect("it ends well");
                        best = best.min(start.elapsed());
                    }
                    took.push(best);
                    results.push(to.to_vec::<f32>().expect("it is there"));
                }
                for (at, (each, block)) in results[0].iter().zip(&results[1]).enumerate() {
                    assert!((each - block).abs() < 1e-5, "{at}: {each} and {block}");
                }
                println!("{positions} queries, {keys} keys, width {width}, causal {causal}: {took:?}");
            }
        }
    }
}
