//! What becomes of graphs: which steps, over what, and how long memory is held.

use super::*;
use claw_graph::{Binary, Unary};

fn of(extents: &[usize]) -> TensorType {
    TensorType::new(DType::F32, Shape::new(extents).expect("a shape"))
}

/// A graph over inputs of these shapes; the last operation's result is wanted.
fn plan(inputs: &[&[usize]], build: impl Fn(&mut Graph, &[Value]) -> Value) -> Plan {
    let mut graph = Graph::new();
    let values: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(at, extents)| graph.input(&format!("x{at}"), of(extents)).expect("fits"))
        .collect();
    let wanted = build(&mut graph, &values);
    graph.output(wanted);
    Plan::of(&graph)
}

fn add(graph: &mut Graph, op: Op, operands: &[Value]) -> Value {
    let name = format!("n{}", graph.nodes().len());
    graph.add(&name, op, operands).expect("fits")[0]
}

fn steps(plan: &Plan) -> Vec<&str> {
    let name = |step: &Step| match step {
        Step::Map(_) => "map",
        Step::Copy => "copy",
        Step::MatMul => "matmul",
        Step::Softmax { .. } => "softmax",
        _ => "other",
    };
    plan.steps.iter().map(|planned| name(&planned.step)).collect()
}

#[test]
fn a_chain_is_one_step_that_reads_each_tensor_once() {
    let plan = plan(&[&[64, 32], &[32]], |graph, inputs| {
        let sum = add(graph, Op::Binary(Binary::Add), inputs);
        let curved = add(graph, Op::Unary(Unary::Gelu), &[sum]);
        let residual = add(graph, Op::Binary(Binary::Add), &[curved, inputs[0]]);
        add(graph, Op::Unary(Unary::Exp), &[residual])
    });
    assert_eq!(steps(&plan), ["map"]);
    assert_eq!(plan.steps[0].operands.len(), 2);
    assert_eq!(plan.steps[0].operands[1].layout.strides, [0, 1]);
    assert_eq!(plan.slots.len(), 3);
}

#[test]
fn what_is_read_twice_or_stretched_is_made_once() {
    let twice = plan(&[&[8]], |graph, inputs| {
        let root = add(graph, Op::Unary(Unary::Sqrt), inputs);
        add(graph, Op::Binary(Binary::Mul), &[root, root])
    });
    assert_eq!(steps(&twice), ["map", "map"]);
    let stretched = plan(&[&[8], &[9, 8]], |graph, inputs| {
        let root = add(graph, Op::Unary(Unary::Sqrt), &inputs[..1]);
        add(graph, Op::Binary(Binary::Mul), &[root, inputs[1]])
    });
    assert_eq!(steps(&stretched), ["map", "map"]);
}

#[test]
fn a_program_reads_no_more_than_a_kernel_binds() {
    let shapes: Vec<&[usize]> = vec![&[4]; 20];
    let plan = plan(&shapes, |graph, inputs| {
        inputs[1..].iter().fold(inputs[0], |sum, input| add(graph, Op::Binary(Binary::Add), &[sum, *input]))
    });
    assert!(plan.steps.len() > 1);
    for planned in &plan.steps {
        let Step::Map(program) = &planned.step else { panic!("{planned:?}") };
        assert!(
            planned.operands.len() <= OPERANDS_MAX && program.operands() == planned.operands.len(),
            "{planned:?}"
        );
    }
}

#[test]
fn long_chains_are_cut() {
    let plan = plan(&[&[4]], |graph, inputs| {
        (0..200).fold(inputs[0], |x, _| add(graph, Op::Unary(Unary::Sin), &[x]))
    });
    let lengths = plan.steps.iter().map(|planned| match &planned.step {
        Step::Map(program) => program.instructions.len(),
        other => panic!("{other:?}"),
    });
    assert!(
        lengths.clone().all(|length| length <= INSTRUCTIONS_MAX) && plan.steps.len() < 8,
        "{:?}",
        lengths.collect::<Vec<_>>()
    );
}

#[test]
fn views_move_nothing_and_products_take_them_as_they_are() {
    let plan = plan(&[&[3, 4, 5], &[3, 4, 6]], |graph, inputs| {
        let turned = add(graph, Op::Permute(vec![0, 2, 1]), &inputs[..1]);
        add(
            graph,
            Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false },
            &[turned, inputs[1]],
        )
    });
    assert_eq!(steps(&plan), ["matmul"]);
    assert_eq!(plan.steps[0].operands[0].layout.strides, [20, 1, 5]);
}

#[test]
fn whoever_needs_rows_gets_a_copy_and_the_copy_is_shared() {
    let plan = plan(&[&[4, 5]], |graph, inputs| {
        let turned = add(graph, Op::Permute(vec![1, 0]), inputs);
        let one = add(graph, Op::Softmax { axis: 1, log: false }, &[turned]);
        let two = add(graph, Op::Softmax { axis: 0, log: true }, &[turned]);
        add(graph, Op::Binary(Binary::Add), &[one, two])
    });
    assert_eq!(steps(&plan), ["copy", "softmax", "softmax", "map"]);
}

#[test]
fn memory_is_held_from_the_first_to_the_last_use() {
    let plan = plan(&[&[8]], |graph, inputs| {
        let a = add(graph, Op::Softmax { axis: 0, log: false }, inputs);
        let b = add(graph, Op::Softmax { axis: 0, log: false }, &[a]);
        add(graph, Op::Softmax { axis: 0, log: false }, &[b])
    });
    assert_eq!(steps(&plan), ["softmax"; 3]);
    let created: Vec<usize> = (0..3).flat_map(|step| plan.created_by(step)).map(|slot| slot.0).collect();
    assert_eq!(created, [1, 2, 3]);
    let freed: Vec<&[Slot]> = (0..3).map(|step| plan.freed_after(step)).collect();
    assert_eq!(freed, [&[][..], &[Slot(1)], &[Slot(2)]]);
}

#[test]
fn what_comes_to_nothing_is_no_step() {
    let plan = plan(&[&[0, 5]], |graph, inputs| {
        let root = add(graph, Op::Unary(Unary::Sqrt), inputs);
        add(graph, Op::Reduce { reduction: Reduction::Sum, axis: 0, keep: false }, &[root])
    });
    assert_eq!(steps(&plan), ["map"]);
    assert_eq!(plan.steps[0].step, Step::Map(Program::literal(0.0)));
}
