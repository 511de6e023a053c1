//! The work queue: keys in, one run a key at a time out.
//!
//! * A key that waits already is not queued twice; one that is added while it runs, runs once more after.
//! * Delayed keys become ready when their time has come; the earliest time wins.
//! * A key that fails comes back after an exponential, jittered delay of its own, so that one bad object
//!   never slows the others.
//!
//! Its size is bounded by the number of distinct keys, which is the number of objects: keys carry no data.
//!
//! Must never know: what a key means.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use claw_client::trace::SPANS;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, trace_span};

use crate::{env::Env, figures::Work};

/// First retry of a key after a failure: well above one round trip, well below what a person notices.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);

/// Longest delay between retries: 20 ms doubled 14 times is 5 min 28 s, cut to five minutes.
pub const RETRY_MAX: Duration = Duration::from_secs(300);

/// Share by which retries are spread, in percent.
const RETRY_JITTER_PERCENT: u32 = 20;

/// A queue of keys.
pub struct Queue<K> {
    env: Env,
    state: Mutex<State<K>>,
    changed: Notify,
    figures: Arc<Work>,
}

struct State<K> {
    /// With the time since which each waits.
    ready: VecDeque<(K, Duration)>,
    /// What `ready` holds.
    waiting: BTreeSet<K>,
    running: BTreeSet<K>,
    /// Added while running, with the time: they go back to `ready` when their run is done.
    again: BTreeMap<K, Duration>,
    /// Due time and a running number → key.
    delayed: BTreeMap<(Duration, u64), K>,
    due: BTreeMap<K, (Duration, u64)>,
    failures: BTreeMap<K, u32>,
    sequence: u64,
    closed: bool,
}

impl<K: Clone + Ord> Queue<K> {
    /// An empty queue on a clock.
    pub fn new(env: Env) -> Self {
        Self::counted(env, Arc::default())
    }

    /// The same, which tells what it sees.
    pub fn counted(env: Env, figures: Arc<Work>) -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            again: BTreeMap::new(),
            delayed: BTreeMap::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
            sequence: 0,
            closed: false,
        };
        Self { env, state: Mutex::new(state), changed: Notify::new(), figures }
    }

    /// Asks for a run of `key`, soon.
    pub fn add(&self, key: K) {
        {
            let mut state = self.state.lock();
            if state.add(key, self.env.uptime()) {
                self.figures.added();
            }
            self.figures.waiting(state.ready.len());
        }
        self.changed.notify_one();
    }

    /// Asks for a run of `key` after `delay`; an earlier request for the same key stands.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let due = self.env.uptime().saturating_add(delay);
        self.state.lock().delay(key, due);
        self.changed.notify_one();
    }

    /// Asks for a run of `key` after its failure; the delay grows with every failure in a row.
    pub fn retry(&self, key: K) -> Duration {
        self.retry_after(key, Duration::ZERO)
    }

    /// Like [`Self::retry`], not before `least` has passed.
    pub fn retry_after(&self, key: K, least: Duration) -> Duration {
        self.figures.failed();
        let failures = {
            let mut state = self.state.lock();
            let count = state.failures.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        // Added, not the greater of both: keys that failed together are to come back spread all the same.
        let delay = least.saturating_add(self.env.jitter(backoff(failures), RETRY_JITTER_PERCENT));
        self.add_after(key, delay);
        delay
    }

    /// Forgets the failures of `key`: its next retry starts from the shortest delay.
    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// The next key to run, or `None` when the queue is closed. Call [`Self::done`] with it after the run.
    pub async fn next(&self) -> Option<K> {
        loop {
            // Registered before the look, so that a key added in between still wakes us.
            let changed = self.changed.notified();
            let wait = {
                let mut state = self.state.lock();
                if state.closed {
                    self.changed.notify_one();
                    return None;
                }
                let now = self.env.uptime();
                (0..state.release_due(now)).for_each(|_| self.figures.added());
                let started = state.start();
                self.figures.waiting(state.ready.len());
                if let Some((key, since)) = started {
                    self.figures.began(now.saturating_sub(since));
                    if !state.ready.is_empty() {
                        // Pass the wake-up on: one notification may stand for several keys.
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.first_key_value().map(|((due, _), _)| due.saturating_sub(now))
            };
            match wait {
                None => changed.await,
                Some(wait) => {
                    tokio::select! {
                        () = changed => {}
                        () = self.env.sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Ends the run of a key that [`Self::next`] gave out.
    pub fn done(&self, key: &K) {
        {
            let mut state = self.state.lock();
            state.finish(key);
            self.figures.waiting(state.ready.len());
        }
        self.changed.notify_one();
    }

    /// Runs `process` for one key after another, several keys at a time but never one key twice, until `cancel`; a
    /// run under way is then cut short, which must do no harm.
    /// Each is a trace of its own.
    pub async fn work<F>(&self, cancel: &CancellationToken, workers: usize, process: impl Fn(K) -> F + Sync)
    where
        K: Debug,
        F: Future<Output = ()> + Send,
    {
        let controller = self.figures.controller();
        let worker = || async {
            while let Some(key) = self.next().await {
                let started = self.env.uptime();
                let span = trace_span!(
                    target: SPANS, parent: None, "reconcile",
                    otel.name = %format_args!("reconcile {controller}"), controller, key = ?key,
                );
                match cancel.run_until_cancelled(process(key.clone()).instrument(span)).await {
                    Some(()) => self.figures.ran(self.env.uptime().saturating_sub(started)),
                    None => self.close(),
                }
                self.done(&key);
            }
        };
        let workers = join_all((0..workers).map(|_| worker()));
        let closer = async {
            cancel.cancelled().await;
            self.close();
        };
        tokio::join!(workers, closer);
    }

    /// Makes every present and future [`Self::next`] return `None`.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether nothing waits, is delayed or runs.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.ready.is_empty()
            && state.again.is_empty()
            && state.delayed.is_empty()
            && state.running.is_empty()
    }
}

impl<K: Clone + Ord> State<K> {
    /// Whether the key did not wait yet.
    fn add(&mut self, key: K, now: Duration) -> bool {
        if let Some(at) = self.due.remove(&key) {
            self.delayed.remove(&at);
        }
        if self.running.contains(&key) {
            let known = self.again.contains_key(&key);
            self.again.entry(key).or_insert(now);
            return !known;
        }
        let is_new = self.waiting.insert(key.clone());
        if is_new {
            self.ready.push_back((key, now));
        }
        is_new
    }

    fn delay(&mut self, key: K, due: Duration) {
        if self.waiting.contains(&key) || self.again.contains_key(&key) {
            return;
        }
        if let Some(&at) = self.due.get(&key) {
            if at.0 <= due {
                return;
            }
            self.delayed.remove(&at);
        }
        self.sequence += 1;
        let at = (due, self.sequence);
        self.delayed.insert(at, key.clone());
        self.due.insert(key, at);
    }

    /// How many keys had their time come that did not wait yet.
    fn release_due(&mut self, now: Duration) -> usize {
        let mut added = 0;
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            added += usize::from(self.add(key, now));
        }
        added
    }

    /// The next key, with the time since which it waited.
    fn start(&mut self) -> Option<(K, Duration)> {
        let (key, since) = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        Some((key, since))
    }

    fn finish(&mut self, key: &K) {
        self.running.remove(key);
        if let Some((key, since)) = self.again.remove_entry(key) {
            self.add(key, since);
        }
    }
}

/// Delay before the n-th retry in a row, before jitter.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::env::ManualClock;

    fn queue() -> (Queue<&'static str>, ManualClock) {
        let (env, clock) = Env::manual(Timestamp::UNIX_EPOCH, 1);
        (Queue::new(env), clock)
    }

    /// The next key if there is one now.
    fn ready(queue: &Queue<&'static str>) -> Option<&'static str> {
        use futures::FutureExt as _;
        queue.next().now_or_never().flatten()
    }

    #[tokio::test]
    async fn a_key_added_twice_runs_once() {
        let (queue, _clock) = queue();
        queue.add("a");
        queue.add("a");
        assert_eq!(ready(&queue), Some("a"));
        assert_eq!(ready(&queue), None);
    }

    #[tokio::test]
    async fn what_is_waiting_and_what_was_done_is_counted() {
        let (env, clock) = Env::manual(Timestamp::UNIX_EPOCH, 1);
        let figures = crate::Figures::default();
        let queue = Queue::counted(env, figures.of("x"));
        for key in ["a", "a", "b"] {
            queue.add(key);
        }
        assert_eq!(figures.seen()["x"], crate::figures::Seen { depth: 2, adds: 2, ..Default::default() });
        let cancel = CancellationToken::new();
        let work = queue.work(&cancel, 1, |key| {
            clock.advance(Duration::from_secs(1));
            if key == "b" {
                queue.retry(key);
                cancel.cancel();
            }
            std::future::ready(())
        });
        work.await;
        let seen = figures.seen()["x"];
        assert_eq!((seen.depth, seen.retries), (0, 1), "{seen:?}");
        assert!(seen.took.count >= 1 && seen.took.sum >= Duration::from_secs(1), "{seen:?}");
        // The second waited for as long as the first took.
        assert_eq!((seen.waited.count, seen.waited.sum), (2, Duration::from_secs(1)), "{seen:?}");
    }

    #[tokio::test]
    async fn a_key_whose_time_has_come_counts_as_added_and_as_waiting_from_then_on() {
        let (env, clock) = Env::manual(Timestamp::UNIX_EPOCH, 1);
        let figures = crate::Figures::default();
        let queue = Queue::counted(env, figures.of("x"));
        queue.add_after("a", Duration::from_secs(10));
        assert_eq!(figures.seen()["x"].adds, 0);
        clock.advance(Duration::from_secs(10));
        assert_eq!(ready(&queue), Some("a"));
        let seen = figures.seen()["x"];
        assert_eq!((seen.adds, seen.waited.count, seen.waited.sum), (1, 1, Duration::ZERO), "{seen:?}");
        queue.add("a");
        queue.add("a");
        clock.advance(Duration::from_secs(3));
        queue.done(&"a");
        assert_eq!(ready(&queue), Some("a"));
        let seen = figures.seen()["x"];
        assert_eq!((seen.adds, seen.waited.sum), (2, Duration::from_secs(3)), "it waited for its own run");
    }

    #[tokio::test]
    async fn a_key_added_while_it_runs_waits_for_the_run_to_end() {
        let (queue, _clock) = queue();
        queue.add("a");
        assert_eq!(ready(&queue), Some("a"));
        queue.add("a");
        assert_eq!(ready(&queue), None, "two runs of one key at a time");
        queue.done(&"a");
        assert_eq!(ready(&queue), Some("a"));
        queue.done(&"a");
        assert!(queue.is_idle());
    }

    #[tokio::test]
    async fn the_earliest_of_two_delays_wins() {
        let (queue, clock) = queue();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(60));
        clock.advance(Duration::from_secs(2));
        assert_eq!(ready(&queue), Some("a"));
        queue.done(&"a");
        clock.advance(Duration::from_secs(100));
        assert_eq!(ready(&queue), None, "one key, one run");
    }

    #[tokio::test]
    async fn a_delayed_key_that_is_added_runs_now_and_only_once() {
        let (queue, clock) = queue();
        queue.add_after("a", Duration::from_secs(10));
        queue.add("a");
        assert_eq!(ready(&queue), Some("a"));
        queue.done(&"a");
        clock.advance(Duration::from_secs(20));
        assert_eq!(ready(&queue), None);
    }

    #[tokio::test]
    async fn failures_back_off_further_each_time_until_forgotten() {
        let (queue, _clock) = queue();
        let delays: Vec<Duration> = (0..3).map(|_| queue.retry("a")).collect();
        assert!(delays.windows(2).all(|pair| pair[0] < pair[1]), "{delays:?}");
        queue.forget(&"a");
        assert!(queue.retry("a") <= RETRY_FIRST.mul_f64(1.2));
    }

    #[tokio::test]
    async fn a_retry_comes_not_before_what_was_asked_for_and_spread_after_it() {
        let (queue, _clock) = queue();
        let least = Duration::from_secs(1);
        let delays: BTreeSet<Duration> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
            .into_iter()
            .map(|key| queue.retry_after(key, least))
            .collect();
        assert!(delays.iter().all(|delay| *delay >= least), "{delays:?}");
        assert!(delays.len() > 1, "a crowd comes back in step: {delays:?}");
    }

    #[tokio::test]
    async fn a_delay_without_end_stops_nothing_else() {
        let (queue, clock) = queue();
        clock.advance(Duration::from_secs(1));
        queue.add_after("never", Duration::MAX);
        queue.add_after("soon", Duration::from_secs(1));
        let mut next = Box::pin(queue.next());
        assert!(futures::poll!(&mut next).is_pending());
        clock.advance(Duration::from_secs(1));
        assert_eq!(futures::poll!(&mut next), std::task::Poll::Ready(Some("soon")));
        assert_eq!(ready(&queue), None);
    }

    #[test]
    fn the_backoff_doubles_up_to_its_cap() {
        assert_eq!(backoff(1), RETRY_FIRST);
        assert_eq!(backoff(2), RETRY_FIRST * 2);
        assert_eq!(backoff(40), RETRY_MAX);
        assert_eq!(backoff(u32::MAX), RETRY_MAX);
    }

    #[tokio::test]
    async fn a_waiting_worker_is_woken_by_a_key_and_by_the_clock_and_by_closing() {
        let (queue, clock) = queue();
        let mut next = Box::pin(queue.next());
        assert!(futures::poll!(&mut next).is_pending());
        queue.add_after("late", Duration::from_secs(3));
        assert!(futures::poll!(&mut next).is_pending());
        clock.advance(Duration::from_secs(3));
        assert_eq!(futures::poll!(&mut next), std::task::Poll::Ready(Some("late")));
        let mut next = Box::pin(queue.next());
        assert!(futures::poll!(&mut next).is_pending());
        queue.close();
        assert_eq!(futures::poll!(&mut next), std::task::Poll::Ready(None));
    }

    #[tokio::test]
    async fn other_keys_run_while_one_does() {
        let (queue, _clock) = queue();
        queue.add("a");
        queue.add("b");
        assert_eq!(ready(&queue), Some("a"));
        assert_eq!(ready(&queue), Some("b"));
    }
}
