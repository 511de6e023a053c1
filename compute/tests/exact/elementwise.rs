//! One element at a time, and chains of them.

use crate::check::{Bound, Dice, SHAPES, compare, compare_graph, of, shape};
use claw_compute::reference::Exact;
use claw_compute::{Binary, DType, Distribution, Graph, Op, Unary};

/// Where a function is tried, and how close it must come.
fn range_of(function: Unary) -> (f64, f64, Bound) {
    match function {
        Unary::Exp => (-20.0, 20.0, Bound::new(24.0, 0.0)),
        Unary::Log | Unary::Sqrt | Unary::Rsqrt => (0.001, 100.0, Bound::new(8.0, 4.0)),
        Unary::Sin | Unary::Cos => (-6.0, 6.0, Bound::new(8.0, 16.0)),
        Unary::Tanh | Unary::Erf => (-5.0, 5.0, Bound::new(16.0, 8.0)),
        Unary::Sigmoid | Unary::Silu => (-20.0, 20.0, Bound::new(32.0, 0.0)),
        Unary::Gelu => (-5.0, 5.0, Bound::new(16.0, 8.0)),
        _ => (-100.0, 100.0, Bound::ONCE),
    }
}

#[test]
fn functions_of_one_number_are_the_reference_s() {
    for (number, function) in Unary::ALL.iter().enumerate() {
        let (low, high, bound) = range_of(*function);
        for dtype in DType::FLOATS {
            for extents in SHAPES {
                let x = Dice::new(number as u64).exact(dtype, extents, low, high);
                compare(&Op::Unary(*function), &[x], bound);
            }
        }
    }
}

#[test]
fn what_is_no_number_or_infinite_comes_out_as_mathematics_says() {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0];
    for dtype in DType::FLOATS {
        let x = Exact::new(of(dtype, &[special.len()]), &special);
        for function in Unary::ALL {
            // Of an infinite angle nothing is said; -inf · 0 is what the definition of SiLU gives, and no device must.
            if matches!(function, Unary::Sin | Unary::Cos) {
                continue;
            }
            let x = if *function == Unary::Silu {
                Exact::new(of(dtype, &[5]), &[f64::NAN, f64::INFINITY, 0.0, 1.0, -1.0])
            } else {
                x.clone()
            };
            let x = if *function == Unary::Gelu {
                Exact::new(of(dtype, &[5]), &[f64::NAN, f64::INFINITY, 0.0, 1.0, -1.0])
            } else {
                x
            };
            compare(&Op::Unary(*function), &[x], Bound::new(16.0, 8.0));
        }
        let pairs: Vec<(f64, f64)> = special.iter().flat_map(|a| special.map(|b| (*a, b))).collect();
        let [a, b] = [|pair: &(f64, f64)| pair.0, |pair: &(f64, f64)| pair.1]
            .map(|side| Exact::new(of(dtype, &[pairs.len()]), &pairs.iter().map(side).collect::<Vec<_>>()));
        for function in Binary::ALL {
            if *function != Binary::Pow {
                compare(&Op::Binary(*function), &[a.clone(), b.clone()], Bound::ONCE);
            }
        }
    }
}

#[test]
fn functions_of_two_numbers_are_broadcast() {
    let pairs: [[&[usize]; 2]; 7] = [
        [&[], &[5]],
        [&[3, 1], &[1, 4]],
        [&[31, 33], &[33]],
        [&[2, 3, 5], &[3, 1]],
        [&[0, 3], &[3]],
        [&[1], &[1]],
        [&[64, 128], &[64, 128]],
    ];
    for (number, function) in Binary::ALL.iter().enumerate() {
        let (low, bound) =
            if *function == Binary::Pow { (0.1, Bound::new(256.0, 0.0)) } else { (-3.0, Bound::ONCE) };
        for dtype in DType::FLOATS {
            for [left, right] in pairs {
                let mut dice = Dice::new(100 + number as u64);
                let (a, b) = (dice.exact(dtype, left, low, 3.0), dice.exact(dtype, right, low, 3.0));
                compare(&Op::Binary(*function), &[a.clone(), b.clone()], bound);
                compare(&Op::Binary(*function), &[b, a], bound);
            }
        }
    }
}

#[test]
fn where_takes_from_the_one_or_the_other() {
    for dtype in DType::FLOATS {
        let mut dice = Dice::new(200);
        let mut condition = dice.exact(dtype, &[7, 1], 0.0, 1.0);
        condition.values.iter_mut().for_each(|value| *value = if *value < 0.5 { 0.0 } else { *value });
        let (a, b) = (dice.exact(dtype, &[1, 9], -1.0, 1.0), dice.exact(dtype, &[], 5.0, 6.0));
        compare(&Op::Where, &[condition, a, b], Bound::ONCE);
    }
}

#[test]
fn casts_round_to_even_and_hold_to_the_range() {
    let awkward = [
        0.5,
        1.5,
        -2.5,
        1e9,
        -1e9,
        3e9,
        -3e9,
        65_519.0,
        65_520.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1.0 + 2f64.powi(-8),
        0.999,
        -0.999,
    ];
    for from in DType::FLOATS {
        for to in [DType::F32, DType::F16, DType::Bf16, DType::I32] {
            compare(&Op::Cast(to), &[Exact::new(of(from, &[awkward.len()]), &awkward)], Bound::new(0.0, 0.0));
            compare(
                &Op::Cast(to),
                &[Dice::new(300).exact(from, &[33, 7], -1000.0, 1000.0)],
                Bound::new(0.0, 0.0),
            );
        }
    }
    let whole = [0.0, 1.0, -1.0, 16_777_217.0, 2_147_483_647.0, -2_147_483_648.0, 2_049.0, 257.0];
    for to in DType::FLOATS {
        compare(&Op::Cast(to), &[Exact::new(of(DType::I32, &[whole.len()]), &whole)], Bound::new(0.0, 0.0));
    }
}

#[test]
fn chains_are_one_program_with_the_same_result() {
    for dtype in DType::FLOATS {
        let mut dice = Dice::new(400);
        let (x, bias) = (dice.exact(dtype, &[65, 33], -2.0, 2.0), dice.exact(dtype, &[33], -1.0, 1.0));
        let mut graph = Graph::new();
        let inputs = [
            graph.input("x", x.of.clone()).expect("fits"),
            graph.input("bias", bias.of.clone()).expect("fits"),
        ];
        let fill = Op::Fill { value: 0.5, dtype, shape: shape(&[]) };
        let half = graph.add("half", fill, &[]).expect("fits")[0];
        let sum = graph.add("sum", Op::Binary(Binary::Add), &inputs).expect("fits")[0];
        let scaled = graph.add("scaled", Op::Binary(Binary::Mul), &[sum, half]).expect("fits")[0];
        let curved = graph.add("curved", Op::Unary(Unary::Silu), &[scaled]).expect("fits")[0];
        let both = graph.add("both", Op::Binary(Binary::Add), &[curved, inputs[0]]).expect("fits")[0];
        // Read twice, so it is a tensor of its own.
        let twice = graph.add("twice", Op::Binary(Binary::Mul), &[both, both]).expect("fits")[0];
        graph.output(twice);
        graph.output(half);
        // Each tensor in between is rounded at most once, and the square doubles what that is.
        let units = 4.0 * dtype.unit_roundoff() / DType::F32.unit_roundoff();
        compare_graph(&graph, &[x, bias], Bound::new(units, units), "a chain");
    }
}

#[test]
fn random_numbers_are_the_same_everywhere() {
    for dtype in DType::FLOATS {
        for extents in SHAPES {
            for (distribution, bound) in [
                (Distribution::Uniform { low: -1.0, high: 3.0 }, Bound::new(2.0, 2.0)),
                (Distribution::Normal { mean: 1.0, deviation: 2.0 }, Bound::new(64.0, 256.0)),
                (Distribution::Integers { low: -7, high: 9 }, Bound::new(0.0, 0.0)),
            ] {
                compare(
                    &Op::Random { distribution, seed: 0x1234_5678_9abc_def0, dtype, shape: shape(extents) },
                    &[],
                    bound,
                );
            }
        }
    }
    for (low, high) in [(i32::MIN, i32::MAX), (5, 5), (-3, 2)] {
        let op = Op::Random {
            distribution: Distribution::Integers { low, high },
            seed: 9,
            dtype: DType::I32,
            shape: shape(&[1_001]),
        };
        compare(&op, &[], Bound::new(0.0, 0.0));
    }
    compare(&Op::Fill { value: -5.0, dtype: DType::I32, shape: shape(&[3, 3]) }, &[], Bound::ONCE);
}
