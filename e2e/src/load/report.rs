//! The table: what was measured, kube-apiserver's figure for the same, and the ratio.
//!
//! kube-apiserver's figures: 1.36.2 with etcd 3.6, fsync on, TLS, RBAC, HTTP/1.1, on a machine like this one (2 cores)
//! beside other work; medians of 9 rounds. Its CPU is the server's and etcd's.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// kube-apiserver's figures for a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anchor {
    /// Operations a second.
    pub rate: Option<f64>,
    /// Median latency, ms.
    pub p50_ms: Option<f64>,
    /// 99th percentile, ms.
    pub p99_ms: Option<f64>,
    /// CPU an operation, µs.
    pub cpu_us: Option<f64>,
}

impl Anchor {
    /// All four figures.
    #[must_use]
    pub fn new(rate: f64, p50_ms: f64, p99_ms: f64, cpu_us: f64) -> Self {
        Self { rate: Some(rate), p50_ms: Some(p50_ms), p99_ms: Some(p99_ms), cpu_us: Some(cpu_us) }
    }
}

/// What was measured of a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Operations a second.
    pub rate: f64,
    /// Median latency, ms.
    pub p50_ms: f64,
    /// 99th percentile, ms.
    pub p99_ms: f64,
    /// CPU of the server an operation, µs.
    pub cpu_us: f64,
    /// CPU of the clients an operation, µs.
    pub client_cpu_us: f64,
}

/// Latencies in µs, up to a minute.
///
/// # Panics
/// Never: the bounds are valid.
#[must_use]
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}

/// The table.
#[derive(Default)]
pub struct Report {
    cases: String,
    figures: String,
    chapters: String,
}

impl Report {
    /// A new table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a case, and prints its line at once.
    pub fn case(&mut self, name: &str, measured: &Measured, anchor: &Anchor) {
        let Measured { rate, p50_ms, p99_ms, cpu_us, client_cpu_us } = *measured;
        let line = format!(
            "| {name} | {} | {} | {} | {} | {} |",
            compared(rate, anchor.rate, false),
            compared(p50_ms, anchor.p50_ms, true),
            compared(p99_ms, anchor.p99_ms, true),
            compared(cpu_us, anchor.cpu_us, true),
            figure(client_cpu_us),
        );
        eprintln!("{line}");
        let _ = writeln!(self.cases, "{line}");
    }

    /// Adds a single figure of which less is better, and prints its line at once.
    pub fn figure(&mut self, name: &str, unit: &str, measured: f64, anchor: Option<f64>) {
        let line = format!("| {name} | {} {unit} |", compared(measured, anchor, true));
        eprintln!("{line}");
        let _ = writeln!(self.figures, "{line}");
    }

    /// Adds what has its own form, as Markdown.
    pub fn chapter(&mut self, text: String) {
        self.chapters.push('\n');
        self.chapters.push_str(&text);
    }

    /// The whole as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        format!(
            "Each cell: ours (kube-apiserver's; how many times better).\n\n\
             | case | ops/s | p50 ms | p99 ms | server CPU µs/op | client CPU µs/op |\n\
             |---|---|---|---|---|---|\n{}\n\
             | figure | |\n|---|---|\n{}{}",
            self.cases, self.figures, self.chapters
        )
    }
}

fn compared(ours: f64, theirs: Option<f64>, less_is_better: bool) -> String {
    let Some(theirs) = theirs else { return figure(ours) };
    let ratio = if less_is_better { theirs / ours } else { ours / theirs };
    format!("**{}** ({}; {ratio:.1}×)", figure(ours), figure(theirs))
}

fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
