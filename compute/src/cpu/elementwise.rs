//! Programs over elements, copies and casts.

use super::math::{self, vectored};
use super::{Float, read, write};
use crate::memory::{Layout, View};
use crate::plan::{Instruction, Program};
use crate::tensor::Element;
use claw_graph::{Binary, DType, Unary};
use rayon::prelude::*;

/// Elements that a program takes at once: its registers stay in the first-level cache.
const BLOCK: usize = 1_024;

/// Runs a program for each element of the result.
pub fn map<T: Float>(program: &Program, operands: &[View], to: &View) {
    let elements: Vec<_> = operands.iter().map(read).collect();
    let sources: Vec<&[T]> = elements.iter().map(super::Elements::all).collect();
    let walks: Vec<Walk> = operands.iter().map(Walk::of).collect();
    write(to).of::<T>(to).par_chunks_mut(BLOCK).enumerate().for_each_init(
        || Registers::new(program),
        |registers, (number, to)| {
            for (walk, (source, loaded)) in walks.iter().zip(sources.iter().zip(&mut registers.loaded)) {
                walk.load(number * BLOCK, source, &mut loaded[..to.len()]);
            }
            run(registers, program, to.len());
            T::narrow(registers.result(to.len()), to);
        },
    );
}

/// One block of each value of a program.
struct Registers {
    loaded: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Registers {
    fn new(program: &Program) -> Self {
        Self {
            loaded: vec![vec![0.0; BLOCK]; program.operands()],
            values: vec![vec![0.0; BLOCK]; program.instructions.len()],
        }
    }

    fn result(&self, length: usize) -> &[f32] {
        &self.values.last().expect("a program has a result")[..length]
    }

    #[inline(always)]
    fn run(&mut self, program: &Program, length: usize) {
        for (number, instruction) in program.instructions.iter().enumerate() {
            let (before, from) = self.values.split_at_mut(number);
            let to = &mut from[0][..length];
            match *instruction {
                Instruction::Load(operand) => to.copy_from_slice(&self.loaded[operand][..length]),
                Instruction::Literal(bits) => to.fill(f32::from_bits(bits)),
                Instruction::Unary(function, x) => {
                    to.copy_from_slice(&before[x][..length]);
                    unary(function, to);
                }
                Instruction::Binary(function, a, b) => {
                    binary(function, &before[a][..length], &before[b][..length], to)
                }
                Instruction::Where(condition, a, b) => {
                    let pairs = before[a].iter().zip(&before[b]);
                    for ((to, condition), (a, b)) in to.iter_mut().zip(&before[condition]).zip(pairs) {
                        *to = if *condition == 0.0 { *b } else { *a };
                    }
                }
            }
        }
    }
}

vectored! {
    fn run(registers: &mut Registers, program: &Program, length: usize) {
        registers.run(program, length);
    }
}

#[inline(always)]
fn unary(function: Unary, values: &mut [f32]) {
    use std::f64::consts::SQRT_2;
    match function {
        Unary::Neg => math::each(values, |x| -x),
        Unary::Abs => math::each(values, f32::abs),
        Unary::Exp => math::each(values, math::exp),
        Unary::Log => math::each(values, f32::ln),
        Unary::Sqrt => math::each(values, f32::sqrt),
        Unary::Rsqrt => math::each(values, |x| 1.0 / x.sqrt()),
        Unary::Recip => math::each(values, |x| 1.0 / x),
        Unary::Tanh => math::each(values, libm::tanhf),
        Unary::Sigmoid => math::each(values, |x| 1.0 / (1.0 + math::exp(-x))),
        // Comparisons with NaN are false: it stays.
        Unary::Relu => math::each(values, |x| if x < 0.0 { 0.0 } else { x }),
        Unary::Gelu => math::each(values, |x| {
            let wide = f64::from(x);
            // By erfc: 1 + erf would cancel for negative numbers. The product of 0 and infinity is none.
            if x == f32::NEG_INFINITY { 0.0 } else { (wide / 2.0 * libm::erfc(-wide / SQRT_2)) as f32 }
        }),
        Unary::Silu => math::each(values, |x| x / (1.0 + math::exp(-x))),
        Unary::Erf => math::each(values, libm::erff),
        Unary::Sin => math::each(values, f32::sin),
        Unary::Cos => math::each(values, f32::cos),
        Unary::Floor => math::each(values, f32::floor),
        Unary::Ceil => math::each(values, f32::ceil),
    }
}

#[inline(always)]
fn binary(function: Binary, a: &[f32], b: &[f32], to: &mut [f32]) {
    let truth = |is: bool| if is { 1.0 } else { 0.0 };
    match function {
        Binary::Add => pairs(a, b, to, |a, b| a + b),
        Binary::Sub => pairs(a, b, to, |a, b| a - b),
        Binary::Mul => pairs(a, b, to, |a, b| a * b),
        Binary::Div => pairs(a, b, to, |a, b| a / b),
        // The sum of a NaN with anything is one.
        Binary::Min => pairs(a, b, to, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.min(b) }),
        Binary::Max => pairs(a, b, to, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }),
        Binary::Pow => pairs(a, b, to, f32::powf),
        Binary::Equal => pairs(a, b, to, |a, b| truth(a == b)),
        Binary::Less => pairs(a, b, to, |a, b| truth(a < b)),
        Binary::LessEqual => pairs(a, b, to, |a, b| truth(a <= b)),
    }
}

#[inline(always)]
fn pairs(a: &[f32], b: &[f32], to: &mut [f32], of: impl Fn(f32, f32) -> f32) {
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to = of(*a, *b);
    }
}

/// The places of a tensor's elements, in row-major order.
pub struct Walk {
    offset: usize,
    /// Extents and strides, with axes joined that lie as one; the last first.
    axes: Vec<(usize, usize)>,
}

impl Walk {
    pub fn of(view: &View) -> Self {
        let Layout { offset, strides } = &view.layout;
        let mut axes: Vec<(usize, usize)> = Vec::new();
        for (extent, stride) in view.of.shape.iter().zip(strides).rev() {
            match axes.last_mut() {
                _ if *extent == 1 => {}
                Some((inner, step)) if *stride == *inner * *step => *inner *= extent,
                _ => axes.push((*extent, *stride)),
            }
        }
        if axes.is_empty() {
            axes.push((1, 0));
        }
        Self { offset: *offset, axes }
    }

    /// Calls `run` with the place of an element, the distance to its neighbours, and how many of them follow, until `count` are done.
    fn runs(&self, start: usize, count: usize, mut run: impl FnMut(usize, usize, usize)) {
        let (inner, step) = self.axes[0];
        let mut done = 0;
        while done < count {
            let at = start + done;
            let mut rest = at / inner;
            let mut place = self.offset + at % inner * step;
            for (extent, stride) in &self.axes[1..] {
                place += rest % extent * stride;
                rest /= extent;
            }
            let length = (inner - at % inner).min(count - done);
            run(place, step, length);
            done += length;
        }
    }

    fn load<T: Float>(&self, start: usize, from: &[T], to: &mut [f32]) {
        let mut done = 0;
        self.runs(start, to.len(), |place, step, length| {
            let to = &mut to[done..done + length];
            match step {
                1 => T::widen(&from[place..place + length], to),
                0 => to.fill(from[place].wide()),
                _ => to.iter_mut().enumerate().for_each(|(at, to)| *to = from[place + at * step].wide()),
            }
            done += length;
        });
    }
}

/// The same elements elsewhere.
pub fn copy(x: &View, to: &View) {
    match x.of.dtype.size_bytes() {
        4 => copy_elements::<i32>(x, to),
        2 => copy_elements::<half::f16>(x, to),
        _ => copy_elements::<i8>(x, to),
    }
}

/// One thread: copies are as fast as memory, and the result's places may be any.
fn copy_elements<T: Element>(x: &View, to: &View) {
    let (from, mut to_elements) = (read(x), write(to));
    let (from, to_elements) = (from.all::<T>(), to_elements.all::<T>());
    let (source, target) = (Walk::of(x), Walk::of(to));
    let mut start = 0;
    target.runs(0, x.of.shape.elements(), |place, step, length| {
        let mut done = 0;
        source.runs(start, length, |origin, stride, length| {
            for at in 0..length {
                to_elements[place + (done + at) * step] = from[origin + at * stride];
            }
            done += length;
        });
        start += length;
    });
}

/// Another type.
pub fn cast(x: &View, to: &View) {
    let (from, mut to_elements) = (read(x), write(to));
    macro_rules! between {
        ($from:ty, $to:ty, $convert:expr) => {
            to_elements
                .of::<$to>(to)
                .par_iter_mut()
                .zip(from.of::<$from>(x))
                .for_each(|(to, from)| *to = $convert(*from))
        };
    }
    use half::{bf16, f16};
    match (x.of.dtype, to.of.dtype) {
        (DType::F32, DType::F16) => between!(f32, f16, f16::from_f32),
        (DType::F32, DType::Bf16) => between!(f32, bf16, bf16::from_f32),
        (DType::F32, DType::I32) => between!(f32, i32, |x| x as i32),
        (DType::F16, DType::F32) => between!(f16, f32, f16::to_f32),
        (DType::F16, DType::Bf16) => between!(f16, bf16, |x: f16| bf16::from_f32(x.to_f32())),
        (DType::F16, DType::I32) => between!(f16, i32, |x: f16| x.to_f32() as i32),
        (DType::Bf16, DType::F32) => between!(bf16, f32, bf16::to_f32),
        (DType::Bf16, DType::F16) => between!(bf16, f16, |x: bf16| f16::from_f32(x.to_f32())),
        (DType::Bf16, DType::I32) => between!(bf16, i32, |x: bf16| x.to_f32() as i32),
        (DType::I32, DType::F32) => between!(i32, f32, |x| x as f32),
        // Through f64, which holds every i32: rounded once.
        (DType::I32, DType::F16) => between!(i32, f16, |x| f16::from_f64(f64::from(x))),
        (DType::I32, DType::Bf16) => between!(i32, bf16, |x| bf16::from_f64(f64::from(x))),
        (from, to) => unreachable!("the graph casts no {from} to {to}"),
    }
}
