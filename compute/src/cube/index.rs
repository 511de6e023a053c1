//! What goes by indices.

use super::Cube;
use super::kernels::held;
use super::kernels::index::{self as kernels, Tile};
use super::launch::{figure, storage};
use crate::backend::{Fault, Rows};
use crate::memory::View;
use claw_graph::DType;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Sums that a cube holds in shared memory: 16 KiB, half of what the least of devices has.
const TILE: usize = 4_096;

impl<R: Runtime> Cube<R> {
    pub fn gather(&self, rows: Rows, operands: &[View], to: &View, fault: Option<&Fault>) {
        let elements = to.of.shape.elements();
        let (fault, word) = self.fault(fault);
        let figures = [elements, rows.n, operands[1].of.shape.elements(), rows.inner, word].map(figure);
        if to.of.dtype == DType::I8 {
            return self.gather_bytes(operands, to, fault, &figures);
        }
        let (count, dim) = self.units(elements);
        let (x, indices) = (self.array(&operands[0], 1), self.array(&operands[1], 1));
        let dtype = storage(to.of.dtype);
        kernels::gather::launch(
            &self.client,
            count,
            dim,
            x,
            indices,
            self.array(to, 1),
            fault,
            self.figures(&figures),
            dtype,
        );
    }

    pub fn scatter_add(&self, rows: Rows, operands: &[View], to: &View, fault: Option<&Fault>) {
        let (fault, word) = self.fault(fault);
        let team = self.team_of(self.units_of_a_row(usize::MAX));
        let columns = rows.inner.next_power_of_two().min(team.units as usize);
        let lines = (TILE / columns).min(rows.n.next_power_of_two().max(team.units as usize / columns));
        let tile = Tile { team, lines, columns };
        let (across, down) = (rows.inner.div_ceil(columns), rows.n.div_ceil(lines));
        let tiles = rows.outer * down * across;
        let indices = operands[1].of.shape.elements();
        let figures = self.figures(&[tiles, across, down, rows.n, indices, rows.inner, word].map(figure));
        let (count, dim) = (self.cubes(tiles), CubeDim::new_1d(team.units));
        let [x, indices, updates] = [0, 1, 2].map(|operand: usize| self.array(&operands[operand], 1));
        let dtype = storage(to.of.dtype);
        kernels::scatter_add::launch(
            &self.client,
            count,
            dim,
            x,
            indices,
            updates,
            self.array(to, 1),
            fault,
            figures,
            tile,
            dtype,
        );
    }

    /// Where a kernel says that an index is outside, and which of the words there is its own.
    fn fault(&self, fault: Option<&Fault>) -> (ArrayArg<R>, usize) {
        let fault = fault.expect("the plan gives a word to each step that takes indices");
        (self.words(fault.buffer.memory::<Handle>().clone()), fault.word)
    }

    pub fn top_k(&self, k: usize, largest: bool, rows: Rows, x: &View, results: &[View]) {
        if let Some(form) = self.held(rows, x.of.dtype) {
            let (count, dim, figures) = self.held_rows(rows, form);
            return held::top_k::launch(
                &self.client,
                count,
                dim,
                form.lanes,
                self.array(x, form.lanes),
                self.array(&results[0], 1),
                self.array(&results[1], 1),
                figures,
                figure(k),
                largest,
                form,
                storage(x.of.dtype),
            );
        }
        let team = self.team_of(self.units_of_a_row(rows.n));
        let figures = self.figures(&[figure(rows.outer), figure(rows.n), figure(rows.inner)]);
        let (count, dim, dtype) = (self.cubes(rows.outer), CubeDim::new_1d(team.units), storage(x.of.dtype));
        let (values, indices) = (self.array(&results[0], 1), self.array(&results[1], 1));
        kernels::top_k::launch(
            &self.client,
            count,
            dim,
            self.array(x, 1),
            values,
            indices,
            figures,
            figure(k),
            largest,
            team,
            dtype,
        );
    }
}
