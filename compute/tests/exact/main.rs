//! Every operation on every device at hand, against the reference in float64.
//!
//! Inputs are drawn anew from a seed that a failure names (`EXACT_SEED=n` repeats it). Results are poisoned before they are calculated, so
//! that an element that no kernel writes is no number. What is compared with what bound is in `check.rs`.

mod algebra;
mod check;
mod elementwise;
mod fuzz;
mod index;
mod matrix;
mod plans;
mod rows;
mod views;
