//! Every kernel that can be started on CUDA is compiled by NVIDIA's compiler, on machines without a GPU.
//!
//! Graphs are run on a card that is not there: plans, launches and CubeCL's generator of source are those of a real one, and what would
//! be handed to the driver is handed to NVRTC instead, as PTX for two generations of cards. Nothing runs, so this says nothing of results.

mod card;

use super::Cube;
use super::matmul::on_matrix_units;
use crate::backend::{Backend as _, Properties};
use crate::device::Device;
use crate::memory::{Layout, Meter, View};
use card::{Card, Nvrtc};
use claw_graph::{Binary, DType, Distribution, Graph, Op, Reduction, Shape, TensorType, Unary, Value};
use cubecl::Runtime;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

/// A100 and H100: those with tensor maps multiply otherwise.
const ARCHITECTURES: [u32; 2] = [80, 90];

/// Whether NVRTC and CUDA's headers are here. Says so when not.
fn has_compiler(story: &str) -> bool {
    let lacks = match card::load() {
        Ok(()) => return true,
        Err(lacks) => lacks,
    };
    assert!(
        std::env::var_os("CLAW_TEST_NEEDS").is_none_or(|value| value != "all"),
        "{story} must run here, but lacks {lacks}"
    );
    // Not `eprintln!`: the test harness keeps to itself what a passing test prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED {story}: lacks {lacks}");
    false
}

fn cube(architecture: u32) -> Cube<Nvrtc> {
    let properties = Properties {
        id: format!("sm_{architecture}"),
        model: "a card that is not there".to_owned(),
        driver: None,
        memory_bytes: None,
        buffer_bytes_max: u64::MAX,
        units: Some(132),
        floats: DType::FLOATS.to_vec(),
        is_cpu: false,
        shares_memory: false,
    };
    // Products on matrix units are started by name below: to choose among them they would have to run.
    Cube::new(Nvrtc::client(&Card(architecture)), properties, Vec::new())
}

fn of(dtype: DType, extents: &[usize]) -> TensorType {
    TensorType::new(dtype, Shape::new(extents).expect("a shape"))
}

fn single(op: Op, inputs: &[TensorType]) -> Graph {
    let mut graph = Graph::new();
    let values: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(at, of)| graph.input(&format!("x{at}"), of.clone()).expect("an input"))
        .collect();
    let results = graph.add("it", op, &values).expect("an operation that fits");
    results.into_iter().for_each(|result| graph.output(result));
    graph
}

/// Graphs whose steps start every kernel in every form that is compiled by itself.
fn graphs(dtype: DType) -> Vec<Graph> {
    let mut graphs = element_wise(dtype);
    graphs.extend(along_rows(dtype));
    graphs.extend(by_index(dtype));
    graphs.extend(of_matrices(dtype));
    graphs.extend(other_types(dtype));
    graphs
}

/// All functions in one program, as each is compiled in whatever program it stands.
fn element_wise(dtype: DType) -> Vec<Graph> {
    let x = of(dtype, &[64]);
    let mut graph = Graph::new();
    let input = graph.input("x", x.clone()).expect("an input");
    let mut value = input;
    for (at, function) in Unary::ALL.iter().enumerate() {
        value = graph.add(&format!("f{at}"), Op::Unary(*function), &[value]).expect("fits")[0];
    }
    for (at, function) in Binary::ALL.iter().enumerate() {
        value = graph.add(&format!("g{at}"), Op::Binary(*function), &[value, input]).expect("fits")[0];
    }
    graph.output(value);
    vec![
        graph,
        single(Op::Where, &[x.clone(), x.clone(), x]),
        // Operands with strides, of one element at a time.
        single(Op::Binary(Binary::Add), &[of(dtype, &[3, 5]), of(dtype, &[3, 1])]),
        single(Op::Permute(vec![1, 0]), &[of(dtype, &[3, 5])]),
    ]
}

/// Rows of a unit's own, of a cube, and longer than a cube holds.
const ROWS: [&[usize]; 3] = [&[9, 7], &[3, 300], &[2, 70_000]];

fn along_rows(dtype: DType) -> Vec<Graph> {
    let mut graphs = Vec::new();
    let axis = 1;
    for extents in ROWS {
        let x = of(dtype, extents);
        let along = |op: Op| single(op, std::slice::from_ref(&x));
        graphs.extend(
            Reduction::ALL
                .iter()
                .map(|reduction| along(Op::Reduce { reduction: *reduction, axis, keep: false })),
        );
        for flag in [false, true] {
            graphs.push(along(Op::ArgReduce { largest: flag, axis, keep: false }));
            graphs.push(along(Op::Softmax { axis, log: flag }));
            graphs.push(along(Op::TopK { k: 2, largest: flag }));
        }
        let scale = of(dtype, &extents[1..]);
        graphs.push(single(Op::LayerNorm { epsilon: 1e-5 }, &[x.clone(), scale.clone(), scale.clone()]));
        graphs.push(single(Op::RmsNorm { epsilon: 1e-5 }, &[x.clone(), scale]));
        graphs.push(along(Op::Quantize));
        let words = of(DType::F32, extents);
        graphs.push(single(Op::CountDifferent { axis, keep: false }, &[words.clone(), words]));
    }
    graphs.push(single(Op::Rotary { base: 10_000.0, offset: 0 }, &[of(dtype, &[4, 8])]));
    graphs
}

fn by_index(dtype: DType) -> Vec<Graph> {
    let (x, at, few) = (of(dtype, &[31, 5]), of(DType::I32, &[3]), of(dtype, &[3, 5]));
    vec![
        single(Op::Gather { axis: 0 }, &[x.clone(), at.clone()]),
        single(Op::ScatterAdd { axis: 0 }, &[x, at, few]),
    ]
}

fn of_matrices(dtype: DType) -> Vec<Graph> {
    let mut graphs = Vec::new();
    for wide in [false, true] {
        let op = Op::MatMul { wide, transpose_lhs: false, transpose_rhs: false };
        graphs.push(single(op, &[of(dtype, &[64, 64]), of(dtype, &[64, 64])]));
    }
    for [lhs, rhs] in [[false, false], [true, false], [false, true], [true, true]] {
        let op = Op::MatMul { wide: false, transpose_lhs: lhs, transpose_rhs: rhs };
        let a = if lhs { [13, 17] } else { [17, 13] };
        let b = if rhs { [31, 13] } else { [13, 31] };
        graphs.push(single(op, &[of(dtype, &a), of(dtype, &b)]));
    }
    // A query at a time; blocks of them, of one piece and of several, of elements read four and one at a time.
    for [queries, keys, width] in [[5, 9, 16], [100, 130, 64], [100, 130, 192], [100, 130, 33]] {
        for causal in [false, true] {
            let (q, kv) = (of(dtype, &[1, 2, queries, width]), of(dtype, &[1, 2, keys, width]));
            graphs.push(single(Op::Attention { causal, scale: None }, &[q, kv.clone(), kv]));
        }
    }
    graphs
}

/// Casts from and to all others, random numbers, and what is of bytes.
fn other_types(dtype: DType) -> Vec<Graph> {
    let shape = Shape::new([8, 6]).expect("a shape");
    let mut graphs: Vec<Graph> = DType::FLOATS
        .into_iter()
        .chain([DType::I32])
        .flat_map(|other| [(dtype, other), (other, dtype)])
        .filter(|(from, to)| from != to)
        .map(|(from, to)| single(Op::Cast(to), &[of(from, &[8, 6])]))
        .collect();
    for distribution in [
        Distribution::Uniform { low: 0.0, high: 1.0 },
        Distribution::Normal { mean: 0.0, deviation: 1.0 },
        Distribution::Integers { low: 0, high: 9 },
    ] {
        graphs.push(single(Op::Random { distribution, seed: 1, shape: shape.clone(), dtype }, &[]));
    }
    graphs.push(single(Op::Dequantize(dtype), &[of(DType::I8, &[8, 6]), of(DType::F32, &[8])]));
    let bytes = of(DType::I8, &[8, 6]);
    graphs.push(single(Op::Gather { axis: 0 }, &[bytes.clone(), of(DType::I32, &[3])]));
    graphs.push(single(Op::Permute(vec![1, 0]), &[bytes]));
    graphs
}

/// Kernels of this crate, as their files say: `rows::softmax`.
fn kernels() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cube/kernels");
    let mut kernels = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("kernels have a folder") {
        let path = entry.expect("it can be listed").path();
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let module = path.file_stem().expect("files have names").to_string_lossy().into_owned();
        for after in text.split("#[cube(launch)]\npub fn ").skip(1) {
            let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            kernels.insert(format!("{module}::{name}"));
        }
    }
    kernels
}

#[test]
fn every_kernel_is_compiled_for_cuda_in_every_type() {
    if !has_compiler("compiling kernels for CUDA") {
        return;
    }
    // Nothing of these depends on the generation.
    let [_, architecture] = ARCHITECTURES;
    let device = Device::with(Arc::new(cube(architecture)));
    for dtype in DType::FLOATS {
        let before = card::compiled(architecture);
        for graph in graphs(dtype) {
            let started = run(&device, &graph);
            assert_eq!(started, Ok(()), "{} of {dtype}", graph.nodes()[0].op);
        }
        let mut missing = kernels();
        for name in card::started(architecture) {
            missing.retain(|kernel| !name.contains(&format!("kernels::{kernel}::")));
        }
        assert!(missing.is_empty(), "no graph here starts {missing:?} with {dtype}: add one");
        let count = card::compiled(architecture) - before;
        assert!(count > 0, "kernels of {dtype} are others than those of the types before");
        println!("{dtype}: {count} kernels compiled");
    }
}

fn run(device: &Device, graph: &Graph) -> Result<(), crate::error::Error> {
    let tensor = |input: &Value| {
        let of = graph.of(*input);
        device.tensor_of_bytes(&vec![0; of.size_bytes()], of)
    };
    let inputs = graph.inputs().iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
    device.run(graph, &inputs)?;
    device.finish()
}

#[test]
fn every_routine_on_matrix_units_is_compiled_for_cuda() {
    if !has_compiler("compiling products on matrix units") {
        return;
    }
    for architecture in ARCHITECTURES {
        let cube = cube(architecture);
        let routines = on_matrix_units(&cube.client);
        assert!(!routines.is_empty(), "sm_{architecture} has matrix units");
        for routine in routines {
            for (dtype, result) in [
                (DType::F16, DType::F16),
                (DType::Bf16, DType::Bf16),
                (DType::F16, DType::F32),
                (DType::Bf16, DType::F32),
            ] {
                let matrix = |dtype| {
                    let of = of(dtype, &[512, 512]);
                    let lease = Meter::new(u64::MAX).lease(0).expect("there is room");
                    let buffer = cube.allocate(of.size_bytes(), lease).expect("it has memory");
                    View { buffer, layout: Layout::rows(&of.shape), of }
                };
                let started = cube.multiply(&routine, &[matrix(dtype), matrix(dtype)], &matrix(result));
                assert_eq!(started, Ok(()), "{} of {dtype} to {result}", routine.name);
                assert_eq!(cube.finish(), Ok(()), "{} of {dtype} to {result}", routine.name);
            }
        }
    }
}

#[test]
fn what_the_compiler_refuses_is_an_error_of_the_device() {
    if !has_compiler("asking NVRTC for an error") {
        return;
    }
    let outcome = card::compile("extern \"C\" __global__ void it() { not_there(); }", 80);
    assert!(outcome.is_err_and(|log| log.contains("not_there")));
}
