//! The reference: every operation in float64, as its definition reads, without anything that makes it fast.
//!
//! All devices are held to it. Operands are taken as they are, results are rounded to nothing: the bound of an error counts in
//! units of the device's own type.

mod ops;

use claw_graph::{DType, Graph, TensorType};

/// A tensor of the reference: elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Exact {
    /// What it stands for.
    pub of: TensorType,
    /// Its elements. Integers are themselves.
    pub values: Vec<f64>,
}

impl Exact {
    /// Values of this type: rounded to it.
    ///
    /// # Panics
    /// If they are not as many as the shape has.
    #[must_use]
    pub fn new(of: TensorType, values: &[f64]) -> Self {
        assert_eq!(of.shape.elements(), values.len(), "a value for each element of {of}");
        let values = values.iter().map(|value| round(of.dtype, *value)).collect();
        Self { of, values }
    }
}

/// The outputs of a graph. `None` if an index is outside its axis.
///
/// # Panics
/// If the inputs are not those of the graph.
#[must_use]
pub fn run(graph: &Graph, inputs: &[Exact]) -> Option<Vec<Exact>> {
    run_with(graph, inputs, |_, value| value)
}

/// As [`run`], with every result rounded to its type: what rounding alone makes of a graph.
///
/// # Panics
/// If the inputs are not those of the graph.
#[must_use]
pub fn run_rounding(graph: &Graph, inputs: &[Exact]) -> Option<Vec<Exact>> {
    run_with(graph, inputs, round)
}

fn run_with(graph: &Graph, inputs: &[Exact], kept: fn(DType, f64) -> f64) -> Option<Vec<Exact>> {
    assert!(
        graph.inputs().iter().map(|input| graph.of(*input)).eq(inputs.iter().map(|input| &input.of)),
        "the graph's inputs"
    );
    let mut known: Vec<Exact> = inputs.to_vec();
    for node in graph.nodes() {
        let operands: Vec<&Exact> = node.operands.iter().map(|operand| &known[operand.index()]).collect();
        let types: Vec<&TensorType> = node.results.iter().map(|result| graph.of(*result)).collect();
        let results = ops::run(&node.op, &operands, &types)?;
        known.extend(results.into_iter().zip(types).map(|(values, of)| {
            let values = values.into_iter().map(|value| kept(of.dtype, value)).collect();
            Exact { of: of.clone(), values }
        }));
    }
    Some(graph.outputs().iter().map(|output| known[output.index()].clone()).collect())
}

/// A number as a type holds it: to nearest, ties to even; integers hold to their range.
#[must_use]
pub fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::Bf16 => half::bf16::from_f64(value).to_f64(),
        DType::I32 => f64::from(value as i32),
        DType::I8 => f64::from(value as i8),
    }
}
