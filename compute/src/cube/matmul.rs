//! Matrix products, by cubek.

use super::Cube;
use super::launch::storage;
use crate::error::{Error, Result};
use crate::memory::View;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_tiling::launch_ref;
use cubek::matmul::routines::BlueprintStrategy;
use cubek::matmul::routines::simple_unit::SimpleUnitAlgorithm;
use cubek::std::InputBinding;

impl<R: Runtime> Cube<R> {
    pub fn matmul(&self, operands: &[View], to: &View) -> Result<()> {
        let dtype = storage(operands[0].of.dtype);
        let [lhs, rhs] =
            [0, 1].map(|operand: usize| InputBinding::new(tensor::<R>(&operands[operand]), dtype));
        let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
            lhs: dtype,
            rhs: dtype,
            out: storage(to.of.dtype),
        });
        // By name, not through the list of all that cubek has: each is compiled for each runtime, and takes seconds to compile.
        let plan = BlueprintStrategy::<(), SimpleUnitAlgorithm>::default();
        launch_ref::<R, SimpleUnitAlgorithm>(&self.client, lhs, rhs, tensor(to), &plan, &mut elements)
            .map_err(|error| Error::Unsupported {
                device: self.properties.id.clone(),
                what: format!("multiply {} by {}: {error:?}", operands[0].of, operands[1].of),
            })
    }
}

fn tensor<R: Runtime>(view: &View) -> TensorBinding<R> {
    let handle = view.buffer.memory::<Handle>().clone();
    // SAFETY: the plan's layouts stay within the buffers that they are of.
    unsafe {
        TensorBinding::from_raw_parts(
            handle,
            view.layout.strides.clone().into(),
            view.of.shape.to_vec().into(),
        )
    }
}
