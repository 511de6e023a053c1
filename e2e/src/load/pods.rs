//! How fast pods are bound to nodes, and what the whole of their start costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::unistd::Pid;

use super::{Connection, Target, process, report::Measured};
use crate::Cluster;

/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(300);

const PATH: &str = "/api/v1/namespaces/default/pods";

/// Between looks for the end of all work.
const LOOK: Duration = Duration::from_millis(200);

/// What was measured, from the first create on.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Until the last pod had its node.
    pub bound: Measured,
    /// CPU of the server a pod, µs, until every pod ran and nobody wrote any more: reports, events and all.
    pub settled_cpu_us: f64,
    /// Writes to the store a pod until then.
    pub writes: f64,
}

/// Creates pods from a few clients, and waits until they run.
///
/// # Errors
/// When a request fails, or pods stay unbound.
pub async fn bind(cluster: &Cluster, pods: usize) -> anyhow::Result<Bound> {
    let target = Target::of(cluster)?;
    let mut watch = Connection::open(&target).await?;
    let (_, list) = watch.ask("GET", &format!("{PATH}?limit=1"), b"").await?;
    let revision = super::crud::revision_in(list).context("a resourceVersion")?.to_owned();
    // Only pods that have a node: the first event of each is its binding.
    let selector = "fieldSelector=spec.nodeName!%3D";
    watch.watch(&format!("{PATH}?watch=true&resourceVersion={revision}&{selector}")).await?;
    let (server, own) = (cluster.pid(), Pid::this());
    let (server_cpu, own_cpu) = (process::cpu(server)?, process::cpu(own)?);
    let started = Instant::now();
    let (created, bound) = tokio::join!(create(&target, pods), count_bound(&mut watch, pods, started));
    created?;
    let mut times = bound?;
    times.sort_unstable();
    let took = times.last().copied().unwrap_or_default();
    let per_pod = |cpu: Duration| cpu.as_secs_f64() * 1e6 / pods as f64;
    let bound = Measured {
        rate: pods as f64 / took.as_secs_f64(),
        p50_ms: times[pods / 2].as_secs_f64() * 1e3,
        p99_ms: times[pods * 99 / 100].as_secs_f64() * 1e3,
        cpu_us: per_pod(process::cpu(server)? - server_cpu),
        client_cpu_us: per_pod(process::cpu(own)? - own_cpu),
    };
    let settled = settle(&mut Connection::open(&target).await?).await?;
    let writes = number(&settled)? - number(&revision)?;
    let settled_cpu_us = per_pod(process::cpu(server)? - server_cpu);
    Ok(Bound { bound, settled_cpu_us, writes: writes as f64 / pods as f64 })
}

fn number(revision: &str) -> anyhow::Result<u64> {
    revision.parse().with_context(|| format!("{revision} is no number"))
}

/// Waits until all pods run and the store has been at one revision from one look to the next. Gives the revision.
async fn settle(connection: &mut Connection) -> anyhow::Result<String> {
    let unfinished = format!("{PATH}?limit=1&fieldSelector=status.phase!%3DRunning");
    let give_up = Instant::now() + PATIENCE;
    let mut before = String::new();
    loop {
        let (_, list) = connection.ask("GET", &unfinished, b"").await?;
        let all_run = list.ends_with(b"\"items\":[]}");
        let revision = super::crud::revision_in(list).context("a resourceVersion")?.to_owned();
        if all_run && revision == before {
            return Ok(revision);
        }
        ensure!(Instant::now() < give_up, "{}", String::from_utf8_lossy(list));
        before = revision;
        tokio::time::sleep(LOOK).await;
    }
}

async fn create(target: &Target, pods: usize) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let clients = (0..CLIENTS).map(|client| async move {
        let mut connection = Connection::open(target).await?;
        for number in (client..pods).step_by(CLIENTS) {
            let pod = format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"load-{number}"}},"spec":{{"containers":[{{"name":"main","image":"clawbernetes.io/toolbox","resources":{{"requests":{{"cpu":"100m"}}}}}}]}}}}"#
            );
            let (code, body) = connection.ask("POST", PATH, pod.as_bytes()).await?;
            ensure!(code == 201, "created with {code}: {}", String::from_utf8_lossy(body));
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(clients).await?;
    Ok(())
}

/// When each pod was first seen with a node.
async fn count_bound(watch: &mut Connection, pods: usize, started: Instant) -> anyhow::Result<Vec<Duration>> {
    let mark = b"{\"type\":\"ADDED\"";
    let mut times = Vec::new();
    let mut rest = Vec::new();
    while times.len() < pods {
        let left = PATIENCE.checked_sub(started.elapsed()).unwrap_or_default();
        let more = tokio::time::timeout(left, watch.more()).await;
        let more = more.with_context(|| format!("{} of {pods} pods are bound", times.len()))??;
        rest.extend_from_slice(more);
        let mut used = 0;
        for place in 0..rest.len().saturating_sub(mark.len() - 1) {
            if rest[place..].starts_with(mark) {
                times.push(started.elapsed());
                used = place + mark.len();
            }
        }
        let keep = rest.len().saturating_sub(mark.len() - 1).max(used);
        rest.drain(..keep);
    }
    Ok(times)
}
