//! What goes by indices.

use super::Cube;
use super::kernels::index as kernels;
use super::launch::{figure, storage};
use crate::backend::{Fault, Rows};
use crate::memory::View;
use claw_graph::DType;
use cubecl::prelude::*;
use cubecl::server::Handle;

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
        let elements = to.of.shape.elements();
        let (fault, word) = self.fault(fault);
        let figures =
            self.figures(&[elements, rows.n, operands[1].of.shape.elements(), rows.inner, word].map(figure));
        let (count, dim) = self.units(elements);
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
            dtype,
        );
    }

    /// Where a kernel says that an index is outside, and which of the words there is its own.
    fn fault(&self, fault: Option<&Fault>) -> (ArrayArg<R>, usize) {
        let fault = fault.expect("the plan gives a word to each step that takes indices");
        (self.words(fault.buffer.memory::<Handle>().clone()), fault.word)
    }

    pub fn top_k(&self, k: usize, largest: bool, rows: Rows, x: &View, results: &[View]) {
        let units = self.units_of_a_row(rows.n);
        let figures = self.figures(&[figure(rows.outer), figure(rows.n), figure(rows.inner)]);
        let (count, dim, dtype) = (self.cubes(rows.outer), CubeDim::new_1d(units), storage(x.of.dtype));
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
            units,
            dtype,
        );
    }
}
