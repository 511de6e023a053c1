//! What a worker reported, as a status says it.
//!
//! Must never know: whose status.

use claw_graph::order::{Figures, ReportOutput};
use claw_schemas::api::{KernelFigures, KernelResult};

/// What was reached in so many runs. Rates are those of the run in the middle.
pub fn reached(figures: &Figures, runs: u32) -> KernelFigures {
    KernelFigures {
        runs: i32::try_from(runs).unwrap_or(i32::MAX),
        seconds_min: figures.seconds_min,
        seconds_median: figures.seconds_median,
        seconds_max: figures.seconds_max,
        flops: whole(figures.flops),
        bytes: whole(figures.bytes),
        gflops_per_second: rate(figures.flops, figures.seconds_median),
        gigabytes_per_second: rate(figures.bytes, figures.seconds_median),
        memory_bytes: whole(figures.memory_bytes),
    }
}

/// 10⁹ a second; nothing where the clock was too coarse to see the time pass, since JSON has no infinity.
fn rate(amount: u64, seconds: f64) -> f64 {
    let rate = amount as f64 / seconds / 1e9;
    if rate.is_finite() { rate } else { 0.0 }
}

fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// What came out.
pub fn result(output: ReportOutput) -> KernelResult {
    let ReportOutput { value, dtype, shape, digest, values } = output;
    KernelResult { value, dtype, shape: shape.into_iter().map(whole).collect(), digest, values }
}
