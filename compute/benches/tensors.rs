//! Tensor operations beside the best that this machine has otherwise: `cargo bench --package claw-compute`.
//!
//! Each figure is the median of several turns, and stands beside its peer's from the same run. On whatever devices are at hand.

use claw_compute::{Device, Graph, Op, Shape, Tensor, Unary, Value};
use rayon::prelude::*;
use std::time::{Duration, Instant};

const TURNS: usize = 15;

fn main() {
    // `cargo test` and `cargo bench -- --test` only ask whether it starts.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    for device in Device::all() {
        let properties = device.properties();
        println!("{} ({})", properties.id, properties.model);
        overhead(&device);
        if properties.id == "cpu" {
            matmul(&device);
            softmax(&device);
        }
    }
}

fn shape(extents: &[usize]) -> Shape {
    Shape::new(extents).expect("a shape")
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7_919) % 1_013) as f32 / 506.5 - 1.0).collect()
}

/// Two things by turns, so that what disturbs one disturbs the other. Medians.
fn beside(mut ours: impl FnMut(), mut other: impl FnMut()) -> (Duration, Duration) {
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..=TURNS {
        for (which, times) in times.iter_mut().enumerate() {
            let start = Instant::now();
            if which == 0 {
                ours()
            } else {
                other()
            }
            // The first turn warms up.
            if turn > 0 {
                times.push(start.elapsed());
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    (times[0][TURNS / 2], times[1][TURNS / 2])
}

fn single(op: Op, inputs: &[&Tensor]) -> Graph {
    let mut graph = Graph::new();
    let add = |graph: &mut Graph, (at, input): (usize, &&Tensor)| {
        graph.input(&format!("x{at}"), input.of().clone()).expect("fits")
    };
    let values: Vec<Value> = inputs.iter().enumerate().map(|input| add(&mut graph, input)).collect();
    let results = graph.add("it", op, &values).expect("fits");
    graph.output(results[0]);
    graph
}

fn run(device: &Device, graph: &Graph, inputs: &[Tensor]) {
    device.run(graph, inputs).expect("runs");
    device.finish().expect("ends well");
}

/// What it takes to start one small operation, and to wait for it.
fn overhead(device: &Device) {
    let x = device.tensor(&[1.0f32; 16], &shape(&[16])).expect("fits");
    let graph = single(Op::Unary(Unary::Neg), &[&x]);
    let inputs = [x];
    let many = || (0..1_000).for_each(|_| drop(device.run(&graph, &inputs).expect("runs")));
    let (started, ended) = beside(
        || {
            many();
            device.finish().expect("ends well");
        },
        || (0..100).for_each(|_| run(device, &graph, &inputs)),
    );
    println!(
        "  small operation: {:.2} µs each in a row, {:.2} µs with a wait for each",
        started.as_secs_f64() * 1e3,
        ended.as_secs_f64() * 1e4
    );
}

fn matmul(device: &Device) {
    for n in [256, 1_024, 2_048] {
        let (a, b) = (numbers(n * n), numbers(n * n + 1)[1..].to_vec());
        let inputs = [&a, &b].map(|values| device.tensor(values, &shape(&[n, n])).expect("fits"));
        let graph = single(
            Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false },
            &[&inputs[0], &inputs[1]],
        );
        let mut product = vec![0.0f32; n * n];
        let (ours, gemm) = beside(|| run(device, &graph, &inputs), || direct(n, &a, &b, &mut product));
        let rate = |time: Duration| 2.0 * (n as f64).powi(3) / time.as_secs_f64() / 1e9;
        println!(
            "  matmul f32 {n}³: {:.0} GFLOP/s, gemm alone {:.0}: {:.0} %",
            rate(ours),
            rate(gemm),
            100.0 * rate(ours) / rate(gemm)
        );
    }
}

#[expect(unsafe_code, reason = "the peer takes pointers")]
fn direct(n: usize, a: &[f32], b: &[f32], product: &mut [f32]) {
    let rows = isize::try_from(n).expect("a small matrix");
    let all = gemm::Parallelism::Rayon(0);
    // SAFETY: three matrices of n by n, row after row.
    unsafe {
        gemm::gemm(
            n,
            n,
            n,
            product.as_mut_ptr(),
            1,
            rows,
            false,
            a.as_ptr(),
            1,
            rows,
            b.as_ptr(),
            1,
            rows,
            0.0,
            1.0,
            false,
            false,
            false,
            all,
        )
    };
}

/// Reads and writes each element once, as a copy does.
fn softmax(device: &Device) {
    for (rows, width) in [(4_096, 1_024), (16_384, 4_096)] {
        let values = numbers(rows * width);
        let x = device.tensor(&values, &shape(&[rows, width])).expect("fits");
        let graph = single(Op::Softmax { axis: 1, log: false }, &[&x]);
        let inputs = [x];
        let copy = || {
            // New memory each time, as a result has.
            let mut to = vec![0.0f32; values.len()];
            to.par_chunks_mut(1 << 16)
                .zip(values.par_chunks(1 << 16))
                .for_each(|(to, from)| to.copy_from_slice(from));
            std::hint::black_box(to);
        };
        let (ours, copied) = beside(|| run(device, &graph, &inputs), copy);
        let rate = |time: Duration| (values.len() * 8) as f64 / time.as_secs_f64() / 1e9;
        println!(
            "  softmax f32 {rows}×{width}: {:.1} GB/s, a copy {:.1}: {:.0} %",
            rate(ours),
            rate(copied),
            100.0 * rate(ours) / rate(copied)
        );
    }
}
