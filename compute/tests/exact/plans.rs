//! What holds for whole graphs: memory, limits, wrong inputs.

use crate::check::{shape, single};
use claw_compute::{Binary, DType, Device, Error, Graph, Op, Reduction, Unary};

#[test]
fn memory_is_given_back_while_a_graph_runs() {
    for device in Device::all() {
        let x = device.tensor(&vec![1.0f32; 1 << 18], &shape(&[1 << 18])).expect("fits");
        let mut graph = Graph::new();
        let mut value = graph.input("x", x.of().clone()).expect("fits");
        // Read twice each, so that no chain is one program.
        for step in 0..20 {
            value =
                graph.add(&format!("s{step}"), Op::Binary(Binary::Mul), &[value, value]).expect("fits")[0];
        }
        graph.output(value);
        let results = device.run(&graph, &[x]).expect("runs");
        assert_eq!(results[0].to_vec::<f32>().expect("is read")[0], 1.0);
        let (_, peak) = device.memory_used();
        assert!(peak <= 4 << 20, "{peak} bytes for tensors of 1 MiB on {}", device.properties().id);
        drop(results);
        assert_eq!(device.memory_used().0, 0);
    }
}

#[test]
fn more_memory_than_allowed_is_an_error_and_nothing_is_lost() {
    for device in Device::all() {
        let device = device.limited_to(1 << 20);
        let x = device.tensor(&[1.0f32; 1 << 16], &shape(&[1 << 16])).expect("fits");
        let wide = single(Op::Broadcast(shape(&[64, 1 << 16])), &[x.of()]);
        let wrong = device.run(&wide, std::slice::from_ref(&x)).expect_err("16 MiB");
        assert!(
            matches!(wrong, Error::OutOfMemory { needed: 0x100_0000, used: 0x4_0000, limit: 0x10_0000 }),
            "{wrong}"
        );
        let root = single(Op::Unary(Unary::Sqrt), &[x.of()]);
        assert_eq!(
            device.run(&root, &[x]).expect("fits")[0].to_vec::<f32>().expect("is read"),
            vec![1.0; 1 << 16]
        );
    }
}

#[test]
fn inputs_that_are_not_the_graph_s_are_refused() {
    let (device, other) = (Device::cpu(), Device::cpu());
    let x = device.tensor(&[1.0f32, 2.0], &shape(&[2])).expect("fits");
    let graph = single(Op::Unary(Unary::Neg), &[x.of()]);
    assert_eq!(
        device.run(&graph, &[]).expect_err("none").to_string(),
        "the graph has 1 inputs, and was given 0"
    );
    let wider = device.tensor(&[1.0f32; 3], &shape(&[3])).expect("fits");
    assert_eq!(
        device.run(&graph, &[wider]).expect_err("3").to_string(),
        "input 0 is f32[2], and was given as f32[3]"
    );
    assert_eq!(other.run(&graph, std::slice::from_ref(&x)).err(), Some(Error::Elsewhere));
    assert!(device.tensor(&[1.0f32; 3], &shape(&[4])).is_err());
    assert_eq!(x.to_vec::<i32>().expect_err("floats").to_string(), "f32[2] is read as i32");
}

#[test]
fn what_a_graph_does_not_accept_is_told_with_the_operation_s_name() {
    let mut graph = Graph::new();
    let of = |extents: &[usize], dtype| claw_compute::TensorType::new(dtype, shape(extents));
    let a = graph.input("a", of(&[3, 4], DType::F32)).expect("fits");
    let b = graph.input("b", of(&[5, 6], DType::F32)).expect("fits");
    let wrong = graph
        .add("c", Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false }, &[a, b])
        .expect_err("4 is not 5");
    assert_eq!(wrong.to_string(), r#""c" (MatMul): f32[3,4] and f32[5,6]: the inner extents 4 and 5 differ"#);
    let wrong = graph
        .add("r", Op::Reduce { reduction: Reduction::Max, axis: 2, keep: false }, &[a])
        .expect_err("two axes");
    assert_eq!(
        wrong.to_string(),
        r#""r" (ReduceMax): there is no axis 2 in [3,4]: count from 0 to 1, or from -1 back"#
    );
    assert!(
        graph
            .named("d", "e")
            .expect_err("nobody is e")
            .to_string()
            .contains("no input or earlier operation has this name")
    );
}
