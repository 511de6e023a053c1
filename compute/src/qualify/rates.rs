//! How quick a device is, and whether it is right while it is.

use super::{Sketch, Tell, bars, flops, product, shape, small_integers};
use crate::device::Device;
use crate::error::Result;
use crate::proof::{drawn_matrix, is_product};
use crate::tensor::Tensor;
use claw_graph::qualification::{Check, Finding, Level};
use claw_graph::{DType, Graph, Op, TensorType, Unary};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const TURNS: usize = 9;
/// A run that takes at least this is long beside what it takes to start it.
const LONG: Duration = Duration::from_millis(50);
/// What the two matrices are drawn by.
const SEEDS: [u64; 2] = [11, 12];
/// The largest matrices that are multiplied.
const SIZE_MAX: usize = 8_192;

/// Seconds of the run in the middle; the first one warms up.
fn median(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let mut times = Vec::with_capacity(TURNS);
    for _ in 0..TURNS {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[TURNS / 2])
}

/// Bytes that are copied: many times what caches hold.
fn copied_bytes(device: &Device) -> usize {
    let wanted: u64 = if device.properties().is_cpu { 64 << 20 } else { 512 << 20 };
    wanted.min(device.properties().buffer_bytes_max).min(device.memory_limit() / 4) as usize / 4 * 4
}

pub fn copy(device: &Device, _: Level, tell: Tell<'_>) -> Result<Finding> {
    let bytes = copied_bytes(device);
    tell(Check::Copy, &format!("copy: {} MiB within its memory", bytes >> 20));
    let of = TensorType::new(DType::F32, shape(&[bytes / 4])?);
    let mut sketch = Sketch::new();
    let input = sketch.input("x", &of)?;
    let negated = sketch.add("negated", Op::Unary(Unary::Neg), &[input])?;
    let graph = sketch.ends_with(negated);
    let x = filled(device, &of)?;
    let seconds = median(|| {
        device.run(&graph, std::slice::from_ref(&x))?;
        device.finish()
    })?;
    let rate = 2.0 * bytes as f64 / seconds;
    let promised = bars::memory_rate(&device.properties().model);
    let share = promised.map(|promised| rate / promised);
    let beside =
        share.map_or_else(String::new, |share| format!(", {:.0} % of the data sheet", 100.0 * share));
    Ok(Finding {
        check: Check::Copy,
        passed: share.is_none_or(|share| share >= bars::OF_DATA_SHEET),
        words: format!("{:.1} GB/s read and written{beside}", rate / 1e9),
        figures: [("copyBytesPerSecond".to_owned(), rate)].into(),
    })
}

fn filled(device: &Device, of: &TensorType) -> Result<Tensor> {
    let mut sketch = Sketch::new();
    let value = sketch.add("x", Op::Fill { value: 1.0, dtype: of.dtype, shape: of.shape.clone() }, &[])?;
    Ok(device.run(&sketch.ends_with(value), &[])?.remove(0))
}

pub fn transfer(device: &Device, _: Level, tell: Tell<'_>) -> Result<Finding> {
    let bytes = copied_bytes(device);
    tell(Check::Transfer, &format!("transfer: {} MiB to and from the machine", bytes >> 20));
    let of = TensorType::new(DType::F32, shape(&[bytes / 4])?);
    let content = vec![0x3Fu8; bytes];
    let there = median(|| {
        device.tensor_of_bytes(&content, &of)?;
        device.finish()
    })?;
    let tensor = device.tensor_of_bytes(&content, &of)?;
    let mut arrived = Vec::new();
    let back = median(|| {
        arrived = tensor.to_bytes()?;
        Ok(())
    })?;
    let passed = arrived == content;
    let [there, back] = [there, back].map(|seconds| bytes as f64 / seconds);
    let mut words = format!("{:.1} GB/s there, {:.1} GB/s back", there / 1e9, back / 1e9);
    if !passed {
        words.push_str("; what came back is not what was sent");
    }
    let figures = BTreeMap::from([
        ("uploadBytesPerSecond".to_owned(), there),
        ("downloadBytesPerSecond".to_owned(), back),
    ]);
    Ok(Finding { check: Check::Transfer, passed, words, figures })
}

pub fn matrix(device: &Device, level: Level, tell: Tell<'_>) -> Result<Finding> {
    let mut figures = BTreeMap::new();
    let mut words = Vec::new();
    let mut passed = true;
    for dtype in device.properties().floats.clone() {
        let (n, rate, is_right) = multiplied(device, dtype, level, tell)?;
        passed &= is_right;
        let verdict = if is_right { "" } else { ", and WRONG" };
        words.push(format!("{dtype} {} at {n}{verdict}", flops(rate)));
        figures.insert(format!("matmul{}FlopsPerSecond", titled(dtype)), rate);
    }
    Ok(Finding { check: Check::Matrix, passed, words: words.join(", "), figures })
}

/// `F32`, `Bf16`: inside of a name.
fn titled(dtype: DType) -> String {
    format!("{dtype:?}")
}

/// The size, the rate, and whether the product is the product.
fn multiplied(device: &Device, dtype: DType, level: Level, tell: Tell<'_>) -> Result<(usize, f64, bool)> {
    let largest = if level == Level::Full { SIZE_MAX } else { SIZE_MAX / 2 };
    let mut n = 128;
    loop {
        tell(Check::Matrix, &format!("matrix: {dtype}, {n} by {n}"));
        let graph = product(dtype, n)?;
        let [a, b] = operands(device, dtype, n)?;
        let inputs = [a, b];
        let run = |graph: &Graph| {
            let start = Instant::now();
            let result = device.run(graph, &inputs)?.remove(0);
            device.finish()?;
            Ok((start.elapsed(), result))
        };
        // The first one compiles.
        let (took, result) = run(&graph).and_then(|_| run(&graph))?;
        if took < LONG && n * 2 <= largest {
            n *= 2;
            continue;
        }
        let seconds = median(|| run(&graph).map(|_| ()))?;
        let is_right = is_product(
            n,
            // Drawn anew by the machine, not read from the device that is looked at.
            drawn_matrix(SEEDS[0]),
            drawn_matrix(SEEDS[1]),
            &result.to_vec::<f32>()?,
            // Nobody who made the product could have known what it is tested with, and a device that is broken does not try.
            [0x51; 32],
        );
        return Ok((n, 2.0 * (n as f64).powi(3) / seconds, is_right));
    }
}

/// Two matrices of small integers.
pub fn operands(device: &Device, dtype: DType, n: usize) -> Result<[Tensor; 2]> {
    let drawn = |seed| {
        let mut sketch = Sketch::new();
        let value = sketch.add("m", small_integers(dtype, &[n, n], seed)?, &[])?;
        Ok(device.run(&sketch.ends_with(value), &[])?.remove(0))
    };
    let [a, b] = SEEDS;
    Ok([drawn(a)?, drawn(b)?])
}
