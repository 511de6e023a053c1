//! What is calculated along an axis.

use crate::check::{Bound, Dice, SHAPES, compare, of};
use claw_compute::reference::Exact;
use claw_compute::{DType, Op, Reduction};

/// Shapes with an axis, and each of their axes.
fn with_axes() -> impl Iterator<Item = (&'static [usize], usize)> {
    let more: [&[usize]; 3] = [&[5, 2_049], &[2_049, 5], &[3, 70_001]];
    SHAPES.into_iter().chain(more).flat_map(|extents| (0..extents.len()).map(move |axis| (extents, axis)))
}

#[test]
fn reductions_along_any_axis() {
    for (extents, axis) in with_axes() {
        for dtype in DType::FLOATS {
            for (number, reduction) in Reduction::ALL.iter().enumerate() {
                let is_extreme = matches!(reduction, Reduction::Max | Reduction::Min);
                if is_extreme && extents[axis] == 0 {
                    continue;
                }
                let (low, high) = if *reduction == Reduction::Prod { (0.98, 1.02) } else { (-1.0, 2.0) };
                // f32 sums of n numbers up to 2 in some tree: a unit for each level of it and each run of additions.
                let bound = match reduction {
                    Reduction::Sum => Bound::new(64.0, 8.0 * (extents[axis] as f64).sqrt() + 16.0),
                    Reduction::Prod => Bound::new(16.0 + extents[axis] as f64, 0.0),
                    _ => Bound::new(64.0, 64.0),
                };
                let x = Dice::new(500 + number as u64).exact(dtype, extents, low, high);
                compare(&Op::Reduce { reduction: *reduction, axis, keep: axis % 2 == 0 }, &[x], bound);
            }
        }
    }
}

#[test]
fn the_place_of_the_extreme_is_the_first_of_equals_and_a_nan_s_before_all() {
    for (extents, axis) in with_axes().filter(|(extents, axis)| extents[*axis] > 0) {
        for dtype in DType::FLOATS {
            for largest in [true, false] {
                let mut dice = Dice::new(600);
                let mut x = dice.exact(dtype, extents, -4.0, 4.0);
                // Few different numbers, so that there are equals.
                x.values.iter_mut().for_each(|value| *value = value.round());
                compare(&Op::ArgReduce { largest, axis, keep: false }, &[x.clone()], Bound::ONCE);
                if !x.values.is_empty() {
                    let place = dice.below(x.values.len());
                    x.values[place] = f64::NAN;
                    compare(&Op::ArgReduce { largest, axis, keep: true }, &[x], Bound::ONCE);
                }
            }
        }
    }
}

#[test]
fn what_differs_in_any_bit_is_counted() {
    for (extents, axis) in with_axes() {
        for dtype in [DType::F32, DType::I32] {
            let mut dice = Dice::new(605);
            let a = dice.exact(dtype, extents, -100.0, 100.0);
            let mut b = a.clone();
            for _ in 0..b.values.len() / 3 {
                let place = dice.below(b.values.len());
                b.values[place] = if b.values[place] == 0.0 { -0.0 } else { b.values[place] + 1.0 };
            }
            if dtype == DType::I32 {
                b.values.iter_mut().filter(|value| **value == 0.0).for_each(|value| *value = 0.0);
            }
            compare(&Op::CountDifferent { axis, keep: axis == 0 }, &[a, b], Bound::ONCE);
        }
    }
}

#[test]
fn a_nan_in_a_row_is_the_row_s_result_and_no_other_row_s() {
    for dtype in DType::FLOATS {
        for axis in [0, 1] {
            let mut x = Dice::new(610).exact(dtype, &[37, 300], 0.5, 1.5);
            x.values[5 * 300 + 211] = f64::NAN;
            for reduction in Reduction::ALL {
                compare(
                    &Op::Reduce { reduction: *reduction, axis, keep: false },
                    &[x.clone()],
                    Bound::new(512.0, 512.0),
                );
            }
            compare(&Op::Softmax { axis, log: false }, &[x.clone()], Bound::new(64.0, 4.0));
        }
    }
}

#[test]
fn softmax_of_large_numbers_is_stable() {
    for (extents, axis) in with_axes() {
        for dtype in DType::FLOATS {
            for log in [false, true] {
                let x = Dice::new(700).exact(dtype, extents, -30.0, 30.0);
                let bound = if log { Bound::new(16.0, 64.0) } else { Bound::new(192.0, 4.0) };
                compare(&Op::Softmax { axis, log }, &[x], bound);
            }
        }
    }
    for log in [false, true] {
        let huge = [60_000.0, 59_999.0, -60_000.0, 0.0];
        compare(
            &Op::Softmax { axis: 0, log },
            &[Exact::new(of(DType::F32, &[4]), &huge)],
            Bound::new(64.0, 64.0),
        );
        let infinite = [f64::NEG_INFINITY, 1.0, 2.0, f64::NEG_INFINITY];
        compare(
            &Op::Softmax { axis: 0, log },
            &[Exact::new(of(DType::F32, &[4]), &infinite)],
            Bound::new(64.0, 64.0),
        );
    }
}

#[test]
fn norms_hold_for_rows_far_from_zero() {
    for extents in SHAPES.into_iter().chain([&[3, 4_099][..]]).filter(|extents| !extents.is_empty()) {
        let width = extents[extents.len() - 1];
        for dtype in DType::FLOATS {
            for (low, high) in [(-1.0, 1.0), (99.0, 101.0)] {
                let mut dice = Dice::new(800);
                let x = dice.exact(dtype, extents, low, high);
                let (scale, shift) =
                    (dice.exact(dtype, &[width], 0.5, 1.5), dice.exact(dtype, &[width], -1.0, 1.0));
                // What is left after the mean is taken away has the error of the mean.
                let bound = Bound::new(64.0, if low > 0.0 { 2_048.0 } else { 64.0 });
                compare(&Op::LayerNorm { epsilon: 1e-5 }, &[x.clone(), scale.clone(), shift], bound);
                compare(&Op::RmsNorm { epsilon: 1e-6 }, &[x, scale], Bound::new(64.0, 16.0));
            }
        }
    }
}

#[test]
fn rotary_embeddings_turn_pairs() {
    for extents in [&[1, 2][..], &[5, 8], &[2, 3, 17, 64], &[0, 4], &[3, 0], &[2, 7, 130]] {
        for dtype in DType::FLOATS {
            for offset in [0, 1_000] {
                let x = Dice::new(900).exact(dtype, extents, -1.0, 1.0);
                // The sine of an angle of a thousand has lost ten bits in f32.
                let bound = Bound::new(16.0, if offset > 0 { 2_048.0 } else { 64.0 });
                compare(&Op::Rotary { base: 10_000.0, offset }, &[x], bound);
            }
        }
    }
}

#[test]
fn eight_bits_come_back_to_half_a_step() {
    for extents in SHAPES.into_iter().filter(|extents| !extents.is_empty()) {
        for dtype in DType::FLOATS {
            let x = Dice::new(1_000).exact(dtype, extents, -3.0, 3.0);
            crate::index::quantised(&x);
        }
    }
}
