//! What goes by indices: gather, scatter, the largest few.

use super::{Float, read, scratch, set, write};
use crate::backend::{Fault, Rows};
use crate::memory::View;
use crate::tensor::Element;
use rayon::prelude::*;
use std::cmp::Ordering;

/// Indices as places on an axis of `n` elements; `None`, and the fault is told, if one is outside.
fn places(indices: &View, n: usize, fault: Option<&Fault>) -> Option<Vec<usize>> {
    let elements = read(indices);
    let place = |index: &i32| usize::try_from(*index).ok().filter(|at| *at < n);
    let places = elements.of::<i32>(indices).iter().map(place).collect();
    if let (None, Some(fault)) = (&places, fault) {
        set(fault);
    }
    places
}

pub fn gather(rows: Rows, operands: &[View], to: &View, fault: Option<&Fault>) {
    let Some(places) = places(&operands[1], rows.n, fault) else { return };
    match to.of.dtype.size_bytes() {
        4 => gather_elements::<i32>(rows, &places, &operands[0], to),
        2 => gather_elements::<half::f16>(rows, &places, &operands[0], to),
        _ => gather_elements::<i8>(rows, &places, &operands[0], to),
    }
}

fn gather_elements<T: Element + Send + Sync>(rows: Rows, places: &[usize], x: &View, to: &View) {
    let (from, mut to_elements) = (read(x), write(to));
    let from = from.of::<T>(x);
    to_elements.of::<T>(to).par_chunks_mut(rows.inner).enumerate().for_each(|(line, to)| {
        let (block, at) = (line / places.len(), places[line % places.len()]);
        to.copy_from_slice(&from[(block * rows.n + at) * rows.inner..][..rows.inner]);
    });
}

/// Block by block, so that equal indices add up in their order. Sums are kept in `f32` until all updates are in.
pub fn scatter_add<T: Float>(rows: Rows, operands: &[View], to: &View, fault: Option<&Fault>) {
    let Some(places) = places(&operands[1], rows.n, fault) else { return };
    let (from, updates, mut to_elements) = (read(&operands[0]), read(&operands[2]), write(to));
    let block = rows.n * rows.inner;
    let blocks = from
        .of::<T>(&operands[0])
        .par_chunks(block)
        .zip(updates.of::<T>(&operands[2]).par_chunks(places.len() * rows.inner));
    to_elements.of::<T>(to).par_chunks_mut(block).zip(blocks).for_each(|(to, (from, updates))| {
        let mut sums = vec![0.0; from.len()];
        T::widen(from, &mut sums);
        for (at, update) in places.iter().zip(updates.chunks(rows.inner)) {
            for (sum, update) in sums[at * rows.inner..].iter_mut().zip(update) {
                *sum += update.wide();
            }
        }
        T::narrow(&sums, to);
    });
}

pub fn top_k<T: Float>(k: usize, largest: bool, rows: Rows, x: &View, results: &[View]) {
    let from = read(x);
    let mut best: Vec<Vec<(f32, i32)>> = vec![Vec::new(); rows.outer];
    scratch::each(rows, from.of::<T>(x), &mut best, |row| first(k, largest, row));
    let (mut values, mut indices) = (write(&results[0]), write(&results[1]));
    let (values, indices) = (values.of::<T>(&results[0]), indices.of::<i32>(&results[1]));
    for ((value, index), best) in values.iter_mut().zip(indices).zip(best.iter().flatten()) {
        (*value, *index) = (T::of(best.0), best.1);
    }
}

fn first(k: usize, largest: bool, row: &[f32]) -> Vec<(f32, i32)> {
    let mut pairs: Vec<(f32, i32)> = row.iter().copied().zip(0..).collect();
    let before = |a: &(f32, i32), b: &(f32, i32)| order(a.0, b.0, largest).then(a.1.cmp(&b.1));
    if k < pairs.len() {
        pairs.select_nth_unstable_by(k, before);
        pairs.truncate(k);
    }
    pairs.sort_unstable_by(before);
    pairs
}

/// NaN before all numbers.
fn order(a: f32, b: f32, largest: bool) -> Ordering {
    let numbers = || if largest { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
    b.is_nan().cmp(&a.is_nan()).then_with(|| numbers().unwrap_or(Ordering::Equal))
}
