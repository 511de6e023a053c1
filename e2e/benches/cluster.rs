//! `make bench`: a release cluster on this machine, beside kube-apiserver's figures. Prints a Markdown table.
//!
//! `cargo bench --workspace --bench cluster -- crud` runs one part alone: `start`, `crud`, `watch`, `memory`, `pods`, `scale`. What is
//! no part is looked for in the names of the cases: `cargo bench --workspace --bench cluster -- 'create, 1 '` runs that one.

use std::time::{Duration, Instant};

use claw_e2e::{
    Cluster, Options,
    load::{
        Report,
        crud::{Deed, Load},
        pods, process,
        report::Anchor,
        scale,
        watchers::{self, Pace},
    },
};

const TIME: Duration = Duration::from_secs(5);
/// What the allocator takes to give back what is free, and then some.
const REST: Duration = Duration::from_secs(20);
const PARTS: [&str; 6] = ["start", "crud", "watch", "memory", "pods", "scale"];

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let (wanted, cases): (Vec<_>, Vec<_>) = arguments.partition(|arg| PARTS.contains(&arg.as_str()));
    let wants = |part: &str| match wanted.is_empty() {
        true => cases.is_empty() || part == "crud",
        false => wanted.iter().any(|name| name == part),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new();
    runtime.block_on(async {
        if wants("start") {
            start(&mut report)?;
        }
        if wants("crud") {
            crud(&mut report, &cases).await?;
        }
        if wants("watch") {
            watch(&mut report).await?;
        }
        if wants("memory") {
            memory(&mut report).await?;
        }
        if wants("pods") {
            bind(&mut report).await?;
        }
        if wants("scale") {
            report.chapter(scale::run().await?);
        }
        anyhow::Ok(())
    })?;
    println!("{}", report.markdown());
    Ok(())
}

/// From starting the process to `ready`, on new data and on old.
fn start(report: &mut Report) -> anyhow::Result<()> {
    let mut first = Vec::new();
    let mut again = Vec::new();
    let mut idle = 0.0;
    for _ in 0..5 {
        let began = Instant::now();
        let mut cluster = Cluster::start(Options::server());
        first.push(began.elapsed());
        idle = process::resident_mib(cluster.pid())?.0;
        cluster.stop();
        let began = Instant::now();
        cluster.restart();
        again.push(began.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    report.figure("start to ready, first start", "ms", median(first), Some(2400.0));
    report.figure("start to ready, again", "ms", median(again), Some(2400.0));
    report.figure("resident after start, server alone", "MiB", idle, Some(310.0));
    Ok(())
}

/// What is done, by how many clients, and kube-apiserver's operations a second, p50 and p99 in ms, CPU µs for it. Lists
/// first, while there are 5,000 objects.
const CRUD: [(&str, Deed, usize, f64, f64, f64, f64); 12] = [
    ("list 5,000 as JSON", Deed::List, 1, 14.2, 57.0, 130.0, 52_500.0),
    ("list 5,000 as Table", Deed::Table, 1, 14.8, 64.0, 120.0, 50_000.0),
    ("create", Deed::Create, 1, 700.0, 1.25, 5.8, 1_425.0),
    ("create", Deed::Create, 16, 1_291.0, 9.0, 62.0, 820.0),
    ("create", Deed::Create, 64, 1_510.0, 33.0, 144.0, 658.0),
    ("get", Deed::Get, 1, 1_735.0, 0.48, 1.0, 600.0),
    ("get", Deed::Get, 16, 3_587.0, 3.4, 21.0, 327.0),
    ("get", Deed::Get, 64, 3_548.0, 15.5, 50.0, 285.0),
    ("update", Deed::Update, 1, 668.0, 1.4, 5.8, 1_667.0),
    ("update", Deed::Update, 16, 930.0, 12.5, 66.0, 1_130.0),
    ("update", Deed::Update, 64, 1_011.0, 52.0, 184.0, 1_090.0),
    ("update of one object, retry on 409", Deed::Contend, 16, 79.0, 120.0, 835.0, 13_300.0),
];

async fn crud(report: &mut Report, cases: &[String]) -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::server());
    let load = Load::on(&cluster)?;
    load.fill(16, 5_000).await?;
    for (name, deed, clients, rate, p50_ms, p99_ms, cpu_us) in CRUD {
        let plural = if clients == 1 { "" } else { "s" };
        let name = format!("{name}, {clients} client{plural}");
        if cases.is_empty() || cases.iter().any(|case| name.contains(case.as_str())) {
            let measured = load.run(deed, clients, TIME).await?;
            report.case(&name, &measured, &Anchor::new(rate, p50_ms, p99_ms, cpu_us));
        }
    }
    Ok(())
}

async fn watch(report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::server());
    let slow = watchers::run(&cluster, 100, Pace::EverySecond(20), TIME).await?;
    let anchor = Anchor { rate: Some(2_000.0), p50_ms: Some(5.6), p99_ms: Some(26.0), cpu_us: None };
    report.case("create to event, 100 watchers, 20 writes/s", &slow, &anchor);
    let cluster = Cluster::start(Options::server());
    let full = watchers::run(&cluster, 100, Pace::Writers(16), TIME).await?;
    let anchor = Anchor { rate: Some(55_000.0), p50_ms: Some(40.0), p99_ms: Some(159.0), cpu_us: None };
    report.case("create to event, 100 watchers, full rate", &full, &anchor);
    Ok(())
}

async fn memory(report: &mut Report) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::server());
    Load::on(&cluster)?.fill(64, 60_000).await?;
    let (now, peak) = process::resident_mib(cluster.pid())?;
    report.figure("resident with 60,000 ConfigMaps, just created", "MiB", now, Some(1_220.0));
    tokio::time::sleep(REST).await;
    let (now, _) = process::resident_mib(cluster.pid())?;
    report.figure("resident with 60,000 ConfigMaps, 20 s later", "MiB", now, Some(1_220.0));
    report.figure("resident at most while they were created", "MiB", peak, None);
    cluster.stop();
    let began = Instant::now();
    cluster.restart();
    report.figure("start to ready with 60,000 ConfigMaps", "ms", began.elapsed().as_secs_f64() * 1e3, None);
    let (now, peak) = process::resident_mib(cluster.pid())?;
    report.figure("resident after that start", "MiB", now, Some(1_220.0));
    report.figure("resident at most during that start", "MiB", peak, None);
    Ok(())
}

async fn bind(report: &mut Report) -> anyhow::Result<()> {
    const PODS: usize = 5_000;
    let cluster = Cluster::start(Options::up(1_000).with(&["--hollow"]));
    let measured = pods::bind(&cluster, PODS).await?;
    let anchor = Anchor { rate: Some(185.0), cpu_us: Some(6_000.0), ..Anchor::default() };
    report.case("pods bound, 5,000 on 1,000 hollow nodes", &measured.bound, &anchor);
    let settled = measured.settled_cpu_us;
    report.figure("CPU a pod until all of them run and everything is written", "µs", settled, None);
    report.figure("writes a pod until then", "", measured.writes, None);
    Ok(())
}
