//! The store of the simulated server: in memory, outlives the server, takes as long as a disk, and remembers every change,
//! so that there is somebody to ask what really happened.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use claw_apiserver::store::{
    self, Change as Deed, Event, Expect, Figures, Key, Page, Record, Revision, Store, StoreError, Watch,
    Write,
};
use claw_e2e::{
    dice::Dice,
    history::{Change, History, bare, place_of},
};
use futures::FutureExt as _;
use serde_json::Value;

use super::trace::{Trace, What, hash_of};

/// A commit takes up to so long before it is durable, and as long again before it is acknowledged: mostly the first, now and
/// then, so that others come between, the second.
const COMMIT_MS_MAX: [u64; 2] = [4, 100];
/// How many of a hundred are slow.
const SLOW_PERCENT: u64 = 10;

/// The kind that watchers and writers are about.
const MAPS: (&str, &str) = ("", "configmaps");
/// How far ahead a watch is that boasts.
const AHEAD: Revision = 20;

/// One change as it was stored.
pub struct Stored {
    pub revision: Revision,
    pub key: Key,
    pub value: Bytes,
    pub gone: bool,
}

/// What a store can have wrong, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// It is sound.
    None,
    /// A write in thirty is acknowledged and forgotten.
    Forgets,
    /// Writes that must find a revision are carried out whatever is there.
    Overwrites,
    /// A watch begins one change too late.
    Skips,
    /// What is read is what was there before the last few writes.
    Lags,
    /// A list in thirty leaves something out.
    Omits,
    /// What was there before a change is told as what is there after it.
    Misremembers,
    /// Watches claim to have delivered what they have not.
    Boasts,
}

impl Sabotage {
    /// Every way to be broken.
    pub const ALL: [Self; 7] = [
        Self::Forgets,
        Self::Overwrites,
        Self::Skips,
        Self::Lags,
        Self::Omits,
        Self::Misremembers,
        Self::Boasts,
    ];
}

/// The store.
pub struct Disk {
    sabotage: Sabotage,
    inner: Arc<dyn Store>,
    log: Mutex<Vec<Stored>>,
    dice: Dice,
    trace: Arc<Trace>,
}

impl Disk {
    pub fn new(seed: u64, trace: Arc<Trace>, sabotage: Sabotage) -> Self {
        Self { sabotage, inner: store::memory(), log: Mutex::default(), dice: Dice::new(seed), trace }
    }

    /// Whether something is to go wrong now.
    fn strikes(&self, sabotage: Sabotage) -> bool {
        self.sabotage == sabotage && self.dice.below(30) == 0
    }

    /// The same writes, whatever is there.
    async fn forced(&self, mut writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        for write in &mut writes {
            if let (Expect::Revision(_), Some(found)) = (write.expect, self.inner.get(&write.key).await?) {
                write.expect = Expect::Revision(found.revision);
            }
        }
        Ok(writes)
    }

    /// What happened to a kind in a namespace since the beginning.
    pub fn history(&self, group: &str, plural: &str, namespace: &str) -> History {
        let prefix = Key::collection(group, plural, Some(namespace));
        let mut history = History::default();
        for stored in self.log.lock().expect("no panic while logging").iter().filter(|s| s.key.is_in(&prefix))
        {
            let object: Value = serde_json::from_slice(&stored.value).expect("the server stores JSON");
            let change = Change { name: place_of(&object), object: bare(&object), gone: stored.gone };
            history.push(stored.revision, change);
        }
        history
    }

    /// What there is of a kind in a namespace now, by `namespace/name`.
    pub fn present(&self, group: &str, plural: &str, namespace: &str) -> BTreeMap<String, Value> {
        let prefix = Key::collection(group, plural, Some(namespace));
        let page = self.inner.list(&prefix, None, 0, None).now_or_never();
        let page = page.expect("the store in memory waits for nothing").expect("it is open");
        let objects = page.items.iter().map(|record| serde_json::from_slice(&record.value));
        let objects = objects.map(|object: Result<Value, _>| object.expect("the server stores JSON"));
        objects.map(|object| (place_of(&object), bare(&object))).collect()
    }

    /// Looks at every change in turn.
    pub fn each(&self, look: impl FnMut(&Stored)) {
        self.log.lock().expect("no panic while logging").iter().for_each(look);
    }

    /// A record as it was before its last change.
    fn earlier(&self, key: &Key) -> Option<Record> {
        let log = self.log.lock().expect("no panic while logging");
        let before = log.iter().rev().filter(|stored| stored.key == *key).nth(1)?;
        let (key, revision, value) = (before.key.clone(), before.revision, before.value.clone());
        (!before.gone).then_some(Record { key, revision, value })
    }

    async fn takes_a_while(&self) {
        let limit = COMMIT_MS_MAX[usize::from(self.dice.percent(SLOW_PERCENT))];
        tokio::time::sleep(Duration::from_millis(self.dice.below(limit + 1))).await;
    }

    /// Remembers the writes of a transaction whose last one got this revision.
    fn remember(&self, writes: Vec<Write>, last: Revision) {
        let count = writes.iter().filter(|write| !matches!(write.change, Deed::Check)).count() as u64;
        let mut revision = last - count;
        for Write { key, change, .. } in writes {
            let (draft, gone) = match change {
                Deed::Put(draft) => (draft, false),
                Deed::Delete(draft) => (draft, true),
                Deed::Check => continue,
            };
            revision += 1;
            let value = draft.at(revision);
            let (text, hash) = (key.as_str().to_owned(), hash_of(&value));
            self.trace.add(What::Commit { revision, key: text, hash });
            self.log.lock().expect("no panic while logging").push(Stored { revision, key, value, gone });
        }
    }
}

/// A watch that tells something else than what happened.
struct BrokenWatch {
    inner: Box<dyn Watch>,
    sabotage: Sabotage,
}

impl BrokenWatch {
    fn told(&self, event: Option<Arc<Event>>) -> Option<Arc<Event>> {
        let event = event?;
        if self.sabotage != Sabotage::Misremembers || event.deleted || event.previous.is_none() {
            return Some(event);
        }
        Some(Arc::new(Event { previous: Some(event.record.clone()), ..Event::clone(&event) }))
    }
}

#[async_trait]
impl Watch for BrokenWatch {
    async fn next(&mut self) -> Option<Arc<Event>> {
        let event = self.inner.next().await;
        self.told(event)
    }

    fn try_next(&mut self) -> Option<Arc<Event>> {
        let event = self.inner.try_next();
        self.told(event)
    }

    fn progress(&self) -> Revision {
        self.inner.progress() + if self.sabotage == Sabotage::Boasts { AHEAD } else { 0 }
    }
}

#[async_trait]
impl Store for Disk {
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        if self.strikes(Sabotage::Lags)
            && let Some(old) = self.earlier(key)
        {
            return Ok(Some(old));
        }
        self.inner.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let mut page = self.inner.list(prefix, after, limit, at).await?;
        // Only of what is looked at in the end.
        if prefix.group_and_plural() == MAPS && self.strikes(Sabotage::Omits) {
            page.items.pop();
        }
        Ok(page)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        self.takes_a_while().await;
        let is_write = writes.iter().any(|write| !matches!(write.change, Deed::Check));
        if is_write && self.strikes(Sabotage::Forgets) {
            return Ok(self.inner.revision() + writes.len() as u64);
        }
        let writes = if self.sabotage == Sabotage::Overwrites { self.forced(writes).await? } else { writes };
        // The store in memory commits without waiting for anything, so nobody comes between it and the log.
        let revision = self.inner.commit(writes.clone()).await?;
        self.remember(writes, revision);
        self.takes_a_while().await;
        Ok(revision)
    }

    fn watch(&self, prefix: &Key, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let after = if self.sabotage == Sabotage::Skips { after + 1 } else { after };
        let inner = self.inner.watch(prefix, after)?;
        let sabotage = self.sabotage;
        let is_broken = prefix.group_and_plural() == MAPS && sabotage != Sabotage::None;
        Ok(if is_broken { Box::new(BrokenWatch { inner, sabotage }) } else { inner })
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn snapshot(&self, to: &Path) -> Result<Revision, StoreError> {
        self.inner.snapshot(to).await
    }

    fn figures(&self) -> Option<&Figures> {
        self.inner.figures()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
