//! Tensor operations beside the best that this machine has otherwise: `cargo bench --workspace --bench tensors`.
//!
//! Each figure is the median of several turns, and stands beside its peer's from the same run. On whatever devices are at hand.

use claw_compute::{DType, Device, Distribution, Graph, Op, Shape, Tensor, Unary, Value};
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
            rows(&device);
            attention(&device);
            scatter(&device);
        }
        if properties.id.starts_with("cuda:") {
            on_card(&device);
        }
    }
}

/// What a GPU reaches, beside a copy within its memory by NVIDIA's driver, and beside PyTorch where Python has it.
fn on_card(device: &Device) {
    // Which routine is the fastest is found out in the turn that warms up.
    let number = device.properties().id.trim_start_matches("cuda:").to_owned();
    let rows = [(4_096, 1_024), (16_384, 4_096), (65_536, 8_192)];
    for dtype in [DType::Bf16, DType::F16, DType::F32] {
        for n in [1_024, 4_096, 8_192] {
            let x = random(device, dtype, &[n, n]);
            let op = Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false };
            let time = alone(device, &single(op, &[&x, &x]), &[x.clone(), x]);
            println!(
                "  matmul {dtype} {n}³: {:.1} TFLOP/s",
                2.0 * (n as f64).powi(3) / time.as_secs_f64() / 1e12
            );
        }
        for (rows, width) in rows {
            let x = random(device, dtype, &[rows, width]);
            let bytes = 2 * rows * width * dtype.size_bytes();
            let copied = card::copied(&number, bytes / 2);
            for (name, op) in
                [("element-wise", Op::Unary(Unary::Silu)), ("softmax", Op::Softmax { axis: 1, log: false })]
            {
                let time = alone(device, &single(op, &[&x]), std::slice::from_ref(&x));
                println!(
                    "  {name} {dtype} {rows}×{width}: {:.0} GB/s, a copy {:.0}: {:.0} %",
                    bytes as f64 / time.as_secs_f64() / 1e9,
                    bytes as f64 / copied.as_secs_f64() / 1e9,
                    100.0 * copied.as_secs_f64() / time.as_secs_f64()
                );
            }
        }
        for causal in [false, true] {
            let x = random(device, dtype, &[4, 16, 2_048, 64]);
            let graph = single(Op::Attention { causal, scale: None }, &[&x, &x, &x]);
            let time = alone(device, &graph, &[x.clone(), x.clone(), x]);
            let work = 4.0 * 4.0 * 16.0 * 2_048.0 * 2_048.0 * 64.0 / if causal { 2.0 } else { 1.0 };
            println!(
                "  attention {dtype} 4×16×2048×64{}: {:.2} TFLOP/s",
                if causal { ", causal" } else { "" },
                work / time.as_secs_f64() / 1e12
            );
        }
    }
    pytorch(&number);
}

fn random(device: &Device, dtype: DType, extents: &[usize]) -> Tensor {
    let distribution = Distribution::Uniform { low: -1.0, high: 1.0 };
    let graph = single(Op::Random { distribution, seed: 1, dtype, shape: shape(extents) }, &[]);
    device.run(&graph, &[]).expect("runs").remove(0)
}

/// The median of some turns of several runs each, since one may be over before it is waited for.
fn alone(device: &Device, graph: &Graph, inputs: &[Tensor]) -> Duration {
    const RUNS: u32 = 10;
    let (time, _) = beside(
        || {
            (0..RUNS).for_each(|_| drop(device.run(graph, inputs).expect("runs")));
            device.finish().expect("ends well");
        },
        || (),
    );
    time / RUNS
}

/// The same by PyTorch, which calls cuBLAS and its own kernels.
fn pytorch(number: &str) {
    let program = include_str!("peer.py");
    let has_torch = std::process::Command::new("python3").args(["-c", "import torch"]).output();
    if !has_torch.is_ok_and(|told| told.status.success()) {
        return println!("  PyTorch is not here: nothing stands beside this (pip install torch)");
    }
    let told = std::process::Command::new("python3").args(["-c", program, number]).output();
    match told {
        Ok(told) => {
            print!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr))
        }
        Err(error) => println!("  PyTorch could not be asked: {error}"),
    }
}

/// What NVIDIA's driver does by itself.
#[cfg(feature = "cuda")]
mod card {
    #![expect(unsafe_code, reason = "the driver takes pointers")]

    use cudarc::driver::result::{self, ctx, primary_ctx, stream};
    use std::time::{Duration, Instant};

    /// The median time of a copy of so many bytes within the card's memory.
    pub fn copied(number: &str, bytes: usize) -> Duration {
        let ordinal = number.parse().expect("devices are numbered");
        let device = result::device::get(ordinal).expect("it was opened before");
        // SAFETY: the device is there; its context outlives the calls; both pieces are as long as is copied, and freed once.
        unsafe {
            let context = primary_ctx::retain(device).expect("a context");
            ctx::set_current(context).expect("it can be used");
            let [from, to] = [(); 2].map(|()| result::malloc_sync(bytes).expect("there is memory"));
            let mut times: Vec<Duration> = (0..super::TURNS)
                .map(|_| {
                    let start = Instant::now();
                    for _ in 0..10 {
                        result::memcpy_dtod_sync(to, from, bytes).expect("copies");
                    }
                    stream::synchronize(std::ptr::null_mut()).expect("ends well");
                    start.elapsed() / 10
                })
                .collect();
            for piece in [from, to] {
                result::free_sync(piece).expect("it was allocated");
            }
            times.sort();
            times[super::TURNS / 2]
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod card {
    pub fn copied(_: &str, _: usize) -> std::time::Duration {
        unreachable!("there are no such devices without the feature")
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

/// What reads and writes each element once, as a copy does. The copy's target is there already, as memory of results is that was used before.
fn rows(device: &Device) {
    for (rows, width) in [(4_096, 1_024), (16_384, 4_096)] {
        let values = numbers(rows * width);
        let x = device.tensor(&values, &shape(&[rows, width])).expect("fits");
        let scale = device.tensor(&numbers(width), &shape(&[width])).expect("fits");
        let ops = [
            ("softmax", Op::Softmax { axis: 1, log: false }, 0, 8),
            ("log softmax", Op::Softmax { axis: 1, log: true }, 0, 8),
            ("layer norm", Op::LayerNorm { epsilon: 1e-5 }, 2, 8),
            ("RMS norm", Op::RmsNorm { epsilon: 1e-5 }, 1, 8),
            // To a byte for each number.
            ("quantise", Op::Quantize, 0, 5),
        ];
        let mut copied_to = vec![0.0f32; values.len()];
        for (name, op, parameters, bytes) in ops {
            let inputs: Vec<Tensor> =
                [&x, &scale, &scale].into_iter().take(1 + parameters).cloned().collect();
            let graph = single(op, &inputs.iter().collect::<Vec<_>>());
            let (ours, copied) = beside(|| run(device, &graph, &inputs), || copy(&values, &mut copied_to));
            let rate = |time: Duration, bytes| (values.len() * bytes) as f64 / time.as_secs_f64() / 1e9;
            let (ours, copied) = (rate(ours, bytes), rate(copied, 8));
            println!(
                "  {name} f32 {rows}×{width}: {ours:.1} GB/s, a copy {copied:.1}: {:.0} %",
                100.0 * ours / copied
            );
        }
    }
}

fn copy(from: &[f32], to: &mut [f32]) {
    to.par_chunks_mut(1 << 16).zip(from.par_chunks(1 << 16)).for_each(|(to, from)| to.copy_from_slice(from));
    std::hint::black_box(to);
}

/// Beside its two products alone, each a matrix product of its own.
fn attention(device: &Device) {
    let (heads, positions, width) = (8, 1_024, 64);
    let tensor =
        |extents: &[usize]| device.tensor(&numbers(extents.iter().product()), &shape(extents)).expect("fits");
    let [x, weights] = [&[1, heads, positions, width][..], &[1, heads, positions, positions]].map(tensor);
    let attention = single(Op::Attention { causal: false, scale: None }, &[&x, &x, &x]);
    let product = |transpose_rhs| Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs };
    let (scores, result) = (single(product(true), &[&x, &x]), single(product(false), &[&weights, &x]));
    let (ours, products) = beside(
        || run(device, &attention, &[x.clone(), x.clone(), x.clone()]),
        || {
            run(device, &scores, &[x.clone(), x.clone()]);
            run(device, &result, &[weights.clone(), x.clone()]);
        },
    );
    let rate = |time: Duration| (4 * heads * positions * positions * width) as f64 / time.as_secs_f64() / 1e9;
    println!(
        "  attention f32 {heads} heads of {positions}×{width}: {:.0} GFLOP/s, its products alone {:.0}: {:.0} %",
        rate(ours),
        rate(products),
        100.0 * rate(ours) / rate(products)
    );
}

/// Many rows added to a table, as a gradient of an embedding is; beside a copy of as much.
fn scatter(device: &Device) {
    let (table, rows, width) = (32_000, 8_192, 256);
    let at: Vec<i32> = (0..rows).map(|row| row * 7_919 % table).collect();
    let [table, rows] = [table, rows].map(|count| usize::try_from(count).expect("not negative"));
    let inputs = [
        device.tensor(&numbers(table * width), &shape(&[table, width])).expect("fits"),
        device.tensor(&at, &shape(&[rows])).expect("fits"),
        device.tensor(&numbers(rows * width), &shape(&[rows, width])).expect("fits"),
    ];
    let graph = single(Op::ScatterAdd { axis: 0 }, &inputs.iter().collect::<Vec<_>>());
    let (from, mut to) = (numbers((table + rows) * width), vec![0.0; (table + rows) * width]);
    let (ours, copied) = beside(|| run(device, &graph, &inputs), || copy(&from, &mut to));
    println!(
        "  ScatterAdd f32 {rows} rows of {width} to {table}: {:.1} ms, a copy of all {:.1} ms",
        ours.as_secs_f64() * 1e3,
        copied.as_secs_f64() * 1e3
    );
}
