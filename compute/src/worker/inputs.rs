//! What inputs are made of. Pure but for files: devices come after.

use super::{failure, files, numbers};
use claw_graph::order::{Failure, OrderInput, Reason, Source, drawn};
use claw_graph::{DType, Graph, GraphError, Op, TensorType};

/// How an input comes to a device.
pub enum Made {
    /// Elements as they lie in memory.
    Here(Vec<u8>),
    /// The one output of a graph without inputs: the device makes it itself.
    There(Graph),
}

/// What an input of this type is made of.
///
/// # Errors
/// A file that is something else, or numbers that the type has not.
pub fn made(input: &OrderInput, of: &TensorType) -> Result<Made, Failure> {
    let made = match &input.source {
        Source::Values(values) => encoded(of, values.iter().copied()).map(Made::Here),
        Source::Fill(value) if of.dtype != DType::I8 => {
            filled(&input.name, *value, of).map(Made::There).map_err(|error| error.to_string())
        }
        // Graphs have no literals of this type.
        Source::Fill(value) => encoded(of, std::iter::repeat_n(*value, of.shape.elements())).map(Made::Here),
        Source::Random(random) => {
            drawn(&input.name, random, of).map(Made::There).map_err(|fault| fault.to_string())
        }
        Source::File(path) => {
            files::read(path, of).map(Made::Here).map_err(|why| format!("{}: {why}", path.display()))
        }
    };
    made.map_err(|why| failure(Reason::BadOrder, format!("input {:?}: {why}", input.name)))
}

fn encoded(of: &TensorType, mut values: impl Iterator<Item = f64>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(of.size_bytes());
    values.try_for_each(|value| numbers::encode(of.dtype, value, &mut bytes))?;
    Ok(bytes)
}

fn filled(name: &str, value: f64, of: &TensorType) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let results = graph.add(name, Op::Fill { value, dtype: of.dtype, shape: of.shape.clone() }, &[])?;
    graph.output(results[0]);
    Ok(graph)
}
