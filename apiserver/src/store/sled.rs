//! The embedded backend: a journal that makes writes durable, and whole states written by sled that let the journal
//! be cut.
//!
//! One thread commits: it takes all transactions that wait, makes one batch of them, appends it with one sync, publishes it,
//! and answers. A caller that is alone commits by itself instead, where the disk is quick: two switches between threads
//! take as long as half a sync. Another thread keeps house: it makes journal segments before they are needed, and writes the state when the
//! journal has grown as large as a state. Opening reads the newest state and replays the journal after it; the
//! replayed changes are in the rings again, so watches resume over a restart.
//!
//! Cost of the states: one is written per twice as many bytes of journal as it has itself, and 64 MiB at least
//! ([`Sizes`]); so states are a third of what is written, 4 µs of CPU a write of 1 KiB, and opening replays 64 MiB in
//! 0.3 s.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Condvar, MappedMutexGuard, Mutex, MutexGuard};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task,
    time::Instant,
};

use super::{
    Change, Figures, Key, Page, Record, Revision, Sizes, Store, StoreError, Watch, Write,
    batch::Batch,
    checkpoint::{self, Summary},
    folder::Folder,
    index::Index,
    journal::{AppendError, Journal, Segments},
    state::State,
};

/// Transactions that may wait for the committer. Beyond it, callers wait to be let in; the server takes no more requests
/// at a time than a few thousand anyway.
const QUEUE: usize = 1024;

/// Transactions that the committer takes at a time. Each is answered when the whole batch is durable; 256 of 1 KiB take
/// 0.3 ms to prepare and less to write.
const BATCH_WRITES: usize = 256;

/// Bytes after which a batch is closed: 10 ms of a disk that writes 400 MiB a second.
const BATCH_BYTES: usize = 4 << 20;

/// How much longer than it should be the journal may grow while the state is being written. Then writers wait: at full
/// speed (45 MiB a second from many clients) 64 MiB more take 1.5 s, and 64 MiB of state are written in 1 s.
const JOURNAL_GROWTH_MAX: u64 = 2;

/// How often the house is looked after without being asked.
const TICK: Duration = Duration::from_secs(15);

/// Changes that are published at a time while the journal is replayed.
const REPLAY_EVENTS: usize = 4096;

/// How many batches in a row must have held one transaction before a caller counts as alone.
const ALONE_AFTER: u32 = 8;

/// How long an append may have taken for the next to happen in a caller's thread, which runs other tasks too.
const QUICK: Duration = Duration::from_millis(1);

/// A durable store.
pub(super) struct SledStore {
    index: Arc<Index>,
    inbox: mpsc::Sender<Request>,
    writer: Arc<Mutex<Option<Writer>>>,
    house: Arc<House>,
    figures: Arc<Figures>,
    threads: tokio::sync::Mutex<Option<Threads>>,
}

enum Request {
    Commit { writes: Vec<Write>, reply: oneshot::Sender<Result<Revision, StoreError>> },
    Close,
}

struct Threads {
    committer: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl SledStore {
    /// Opens a data folder, made first if it is not there.
    pub fn open(path: &Path, sizes: Sizes) -> Result<Self, StoreError> {
        let folder = Folder::open(path)?;
        let (index, journal, summary) = load(&folder, sizes)?;
        let (inbox, requests) = mpsc::channel(QUEUE);
        let segments = journal.segments();
        let house = Arc::new(House::new(folder, index.clone(), segments, sizes, summary.bytes));
        let figures = Arc::new(Figures::default());
        let writer = Writer::new(index.clone(), journal, house.clone(), figures.clone());
        let writer = Arc::new(Mutex::new(Some(writer)));
        let committer = Committer { index: index.clone(), requests, writer: writer.clone() };
        let threads = Threads {
            committer: spawn("store-commit", move || committer.run())?,
            keeper: spawn("store-keeper", {
                let house = house.clone();
                move || house.run()
            })?,
        };
        Ok(Self { index, inbox, writer, house, figures, threads: tokio::sync::Mutex::new(Some(threads)) })
    }
}

impl SledStore {
    /// The writer, for a caller who may use it in its own thread: nobody else writes, it will not take long, and other
    /// workers of the runtime run the other tasks in the meantime.
    fn writer_if_alone(&self, writes: &[Write]) -> Option<MappedMutexGuard<'_, Writer>> {
        let runtime = Handle::try_current().ok()?;
        let writer = self.writer.try_lock()?;
        let waiting = self.inbox.capacity() < self.inbox.max_capacity();
        if waiting || runtime.metrics().num_workers() < 2 {
            return None;
        }
        let writer = MutexGuard::try_map(writer, Option::as_mut).ok()?;
        writer.may_be_borrowed(writes.iter().map(size).sum()).then_some(writer)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| StoreError::Unusable(format!("cannot start the thread {name}: {error}")))
}

/// The newest state and the journal after it.
fn load(folder: &Folder, sizes: Sizes) -> Result<(Arc<Index>, Journal, Summary), StoreError> {
    if !folder.holds_store()? {
        folder.begin(|journal| Journal::create(journal, sizes.segment))?;
    }
    let states = folder.states()?;
    let (state, summary) = match states.first() {
        Some(newest) => checkpoint::read(folder, *newest)?,
        None => (State::default(), Summary::of_nothing()),
    };
    let base = summary.revision;
    let index = Arc::new(Index::new(state));
    let journal = replay(&folder.journal(), sizes.segment, base, &index)?;
    for old in states.iter().skip(1) {
        folder.remove_state(*old)?;
    }
    Ok((index, journal, summary))
}

fn replay(path: &Path, segment: u64, base: Revision, index: &Index) -> Result<Journal, StoreError> {
    let mut batch = Batch::after(&index.state());
    let journal = Journal::open(path, segment, base, &mut |record, deleted| {
        batch.push(record, deleted);
        if batch.events.len() == REPLAY_EVENTS {
            let next = Batch::after(&batch.state);
            index.publish(std::mem::replace(&mut batch, next));
        }
    })?;
    index.publish(batch);
    Ok(journal)
}

/// Writes a state as a data folder of its own.
pub(super) fn write_snapshot(state: &State, to: &Path) -> Result<Revision, StoreError> {
    let folder = Folder::open(to)?;
    if folder.holds_store()? {
        return Err(StoreError::Unusable(format!(
            "{} holds a store already; choose an empty folder",
            to.display()
        )));
    }
    // The state first: what begins without it would open as an empty store.
    let sizes = Sizes::default();
    checkpoint::write(&folder, state, sizes.part, &AtomicBool::new(false))?;
    folder.begin(|journal| Journal::create(journal, sizes.segment))?;
    Ok(state.revision)
}

#[async_trait]
impl Store for SledStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        Ok(self.index.get(key))
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.index.list(prefix, after, limit, at)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        if let Some(mut writer) = self.writer_if_alone(&writes) {
            return writer.commit(writes);
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.inbox.send(Request::Commit { writes, reply }).await;
        sent.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    fn watch(&self, prefix: &Key, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.index.watch(prefix, after)
    }

    fn revision(&self) -> Revision {
        self.index.revision()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.index.compact(revision)
    }

    async fn snapshot(&self, to: &Path) -> Result<Revision, StoreError> {
        let (state, to) = (self.index.state(), to.to_owned());
        let written = task::spawn_blocking(move || write_snapshot(&state, &to)).await;
        written.unwrap_or_else(|error| Err(StoreError::Disk(format!("the snapshot was given up: {error}"))))
    }

    fn figures(&self) -> Option<&Figures> {
        Some(&self.figures)
    }

    async fn close(&self) {
        // Held until the threads are gone, so that whoever calls second returns when the folder is free too.
        let mut threads = self.threads.lock().await;
        let Some(threads) = threads.take() else { return };
        let _ = self.inbox.send(Request::Close).await;
        self.house.stop();
        let _ = task::spawn_blocking(move || threads.join()).await;
        self.house.leave();
    }
}

impl Threads {
    fn join(self) {
        for thread in [self.committer, self.keeper] {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let Some(threads) = self.threads.get_mut().take() else { return };
        // The committer ends with its last sender; nobody else has one.
        self.inbox = mpsc::channel(1).0;
        self.house.stop();
        threads.join();
    }
}

/// What it takes to commit. Whoever holds it is the one writer.
struct Writer {
    index: Arc<Index>,
    journal: Journal,
    house: Arc<House>,
    figures: Arc<Figures>,
    /// Why no write can be acknowledged any more.
    broken: Option<StoreError>,
    /// How many batches in a row held one transaction.
    alone: u32,
    /// How long the last append took.
    took: Duration,
}

impl Writer {
    fn new(index: Arc<Index>, journal: Journal, house: Arc<House>, figures: Arc<Figures>) -> Self {
        Self { index, journal, house, figures, broken: None, alone: 0, took: Duration::MAX }
    }

    /// Whether a caller can count on being quick with so many bytes.
    fn may_be_borrowed(&self, bytes: usize) -> bool {
        self.alone >= ALONE_AFTER
            && self.took < QUICK
            && self.journal.has_room_for(bytes)
            && self.house.has_room()
    }

    /// Commits one transaction.
    fn commit(&mut self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let mut batch = Batch::after(&self.index.state());
        let revision = batch.add(writes)?;
        self.make_durable(batch, 1)?;
        Ok(revision)
    }

    /// Makes a batch of so many transactions durable, and publishes it.
    fn make_durable(&mut self, batch: Batch, transactions: usize) -> Result<(), StoreError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if batch.events.is_empty() {
            return Ok(());
        }
        self.house.wait_for_room()?;
        let started = std::time::Instant::now();
        let appended = self.journal.append(&batch.events);
        self.took = started.elapsed();
        self.alone = if transactions == 1 { self.alone.saturating_add(1) } else { 0 };
        match appended {
            Ok(()) => {
                self.figures.committed(transactions, batch.events.len(), batch.bytes(), self.took);
                self.index.publish(batch);
                self.house.look();
                Ok(())
            }
            Err(AppendError::Refused(error)) => {
                self.figures.failed();
                Err(error)
            }
            Err(AppendError::Broken(why)) => {
                self.figures.failed();
                let error = StoreError::Disk(format!(
                    "{why}; no write is taken any more: see to the disk, then restart the server"
                ));
                tracing::error!(%error, "the store takes no more writes");
                self.broken = Some(error.clone());
                Err(error)
            }
        }
    }
}

/// The thread that commits for all who are not alone.
struct Committer {
    index: Arc<Index>,
    requests: mpsc::Receiver<Request>,
    writer: Arc<Mutex<Option<Writer>>>,
}

type Answer = (oneshot::Sender<Result<Revision, StoreError>>, Result<Revision, StoreError>);

impl Committer {
    fn run(mut self) {
        let _end = EndWrites { index: self.index.clone(), writer: self.writer.clone() };
        let mut waiting = Vec::with_capacity(BATCH_WRITES);
        while self.requests.blocking_recv_many(&mut waiting, BATCH_WRITES) > 0 {
            let mut requests = waiting.drain(..).peekable();
            while requests.peek().is_some() {
                if self.commit(&mut requests).is_break() {
                    return;
                }
            }
        }
    }

    /// Commits one batch. Breaks when asked to close.
    fn commit(&self, requests: &mut dyn Iterator<Item = Request>) -> ControlFlow<()> {
        let mut writer = self.writer.lock();
        let Some(writer) = &mut *writer else { return ControlFlow::Break(()) };
        let mut batch = Batch::after(&self.index.state());
        let mut answers: Vec<Answer> = Vec::new();
        let mut bytes = 0;
        let mut close = false;
        while bytes < BATCH_BYTES {
            match requests.next() {
                Some(Request::Commit { writes, reply }) => {
                    bytes += writes.iter().map(size).sum::<usize>();
                    answers.push((reply, batch.add(writes)));
                }
                Some(Request::Close) => {
                    close = true;
                    break;
                }
                None => break,
            }
        }
        let made = writer.make_durable(batch, answers.len());
        for (reply, answer) in answers {
            // Nobody listens: the caller was dropped, and its write stands or not as it happens.
            let _ = reply.send(made.clone().and(answer));
        }
        if close { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// When the thread ends, in whichever way, nothing is written any more: callers who are alone are told, and watches end.
struct EndWrites {
    index: Arc<Index>,
    writer: Arc<Mutex<Option<Writer>>>,
}

impl Drop for EndWrites {
    fn drop(&mut self) {
        *self.writer.lock() = None;
        self.index.close();
    }
}

fn size(write: &Write) -> usize {
    match &write.change {
        Change::Put(draft) | Change::Delete(draft) => draft.bytes.len(),
        Change::Check => 0,
    }
}

/// Keeps the journal short and its next segment ready.
struct House {
    folder: Mutex<Option<Folder>>,
    index: Arc<Index>,
    segments: Arc<Segments>,
    sizes: Sizes,
    orders: Mutex<Orders>,
    /// Rung when there are orders, and when they were carried out.
    bell: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Orders {
    /// There is something to look after.
    look: bool,
    /// Bytes of the newest written state.
    state_bytes: u64,
    /// Why the newest state could not be written.
    failed: Option<StoreError>,
}

impl House {
    fn new(
        folder: Folder,
        index: Arc<Index>,
        segments: Arc<Segments>,
        sizes: Sizes,
        state_bytes: u64,
    ) -> Self {
        let orders = Orders { look: true, state_bytes, failed: None };
        Self {
            folder: Mutex::new(Some(folder)),
            index,
            segments,
            sizes,
            orders: Mutex::new(orders),
            bell: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Bytes of journal after which a state is written.
    fn limit(&self, orders: &Orders) -> u64 {
        self.sizes.journal.max(2 * orders.state_bytes)
    }

    /// Called after every batch: wakes the keeper if there is work for it.
    fn look(&self) {
        let mut orders = self.orders.lock();
        let long = self.segments.bytes() >= self.limit(&orders) && orders.failed.is_none();
        if !orders.look && (long || self.segments.wants_next()) {
            orders.look = true;
            self.bell.notify_all();
        }
    }

    /// Whether [`Self::wait_for_room`] would not wait.
    fn has_room(&self) -> bool {
        self.segments.bytes() <= JOURNAL_GROWTH_MAX * self.limit(&self.orders.lock())
    }

    /// Waits while the journal is too long to go on. An error if the state cannot be written, so that it stays so.
    fn wait_for_room(&self) -> Result<(), StoreError> {
        let mut orders = self.orders.lock();
        while self.segments.bytes() > JOURNAL_GROWTH_MAX * self.limit(&orders) {
            if let Some(error) = &orders.failed {
                return Err(error.clone());
            }
            if self.stopped.load(Ordering::Relaxed) {
                return Err(StoreError::Closed);
            }
            orders.look = true;
            self.bell.notify_all();
            self.bell.wait_for(&mut orders, TICK);
        }
        Ok(())
    }

    fn run(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            self.tidy();
            let mut orders = self.orders.lock();
            if !orders.look && !self.stopped.load(Ordering::Relaxed) {
                // Not only for sweeping: a state that could not be written is tried again.
                if self.bell.wait_for(&mut orders, TICK).timed_out() {
                    orders.failed = None;
                }
            }
            orders.look = false;
        }
    }

    fn tidy(&self) {
        if let Err(error) = self.segments.prepare() {
            tracing::warn!(%error, "the next segment of the journal cannot be made yet");
        }
        let due = {
            let orders = self.orders.lock();
            self.segments.bytes() >= self.limit(&orders)
        };
        if due {
            let written = self.write_state();
            let mut orders = self.orders.lock();
            match written {
                Ok(bytes) => {
                    orders.state_bytes = bytes.unwrap_or(orders.state_bytes);
                    orders.failed = None;
                }
                Err(error) => {
                    tracing::warn!(%error, "the state cannot be written; the journal grows");
                    orders.failed = Some(error);
                }
            }
            self.bell.notify_all();
        }
        self.index.sweep(Instant::now());
    }

    /// Writes the state and lets go of what it replaces. Gives its bytes, unless it was stopped.
    fn write_state(&self) -> Result<Option<u64>, StoreError> {
        let folder = self.folder.lock();
        let Some(folder) = &*folder else { return Ok(None) };
        let state = self.index.state();
        let known = folder.states()?;
        if known.first() != Some(&state.revision) {
            let Some(summary) = checkpoint::write(folder, &state, self.sizes.part, &self.stopped)? else {
                return Ok(None);
            };
            for old in known {
                folder.remove_state(old)?;
            }
            self.segments.retire(state.revision)?;
            return Ok(Some(summary.bytes));
        }
        self.segments.retire(state.revision)?;
        Ok(None)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _orders = self.orders.lock();
        self.bell.notify_all();
    }

    /// Lets go of the folder.
    fn leave(&self) {
        *self.folder.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{Sizes, Store},
        SledStore,
    };

    fn open() -> (tempfile::TempDir, Arc<dyn Store>) {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path(), Sizes::default()).unwrap();
        (folder, Arc::new(store))
    }

    super::super::conformance::conformance!(open());
}
