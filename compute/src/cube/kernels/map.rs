//! Programs over elements, copies and casts.

use super::functions::{binary, unary};
use crate::plan::{Instruction, Program};
use cubecl::prelude::*;

/// What of a map is compiled in: which operands are walked with strides, over how many axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Walks {
    pub strided: Vec<bool>,
    pub axes: usize,
}

impl Walks {
    /// Where the figures of an operand's walk begin.
    fn figures(&self, operand: usize) -> usize {
        let before = self.strided[..operand].iter().filter(|strided| **strided).count();
        1 + self.axes + before * (1 + self.axes)
    }
}

/// Runs a program for each element. `figures`: how many items; the extents of the axes; for each operand that is walked, its offset and
/// strides. All in items of `N` elements.
#[cube(launch)]
pub fn map<F: Float, N: Size>(
    operands: &Sequence<Array<Vector<F, N>>>,
    to: &mut Array<Vector<F, N>>,
    figures: &Array<u32>,
    #[comptime] program: Program,
    #[comptime] walks: Walks,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < figures[0] as usize {
        let mut loaded = Sequence::<Vector<F, N>>::new();
        #[unroll]
        for operand in 0..operands.len() {
            let mut place = ABSOLUTE_POS;
            if comptime!(walks.strided[operand]) {
                place = walk(
                    ABSOLUTE_POS as u32,
                    figures,
                    comptime!(walks.figures(operand)),
                    comptime!(walks.axes),
                ) as usize;
            }
            loaded.push(operands.index(operand)[place]);
        }
        let mut result = Vector::<F, N>::empty();
        let lanes = N::value();
        #[unroll]
        for lane in 0..lanes {
            result[lane] = F::cast_from(run::<F, N>(&loaded, lane, comptime!(program.clone())));
        }
        to[ABSOLUTE_POS] = result;
    }
}

/// Where an element is, by its number: `figures` holds the extents of the axes from 1 on, and offset and strides from `start` on.
#[cube]
pub fn walk(at: u32, figures: &Array<u32>, #[comptime] start: usize, #[comptime] axes: usize) -> u32 {
    let mut place = figures[start];
    let mut rest = at;
    #[unroll]
    for number in 0..axes {
        let axis = comptime!(axes - 1 - number);
        let extent = figures[comptime!(1 + axis)];
        place += rest % extent * figures[comptime!(start + 1 + axis)];
        rest /= extent;
    }
    place
}

/// One element's value.
#[cube]
fn run<F: Float, N: Size>(
    loaded: &Sequence<Vector<F, N>>,
    #[comptime] lane: usize,
    #[comptime] program: Program,
) -> f32 {
    let mut registers = Sequence::<f32>::new();
    #[unroll]
    for number in 0..comptime!(program.instructions.len()) {
        match comptime!(program.instructions[number]) {
            Instruction::Load(operand) => {
                let vector = *loaded.index(operand);
                registers.push(f32::cast_from(vector[lane]));
            }
            Instruction::Literal(bits) => registers.push(f32::from_bits(bits)),
            Instruction::Unary(function, x) => registers.push(unary(*registers.index(x), function)),
            Instruction::Binary(function, a, b) => {
                registers.push(binary(*registers.index(a), *registers.index(b), function))
            }
            Instruction::Where(condition, a, b) => {
                registers.push(select(
                    *registers.index(condition) == 0.0,
                    *registers.index(b),
                    *registers.index(a),
                ));
            }
        }
    }
    *registers.index(comptime!(program.instructions.len() - 1))
}

/// The same elements elsewhere. `figures`: how many; extents; offset and strides of what is read; then of what is written.
#[cube(launch)]
pub fn copy<E: Numeric>(
    from: &Array<E>,
    to: &mut Array<E>,
    figures: &Array<u32>,
    #[comptime] axes: usize,
    #[define(E)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < figures[0] as usize {
        let source = walk(ABSOLUTE_POS as u32, figures, comptime!(1 + axes), axes);
        let target = walk(ABSOLUTE_POS as u32, figures, comptime!(2 + 2 * axes), axes);
        to[target as usize] = from[source as usize];
    }
}

/// Another type. To integers: toward zero, held to their range, and 0 for NaN.
#[cube(launch)]
pub fn convert<From: Numeric, To: Numeric>(
    from: &Array<From>,
    to: &mut Array<To>,
    count: u32,
    #[comptime] to_integer: bool,
    #[define(From, To)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS < count as usize {
        if comptime!(to_integer) {
            let x = f32::cast_from(from[ABSOLUTE_POS]);
            // Numbers from 2^31 on are none of i32; below -2^31 there is none either.
            let held = select(x.is_nan(), 0.0, clamp(x, -2_147_483_648.0, 2_147_483_520.0));
            to[ABSOLUTE_POS] =
                To::cast_from(select(x >= 2_147_483_648.0, 2_147_483_647i32, i32::cast_from(held)));
        } else {
            to[ABSOLUTE_POS] = To::cast_from(from[ABSOLUTE_POS]);
        }
    }
}
