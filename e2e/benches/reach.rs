//! What reaches into containers costs: a program started in one, a keystroke and its echo, and lines on their way from a program into its
//! log and from there to a client. Needs root. The client is kube-rs, over TLS on the loopback address.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use claw_e2e::{Cluster, Options, load::process};
use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{AttachParams, LogParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const EXECS: usize = 200;
const KEYSTROKES: usize = 2_000;
/// Lines of a program that only writes, a write each; as long as those of servers are.
const LINES: usize = 500_000;
const LINE: &str =
    "192.0.2.17 - - [26/Nov/2026:11:02:03 +0000] GET /api/v1/items?page=17 HTTP/1.1 200 5316 0.012 s";
/// What the node keeps of a container's log is two files of 10 MiB.
const KEPT_LINES: usize = 80_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::start(Options::up(1));
    let pods: Api<Pod> = Api::namespaced(client(&cluster).await?, "default");
    println!("| figure | median | p99 |\n|---|---|---|");
    start(&pods, "open", &["cat"], true).await?;
    until(&pods, "open", "Running").await?;
    execs(&pods).await?;
    keystrokes(&pods).await?;
    writes(&cluster, &pods).await?;
    reads(&pods).await?;
    follows(&pods).await
}

async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn start(pods: &Api<Pod>, name: &str, args: &[&str], stdin: bool) -> anyhow::Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [
            {"name": "main", "image": "clawbernetes.io/toolbox:1", "args": args, "stdin": stdin},
        ]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

async fn until(pods: &Api<Pod>, name: &str, phase: &str) -> anyhow::Result<()> {
    let is_there = |pod: Option<&Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        status.and_then(|status| status.phase.as_deref()) == Some(phase)
    };
    let waited =
        tokio::time::timeout(Duration::from_secs(300), await_condition(pods.clone(), name, is_there));
    waited.await.with_context(|| format!("{name} is not {phase}"))??;
    Ok(())
}

async fn execs(pods: &Api<Pod>) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..EXECS {
        let since = Instant::now();
        let mut done = pods.exec("open", ["toolbox", "true"], &AttachParams::default()).await?;
        let status = done.take_status().context("a status")?.await.context("a status")?;
        times.push(since.elapsed());
        ensure!(status.status.as_deref() == Some("Success"), "{status:?}");
    }
    row("`exec` of a program that ends at once, with its connection, ms", &mut times, 1e3);
    Ok(())
}

async fn keystrokes(pods: &Api<Pod>) -> anyhow::Result<()> {
    let params = AttachParams::default().stdin(true).stderr(false);
    let mut echo = pods.exec("open", ["toolbox", "cat"], &params).await?;
    let (mut stdin, mut stdout) = (echo.stdin().context("stdin")?, echo.stdout().context("stdout")?);
    let mut times = Vec::new();
    for _ in 0..KEYSTROKES {
        let since = Instant::now();
        stdin.write_all(b"k").await?;
        let mut back = [0];
        stdout.read_exact(&mut back).await?;
        times.push(since.elapsed());
    }
    row("a keystroke and its echo, ms", &mut times, 1e3);
    Ok(())
}

/// From a pod's making to its end, and the same without lines: the rest is what the lines took.
async fn writes(cluster: &Cluster, pods: &Api<Pod>) -> anyhow::Result<()> {
    let mut took = Vec::new();
    let cpu = process::cpu(cluster.pid())?;
    for (name, count) in [("silent", 0), ("talks", LINES)] {
        let since = Instant::now();
        start(pods, name, &["lines", "--count", &count.to_string(), "--text", LINE], false).await?;
        until(pods, name, "Succeeded").await?;
        took.push(since.elapsed());
    }
    let cpu = process::cpu(cluster.pid())? - cpu;
    let took = took[1].saturating_sub(took[0]);
    rate("lines into a log, a write each", LINES, took);
    println!("| CPU of `up` meanwhile, s (the shim has its own process) | {:.2} | |", cpu.as_secs_f64());
    Ok(())
}

async fn reads(pods: &Api<Pod>) -> anyhow::Result<()> {
    let count = KEPT_LINES.to_string();
    start(pods, "told", &["lines", "--count", &count, "--text", LINE], false).await?;
    until(pods, "told", "Succeeded").await?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let since = Instant::now();
        let log = pods.logs("told", &LogParams::default()).await?;
        times.push(since.elapsed());
        ensure!(log.lines().count() == KEPT_LINES, "{} lines", log.lines().count());
    }
    times.sort_unstable();
    rate("lines of a log to a client (`logs`)", KEPT_LINES, times[times.len() / 2]);
    Ok(())
}

async fn follows(pods: &Api<Pod>) -> anyhow::Result<()> {
    let count = LINES.to_string();
    start(pods, "followed", &["lines", "--count", &count, "--text", LINE], false).await?;
    until(pods, "followed", "Running").await?;
    let since = Instant::now();
    let params = LogParams { follow: true, ..LogParams::default() };
    let mut log = std::pin::pin!(pods.log_stream("followed", &params).await?);
    let (mut lines, mut part) = (0, vec![0; 64 << 10]);
    loop {
        let read = log.read(&mut part).await?;
        if read == 0 {
            break;
        }
        lines += part[..read].iter().filter(|byte| **byte == b'\n').count();
    }
    rate("lines from a program to a client who follows (`logs -f`)", lines, since.elapsed());
    println!("| of these lost to rotation, since the client was slower | {} | |", LINES - lines);
    Ok(())
}

fn row(what: impl Display, times: &mut [Duration], factor: f64) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * factor;
    println!("| {what} | {:.2} | {:.2} |", at(50), at(99));
}

fn rate(what: &str, lines: usize, took: Duration) {
    let per_second = lines as f64 / took.as_secs_f64();
    let mebibytes = per_second * (LINE.len() + 8) as f64 / f64::from(1 << 20);
    println!("| {what} | {per_second:.0} a second, {mebibytes:.0} MiB/s | |");
}
