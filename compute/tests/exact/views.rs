//! The same elements, seen otherwise.

use crate::check::{Bound, Dice, compare, compare_graph, shape};
use claw_compute::{Binary, DType, Graph, Op};

const EXACT: Bound = Bound::new(0.0, 0.0);
const TYPES: [DType; 5] = DType::ALL;

#[test]
fn every_view_has_the_elements_that_it_should() {
    for dtype in TYPES {
        let x = Dice::new(3_000).exact(dtype, &[4, 6, 10], -100.0, 100.0);
        let empty = Dice::new(3_000).exact(dtype, &[4, 0, 10], -100.0, 100.0);
        for op in [
            Op::Reshape(shape(&[12, 20])),
            Op::Reshape(shape(&[240, 1, 1])),
            Op::Permute(vec![2, 0, 1]),
            Op::Permute(vec![0, 2, 1]),
            Op::Broadcast(shape(&[3, 4, 6, 10])),
            Op::Slice { axis: 0, start: 1, len: 2 },
            Op::Slice { axis: 1, start: 5, len: 1 },
            Op::Slice { axis: 2, start: 3, len: 0 },
            Op::Slice { axis: 2, start: 3, len: 7 },
        ] {
            compare(&op, std::slice::from_ref(&x), EXACT);
        }
        compare(&Op::Permute(vec![2, 1, 0]), std::slice::from_ref(&empty), EXACT);
        compare(&Op::Reshape(shape(&[0])), &[empty], EXACT);
        compare(&Op::Broadcast(shape(&[5, 3])), &[Dice::new(3_001).exact(dtype, &[5, 1], -9.0, 9.0)], EXACT);
    }
}

#[test]
fn tensors_are_put_one_after_the_other() {
    for dtype in TYPES {
        for axis in [0, 1, 2] {
            let mut dice = Dice::new(3_100);
            let parts: Vec<_> = [1, 5, 0, 3]
                .into_iter()
                .map(|extent| {
                    let mut extents = [2, 3, 4];
                    extents[axis] = extent;
                    dice.exact(dtype, &extents, -100.0, 100.0)
                })
                .collect();
            compare(&Op::Concat { axis }, &parts, EXACT);
        }
    }
}

#[test]
fn views_of_views_feed_every_kind_of_step() {
    for dtype in DType::FLOATS {
        let x = Dice::new(3_200).exact(dtype, &[6, 8, 5], -1.0, 1.0);
        let mut graph = Graph::new();
        let input = graph.input("x", x.of.clone()).expect("fits");
        let turned = graph.add("turned", Op::Permute(vec![1, 2, 0]), &[input]).expect("fits")[0];
        let part = graph.add("part", Op::Slice { axis: 1, start: 1, len: 3 }, &[turned]).expect("fits")[0];
        let flat = graph.add("flat", Op::Reshape(shape(&[24, 6])), &[part]).expect("fits")[0];
        let soft = graph.add("soft", Op::Softmax { axis: 0, log: false }, &[part]).expect("fits")[0];
        let sum = graph.add("sum", Op::Binary(Binary::Add), &[part, soft]).expect("fits")[0];
        let square = graph
            .add(
                "square",
                Op::MatMul { wide: false, transpose_lhs: true, transpose_rhs: false },
                &[flat, flat],
            )
            .expect("fits")[0];
        let again = graph
            .add(
                "again",
                Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: true },
                &[part, part],
            )
            .expect("fits")[0];
        [turned, flat, sum, square, again].into_iter().for_each(|value| graph.output(value));
        let units = 4.0 * dtype.unit_roundoff() / DType::F32.unit_roundoff();
        compare_graph(&graph, &[x], Bound::new(units, 64.0 + units), "views of views");
    }
}
