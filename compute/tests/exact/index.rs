//! What goes by indices, and eight-bit values.

use crate::check::{Bound, Dice, compare, devices, of, results, single, upload, values};
use claw_compute::reference::Exact;
use claw_compute::{DType, Error, Op};

fn indices(dice: &mut Dice, count: usize, n: usize) -> Exact {
    let values: Vec<f64> = (0..count).map(|_| dice.below(n) as f64).collect();
    Exact::new(of(DType::I32, &[count]), &values)
}

#[test]
fn gather_takes_any_axis_and_type() {
    let cases: [(&[usize], usize, usize); 5] =
        [(&[7], 0, 3), (&[31, 5], 0, 40), (&[31, 5], 1, 1), (&[2, 3, 5], 1, 7), (&[4, 3], 0, 0)];
    for (extents, axis, count) in cases {
        for dtype in [DType::F32, DType::F16, DType::Bf16, DType::I32, DType::I8] {
            let mut dice = Dice::new(1_100);
            let x = dice.exact(dtype, extents, -100.0, 100.0);
            let at = indices(&mut dice, count, extents[axis]);
            compare(&Op::Gather { axis }, &[x, at], Bound::new(0.0, 0.0));
        }
    }
}

#[test]
fn scatter_adds_up_equal_indices() {
    let cases: [(&[usize], usize, usize); 8] = [
        (&[7], 0, 30),
        (&[31, 5], 0, 40),
        (&[31, 5], 1, 3),
        (&[2, 3, 5], 1, 7),
        (&[4, 3], 0, 0),
        // More lines, columns and indices than are worked on together.
        (&[5_003, 3], 0, 700),
        (&[9_001], 0, 1_300),
        (&[3, 37, 300], 1, 517),
    ];
    for (extents, axis, count) in cases {
        for dtype in DType::FLOATS {
            let mut dice = Dice::new(1_200);
            let x = dice.exact(dtype, extents, -1.0, 1.0);
            let at = indices(&mut dice, count, extents[axis]);
            let mut updated = extents.to_vec();
            updated[axis] = count;
            let updates = dice.exact(dtype, &updated, -1.0, 1.0);
            compare(&Op::ScatterAdd { axis }, &[x, at, updates], Bound::new(32.0, 64.0));
        }
    }
}

#[test]
fn equal_indices_add_up_in_their_order() {
    let (lines, width, count) = (40, 3, 900);
    let mut dice = Dice::new(1_250);
    let at: Vec<i32> = (0..count).map(|_| dice.below(lines) as i32).collect();
    // Sizes so different that any other order rounds otherwise.
    let updates: Vec<f32> = (0..count * width)
        .map(|_| (dice.between(-1.0, 1.0) * 10f64.powf(dice.between(0.0, 8.0))) as f32)
        .collect();
    let mut wanted = vec![1.0f32; lines * width];
    for (at, update) in at.iter().zip(updates.chunks(width)) {
        for (sum, update) in wanted[*at as usize * width..].iter_mut().zip(update) {
            *sum += update;
        }
    }
    for device in devices() {
        let x =
            device.tensor(&vec![1.0f32; lines * width], &crate::check::shape(&[lines, width])).expect("fits");
        let at = device.tensor(&at, &crate::check::shape(&[count])).expect("fits");
        let updates = device.tensor(&updates, &crate::check::shape(&[count, width])).expect("fits");
        let graph = single(Op::ScatterAdd { axis: 0 }, &[x.of(), at.of(), updates.of()]);
        let sums = device.run(&graph, &[x, at, updates]).expect("runs")[0].to_vec::<f32>();
        assert_eq!(sums, Ok(wanted.clone()), "on {}", device.properties().id);
    }
}

fn outside() -> Error {
    Error::Index { operation: "it".to_owned() }
}

#[test]
fn what_is_made_of_a_wrong_index_is_wrong_in_every_later_run() {
    for device in devices() {
        let x = device.tensor(&[1.0f32; 10], &crate::check::shape(&[10])).expect("fits");
        let at = device.tensor(&[0, 10, 2], &crate::check::shape(&[3])).expect("fits");
        let gathered =
            device.run(&single(Op::Gather { axis: 0 }, &[x.of(), at.of()]), &[x, at]).expect("is started");
        let negated = single(Op::Unary(claw_compute::Unary::Neg), &[gathered[0].of()]);
        let outcome = device.run(&negated, &gathered).and_then(|results| results[0].to_vec::<f32>());
        assert_eq!(outcome, Err(outside()), "on {}", device.properties().id);
    }
}

#[test]
fn an_index_outside_is_an_error_and_the_device_goes_on() {
    for device in devices() {
        for wrong in [-1, 5, i32::MAX, i32::MIN] {
            let x = device.tensor(&[1.0f32; 10], &crate::check::shape(&[5, 2])).expect("fits");
            let at = device.tensor(&[0, wrong, 2], &crate::check::shape(&[3])).expect("fits");
            let updates = device.tensor(&[1.0f32; 6], &crate::check::shape(&[3, 2])).expect("fits");
            for (op, inputs) in [
                (Op::Gather { axis: 0 }, vec![x.clone(), at.clone()]),
                (Op::ScatterAdd { axis: 0 }, vec![x.clone(), at.clone(), updates.clone()]),
            ] {
                let graph = single(op, &inputs.iter().map(|input| input.of()).collect::<Vec<_>>());
                let outcome = device.run(&graph, &inputs).and_then(|results| results[0].to_vec::<f32>());
                assert_eq!(outcome, Err(outside()), "{wrong} on {}", device.properties().id);
                // Only what was made with it is to blame.
                assert_eq!(x.to_vec::<f32>(), Ok(vec![1.0; 10]));
            }
        }
    }
}

#[test]
fn an_index_into_nothing_is_outside() {
    for device in devices() {
        let x = device.tensor::<f32>(&[], &crate::check::shape(&[0, 2])).expect("fits");
        let at = device.tensor(&[0], &crate::check::shape(&[1])).expect("fits");
        let graph = single(Op::Gather { axis: 0 }, &[x.of(), at.of()]);
        let outcome = device.run(&graph, &[x, at]).and_then(|results| results[0].to_vec::<f32>());
        assert_eq!(outcome, Err(outside()), "on {}", device.properties().id);
    }
}

#[test]
fn the_largest_few_come_in_order() {
    let cases: [(&[usize], usize); 7] = [
        (&[1], 1),
        (&[7], 7),
        (&[5, 300], 10),
        (&[3, 2_000], 64),
        (&[2, 3, 31], 5),
        (&[4, 3], 0),
        (&[0, 3], 2),
    ];
    for (extents, k) in cases {
        for dtype in DType::FLOATS {
            for largest in [true, false] {
                let mut dice = Dice::new(1_300);
                let mut x = dice.exact(dtype, extents, -40.0, 40.0);
                x.values.iter_mut().for_each(|value| *value = value.round());
                if x.values.len() > 20 {
                    x.values[17] = f64::NAN;
                    x.values[3] = f64::INFINITY;
                    x.values[4] = f64::NEG_INFINITY;
                }
                compare(&Op::TopK { k, largest }, &[x], Bound::new(0.0, 0.0));
            }
        }
    }
}

/// Quantises and comes back: within half a step, whatever way ties went.
pub fn quantised(x: &Exact) {
    let width = x.of.shape[x.of.shape.rank() - 1];
    for device in devices() {
        let Some(got) = results(device, &single(Op::Quantize, &[&x.of]), std::slice::from_ref(x)) else {
            continue;
        };
        let (q, scales) = (values(&got[0]), values(&got[1]));
        for (row, scale) in scales.iter().enumerate() {
            let exact = &x.values[row * width..(row + 1) * width];
            let largest = exact.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
            assert!((scale - largest / 127.0).abs() <= 4e-7 * largest, "{scale} for {largest}");
            for (x, q) in exact.iter().zip(&q[row * width..]) {
                assert!(
                    (x - q * scale).abs() <= scale * 0.500_1 && q.abs() <= 127.0,
                    "{x} became {q} × {scale}"
                );
            }
        }
        let back = single(Op::Dequantize(x.of.dtype), &[got[0].of(), got[1].of()]);
        let inputs =
            [Exact { of: got[0].of().clone(), values: q }, Exact { of: got[1].of().clone(), values: scales }];
        let tensors: Vec<_> = inputs.iter().map(|input| upload(device, input).expect("fits")).collect();
        assert_eq!(device.run(&back, &tensors).expect("runs")[0].of(), &x.of);
        crate::check::compare_graph(&back, &inputs, Bound::ONCE, "dequantised");
    }
}
