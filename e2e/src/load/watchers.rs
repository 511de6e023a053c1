//! How long a create takes to reach a hundred watchers.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use nix::unistd::Pid;
use tokio::{task::LocalSet, time::sleep};

use super::{
    Connection, Target,
    crud::{config_map, measured},
    process,
    report::{Measured, latencies},
};
use crate::Cluster;

/// A namespace that nothing else writes to, so that every event is ours.
const NAMESPACE: &str = "watched";

/// How the name of a watched object begins; its number follows.
const NAME: &str = "\"name\":\"event-";

/// How long stragglers may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the writers write.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many creates a second, whatever the server does.
    EverySecond(u32),
    /// So many writers at full speed.
    Writers(usize),
}

#[derive(Default)]
struct Shared {
    /// When each create was sent.
    sent: RefCell<Vec<Instant>>,
    seen: Cell<u64>,
}

/// Measures from sending a create to reading its event, with `watchers` on the collection, each a connection.
///
/// # Errors
/// When an event is missing, or a request fails.
pub async fn run(cluster: &Cluster, watchers: usize, pace: Pace, time: Duration) -> anyhow::Result<Measured> {
    let target = Target::of(cluster)?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let mut setup = Connection::open(&target).await?;
    let namespace =
        format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{NAMESPACE}"}}}}"#);
    setup.ask("POST", "/api/v1/namespaces", namespace.as_bytes()).await?;
    setup.ask("DELETE", &path, b"").await?;
    let (_, list) = setup.ask("GET", &format!("{path}?limit=1"), b"").await?;
    let revision = super::crud::revision_in(list).unwrap_or_default().to_owned();

    let shared = Rc::new(Shared::default());
    let times = Rc::new(RefCell::new(latencies()));
    let tasks = LocalSet::new();
    let mut watching = Vec::new();
    for _ in 0..watchers {
        let mut connection = Connection::open(&target).await?;
        connection.watch(&format!("{path}?watch=true&resourceVersion={revision}")).await?;
        watching.push(tasks.spawn_local(follow(connection, shared.clone(), times.clone())));
    }
    let (server, own) = (cluster.pid(), Pid::this());
    let (server_cpu, own_cpu) = (process::cpu(server)?, process::cpu(own)?);
    let started = Instant::now();
    let finished = tasks
        .run_until(async {
            write(&target, &path, pace, time, &shared).await?;
            let expected = shared.sent.borrow().len() as u64 * watchers as u64;
            let deadline = Instant::now() + PATIENCE;
            while shared.seen.get() < expected {
                ensure!(Instant::now() < deadline, "{} of {expected} events came", shared.seen.get());
                sleep(Duration::from_millis(1)).await;
            }
            anyhow::Ok(started.elapsed())
        })
        .await?;
    let (server_cpu, own_cpu) = (process::cpu(server)? - server_cpu, process::cpu(own)? - own_cpu);
    watching.iter().for_each(|task| task.abort());
    Ok(measured(&times.borrow(), finished, server_cpu, own_cpu))
}

async fn write(
    target: &Target,
    path: &str,
    pace: Pace,
    time: Duration,
    shared: &Rc<Shared>,
) -> anyhow::Result<()> {
    let (writers, pause) = match pace {
        Pace::EverySecond(count) => (1, Some(Duration::from_secs(1) / count)),
        Pace::Writers(count) => (count, None),
    };
    let started = Instant::now();
    let mut running = Vec::new();
    for _ in 0..writers {
        let (mut connection, path, shared) =
            (Connection::open(target).await?, path.to_owned(), shared.clone());
        running.push(tokio::task::spawn_local(async move {
            for turn in 0u32.. {
                if let Some(pause) = pause {
                    tokio::time::sleep_until((started + pause * turn).into()).await;
                }
                if started.elapsed() >= time {
                    break;
                }
                let number = {
                    let mut sent = shared.sent.borrow_mut();
                    sent.push(Instant::now());
                    sent.len() - 1
                };
                let body = config_map(&format!("event-{number}"), None);
                let body = String::from_utf8(body)?.replace("\"default\"", &format!("\"{NAMESPACE}\""));
                let (code, answer) = connection.ask("POST", &path, body.as_bytes()).await?;
                ensure!(code == 201, "created with {code}: {}", String::from_utf8_lossy(answer));
            }
            anyhow::Ok(())
        }));
    }
    for writer in running {
        writer.await??;
    }
    Ok(())
}

/// Reads events and notes how old they are. Ends with its connection.
async fn follow(
    mut connection: Connection,
    shared: Rc<Shared>,
    times: Rc<RefCell<hdrhistogram::Histogram<u64>>>,
) {
    let mut rest: Vec<u8> = Vec::new();
    while let Ok(more) = connection.more().await {
        let now = Instant::now();
        rest.extend_from_slice(more);
        let mut used = 0;
        while let Some(place) = find(&rest[used..], NAME.as_bytes()) {
            let digits = used + place + NAME.len();
            let Some(end) = rest[digits..].iter().position(|byte| *byte == b'"') else { break };
            let number =
                std::str::from_utf8(&rest[digits..digits + end]).ok().and_then(|text| text.parse().ok());
            if let Some(sent) = number.and_then(|number: usize| shared.sent.borrow().get(number).copied()) {
                let age = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
                times.borrow_mut().saturating_record(age);
                shared.seen.set(shared.seen.get() + 1);
            }
            used = digits + end;
        }
        // What may be the beginning of a name stays.
        let keep = rest.len().saturating_sub(NAME.len() + 24).max(used);
        rest.drain(..keep);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        from += bytes[from..].iter().position(|byte| *byte == what[0])?;
        if bytes[from..].starts_with(what) {
            return Some(from);
        }
        from += 1;
    }
}
