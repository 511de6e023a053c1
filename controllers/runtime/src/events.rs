//! Records Events: what happened to an object, for people.
//!
//! The same event again raises the count of the first instead of adding another; an object that produces very many
//! different ones is cut off for a while. Recording never blocks and never fails its caller: when the queue is full
//! the event is dropped, because Events are hints and the objects hold the truth.
//!
//! Must never know: who records, or why.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use claw_client::{Client, api::Object, request::PatchKind};
use claw_schemas::status::Reason;
use futures::future::join_all;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::env::Env;

/// Events waiting to be written: two bursts of 500 pods. At about 500 bytes each, half a megabyte.
const QUEUE_MAX: usize = 1024;

/// Events written at a time. The server commits what arrives together in one sync, so that a burst is through in a few
/// round trips instead of hundreds.
const AT_A_TIME: usize = 64;

/// Events remembered for counting, and objects whose Events are bounded: about 400 bytes each, 1.6 MB. The oldest is
/// forgotten first, and then starts a new Event instead of raising a count, or a new allowance.
const REMEMBERED_MAX: usize = 4096;

/// New Events that one object may produce at once, and after how long it may produce one more. The figures of
/// client-go's recorder.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// Longest name of an object.
const NAME_MAX: usize = 253;

/// Repeats are counted into one Event for this long after the last; later a new one begins.
const REPEAT_WITHIN: Duration = Duration::from_secs(600);

/// Records Events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Happening>,
    component: Arc<str>,
}

#[derive(Clone, Debug)]
struct Happening {
    component: Arc<str>,
    about: ObjectReference,
    warning: bool,
    reason: String,
    message: String,
}

/// Refers to an object as Events do.
pub fn reference_to<K: Object>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Recorder {
    /// Starts the task that writes, until `cancel`. `component` names the source: `deployment-controller`.
    pub fn start(client: Client, env: Env, component: &str, cancel: CancellationToken) -> Self {
        let (queue, happenings) = mpsc::channel(QUEUE_MAX);
        let book = Book::default();
        let mut writer = Writer { client, env: env.clone(), book };
        env.spawn(async move {
            cancel.run_until_cancelled_owned(writer.run(happenings)).await;
        });
        Self { queue, component: component.into() }
    }

    /// The same recorder in the name of another component.
    #[must_use]
    pub fn named(&self, component: &str) -> Self {
        Self { queue: self.queue.clone(), component: component.into() }
    }

    /// Records that something happened to an object.
    pub fn record(&self, about: ObjectReference, warning: bool, reason: &str, message: impl Into<String>) {
        let (component, reason) = (Arc::clone(&self.component), reason.to_owned());
        let happening = Happening { component, about, warning, reason, message: message.into() };
        if let Err(lost) = self.queue.try_send(happening) {
            debug!(%lost, "an event is dropped");
        }
    }
}

struct Writer {
    client: Client,
    env: Env,
    book: Book,
}

impl Writer {
    async fn run(&mut self, mut happenings: mpsc::Receiver<Happening>) {
        let mut batch = Vec::with_capacity(AT_A_TIME);
        while happenings.recv_many(&mut batch, AT_A_TIME).await > 0 {
            self.write(batch.drain(..)).await;
        }
    }

    /// Writes what came together side by side. Counts go last: the event they raise may be among the new ones.
    async fn write(&mut self, batch: impl Iterator<Item = Happening>) {
        let (mut new, mut repeats) = (Vec::new(), BTreeMap::new());
        for happening in batch {
            let name = event_name(happening.about.name.as_deref().unwrap_or_default(), self.env.random());
            match self.book.enter(&happening, name, self.env.uptime()) {
                Entry::New(name) => new.push((happening, name)),
                // Only the last count of an event says anything.
                Entry::Again { name, count } => drop(repeats.insert(name, (happening, count))),
                Entry::TooMany => debug!(?happening, "too many events about one object"),
            }
        }
        join_all(new.iter().map(|(happening, name)| self.create(happening, name))).await;
        join_all(repeats.iter().map(|(name, (happening, count))| self.count(happening, name, *count))).await;
    }

    async fn create(&self, happening: &Happening, name: &str) {
        let event = self.event(happening, name.to_owned());
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        // A lost event is no reason to hold anything up; the object's own status tells the truth.
        if let Err(error) = self.client.namespaced::<Event>(&namespace).add(&event).await {
            debug!(%error, "an event was not written");
        }
    }

    async fn count(&self, happening: &Happening, name: &str, count: i32) {
        let patch = json!({"count": count, "lastTimestamp": Time(self.env.now())});
        let events = self.client.namespaced::<Event>(&namespace_of(&happening.about));
        match events.patch(name, None, PatchKind::Merge, &patch).await {
            // It was collected meanwhile.
            Err(error) if error.reason == Reason::NotFound => self.create(happening, name).await,
            Err(error) => debug!(%error, "an event was not counted"),
            Ok(_) => {}
        }
    }

    fn event(&self, happening: &Happening, name: String) -> Event {
        let now = Time(self.env.now());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace_of(&happening.about)),
                ..ObjectMeta::default()
            },
            involved_object: happening.about.clone(),
            reason: Some(happening.reason.clone()),
            message: Some(happening.message.clone()),
            type_: Some(if happening.warning { "Warning" } else { "Normal" }.to_owned()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource { component: Some(happening.component.to_string()), host: None }),
            reporting_component: Some(happening.component.to_string()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        }
    }
}

/// `web-1.0123456789abcdef`: after the object, cut where the name would be too long.
fn event_name(object: &str, random: u64) -> String {
    let suffix = format!(".{random:016x}");
    let stem = &object[..object.floor_char_boundary(NAME_MAX - suffix.len())];
    // What was cut may have ended in the middle of a word, and no part of a name may end with a dash or a dot.
    format!("{}{suffix}", stem.trim_end_matches(['-', '.']))
}

/// Events about cluster-scoped objects live in `default`.
fn namespace_of(about: &ObjectReference) -> String {
    about.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".to_owned())
}

/// What was written, to count repeats and to bound new ones.
#[derive(Default)]
struct Book {
    entries: BTreeMap<Identity, Written>,
    /// The order in which `entries` were begun.
    order: VecDeque<Identity>,
    allowances: BTreeMap<String, Allowance>,
    /// The order in which `allowances` were begun.
    objects: VecDeque<String>,
}

type Identity = (String, bool, String, String);

struct Written {
    name: String,
    count: i32,
    last: Duration,
}

struct Allowance {
    left: u32,
    refilled: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    New(String),
    Again { name: String, count: i32 },
    TooMany,
}

impl Book {
    fn enter(&mut self, happening: &Happening, new_name: String, now: Duration) -> Entry {
        let object = happening.about.uid.clone().or_else(|| happening.about.name.clone()).unwrap_or_default();
        let identity =
            (object.clone(), happening.warning, happening.reason.clone(), happening.message.clone());
        let recent = |written: &&mut Written| now.saturating_sub(written.last) < REPEAT_WITHIN;
        if let Some(written) = self.entries.get_mut(&identity).filter(recent) {
            written.count = written.count.saturating_add(1);
            written.last = now;
            return Entry::Again { name: written.name.clone(), count: written.count };
        }
        if !self.allow(object, now) {
            return Entry::TooMany;
        }
        let written = Written { name: new_name.clone(), count: 1, last: now };
        if self.entries.insert(identity.clone(), written).is_none() {
            self.order.push_back(identity);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        Entry::New(new_name)
    }

    fn allow(&mut self, object: String, now: Duration) -> bool {
        if !self.allowances.contains_key(&object) {
            self.objects.push_back(object.clone());
            // Looking for those whose allowance is full again would be slow just when there is much to do.
            if self.objects.len() > REMEMBERED_MAX
                && let Some(oldest) = self.objects.pop_front()
            {
                self.allowances.remove(&oldest);
            }
        }
        let allowance = self.allowances.entry(object).or_insert(Allowance { left: BURST, refilled: now });
        let left = allowance.left_at(now);
        if left == 0 {
            return false;
        }
        if left != allowance.left {
            allowance.refilled = now;
        }
        allowance.left = left - 1;
        true
    }
}

impl Allowance {
    fn left_at(&self, now: Duration) -> u32 {
        let earned = now.saturating_sub(self.refilled).as_secs() / REFILL.as_secs();
        self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(message: &str) -> Happening {
        let about = ObjectReference { uid: Some("u".into()), ..Default::default() };
        Happening {
            component: "test".into(),
            about,
            warning: false,
            reason: "R".into(),
            message: message.into(),
        }
    }

    #[test]
    fn a_repeat_raises_the_count_until_it_is_long_ago() {
        let mut book = Book::default();
        let first = book.enter(&happening("m"), "e1".into(), Duration::from_secs(0));
        assert_eq!(first, Entry::New("e1".into()));
        let again = book.enter(&happening("m"), "e2".into(), Duration::from_secs(5));
        assert_eq!(again, Entry::Again { name: "e1".into(), count: 2 });
        let late = book.enter(&happening("m"), "e3".into(), Duration::from_secs(5) + REPEAT_WITHIN);
        assert_eq!(late, Entry::New("e3".into()));
    }

    #[test]
    fn an_event_about_an_object_with_the_longest_name_has_a_name_that_may_be() {
        assert_eq!(event_name("web-1", 7), "web-1.0000000000000007");
        let name = event_name(&"a-".repeat(127)[..253], u64::MAX);
        assert!(name.len() <= NAME_MAX && name.ends_with("a.ffffffffffffffff"), "{name}");
    }

    #[test]
    fn an_object_with_endless_news_is_cut_off_for_a_while() {
        let mut book = Book::default();
        let mut enter = |n: u32, now| book.enter(&happening(&n.to_string()), n.to_string(), now);
        for n in 0..BURST {
            assert_eq!(enter(n, Duration::ZERO), Entry::New(n.to_string()));
        }
        assert_eq!(enter(100, Duration::ZERO), Entry::TooMany);
        assert_eq!(enter(101, REFILL), Entry::New("101".into()));
        assert_eq!(enter(102, REFILL), Entry::TooMany);
    }

    #[test]
    fn the_book_stays_bounded() {
        let mut book = Book::default();
        for n in 0..u32::try_from(REMEMBERED_MAX).unwrap() * 2 {
            let mut one = happening("m");
            one.about.uid = Some(n.to_string());
            // All at once: no allowance is full again, and no event is old.
            book.enter(&one, n.to_string(), Duration::ZERO);
        }
        assert!(book.entries.len() <= REMEMBERED_MAX && book.order.len() <= REMEMBERED_MAX);
        assert!(book.allowances.len() <= REMEMBERED_MAX && book.objects.len() <= REMEMBERED_MAX);
    }
}
