//! A wire to a real server that fails on demand and remembers what was asked.
//!
//! It cuts, silences and garbles; whatever it lets through, a real server said. A server can be replaced behind it, as by a
//! backup that was restored.

use std::{
    collections::VecDeque,
    future,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use claw_client::{
    ByteStream, Request, ResourceRef, Response, Transport, Verb, WatchEvent, WatchStream,
    request::{DeleteOptions, ListOptions, View, WatchOptions},
};
use claw_schemas::{ApiError, status::Reason};
use claw_testing::TestCluster;
use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

/// What befalls a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It cannot be made: the server is away.
    Refuse,
    /// It is not allowed.
    Forbid,
    /// The server forgets its history before it answers.
    Forget,
    /// One object goes and another comes before it is answered.
    Churn,
    /// So many events come, then the connection breaks.
    BreakAfter(usize),
    /// Nothing comes for [`LATE`], then the connection breaks.
    BreakLate,
    /// So many events come, then the watch ends cleanly.
    EndAfter(usize),
    /// So many events come, then one that says that the revision is too old.
    ExpireAfter(usize),
    /// So many events come, then one that makes no sense.
    GarbleAfter(usize),
    /// Nothing comes, not even the end.
    Silence,
    /// A bookmark of the revision asked for comes at once, then the end.
    SayNothingNew,
}

/// When [`Fault::BreakLate`] breaks it.
pub const LATE: Duration = Duration::from_secs(60);

/// What goes and what comes by [`Fault::Churn`]: in the last page and in the first.
pub const CHURN: (&str, &str) = ("map-1200", "map-0000-too");

/// One request, as it was asked, on tokio's clock.
#[derive(Clone, Debug)]
pub struct Asked {
    pub what: String,
    pub at: Instant,
}

/// The wire.
pub struct Wire {
    server: Mutex<Arc<TestCluster>>,
    asked: Mutex<Vec<Asked>>,
    /// What befalls the next watches, in order; then all is well.
    watches: Mutex<VecDeque<Fault>>,
    /// The same for pages after the first of a list.
    pages: Mutex<VecDeque<Fault>>,
    /// Ends the watches that are open when it changes.
    cut: watch::Sender<()>,
}

impl Wire {
    pub fn to(server: &Arc<TestCluster>, watches: &[Fault]) -> Arc<Self> {
        Self::with_pages(server, &[], watches)
    }

    pub fn with_pages(server: &Arc<TestCluster>, pages: &[Fault], watches: &[Fault]) -> Arc<Self> {
        Arc::new(Self {
            server: Mutex::new(Arc::clone(server)),
            asked: Mutex::default(),
            watches: Mutex::new(watches.iter().copied().collect()),
            pages: Mutex::new(pages.iter().copied().collect()),
            cut: watch::Sender::new(()),
        })
    }

    /// Another server answers from now on; open watches end.
    pub fn replace(&self, server: &Arc<TestCluster>) {
        *self.server.lock().expect("no panic") = Arc::clone(server);
        self.cut.send_replace(());
    }

    /// What was asked so far, without the question whether the server is as far as the cache.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.log().into_iter().map(|asked| asked.what);
        asked.filter(|what| !what.starts_with("probe")).collect()
    }

    /// Everything that was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// When the watches, or the lists, were asked for.
    pub fn moments(&self, verb: &str) -> Vec<Instant> {
        self.log().iter().filter(|asked| asked.what.starts_with(verb)).map(|asked| asked.at).collect()
    }

    fn note(&self, what: String) {
        self.asked.lock().expect("no panic").push(Asked { what, at: Instant::now() });
    }

    fn server(&self) -> Arc<TestCluster> {
        Arc::clone(&self.server.lock().expect("no panic"))
    }

    fn inner(&self) -> Arc<dyn Transport> {
        Arc::clone(self.server().client.transport())
    }

    async fn befall(&self, fault: Fault) -> Result<(), ApiError> {
        match fault {
            Fault::Refuse => Err(away()),
            Fault::Forbid => Err(ApiError::new(Reason::Forbidden, "forbidden by the test")),
            Fault::Forget => {
                self.server().forget_history().await;
                Ok(())
            }
            Fault::Churn => {
                let maps = super::maps_of(&self.server());
                maps.delete(CHURN.0, DeleteOptions::default()).await?;
                maps.create(&super::config_map(CHURN.1, 0)).await.map(drop)
            }
            _ => Ok(()),
        }
    }
}

fn away() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "cut by the test")
}

fn next(faults: &Mutex<VecDeque<Fault>>) -> Fault {
    faults.lock().expect("no panic").pop_front().unwrap_or(Fault::Pass)
}

/// A list in words: `list rv=0 limit=500`, `list continued limit=500`, `probe rv=7`.
fn in_words(options: &ListOptions) -> String {
    let revision = options.resource_version.as_deref().unwrap_or("none");
    match options {
        ListOptions { continue_token: Some(_), limit, .. } => format!("list continued limit={limit}"),
        ListOptions { limit: 1, .. } => format!("probe rv={revision}"),
        ListOptions { limit, .. } => format!("list rv={revision} limit={limit}"),
    }
}

#[async_trait]
impl Transport for Wire {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        if let Verb::List(options) = &request.verb {
            self.note(in_words(options));
            if options.continue_token.is_some() {
                self.befall(next(&self.pages)).await?;
            }
        }
        self.inner().call(request).await
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        assert!(options.allow_bookmarks && options.timeout_seconds.is_some(), "{options:?}");
        let revision = options.resource_version.clone().unwrap_or_default();
        self.note(format!("watch rv={revision}"));
        let fault = next(&self.watches);
        self.befall(fault).await?;
        let mut cut = self.cut.subscribe();
        let real = self.inner().watch(resource, options, view).await?;
        let bookmark = json!({"metadata": {"resourceVersion": revision}}).to_string();
        let garbled = ApiError::internal("a watch event does not parse: garbled by the test");
        let expired = WatchEvent::Error(ApiError::expired("made old by the test"));
        let events = match fault {
            Fault::BreakAfter(events) => real.take(events).chain(stream::iter([Err(away())])).boxed(),
            Fault::BreakLate => {
                let silence = real.filter(|_| future::ready(false)).take_until(tokio::time::sleep(LATE));
                silence.chain(stream::iter([Err(away())])).boxed()
            }
            Fault::EndAfter(events) => real.take(events).boxed(),
            Fault::ExpireAfter(events) => real.take(events).chain(stream::iter([Ok(expired)])).boxed(),
            Fault::GarbleAfter(events) => real.take(events).chain(stream::iter([Err(garbled)])).boxed(),
            Fault::Silence => real.filter(|_| future::ready(false)).chain(stream::pending()).boxed(),
            Fault::SayNothingNew => stream::iter([Ok(WatchEvent::Bookmark(bookmark.into()))]).boxed(),
            Fault::Pass | Fault::Refuse | Fault::Forbid | Fault::Forget | Fault::Churn => real,
        };
        // A server that goes ends its watches before.
        Ok(events.take_until(async move { drop(cut.changed().await) }).boxed())
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.inner().stream(resource, query).await
    }
}
