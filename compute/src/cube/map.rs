//! Programs over elements, copies and casts.

use super::Cube;
use super::kernels::map as kernels;
use super::launch::{figure, storage};
use crate::memory::{Layout, View};
use crate::plan::Program;
use claw_graph::DType;
use cubecl::prelude::*;

impl<R: Runtime> Cube<R> {
    pub fn map(&self, program: &Program, operands: &[View], to: &View) {
        let walked = Walked::of(operands, to);
        let vector = self.vector_of(&walked, to);
        let figures = walked.figures(to.of.shape.elements(), vector);
        let items = to.of.shape.elements() / vector;
        let (count, dim) = self.units(items);
        let arguments = operands.iter().map(|operand| self.array(operand, vector)).collect();
        let walks = kernels::Walks { strided: walked.strided, axes: walked.extents.len() };
        kernels::map::launch(
            &self.client,
            count,
            dim,
            vector,
            arguments,
            self.array(to, vector),
            self.figures(&figures),
            program.clone(),
            walks,
            storage(to.of.dtype),
        );
    }

    /// Elements that a unit reads and writes at once: as many as all rows allow, up to 16 bytes.
    fn vector_of(&self, walked: &Walked, to: &View) -> usize {
        let most = (16 / to.of.dtype.size_bytes()).min(self.client.properties().hardware.max_vector_size);
        let allowed =
            |vector: &usize| to.of.shape.elements().is_multiple_of(*vector) && walked.allows(*vector);
        [8, 4, 2].into_iter().filter(|vector| *vector <= most).find(allowed).unwrap_or(1)
    }

    pub fn copy(&self, from: &View, to: &View) {
        let walked = Walked::of(&[from.clone(), to.clone()], from);
        // Both are walked, since either may lie anyhow.
        let walked = Walked { strided: vec![true; 2], ..walked };
        let figures = walked.figures(from.of.shape.elements(), 1);
        let axes = walked.extents.len();
        let (count, dim) = self.units(from.of.shape.elements());
        if from.of.dtype == DType::I8 {
            return self.copy_bytes(from, to, &figures, axes);
        }
        kernels::copy::launch(
            &self.client,
            count,
            dim,
            self.array(from, 1),
            self.array(to, 1),
            self.figures(&figures),
            axes,
            storage(from.of.dtype),
        );
    }

    pub fn cast(&self, from: &View, to: &View) {
        let (count, dim) = self.units(to.of.shape.elements());
        let types = [storage(from.of.dtype), storage(to.of.dtype)];
        let elements = figure(to.of.shape.elements());
        kernels::convert::launch(
            &self.client,
            count,
            dim,
            self.array(from, 1),
            self.array(to, 1),
            elements,
            to.of.dtype == DType::I32,
            types,
        );
    }
}

/// How operands lie beside each other: axes joined where all of them go on as one.
struct Walked {
    extents: Vec<usize>,
    /// For each operand.
    layouts: Vec<Layout>,
    /// Which operands are not simply one element after the other.
    strided: Vec<bool>,
}

impl Walked {
    fn of(operands: &[View], to: &View) -> Self {
        let shape = &to.of.shape;
        let strided = operands
            .iter()
            .map(|operand| operand.layout.offset != 0 || !operand.layout.is_rows(shape))
            .collect();
        let mut extents: Vec<usize> = Vec::new();
        let mut strides: Vec<Vec<usize>> = vec![Vec::new(); operands.len()];
        for axis in (0..shape.rank()).filter(|axis| shape[*axis] != 1) {
            let goes_on = |(operand, strides): (&View, &Vec<usize>)| {
                strides.last().is_some_and(|outer| *outer == operand.layout.strides[axis] * shape[axis])
            };
            let joins = !extents.is_empty() && operands.iter().zip(&strides).all(goes_on);
            if joins {
                *extents.last_mut().expect("there is an axis before") *= shape[axis];
            } else {
                extents.push(shape[axis]);
            }
            for (operand, strides) in operands.iter().zip(&mut strides) {
                if joins {
                    strides.pop();
                }
                strides.push(operand.layout.strides[axis]);
            }
        }
        let layouts = operands
            .iter()
            .zip(strides)
            .map(|(operand, strides)| Layout { offset: operand.layout.offset, strides });
        Self { layouts: layouts.collect(), extents, strided }
    }

    /// Whether all operands that are walked go in whole items of so many elements.
    fn allows(&self, vector: usize) -> bool {
        let whole = |layout: &Layout| {
            let Some((last, outer)) = layout.strides.split_last() else { return false };
            *last == 1
                && layout.offset.is_multiple_of(vector)
                && outer.iter().all(|stride| stride.is_multiple_of(vector))
        };
        let walked = self.layouts.iter().zip(&self.strided).filter(|(_, strided)| **strided);
        let mut walked = walked.peekable();
        walked.peek().is_none()
            || (self.extents.last().is_some_and(|extent| extent.is_multiple_of(vector))
                && walked.all(|(layout, _)| whole(layout)))
    }

    /// As the kernels read them, in items of so many elements.
    fn figures(&self, elements: usize, vector: usize) -> Vec<u32> {
        let mut figures = vec![elements / vector];
        figures.extend(&self.extents);
        if let (Some(last), false) = (figures.last_mut(), self.extents.is_empty()) {
            *last /= vector;
        }
        for (layout, _) in self.layouts.iter().zip(&self.strided).filter(|(_, strided)| **strided) {
            figures.push(layout.offset / vector);
            let (last, outer) =
                layout.strides.split_last().map_or((None, &[][..]), |(last, outer)| (Some(*last), outer));
            figures.extend(outer.iter().map(|stride| stride / vector));
            figures.extend(last);
        }
        figures.into_iter().map(figure).collect()
    }
}
