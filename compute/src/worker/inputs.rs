//! Inputs: made once, before the first run, and left on the device.

use super::{failed, failure, files, numbers};
use crate::device::Device;
use crate::tensor::Tensor;
use claw_graph::order::{Failure, OrderInput, Reason, Source, drawn};
use claw_graph::{DType, Graph, Op, TensorType};

/// Makes an input of this type on a device.
///
/// # Errors
/// A file that is something else, and what the device says.
pub fn make(device: &Device, input: &OrderInput, of: &TensorType) -> Result<Tensor, Failure> {
    let bad = |why: String| failure(Reason::BadOrder, format!("input {:?}: {why}", input.name));
    match &input.source {
        Source::Values(values) => upload(device, of, values.iter().copied(), bad),
        Source::Fill(value) if of.dtype != DType::I8 => {
            let graph = filled(&input.name, *value, of).map_err(|error| bad(error.to_string()))?;
            calculated(device, &graph)
        }
        // Graphs have no literals of this type.
        Source::Fill(value) => upload(device, of, std::iter::repeat_n(*value, of.shape.elements()), bad),
        Source::Random(random) => {
            let graph = drawn(&input.name, random, of).map_err(|fault| bad(fault.to_string()))?;
            calculated(device, &graph)
        }
        Source::File(path) => {
            let bytes = files::read(path, of).map_err(|why| bad(format!("{}: {why}", path.display())))?;
            device.tensor_of_bytes(&bytes, of).map_err(failed)
        }
    }
}

fn upload(
    device: &Device,
    of: &TensorType,
    mut values: impl Iterator<Item = f64>,
    bad: impl Fn(String) -> Failure,
) -> Result<Tensor, Failure> {
    let mut bytes = Vec::with_capacity(of.size_bytes());
    values.try_for_each(|value| numbers::encode(of.dtype, value, &mut bytes)).map_err(bad)?;
    device.tensor_of_bytes(&bytes, of).map_err(failed)
}

fn filled(name: &str, value: f64, of: &TensorType) -> Result<Graph, claw_graph::GraphError> {
    let mut graph = Graph::new();
    let results = graph.add(name, Op::Fill { value, dtype: of.dtype, shape: of.shape.clone() }, &[])?;
    graph.output(results[0]);
    Ok(graph)
}

/// The one output of a graph without inputs.
fn calculated(device: &Device, graph: &Graph) -> Result<Tensor, Failure> {
    let mut outputs = device.run(graph, &[]).map_err(failed)?;
    device.finish().map_err(failed)?;
    outputs.pop().ok_or_else(|| failure(Reason::DeviceFailed, "a graph without a result"))
}
