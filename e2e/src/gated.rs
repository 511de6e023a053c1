//! A wire that a test holds up: what it names waits, or is refused, until it is opened.
//!
//! Requests are named by verb and plural: `create secrets`, `list pods`, `watch leases`. It invents nothing but the refusal:
//! whatever passes is answered by the real server.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use claw_client::{
    ApiError, ByteStream, Request, ResourceRef, Response, Transport, Verb, WatchStream,
    request::{View, WatchOptions},
};
use claw_schemas::status::Reason;
use futures::StreamExt as _;
use tokio::sync::watch;

use crate::wait::{SOON, check, until_async};

/// What happens to requests of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
    Refusing,
}

/// The wire.
pub struct Gated {
    inner: Arc<dyn Transport>,
    gates: watch::Sender<BTreeMap<String, Gate>>,
    asked: Mutex<BTreeMap<String, usize>>,
    waiting: Arc<AtomicUsize>,
}

impl Gated {
    /// In front of `inner`, with every gate open.
    pub fn new(inner: Arc<dyn Transport>) -> Arc<Self> {
        let gates = watch::Sender::new(BTreeMap::new());
        Arc::new(Self { inner, gates, asked: Mutex::default(), waiting: Arc::default() })
    }

    /// Requests of that name wait from now on. Of a watch that is open already, events wait.
    pub fn close(&self, name: &str) {
        self.set(name, Gate::Closed);
    }

    /// Requests of that name are forbidden from now on.
    pub fn refuse(&self, name: &str) {
        self.set(name, Gate::Refusing);
    }

    /// Requests of that name pass, and so do those that wait.
    pub fn open(&self, name: &str) {
        self.set(name, Gate::Open);
    }

    /// How many requests of that name were made, whatever became of them.
    pub fn asked(&self, name: &str) -> usize {
        self.asked.lock().expect("no panic").get(name).copied().unwrap_or(0)
    }

    /// Waits until so many requests wait at closed gates.
    pub async fn held_up(&self, requests: usize) {
        until_async("requests wait at the gates", SOON, || async {
            let waiting = self.waiting.load(Ordering::SeqCst);
            check(waiting == requests, format!("{waiting} of {requests}"))
        })
        .await;
    }

    fn set(&self, name: &str, gate: Gate) {
        self.gates.send_modify(|gates| {
            gates.insert(name.to_owned(), gate);
        });
    }

    fn note(&self, name: &str) {
        *self.asked.lock().expect("no panic").entry(name.to_owned()).or_default() += 1;
    }

    async fn pass(&self, name: &str) -> Result<(), ApiError> {
        self.note(name);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let gate = settled(self.gates.subscribe(), name).await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        match gate {
            Gate::Refusing => Err(ApiError::new(Reason::Forbidden, format!("{name}: refused by the test"))),
            _ => Ok(()),
        }
    }
}

/// What a gate says once it is not closed.
async fn settled(mut gates: watch::Receiver<BTreeMap<String, Gate>>, name: &str) -> Gate {
    let gate = |gates: &BTreeMap<String, Gate>| gates.get(name).copied().unwrap_or(Gate::Open);
    match gates.wait_for(|gates| gate(gates) != Gate::Closed).await {
        Ok(gates) => gate(&gates),
        Err(_) => Gate::Open,
    }
}

fn name_of(verb: &Verb) -> &'static str {
    match verb {
        Verb::Get => "get",
        Verb::List(_) => "list",
        Verb::Create { .. } => "create",
        Verb::Update { .. } => "update",
        Verb::Patch { .. } => "patch",
        Verb::Delete(_) | Verb::DeleteCollection { .. } => "delete",
    }
}

#[async_trait]
impl Transport for Gated {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        self.pass(&format!("{} {}", name_of(&request.verb), request.resource.plural)).await?;
        self.inner.call(request).await
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        let name: Arc<str> = format!("watch {}", resource.plural).into();
        self.note(&name);
        let (stream, gates) = (self.inner.watch(resource, options, view).await?, self.gates.subscribe());
        Ok(stream
            .then(move |event| {
                let (gates, name) = (gates.clone(), Arc::clone(&name));
                async move {
                    settled(gates, &name).await;
                    event
                }
            })
            .boxed())
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.inner.stream(resource, query).await
    }
}
