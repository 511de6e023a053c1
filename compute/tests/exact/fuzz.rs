//! Graphs at random: what is refused is refused with words, what is accepted runs and comes close to the reference.

use crate::check::{Dice, devices, results, shape, values};
use claw_compute::reference::{self, Exact};
use claw_compute::{
    Binary, DType, Device, Distribution, Graph, Op, Reduction, Tensor, TensorType, Unary, Value,
};

/// An operation at random, right or not for what it will be given.
fn operation(dice: &mut Dice) -> (Op, usize) {
    let extents: Vec<usize> = (0..dice.below(4)).map(|_| dice.below(5)).collect();
    let axis = dice.below(4);
    let flag = dice.below(2) == 0;
    let function = Unary::ALL[dice.below(Unary::ALL.len())];
    let pair = Binary::ALL[dice.below(Binary::ALL.len())];
    let reduction = Reduction::ALL[dice.below(Reduction::ALL.len())];
    let dtype = DType::ALL[dice.below(5)];
    match dice.below(22) {
        0 => (Op::Unary(function), 1),
        1 | 2 => (Op::Binary(pair), 2),
        3 => (Op::Where, 3),
        4 => (Op::Cast(dtype), 1),
        5 => (Op::Reshape(shape(&extents)), 1),
        6 => (Op::Permute((0..extents.len()).rev().collect()), 1),
        7 => (Op::Broadcast(shape(&extents)), 1),
        8 => (Op::Slice { axis, start: dice.below(3), len: dice.below(4) }, 1),
        9 => (Op::Concat { axis }, 1 + dice.below(3)),
        10 => (Op::Reduce { reduction, axis, keep: flag }, 1),
        11 => (Op::ArgReduce { largest: flag, axis, keep: flag }, 1),
        12 => (Op::Softmax { axis, log: flag }, 1),
        13 => (Op::MatMul { wide: false, transpose_lhs: flag, transpose_rhs: dice.below(2) == 0 }, 2),
        14 => (Op::TopK { k: dice.below(4), largest: flag }, 1),
        15 => (Op::Gather { axis }, 2),
        16 => (Op::RmsNorm { epsilon: 0.1 }, 2),
        17 => (Op::Rotary { base: 100.0, offset: 3 }, 1),
        18 => (Op::Fill { value: 1.5, dtype, shape: shape(&extents) }, 0),
        19 => (
            Op::Random {
                distribution: Distribution::Integers { low: 0, high: 2 },
                seed: 1,
                dtype,
                shape: shape(&extents),
            },
            0,
        ),
        20 => (Op::CountDifferent { axis, keep: flag }, 2),
        _ => (Op::Quantize, 1),
    }
}

fn graph(dice: &mut Dice) -> (Graph, Vec<Exact>) {
    let mut graph = Graph::new();
    let mut inputs = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for number in 0..1 + dice.below(3) {
        let extents: Vec<usize> = (0..dice.below(4)).map(|_| 1 + dice.below(4)).collect();
        let dtype = [DType::F32, DType::F32, DType::F16, DType::I32][dice.below(4)];
        let input = dice.exact(dtype, &extents, 0.0, 2.0);
        values.push(graph.input(&format!("x{number}"), input.of.clone()).expect("fits"));
        inputs.push(input);
    }
    for number in 0..3 + dice.below(30) {
        let (op, count) = operation(dice);
        let operands: Vec<Value> = (0..count).map(|_| values[dice.below(values.len())]).collect();
        match graph.add(&format!("n{number}"), op, &operands) {
            Ok(results) => values.extend(results),
            Err(refused) => assert!(refused.to_string().len() > 20, "{refused}"),
        }
    }
    (0..1 + dice.below(3)).for_each(|_| graph.output(values[dice.below(values.len())]));
    (graph, inputs)
}

#[test]
fn graphs_at_random_run_everywhere_as_the_reference_does() {
    for round in 0..400 {
        let mut dice = Dice::new(5_000 + round);
        let (graph, inputs) = graph(&mut dice);
        let wanted = reference::run(&graph, &inputs);
        for device in devices() {
            compare(device, &graph, &inputs, wanted.as_deref(), round);
        }
    }
}

fn compare(device: &Device, graph: &Graph, inputs: &[Exact], wanted: Option<&[Exact]>, round: u64) {
    let what = format!(
        "graph {round} of seed {} on {}: {:?}",
        crate::check::seed(),
        device.properties().id,
        graph.nodes()
    );
    let Some(wanted) = wanted else {
        // Where nothing comes out, no device looks at an index.
        let takes_indices = |op: &Op| matches!(op, Op::Gather { .. } | Op::ScatterAdd { .. });
        let has_elements = |node: &claw_compute::Node| graph.of(node.results[0]).shape.elements() > 0;
        let looks = graph.nodes().iter().filter(|node| takes_indices(&node.op)).all(has_elements);
        return assert!(!looks || fails(device, graph, inputs), "{what}");
    };
    let Some(got) = results(device, graph, inputs) else { return };
    // Where a function jumps, a rounding decides on which side.
    if graph.nodes().iter().any(|node| jumps(&node.op)) {
        return;
    }
    let (moved, coarsest) = (moved(graph, inputs), coarsest(graph));
    for (output, (got, want)) in got.iter().zip(wanted).enumerate() {
        assert_eq!(got.of(), &want.of, "{what}");
        let got = values(got);
        assert_eq!(got.len(), want.values.len(), "{what}");
        for (at, (got, want)) in got.iter().zip(&want.values).enumerate() {
            let reach = moved.as_ref().map_or(f64::INFINITY, |moved| {
                moved.iter().map(|moved| (moved[output].values[at] - want).abs()).fold(0.0, f64::max)
            });
            let is_close = (got - want).abs() <= 64.0 * reach + 64.0 * coarsest * (1.0 + want.abs());
            assert!(
                is_close || !reach.is_finite() || !want.is_finite(),
                "{got} is not {want} at {at} of output {output}, {what}"
            );
        }
    }
}

/// Whether a graph with an index outside its axis says so.
fn fails(device: &Device, graph: &Graph, inputs: &[Exact]) -> bool {
    let tensors: Vec<Tensor> =
        inputs.iter().map(|input| crate::check::upload(device, input).expect("fits")).collect();
    device
        .run(graph, &tensors)
        .and_then(|results| results.iter().map(Tensor::to_bytes).collect::<Result<Vec<_>, _>>())
        .is_err()
}

/// Whether an operation's result can jump where its operands only move.
fn jumps(op: &Op) -> bool {
    let unary = matches!(op, Op::Unary(Unary::Floor | Unary::Ceil));
    let binary = matches!(op, Op::Binary(Binary::Equal | Binary::Less | Binary::LessEqual));
    unary
        || binary
        || matches!(
            op,
            Op::Where
                | Op::ArgReduce { .. }
                | Op::CountDifferent { .. }
                | Op::TopK { .. }
                | Op::Cast(DType::I32)
                | Op::Quantize
        )
}

/// The rounding of the coarsest type in a graph.
fn coarsest(graph: &Graph) -> f64 {
    graph.types().iter().map(|of| of.dtype.unit_roundoff()).fold(DType::F32.unit_roundoff(), f64::max)
}

/// What becomes of the outputs when inputs are a little off, and when all results are rounded: what rounding may do to them, however the
/// graph enlarges it. `None` if an index leaves its axis by it.
fn moved(graph: &Graph, inputs: &[Exact]) -> Option<Vec<Vec<Exact>>> {
    let off = |factor: f64| {
        let one = |input: &Exact| {
            // Indices stay what they are.
            let factor = if input.of.dtype.is_float() { factor } else { 1.0 };
            Exact { of: input.of.clone(), values: input.values.iter().map(|value| value * factor).collect() }
        };
        reference::run(graph, &inputs.iter().map(one).collect::<Vec<_>>())
    };
    Some(vec![
        off(1.0 + coarsest(graph))?,
        off(1.0 - coarsest(graph))?,
        reference::run_rounding(graph, inputs)?,
    ])
}

/// The types of a graph are told before anything runs.
#[test]
fn types_are_inferred_as_they_come_out() {
    for round in 0..400 {
        let (graph, inputs) = graph(&mut Dice::new(9_000 + round));
        if let Some(wanted) = reference::run(&graph, &inputs) {
            for (output, want) in graph.outputs().iter().zip(&wanted) {
                let of: &TensorType = graph.of(*output);
                assert_eq!(
                    (of, of.shape.elements()),
                    (&want.of, want.values.len()),
                    "graph {round}: {:?}",
                    graph.nodes()
                );
            }
        }
    }
}
