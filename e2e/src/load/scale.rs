//! What an object costs a server that holds ever more of them: whether anything grows faster than their number.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::{
    crud::{Deed, Load},
    process,
    report::Measured,
};
use crate::{Cluster, Options};

/// How many ConfigMaps of 1 KiB the server holds at each look.
const SIZES: [u64; 6] = [1_000, 5_000, 20_000, 60_000, 120_000, 200_000];

/// How long gets and pages are measured.
const TIME: Duration = Duration::from_secs(2);

/// One look.
struct Point {
    size: u64,
    /// The creates that led here from the look before.
    creates: Measured,
    gets: Measured,
    pages: Measured,
    /// Beyond what the server took when it was empty, KiB an object.
    resident_kib: f64,
    start_ms: f64,
}

/// Measures at each size, and puts it into Markdown: a table and a plot.
///
/// # Errors
/// When the server does not answer as it should.
pub async fn run() -> anyhow::Result<String> {
    let mut cluster = Cluster::start(Options::server());
    let (empty_mib, _) = process::resident_mib(cluster.pid())?;
    let (mut points, mut created) = (Vec::new(), 0);
    for size in SIZES {
        let load = Load::after(&cluster, created)?;
        let creates = load.fill(16, size - created).await?;
        created = load.created();
        let (resident_mib, _) = process::resident_mib(cluster.pid())?;
        let gets = load.run(Deed::Get, 16, TIME).await?;
        let pages = load.run(Deed::Page, 1, TIME).await?;
        cluster.stop();
        let began = Instant::now();
        cluster.restart();
        let start_ms = began.elapsed().as_secs_f64() * 1e3;
        let resident_kib = (resident_mib - empty_mib) * 1024.0 / created as f64;
        points.push(Point { size, creates, gets, pages, resident_kib, start_ms });
        eprintln!("{size} objects: done");
    }
    Ok(table(&points) + &plot(&points))
}

fn table(points: &[Point]) -> String {
    let mut text = "| objects | create µs CPU | create p50 ms | get µs CPU | get p50 ms | page of 500 p50 ms | resident \
                    KiB an object | start ms |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for Point { size, creates, gets, pages, resident_kib, start_ms } in points {
        let _ = writeln!(
            text,
            "| {size} | {:.0} | {:.2} | {:.1} | {:.2} | {:.2} | {resident_kib:.2} | {start_ms:.0} |",
            creates.cpu_us, creates.p50_ms, gets.cpu_us, gets.p50_ms, pages.p50_ms,
        );
    }
    text
}

/// Each figure as a multiple of that at the first size: a level line is a cost that does not grow.
fn plot(points: &[Point]) -> String {
    let Some(first) = points.first() else { return String::new() };
    let line = |figure: fn(&Point) -> f64| {
        let ratios = points.iter().map(|point| format!("{:.2}", figure(point) / figure(first)));
        ratios.collect::<Vec<_>>().join(", ")
    };
    let sizes: Vec<_> = points.iter().map(|point| format!("\"{}k\"", point.size / 1000)).collect();
    format!(
        "\n```mermaid\nxychart-beta\n    title \"Cost of a create, a get, a page (lines, in this order): multiples of that at {}\"\n    \
         x-axis \"objects\" [{}]\n    y-axis \"times\" 0 --> 3\n    line [{}]\n    line [{}]\n    line [{}]\n```\n",
        first.size,
        sizes.join(", "),
        line(|point| point.creates.cpu_us),
        line(|point| point.gets.cpu_us),
        line(|point| point.pages.p50_ms),
    )
}
