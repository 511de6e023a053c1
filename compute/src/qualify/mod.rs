//! Qualification: whether a device is what it says and calculates rightly, before anybody's work is given to it.
//!
//! Each check is a plain function from a device to a [`Finding`]; bars and known models are in `bars.rs`. What a device says with an
//! error is a finding, too, and the last one. What it does with a crash or a hang has to be seen from outside: run this in a process of
//! its own.

pub mod apart;
mod bars;
mod memory;
mod peer;
mod rates;
mod sameness;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::proof::ELEMENT_MAX;
use claw_graph::order::ReportDevice;
use claw_graph::qualification::{Check, Finding, Level, Qualification};
use claw_graph::{DType, Distribution, Graph, GraphError, Op, Shape, TensorType, Value};
use std::time::Instant;

/// Tells somebody who waits what is done right now, and for which check.
pub type Tell<'a> = &'a mut dyn FnMut(Check, &str);

/// Looks at a device as thoroughly as wanted. It should have nothing else to do.
pub fn qualify(device: &Device, level: Level, tell: Tell<'_>) -> Qualification {
    let start = Instant::now();
    let properties = device.properties();
    let mut findings = Vec::new();
    for (check, run) in CHECKS {
        let finding = run(device, level, tell).unwrap_or_else(|error| refused(check, &error));
        // A device that failed answers nothing after that.
        let goes_on = finding.passed || device.finish().is_ok();
        findings.push(finding);
        if !goes_on {
            break;
        }
    }
    Qualification {
        device: ReportDevice { id: properties.id.clone(), model: properties.model.clone() },
        driver: properties.driver.clone(),
        level,
        findings,
        seconds: start.elapsed().as_secs_f64(),
    }
}

type Run = fn(&Device, Level, Tell<'_>) -> Result<Finding>;

/// Memory comes first, while most of it is free.
const CHECKS: [(Check, Run); 6] = [
    (Check::Memory, memory::memory),
    (Check::Copy, rates::copy),
    (Check::Transfer, rates::transfer),
    (Check::Matrix, rates::matrix),
    (Check::Determinism, sameness::determinism),
    (Check::Soak, sameness::soak),
];

fn refused(check: Check, error: &Error) -> Finding {
    Finding { check, passed: false, words: error.to_string(), figures: [].into() }
}

/// A graph of the module's own: that it fits is a matter of this source.
struct Sketch(Graph);

impl Sketch {
    fn new() -> Self {
        Self(Graph::new())
    }

    fn input(&mut self, name: &str, of: &TensorType) -> Result<Value> {
        self.0.input(name, of.clone()).map_err(misfit)
    }

    fn add(&mut self, name: &str, op: Op, operands: &[Value]) -> Result<Value> {
        Ok(self.0.add(name, op, operands).map_err(misfit)?[0])
    }

    fn ends_with(mut self, value: Value) -> Graph {
        self.0.output(value);
        self.0
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn misfit(error: GraphError) -> Error {
    Error::Data(error.to_string())
}

/// A rate of arithmetic, for people.
fn flops(per_second: f64) -> String {
    let (value, unit) =
        if per_second < 1e12 { (per_second / 1e9, "GFLOP/s") } else { (per_second / 1e12, "TFLOP/s") };
    let decimals = if value < 10.0 { 2 } else { 1 };
    format!("{value:.decimals$} {unit}")
}

fn shape(extents: &[usize]) -> Result<Shape> {
    Shape::new(extents).map_err(|error| Error::Data(error.to_string()))
}

/// Whole numbers from -3 to 3: products of their matrices are exact, in whatever order they are added up.
fn small_integers(dtype: DType, extents: &[usize], seed: u64) -> Result<Op> {
    let distribution = Distribution::Integers { low: -ELEMENT_MAX, high: ELEMENT_MAX };
    Ok(Op::Random { distribution, seed, dtype, shape: shape(extents)? })
}

/// The product of two square matrices, which are its inputs.
fn product(dtype: DType, n: usize) -> Result<Graph> {
    let of = TensorType::new(dtype, shape(&[n, n])?);
    let mut sketch = Sketch::new();
    let operands = [sketch.input("a", &of)?, sketch.input("b", &of)?];
    let op = Op::MatMul { wide: true, transpose_lhs: false, transpose_rhs: false };
    let product = sketch.add("product", op, &operands)?;
    Ok(sketch.ends_with(product))
}

/// How many of the elements of two tensors differ in any bit: compared where they lie.
fn differing(device: &Device, a: &crate::Tensor, b: &crate::Tensor) -> Result<u64> {
    let mut sketch = Sketch::new();
    let operands = [sketch.input("a", a.of())?, sketch.input("b", b.of())?];
    let axis = a.of().shape.rank() - 1;
    let count = sketch.add("count", Op::CountDifferent { axis, keep: false }, &operands)?;
    let counts = device.run(&sketch.ends_with(count), &[a.clone(), b.clone()])?[0].to_vec::<i32>()?;
    Ok(counts.into_iter().map(|count| u64::from(count.unsigned_abs())).sum())
}

#[cfg(test)]
mod tests;
