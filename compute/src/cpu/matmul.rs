//! Matrix products, by the crate `gemm`.
#![expect(unsafe_code, reason = "gemm takes pointers and strides")]

use super::{Float, read, through_wide, widened, write};
use crate::memory::View;
use claw_graph::DType;
use gemm::Parallelism;

/// A matrix within a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    offset: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of so many elements, from one of them on.
    pub const fn rows(values: &'a [f32], first: usize, width: usize) -> Self {
        Self { values, offset: first * width, row_stride: width, column_stride: 1 }
    }

    /// Its rows as columns.
    pub const fn turned(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn is_within(&self, rows: usize, columns: usize) -> bool {
        let last = self.offset + (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        last < self.values.len()
    }
}

/// `to = a × b`, row after row. None of `m`, `n` and `k` is 0.
pub fn multiply(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    to: &mut [f32],
    parallelism: Parallelism,
) {
    assert!(a.is_within(m, k) && b.is_within(k, n) && to.len() == m * n, "matrices lie within their memory");
    let [a_rows, a_columns, b_rows, b_columns, to_rows] =
        [a.row_stride, a.column_stride, b.row_stride, b.column_stride, n]
            .map(|stride| isize::try_from(stride).expect("a stride within memory"));
    // SAFETY: the assertion above: every element that these extents and strides reach is within its slice; `to` is borrowed mutably.
    unsafe {
        let (a, b) = (a.values.as_ptr().add(a.offset), b.values.as_ptr().add(b.offset));
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            1,
            to_rows,
            false,
            a,
            a_columns,
            a_rows,
            b,
            b_columns,
            b_rows,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The result is `f32`, or of the operands' type.
pub fn matmul<T: Float>(operands: &[View], to: &View) {
    if to.of.dtype == DType::F32 { into::<T, f32>(operands, to) } else { into::<T, T>(operands, to) }
}

fn into<T: Float, U: Float>(operands: &[View], to: &View) {
    let rank = to.of.shape.rank();
    let (m, n, k) = (to.of.shape[rank - 2], to.of.shape[rank - 1], operands[0].of.shape[rank - 1]);
    let elements = operands.iter().map(read).collect::<Vec<_>>();
    let wide: Vec<_> = elements.iter().map(|elements| widened(elements.all::<T>())).collect();
    let mut result = write(to);
    let result = result.of::<U>(to);
    let mut product = Vec::new();
    for (number, target) in result.chunks_mut(m * n).enumerate() {
        let matrix = |operand: usize| {
            let strides = &operands[operand].layout.strides;
            Matrix {
                values: &wide[operand],
                offset: batch_offset(to, strides, number),
                row_stride: strides[rank - 2],
                column_stride: strides[rank - 1],
            }
        };
        through_wide(target, &mut product, |product| {
            multiply([m, n, k], matrix(0), matrix(1), product, Parallelism::Rayon(0));
        });
    }
}

/// Where the matrix of a batch begins.
fn batch_offset(to: &View, strides: &[usize], mut number: usize) -> usize {
    let mut offset = 0;
    for axis in (0..to.of.shape.rank() - 2).rev() {
        offset += number % to.of.shape[axis] * strides[axis];
        number /= to.of.shape[axis];
    }
    offset
}
