//! What is calculated along rows.

use super::Cube;
use super::kernels::held::{self, Held};
use super::kernels::rows::Team;
use super::kernels::{bytes, rows as kernels};
use super::launch::{figure, storage};
use crate::backend::Rows;
use crate::memory::View;
use claw_graph::{DType, Reduction};
use cubecl::prelude::*;
use cubecl::server::Handle;
use std::sync::{Mutex, PoisonError};

/// Rows shorter than this are a single unit's work.
const SHARED_FROM: usize = 48;
/// Elements of a row that a unit holds at most: half of the registers that each of 1,024 units has on NVIDIA's cards.
const HELD_MAX: usize = 64;
/// Vectors that a unit has at least before there are more units.
const HELD_FROM: usize = 4;

/// Cosines and sines of the last rotation: calculated in float64 on the processor, since no device's own functions reach that far.
#[derive(Default)]
pub struct Turns(Mutex<Option<([u64; 4], Handle)>>);

/// How rows are shared among units.
pub struct Shared<R: Runtime> {
    pub count: CubeCount,
    pub dim: CubeDim,
    pub team: Team,
    pub figures: ArrayArg<R>,
}

impl<R: Runtime> Cube<R> {
    pub fn shared(&self, rows: Rows) -> Shared<R> {
        let number = rows.outer * rows.inner;
        let figures = self.figures(&[figure(number), figure(rows.n), figure(rows.inner)]);
        if rows.n < SHARED_FROM {
            let (count, dim) = self.units(number);
            return Shared { count, dim, team: Team { units: 1, plane: 1 }, figures };
        }
        let team = self.team_of(self.units_of_a_row(rows.n));
        Shared { count: self.cubes(number), dim: CubeDim::new_1d(team.units), team, figures }
    }

    /// How the units of a cube hold a row, if they can.
    pub fn held(&self, rows: Rows, dtype: DType) -> Option<Held> {
        if rows.inner != 1 || rows.n < SHARED_FROM {
            return None;
        }
        let most = (16 / dtype.size_bytes()).min(self.client.properties().hardware.max_vector_size);
        let fits = |lanes: &usize| *lanes <= most && rows.n.is_multiple_of(*lanes);
        let lanes = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let vectors = rows.n / lanes;
        let team = self.team_of(self.units_of_a_row(vectors / HELD_FROM));
        // A kernel is compiled for each number: few of them.
        let items = vectors.div_ceil(team.units as usize).next_power_of_two();
        (items * lanes <= HELD_MAX).then_some(Held { team, items, lanes })
    }

    /// A cube for each row, and its figures.
    pub fn held_rows(&self, rows: Rows, form: Held) -> (CubeCount, CubeDim, ArrayArg<R>) {
        let figures = self.figures(&[figure(rows.outer), figure(rows.n / form.lanes)]);
        (self.cubes(rows.outer), CubeDim::new_1d(form.team.units), figures)
    }

    pub fn reduce(&self, reduction: Reduction, rows: Rows, x: &View, to: &View) {
        let Shared { count, dim, team, figures } = self.shared(rows);
        kernels::reduce::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.array(to, 1),
            figures,
            reduction,
            team,
            storage(x.of.dtype),
        );
    }

    pub fn arg_reduce(&self, largest: bool, rows: Rows, x: &View, to: &View) {
        let Shared { count, dim, team, figures } = self.shared(rows);
        kernels::arg_reduce::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.array(to, 1),
            figures,
            largest,
            team,
            storage(x.of.dtype),
        );
    }

    pub fn count_different(&self, rows: Rows, operands: &[View], to: &View) {
        let Shared { count, dim, team, figures } = self.shared(rows);
        let [a, b, to] =
            [&operands[0], &operands[1], to].map(|view| self.words(view.buffer.memory::<Handle>().clone()));
        bytes::count_different::launch(&self.client, count, dim, a, b, to, figures, team);
    }

    pub fn softmax(&self, log: bool, rows: Rows, x: &View, to: &View) {
        if let Some(form) = self.held(rows, to.of.dtype) {
            let (count, dim, figures) = self.held_rows(rows, form);
            return held::softmax::launch(
                &self.client,
                count,
                dim,
                form.lanes,
                self.array(x, form.lanes),
                self.array(to, form.lanes),
                figures,
                log,
                form,
                storage(to.of.dtype),
            );
        }
        let Shared { count, dim, team, figures } = self.shared(rows);
        kernels::softmax::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.array(to, 1),
            figures,
            log,
            team,
            storage(x.of.dtype),
        );
    }

    pub fn norm(&self, epsilon: f32, rows: Rows, operands: &[View], to: &View) {
        // Without a shift the scale stands in for it, and is not read as such.
        let shift = operands.get(2).unwrap_or(&operands[1]);
        let dtype = storage(to.of.dtype);
        if let Some(form) = self.held(rows, to.of.dtype) {
            let (count, dim, figures) = self.held_rows(rows, form);
            let [x, scale, shift] =
                [&operands[0], &operands[1], shift].map(|view| self.array(view, form.lanes));
            return held::norm::launch(
                &self.client,
                count,
                dim,
                form.lanes,
                x,
                scale,
                shift,
                self.array(to, form.lanes),
                figures,
                epsilon,
                operands.len() > 2,
                form,
                dtype,
            );
        }
        let Shared { count, dim, team, figures } = self.shared(rows);
        let [x, scale, shift] = [&operands[0], &operands[1], shift].map(|view| self.array(view, 1));
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
            team,
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
        let Shared { count, dim, team, figures } = self.shared(rows);
        let scales = results[1].buffer.memory::<Handle>();
        bytes::scales::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            self.words(scales.clone()),
            figures,
            team,
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
