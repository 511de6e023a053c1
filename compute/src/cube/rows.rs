//! What is calculated along rows.

use super::Cube;
use super::kernels::{bytes, rows as kernels};
use super::launch::{figure, storage};
use crate::backend::Rows;
use crate::memory::View;
use claw_graph::Reduction;
use cubecl::prelude::*;
use cubecl::server::Handle;
use std::sync::{Mutex, PoisonError};

/// Rows shorter than this are a single unit's work.
const SHARED_FROM: usize = 48;

/// Cosines and sines of the last rotation: calculated in float64 on the processor, since no device's own functions reach that far.
#[derive(Default)]
pub struct Turns(Mutex<Option<([u64; 4], Handle)>>);

/// How rows are shared among units.
pub struct Shared<R: Runtime> {
    pub count: CubeCount,
    pub dim: CubeDim,
    pub units: u32,
    pub figures: ArrayArg<R>,
}

impl<R: Runtime> Cube<R> {
    pub fn shared(&self, rows: Rows) -> Shared<R> {
        let number = rows.outer * rows.inner;
        let figures = self.figures(&[figure(number), figure(rows.n), figure(rows.inner)]);
        if rows.n < SHARED_FROM {
            let (count, dim) = self.units(number);
            return Shared { count, dim, units: 1, figures };
        }
        let units = self.units_of_a_row(rows.n);
        Shared { count: self.cubes(number), dim: CubeDim::new_1d(units), units, figures }
    }

    pub fn reduce(&self, reduction: Reduction, rows: Rows, x: &View, to: &View) {
        let Shared { count, dim, units, figures } = self.shared(rows);
        kernels::reduce::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.array(to, 1),
            figures,
            reduction,
            units,
            storage(x.of.dtype),
        );
    }

    pub fn arg_reduce(&self, largest: bool, rows: Rows, x: &View, to: &View) {
        let Shared { count, dim, units, figures } = self.shared(rows);
        kernels::arg_reduce::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.array(to, 1),
            figures,
            largest,
            units,
            storage(x.of.dtype),
        );
    }

    pub fn count_different(&self, rows: Rows, operands: &[View], to: &View) {
        let Shared { count, dim, units, figures } = self.shared(rows);
        let [a, b, to] =
            [&operands[0], &operands[1], to].map(|view| self.words(view.buffer.memory::<Handle>().clone()));
        bytes::count_different::launch(&self.client, count, dim, a, b, to, figures, units);
    }

    pub fn softmax(&self, log: bool, rows: Rows, x: &View, to: &View) {
        let Shared { count, dim, units, figures } = self.shared(rows);
        kernels::softmax::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.array(to, 1),
            figures,
            log,
            units,
            storage(x.of.dtype),
        );
    }

    pub fn norm(&self, epsilon: f32, rows: Rows, operands: &[View], to: &View) {
        let Shared { count, dim, units, figures } = self.shared(rows);
        // Without a shift the scale stands in for it, and is not read as such.
        let shift = operands.get(2).unwrap_or(&operands[1]);
        let [x, scale, shift] = [&operands[0], &operands[1], shift].map(|view| self.array(view, 1));
        let dtype = storage(to.of.dtype);
        kernels::norm::launch(
            &self.client,
            count,
            dim,
            x,
            scale,
            shift,
            self.array(to, 1),
            figures,
            epsilon,
            operands.len() > 2,
            units,
            dtype,
        );
    }

    pub fn rotary(&self, base: f64, offset: usize, x: &View, to: &View) {
        let rank = x.of.shape.rank();
        let (positions, width) = (x.of.shape[rank - 2], x.of.shape[rank - 1]);
        let pairs = x.of.shape.elements() / 2;
        let figures = self.figures(&[figure(pairs), figure(width / 2), figure(positions)]);
        let turns = self.words(self.turns(base, offset, positions, width));
        let (count, dim) = self.units(pairs);
        kernels::rotary::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            turns,
            self.array(to, 1),
            figures,
            storage(x.of.dtype),
        );
    }

    fn turns(&self, base: f64, offset: usize, positions: usize, width: usize) -> Handle {
        let key = [base.to_bits(), offset as u64, positions as u64, width as u64];
        let mut known = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = known.as_ref().filter(|(of, _)| *of == key) {
            return handle.clone();
        }
        let half = width / 2;
        let turn = |at: usize| {
            let angle = (at / half + offset) as f64 / base.powf(2.0 * (at % half) as f64 / width as f64);
            [angle.cos() as f32, angle.sin() as f32]
        };
        let turns: Vec<f32> = (0..positions * half).flat_map(turn).collect();
        let handle = self.client.create_from_slice(bytemuck::cast_slice(&turns));
        *known = Some((key, handle.clone()));
        handle
    }

    pub fn quantize(&self, rows: Rows, x: &View, results: &[View]) {
        let Shared { count, dim, units, figures } = self.shared(rows);
        let scales = results[1].buffer.memory::<Handle>();
        bytes::scales::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.words(scales.clone()),
            figures,
            units,
            storage(x.of.dtype),
        );
        let elements = x.of.shape.elements();
        let (count, dim) = self.units(elements.div_ceil(4));
        let figures = self.figures(&[figure(elements), figure(rows.n)]);
        let q = self.words(results[0].buffer.memory::<Handle>().clone());
        bytes::quantize::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.words(scales.clone()),
            q,
            figures,
            storage(x.of.dtype),
        );
    }

    pub fn dequantize(&self, rows: Rows, operands: &[View], to: &View) {
        let elements = to.of.shape.elements();
        let (count, dim) = self.units(elements);
        let figures = self.figures(&[figure(elements), figure(rows.n)]);
        let [q, scales] =
            [0, 1].map(|operand: usize| self.words(operands[operand].buffer.memory::<Handle>().clone()));
        bytes::dequantize::launch(
            &self.client,
            count,
            dim,
            q,
            scales,
            self.array(to, 1),
            figures,
            storage(to.of.dtype),
        );
    }
}
