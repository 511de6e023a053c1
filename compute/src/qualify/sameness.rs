//! Whether the same work gives the same results: now, and under load.

use super::rates::operands;
use super::{Sketch, Tell, bars, differing, flops, product, shape};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;
use claw_graph::qualification::{Check, Finding, Level};
use claw_graph::{Binary, DType, Distribution, Graph, Op, Unary};
use std::time::{Duration, Instant};

/// How often the same is calculated.
const REPEATS: usize = 20;
/// How long a device works between two looks at what it made.
const STRETCH: Duration = Duration::from_millis(500);
/// Stretches that make the first speed.
const FIRST: usize = 4;

/// Work of all kinds over numbers of all sizes: products, exponentials, sums.
fn mixed(n: usize) -> Result<Graph> {
    let shape = shape(&[n, n])?;
    let mut sketch = Sketch::new();
    let distribution = Distribution::Normal { mean: 0.0, deviation: 1.0 };
    let x = sketch.add("x", Op::Random { distribution, seed: 5, dtype: DType::F32, shape }, &[])?;
    let op = Op::MatMul { wide: true, transpose_lhs: false, transpose_rhs: true };
    let product = sketch.add("product", op, &[x, x])?;
    let likely = sketch.add("likely", Op::Softmax { axis: 1, log: true }, &[product])?;
    let bent = sketch.add("bent", Op::Unary(Unary::Gelu), &[product])?;
    let sum = sketch.add("sum", Op::Binary(Binary::Add), &[likely, bent])?;
    Ok(sketch.ends_with(sum))
}

pub fn determinism(device: &Device, _: Level, tell: Tell<'_>) -> Result<Finding> {
    let n = if device.properties().is_cpu { 256 } else { 2_048 };
    tell(Check::Determinism, &format!("determinism: the same work {REPEATS} times"));
    let graph = mixed(n)?;
    let first = device.run(&graph, &[])?.remove(0);
    let mut words = 0;
    for _ in 1..REPEATS {
        let again = device.run(&graph, &[])?.remove(0);
        words += differing(device, &first, &again)?;
    }
    let said = match words {
        0 => format!("{REPEATS} times the same result"),
        words => format!("{words} elements of {} results differ from the first one's", REPEATS - 1),
    };
    Ok(Finding { check: Check::Determinism, passed: words == 0, words: said, figures: [].into() })
}

pub fn soak(device: &Device, level: Level, tell: Tell<'_>) -> Result<Finding> {
    let (n, dtype) = load(device);
    let seconds = match level {
        Level::Full => 60,
        Level::Quick if device.properties().is_cpu => 2,
        Level::Quick => 8,
    };
    let time = Duration::from_secs(seconds);
    let graph = product(dtype, n)?;
    let inputs = operands(device, dtype, n)?;
    let first = device.run(&graph, &inputs)?.remove(0);
    device.finish()?;
    let (start, mut rates, mut words) = (Instant::now(), Vec::new(), 0);
    while start.elapsed() < time {
        let (rate, last) = stretch(device, &graph, &inputs)?;
        words += differing(device, &first, &last)?;
        rates.push(rate * 2.0 * (n as f64).powi(3));
        let (done, all) = (start.elapsed().as_secs(), time.as_secs());
        tell(Check::Soak, &format!("load: {done} of {all} s, {}", flops(rates[rates.len() - 1])));
    }
    Ok(judged(&rates, words, device.properties().is_cpu))
}

/// What a device multiplies under load.
fn load(device: &Device) -> (usize, DType) {
    let floats = &device.properties().floats;
    let narrow = floats.iter().copied().find(|dtype| *dtype != DType::F32).unwrap_or(DType::F32);
    if device.properties().is_cpu { (256, DType::F32) } else { (4_096, narrow) }
}

/// Products a second over a stretch of time, and the last of them.
fn stretch(device: &Device, graph: &Graph, inputs: &[Tensor]) -> Result<(f64, Tensor)> {
    let start = Instant::now();
    let mut done = 0.0;
    loop {
        let result = device.run(graph, inputs)?.remove(0);
        // One is begun while another is at work, so that the device never waits.
        if done as u64 % 4 == 3 {
            device.finish()?;
        }
        done += 1.0;
        if start.elapsed() >= STRETCH {
            device.finish()?;
            return Ok((done / start.elapsed().as_secs_f64(), result));
        }
    }
}

/// Processors share their time with others: their speed under load says nothing about them.
fn judged(rates: &[f64], words: u64, is_cpu: bool) -> Finding {
    let middle = |rates: &[f64]| {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
    };
    let begins = middle(&rates[..rates.len().min(FIRST)]);
    let ends = middle(&rates[rates.len().saturating_sub(FIRST)..]);
    let kept = ends / begins;
    let is_slow = !is_cpu && kept < bars::UNDER_LOAD;
    let mut said = format!("{} at the end, {:.0} % of the beginning", flops(ends), 100.0 * kept);
    if is_slow {
        said.push_str(": it slows down under load (cooling, power)");
    }
    if words > 0 {
        said.push_str(&format!("; {words} elements of results differ from the first one's"));
    }
    Finding {
        check: Check::Soak,
        passed: words == 0 && !is_slow,
        words: said,
        figures: [("soakFlopsPerSecond".to_owned(), ends), ("soakKept".to_owned(), kept)].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_slows_down_or_changes_its_mind_is_no_good() {
        let steady = [10.0e12; 8];
        assert!(judged(&steady, 0, false).passed);
        assert!(!judged(&steady, 1, false).passed);
        let mut hot = steady;
        hot[4..].fill(6.0e12);
        let slow = judged(&hot, 0, false);
        assert!(!slow.passed && slow.words.contains("slows down"), "{}", slow.words);
        assert!(judged(&hot, 0, true).passed, "a processor has other things to do");
    }
}
