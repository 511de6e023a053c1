//! Figures about the server, and the text in which Prometheus reads them.
//!
//! Whoever counts holds its own figures and adds to them without a lock ([`figure`]); they are put into words only when
//! somebody asks. A request looks its labels up once ([`requests`]). Names are those of Kubernetes where it has the
//! figure, and begin with `clawbernetes_` where it has not. Labels are taken from fixed lists and from the kinds that
//! are served, never from what a request brings, so that nobody can make the server remember more; those of [`admission`] are
//! names of stored objects, and counted.
//!
//! Must never know: who reads them.

mod admission;
pub mod figure;
mod process;
mod requests;
mod text;

use std::{collections::BTreeMap, sync::Arc};

use claw_schemas::Descriptor;
use parking_lot::{Mutex, RwLock};

pub use self::{
    admission::{Admission, Asked, Outcome},
    figure::{Counter, Gauge, Histogram},
    process::write as write_process,
    requests::{Requests, Series, verb_of},
    text::Text,
};

/// Buckets of durations, in nanoseconds: those of `apiserver_request_duration_seconds`, and some below for a server that
/// answers faster.
pub const DURATIONS_NS: &[u64] = &[
    100_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    400_000_000,
    600_000_000,
    800_000_000,
    1_000_000_000,
    1_500_000_000,
    2_000_000_000,
    3_000_000_000,
    5_000_000_000,
    10_000_000_000,
    15_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Somebody who adds figures of another part of the process.
type Source = Box<dyn Fn(&mut Text) + Send + Sync>;

/// All figures but the store's.
#[derive(Default)]
pub struct Metrics {
    /// Of requests.
    pub requests: Requests,
    /// Of the queue in front of them.
    pub fairness: Arc<Fairness>,
    /// Of those who have a say in writes.
    pub admission: Admission,
    watch_events: RwLock<BTreeMap<[String; 3], Arc<Counter>>>,
    sources: Mutex<Vec<Source>>,
}

/// Of requests that wait for their turn.
pub struct Fairness {
    /// How long those waited that had to.
    pub waited: Histogram,
    /// Turned away because too many waited already.
    pub queue_full: Counter,
    /// Turned away because their turn did not come in time.
    pub time_out: Counter,
    /// Those who wait now.
    pub waiting: Gauge,
    /// Those who have a seat now.
    pub seated: Gauge,
}

impl Default for Fairness {
    fn default() -> Self {
        Self {
            waited: Histogram::seconds(DURATIONS_NS),
            queue_full: Counter::default(),
            time_out: Counter::default(),
            waiting: Gauge::default(),
            seated: Gauge::default(),
        }
    }
}

impl Metrics {
    /// The counter of events sent to watchers of a kind: looked up once a watch.
    pub fn watch_events(&self, kind: &Descriptor) -> Arc<Counter> {
        let labels = [&*kind.group, &*kind.version, &*kind.plural].map(str::to_owned);
        if let Some(known) = self.watch_events.read().get(&labels) {
            return known.clone();
        }
        self.watch_events.write().entry(labels).or_default().clone()
    }

    /// Adds figures of another part of this process. `source` writes them whenever somebody asks.
    pub fn add_source(&self, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.sources.lock().push(Box::new(source));
    }

    /// Puts all of it into words.
    pub fn write(&self, text: &mut Text) {
        self.requests.write(text);
        text.family("apiserver_watch_events_total", "counter", "Events sent to watchers.");
        for ([group, version, resource], counter) in &*self.watch_events.read() {
            let labels = [("group", &**group), ("version", &**version), ("resource", &**resource)];
            text.sample("apiserver_watch_events_total", &labels, counter.get());
        }
        self.fairness.write(text);
        self.admission.write(text);
        process::write(text);
        for source in &*self.sources.lock() {
            source(text);
        }
    }
}

impl Fairness {
    fn write(&self, text: &mut Text) {
        let name = "apiserver_flowcontrol_request_wait_duration_seconds";
        text.family(name, "histogram", "How long requests waited for a seat that had to.");
        text.histogram(name, &[], &self.waited);
        let name = "apiserver_flowcontrol_rejected_requests_total";
        text.family(name, "counter", "Requests turned away by the queue of their user.");
        text.sample(name, &[("reason", "queue-full")], self.queue_full.get());
        text.sample(name, &[("reason", "time-out")], self.time_out.get());
        let name = "apiserver_flowcontrol_current_inqueue_requests";
        text.gauge(name, "Requests that wait for a seat.", self.waiting.get());
        let name = "apiserver_flowcontrol_current_executing_requests";
        text.gauge(name, "Requests that have a seat.", self.seated.get());
    }
}
