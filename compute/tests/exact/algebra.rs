//! What must hold whatever the numbers are.

use crate::check::{Dice, devices, results, single, values};
use claw_compute::reference::Exact;
use claw_compute::{Binary, DType, Device, Op};
use proptest::prelude::*;

fn run(device: &Device, op: Op, inputs: &[&Exact]) -> Vec<f64> {
    let graph = single(op, &inputs.iter().map(|input| &input.of).collect::<Vec<_>>());
    let inputs: Vec<Exact> = inputs.iter().map(|input| (*input).clone()).collect();
    values(&results(device, &graph, &inputs).expect("f32 is everywhere")[0])
}

fn again(like: &Exact, values: &[f64]) -> Exact {
    Exact::new(like.of.clone(), values)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn softmax_sums_to_one_and_does_not_mind_a_shift(rows in 1usize..20, width in 1usize..600, shift in -50.0..50.0f64, stream: u64) {
        let x = Dice::new(stream).exact(DType::F32, &[rows, width], -8.0, 8.0);
        let shifted = again(&x, &x.values.iter().map(|x| x + shift).collect::<Vec<_>>());
        for device in devices() {
            let [soft, other] = [&x, &shifted].map(|x| run(device, Op::Softmax { axis: 1, log: false }, &[x]));
            for row in soft.chunks(width) {
                prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5 && row.iter().all(|x| *x >= 0.0));
            }
            for (a, b) in soft.iter().zip(&other) {
                prop_assert!((a - b).abs() <= 2e-5 * a.max(1e-3), "{} and {} on {}", a, b, device.properties().id);
            }
        }
    }

    #[test]
    fn products_are_linear(m in 1usize..40, n in 1usize..40, k in 1usize..60, factor in -2.0..2.0f64, stream: u64) {
        let mut dice = Dice::new(stream);
        let (a, b, c) = (dice.exact(DType::F32, &[m, k], -1.0, 1.0), dice.exact(DType::F32, &[m, k], -1.0, 1.0), dice.exact(DType::F32, &[k, n], -1.0, 1.0));
        let mixed = again(&a, &a.values.iter().zip(&b.values).map(|(a, b)| a + factor * b).collect::<Vec<_>>());
        let product = Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false };
        for device in devices() {
            let [left, right, both] = [&a, &b, &mixed].map(|x| run(device, product.clone(), &[x, &c]));
            for ((left, right), both) in left.iter().zip(&right).zip(&both) {
                prop_assert!((left + factor * right - both).abs() < 1e-6 * (k as f64 + 8.0), "on {}", device.properties().id);
            }
        }
    }

    #[test]
    fn sums_do_not_depend_on_which_way_they_are_taken(a in 1usize..30, b in 1usize..30, c in 1usize..30, stream: u64) {
        let x = Dice::new(stream).exact(DType::F32, &[a, b, c], -1.0, 1.0);
        let sum = |axis| Op::Reduce { reduction: claw_compute::Reduction::Sum, axis, keep: true };
        for device in devices() {
            let totals: Vec<f64> = [[0, 1, 2], [2, 1, 0], [1, 2, 0]].iter().map(|order| {
                let mut left = x.clone();
                for axis in order {
                    let of = single(sum(*axis), &[&left.of]);
                    let of = of.of(of.outputs()[0]).clone();
                    left = Exact::new(of, &run(device, sum(*axis), &[&left]));
                }
                left.values[0]
            }).collect();
            for total in &totals {
                prop_assert!((total - totals[0]).abs() < 1e-6 * (a * b * c) as f64 + 1e-5);
            }
        }
    }

    #[test]
    fn the_order_of_a_sum_of_two_does_not_matter(width in 1usize..3_000, stream: u64) {
        let mut dice = Dice::new(stream);
        let (a, b) = (dice.exact(DType::F32, &[width], -1e6, 1e6), dice.exact(DType::F32, &[width], -1.0, 1.0));
        for device in devices() {
            prop_assert_eq!(run(device, Op::Binary(Binary::Add), &[&a, &b]), run(device, Op::Binary(Binary::Add), &[&b, &a]));
        }
    }
}
