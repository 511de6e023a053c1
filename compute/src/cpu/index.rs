//! What goes by indices: gather, scatter, the largest few.

use super::{Float, read, scratch, set, through_wide, write};
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

/// Elements that a thread adds up at once, at least.
const SUMMED_AT_ONCE: usize = 4_096;

/// The updates of each line of the result, in their order: where those of each begin in a list of all, and the list.
fn by_place(places: &[usize], n: usize) -> (Vec<usize>, Vec<usize>) {
    let mut starts = vec![0; n + 1];
    places.iter().for_each(|at| starts[at + 1] += 1);
    (0..n).for_each(|at| starts[at + 1] += starts[at]);
    let mut ends = starts.clone();
    let mut updates = vec![0; places.len()];
    for (update, at) in places.iter().enumerate() {
        updates[ends[*at]] = update;
        ends[*at] += 1;
    }
    (starts, updates)
}

/// Each line of the result is one thread's, which adds up equal indices in their order: the same sums on every run. They are kept in `f32`
/// until all updates are in.
pub fn scatter_add<T: Float>(rows: Rows, operands: &[View], to: &View, fault: Option<&Fault>) {
    let Some(places) = places(&operands[1], rows.n, fault) else { return };
    let (from, updates, mut to_elements) = (read(&operands[0]), read(&operands[2]), write(to));
    let (from, updates) = (from.of::<T>(&operands[0]), updates.of::<T>(&operands[2]));
    let (starts, by_place) = by_place(&places, rows.n);
    let lines = SUMMED_AT_ONCE.div_ceil(rows.inner);
    let parts = to_elements.of::<T>(to).par_chunks_mut(lines * rows.inner);
    parts.enumerate().for_each_init(Vec::new, |scratch, (number, to)| {
        through_wide(to, scratch, |sums| {
            for (line, sums) in (number * lines..).zip(sums.chunks_mut(rows.inner)) {
                T::widen(&from[line * rows.inner..][..rows.inner], sums);
                let (block, at) = (line / rows.n, line % rows.n);
                for update in &by_place[starts[at]..starts[at + 1]] {
                    let update = &updates[(block * places.len() + update) * rows.inner..][..rows.inner];
                    sums.iter_mut().zip(update).for_each(|(sum, update)| *sum += update.wide());
                }
            }
        });
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
