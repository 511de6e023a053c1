//! How fast pods are bound to nodes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::unistd::Pid;

use super::{Connection, Target, process, report::Measured};
use crate::Cluster;

/// How long the whole may take.
const PATIENCE: Duration = Duration::from_secs(300);

const PATH: &str = "/api/v1/namespaces/default/pods";

/// Creates pods from a few clients, and measures from the first create until each is bound.
///
/// # Errors
/// When a request fails, or pods stay unbound.
pub async fn bind(cluster: &Cluster, pods: usize) -> anyhow::Result<Measured> {
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
    let (server_cpu, own_cpu) = (process::cpu(server)? - server_cpu, process::cpu(own)? - own_cpu);
    let per_pod = |cpu: Duration| cpu.as_secs_f64() * 1e6 / pods as f64;
    Ok(Measured {
        rate: pods as f64 / took.as_secs_f64(),
        p50_ms: times[pods / 2].as_secs_f64() * 1e3,
        p99_ms: times[pods * 99 / 100].as_secs_f64() * 1e3,
        cpu_us: per_pod(server_cpu),
        client_cpu_us: per_pod(own_cpu),
    })
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
