//! Creates, gets, updates and lists of ConfigMaps of 1 KiB.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use nix::unistd::Pid;
use tokio::task::LocalSet;

use super::{
    Connection, Target, process,
    report::{Measured, latencies},
};
use crate::Cluster;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// What each client does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Creates the next object.
    Create,
    /// Reads an object, each client its own few.
    Get,
    /// Replaces an object by its resourceVersion, each client its own.
    Update,
    /// Reads and replaces one object that all clients share, again on 409.
    Contend,
    /// Lists all objects as JSON.
    List,
    /// Lists the first 500 as JSON, as every informer begins.
    Page,
    /// Lists all objects as a Table.
    Table,
}

/// What the clients of one cluster share.
pub struct Load<'a> {
    cluster: &'a Cluster,
    target: Target,
    /// Numbers objects.
    next: Rc<Cell<u64>>,
}

/// The JSON of a ConfigMap with 1 KiB of data.
#[must_use]
pub fn config_map(name: &str, revision: Option<&str>) -> Vec<u8> {
    let revision = revision.map(|text| format!(r#","resourceVersion":"{text}""#)).unwrap_or_default();
    let data = "x".repeat(1024);
    let head = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"default","#;
    format!(r#"{head}"name":"{name}"{revision}}},"data":{{"payload":"{data}"}}}}"#).into_bytes()
}

/// The resourceVersion in an answer, found without parsing.
#[must_use]
pub fn revision_in(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let mark = "\"resourceVersion\":\"";
    let start = text.find(mark)? + mark.len();
    let end = start + text[start..].find('"')?;
    Some(&text[start..end])
}

impl<'a> Load<'a> {
    /// Clients of a cluster.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn on(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Self::after(cluster, 0)
    }

    /// The same of a cluster in which so many objects were created before.
    ///
    /// # Errors
    /// As [`Self::on`].
    pub fn after(cluster: &'a Cluster, created: u64) -> anyhow::Result<Self> {
        Ok(Self { cluster, target: Target::of(cluster)?, next: Rc::new(Cell::new(created)) })
    }

    /// How many objects were created.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.next.get()
    }

    /// Runs clients for a while.
    ///
    /// # Errors
    /// When one of them gets an answer it does not expect.
    pub async fn run(&self, deed: Deed, clients: usize, time: Duration) -> anyhow::Result<Measured> {
        self.run_until(deed, clients, move |started, _| started.elapsed() >= time).await
    }

    /// Creates so many objects.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn fill(&self, clients: usize, count: u64) -> anyhow::Result<Measured> {
        self.run_until(Deed::Create, clients, move |_, done| done >= count).await
    }

    async fn run_until(
        &self,
        deed: Deed,
        clients: usize,
        ends: impl Fn(Instant, u64) -> bool + Clone + 'static,
    ) -> anyhow::Result<Measured> {
        let mut workers = Vec::new();
        for number in 0..clients {
            workers.push(Worker::new(&self.target, number, deed, self.next.clone()).await?);
        }
        let done = Rc::new(Cell::new(0));
        let times = Rc::new(RefCell::new(latencies()));
        let (server, own) = (self.cluster.pid(), Pid::this());
        let (server_cpu, own_cpu) = (process::cpu(server)?, process::cpu(own)?);
        let started = Instant::now();
        let tasks = LocalSet::new();
        let mut running = Vec::new();
        for mut worker in workers {
            let (done, times, ends) = (done.clone(), times.clone(), ends.clone());
            running.push(tasks.spawn_local(async move {
                while !ends(started, done.get()) {
                    done.set(done.get() + 1);
                    let began = Instant::now();
                    worker.work().await?;
                    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    times.borrow_mut().saturating_record(took);
                }
                anyhow::Ok(())
            }));
        }
        tasks.await;
        for task in running {
            task.await??;
        }
        let took = started.elapsed();
        let (server_cpu, own_cpu) = (process::cpu(server)? - server_cpu, process::cpu(own)? - own_cpu);
        Ok(measured(&times.borrow(), took, server_cpu, own_cpu))
    }
}

/// Figures of a run from its latencies.
#[must_use]
pub fn measured(times: &Histogram<u64>, took: Duration, server: Duration, clients: Duration) -> Measured {
    let count = times.len().max(1) as f64;
    let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    Measured {
        rate: count / took.as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        cpu_us: server.as_secs_f64() * 1e6 / count,
        client_cpu_us: clients.as_secs_f64() * 1e6 / count,
    }
}

/// One client.
struct Worker {
    connection: Connection,
    deed: Deed,
    next: Rc<Cell<u64>>,
    name: String,
    revision: String,
}

impl Worker {
    async fn new(target: &Target, number: usize, deed: Deed, next: Rc<Cell<u64>>) -> anyhow::Result<Self> {
        let connection = Connection::open(target).await?;
        let name = if deed == Deed::Contend { "shared".to_owned() } else { format!("own-{number}") };
        let mut worker = Self { connection, deed, next, name, revision: String::new() };
        if matches!(deed, Deed::Get | Deed::Update | Deed::Contend) {
            worker.have_object().await?;
        }
        Ok(worker)
    }

    /// Makes the object that the client works on, if it is not there, and learns its revision.
    async fn have_object(&mut self) -> anyhow::Result<()> {
        let body = config_map(&self.name, None);
        let (code, _) = self.connection.ask("POST", PATH, &body).await?;
        ensure!(code == 201 || code == 409, "created with {code}");
        self.read().await
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let path = format!("{PATH}/{}", self.name);
        let (code, body) = self.connection.ask("GET", &path, b"").await?;
        ensure!(code == 200, "got with {code}");
        self.revision = revision_in(body).context("a resourceVersion")?.to_owned();
        Ok(())
    }

    async fn work(&mut self) -> anyhow::Result<()> {
        match self.deed {
            Deed::Create => {
                let number = self.next.replace(self.next.get() + 1);
                let body = config_map(&format!("load-{number:08}"), None);
                let (code, body) = self.connection.ask("POST", PATH, &body).await?;
                ensure!(code == 201, "created with {code}: {}", String::from_utf8_lossy(body));
            }
            Deed::Get => self.read().await?,
            Deed::Update => ensure!(self.update().await?, "the client's own object was changed by another"),
            Deed::Contend => {
                while !self.update().await? {
                    self.read().await?;
                }
            }
            Deed::List => self.list("", "application/json").await?,
            Deed::Page => self.list("?limit=500", "application/json").await?,
            Deed::Table => self.list("", "application/json;as=Table;v=v1;g=meta.k8s.io").await?,
        }
        Ok(())
    }

    /// Replaces the object. Whether nobody else had.
    async fn update(&mut self) -> anyhow::Result<bool> {
        // The content has to change, or the server need not write.
        let mut body = config_map(&self.name, Some(&self.revision));
        let number = self.next.replace(self.next.get() + 1);
        let place = body.len() - 20;
        body[place..place + 16].copy_from_slice(format!("{number:016}").as_bytes());
        let path = format!("{PATH}/{}", self.name);
        let (code, body) = self.connection.ask("PUT", &path, &body).await?;
        ensure!(code == 200 || code == 409, "replaced with {code}: {}", String::from_utf8_lossy(body));
        if code == 200 {
            self.revision = revision_in(body).context("a resourceVersion")?.to_owned();
        }
        Ok(code == 200)
    }

    async fn list(&mut self, query: &str, accept: &str) -> anyhow::Result<()> {
        let (code, body) = self.connection.ask_as(accept, "GET", &format!("{PATH}{query}"), b"").await?;
        ensure!(code == 200 && body.len() > 1 << 16, "listed with {code}, {} bytes", body.len());
        Ok(())
    }
}
