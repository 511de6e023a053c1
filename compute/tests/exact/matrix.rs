//! Products of matrices, and attention.

use crate::check::{Bound, Dice, compare, compare_graph};
use claw_compute::{Binary, DType, Graph, Op, Unary};

/// A sum of k products of numbers up to 1, each rounded in f32.
fn product_bound(k: usize) -> Bound {
    Bound::new(32.0, 8.0 + 2.0 * k as f64)
}

#[test]
fn products_of_all_shapes_and_transpositions() {
    let sizes = [
        [1, 1, 1],
        [1, 7, 1],
        [5, 1, 3],
        [17, 31, 13],
        [64, 64, 64],
        [65, 33, 127],
        [1, 300, 257],
        [300, 1, 129],
        [128, 96, 200],
        [3, 4, 0],
        [0, 4, 3],
    ];
    for [m, n, k] in sizes {
        for dtype in DType::FLOATS {
            for transposed in [[false, false], [true, false], [false, true], [true, true]] {
                let mut dice = Dice::new(2_000);
                let a = dice.exact(dtype, &if transposed[0] { [k, m] } else { [m, k] }, -1.0, 1.0);
                let b = dice.exact(dtype, &if transposed[1] { [n, k] } else { [k, n] }, -1.0, 1.0);
                compare(
                    &Op::MatMul { wide: false, transpose_lhs: transposed[0], transpose_rhs: transposed[1] },
                    &[a, b],
                    product_bound(k),
                );
            }
        }
    }
}

#[test]
fn batches_are_broadcast() {
    let pairs: [[&[usize]; 2]; 6] = [
        [&[3, 4, 5], &[5, 6]],
        [&[4, 5], &[3, 5, 6]],
        [&[2, 1, 4, 5], &[3, 5, 6]],
        [&[2, 3, 4, 5], &[2, 3, 5, 6]],
        [&[0, 4, 5], &[5, 6]],
        [&[1, 33, 17], &[7, 17, 9]],
    ];
    for [left, right] in pairs {
        for dtype in DType::FLOATS {
            let mut dice = Dice::new(2_100);
            let (a, b) = (dice.exact(dtype, left, -1.0, 1.0), dice.exact(dtype, right, -1.0, 1.0));
            compare(
                &Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false },
                &[a, b],
                product_bound(17),
            );
        }
    }
}

#[test]
fn a_product_that_is_large_is_right_everywhere() {
    for dtype in DType::FLOATS {
        let mut dice = Dice::new(2_200);
        let (a, b) = (dice.exact(dtype, &[257, 511], -1.0, 1.0), dice.exact(dtype, &[511, 190], -1.0, 1.0));
        compare(
            &Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false },
            &[a, b],
            product_bound(511),
        );
    }
}

#[test]
fn whole_numbers_are_multiplied_exactly() {
    for dtype in DType::FLOATS {
        let mut dice = Dice::new(2_300);
        let mut whole = |extents: &[usize]| {
            let mut x = dice.exact(dtype, extents, -3.0, 3.0);
            x.values.iter_mut().for_each(|value| *value = value.round());
            x
        };
        // At most 9 × 7 = 63 each: exact in all types.
        let (a, b) = (whole(&[33, 7]), whole(&[7, 65]));
        // At most 9 × 300 = 2,700: exact in f32.
        let (c, d) = (whole(&[40, 300]), whole(&[300, 70]));
        compare(
            &Op::MatMul { wide: true, transpose_lhs: false, transpose_rhs: false },
            &[c, d],
            Bound::new(0.0, 0.0),
        );
        compare(
            &Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false },
            &[a, b],
            Bound::new(0.0, 0.0),
        );
    }
}

#[test]
fn what_comes_before_and_after_a_product_is_one_graph_with_it() {
    for dtype in DType::FLOATS {
        let mut dice = Dice::new(2_400);
        let inputs = [
            dice.exact(dtype, &[9, 20], -1.0, 1.0),
            dice.exact(dtype, &[20, 12], -1.0, 1.0),
            dice.exact(dtype, &[12], -1.0, 1.0),
        ];
        let mut graph = Graph::new();
        let values: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(at, input)| graph.input(&format!("x{at}"), input.of.clone()).expect("fits"))
            .collect();
        let product = graph
            .add(
                "product",
                Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false },
                &values[..2],
            )
            .expect("fits")[0];
        let biased = graph.add("biased", Op::Binary(Binary::Add), &[product, values[2]]).expect("fits")[0];
        let curved = graph.add("curved", Op::Unary(Unary::Gelu), &[biased]).expect("fits")[0];
        graph.output(curved);
        let units = 8.0 * dtype.unit_roundoff() / DType::F32.unit_roundoff();
        compare_graph(&graph, &inputs, Bound::new(units, 64.0 + units), "bias and GELU after a product");
    }
}

#[test]
fn attention_of_all_shapes_with_and_without_a_mask() {
    // [batch, heads, queries, keys, width, width of values]
    let sizes = [
        [1, 1, 1, 1, 8, 8],
        [1, 2, 64, 64, 32, 32],
        [2, 1, 5, 9, 16, 16],
        [1, 3, 33, 65, 64, 64],
        [1, 1, 100, 130, 40, 40],
        [2, 2, 0, 3, 8, 8],
        [1, 1, 7, 300, 24, 24],
    ];
    // Several blocks, whole and not; odd widths; values wider than queries, and wider than blocks take. In one type: each shape is compiled
    // anew, which takes seconds where the CPU stands in for a GPU.
    let in_blocks = [
        [1, 2, 128, 192, 64, 128],
        [1, 1, 130, 131, 33, 65],
        [1, 1, 9, 70, 1, 1],
        [1, 1, 70, 70, 260, 256],
        [1, 1, 12, 40, 16, 300],
    ];
    let asked = sizes.iter().map(|size| (size, &DType::FLOATS[..]));
    for (size, dtypes) in asked.chain(in_blocks.iter().map(|size| (size, &[DType::F32][..]))) {
        let [batch, heads, queries, keys, width, width_out] = *size;
        for &dtype in dtypes {
            for (causal, scale) in [(false, None), (true, Some(0.25))] {
                let mut dice = Dice::new(2_500);
                let q = dice.exact(dtype, &[batch, heads, queries, width], -1.0, 1.0);
                let k = dice.exact(dtype, &[batch, heads, keys, width], -1.0, 1.0);
                let v = dice.exact(dtype, &[batch, heads, keys, width_out], -1.0, 1.0);
                // Weights may be rounded to the type before they are used.
                let units = 4.0 * dtype.unit_roundoff() / DType::F32.unit_roundoff();
                let bound = Bound::new(64.0 + units, 64.0 + units);
                compare(&Op::Attention { causal, scale }, &[q, k, v], bound);
            }
        }
    }
}

/// Blocks of queries, and a query at a time.
const QUERIES: [usize; 2] = [100, 3];

/// Attention of few columns, in which somebody may have changed something.
fn attend(causal: bool, queries: usize, keys: usize, change: impl Fn(&mut [Vec<f64>; 3])) {
    let (width, width_out) = (8, 12);
    for dtype in DType::FLOATS {
        let mut dice = Dice::new(2_600);
        let mut operands = [[queries, width], [keys, width], [keys, width_out]]
            .map(|[rows, columns]| dice.exact(dtype, &[1, 1, rows, columns], -1.0, 1.0));
        let mut values = operands.each_mut().map(|operand| std::mem::take(&mut operand.values));
        change(&mut values);
        operands.iter_mut().zip(values).for_each(|(operand, values)| operand.values = values);
        let units = 4.0 * dtype.unit_roundoff() / DType::F32.unit_roundoff();
        let bound = Bound::new(64.0 + units, 64.0 + units);
        compare(&Op::Attention { causal, scale: None }, &operands, bound);
    }
}

#[test]
fn what_is_no_number_reaches_whoever_sees_it_and_nobody_else() {
    for queries in QUERIES {
        for causal in [false, true] {
            // A key and a value in the middle, which half of the queries see if there is a mask.
            for (operand, columns) in [(1, 8), (2, 12)] {
                for bad in [f64::NAN, f64::INFINITY] {
                    attend(causal, queries, queries + 70, |values| {
                        values[operand][(70 + queries / 2) * columns + 5] = bad;
                    });
                }
            }
            attend(causal, queries, queries + 70, |values| values[0][8 + 1] = f64::NAN);
        }
    }
}

#[test]
fn scores_that_are_infinitely_low_weigh_nothing_unless_all_are() {
    for queries in QUERIES {
        // Queries of ones, so that a key that is infinitely low is so for all.
        let low = |keys: std::ops::Range<usize>| {
            move |values: &mut [Vec<f64>; 3]| {
                values[0].fill(1.0);
                keys.clone().for_each(|key| values[1][key * 8] = f64::NEG_INFINITY);
            }
        };
        attend(false, queries, 200, low(0..150));
        attend(false, queries, 200, low(100..200));
        attend(false, queries, 200, low(0..200));
    }
}
