//! The world outside: clock, randomness and task spawning, behind one handle.
//!
//! Controllers and the rest of this crate reach time, random numbers and `tokio::spawn` only through
//! [`Env`], so that a simulation or a test owns all three.
//!
//! Must never know: the API, or any controller.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

/// What an environment must offer.
pub trait Host: Send + Sync + 'static {
    /// Wall-clock time, for time stamps that people and other processes read.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never goes back. For delays and deadlines.
    fn uptime(&self) -> Duration;

    /// Completes after `duration` of [`Self::uptime`].
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Sixty-four random bits.
    fn random(&self) -> u64;
}

/// A handle to the clock, randomness and tasks. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    host: Arc<dyn Host>,
    tasks: TaskTracker,
}

impl Env {
    /// The machine's own clock (tokio's, so a paused runtime clock is obeyed) and randomness.
    pub fn real() -> Self {
        let (started, really) = (Instant::now(), std::time::Instant::now());
        Self::on(Arc::new(Machine { started, really, random: SplitMix::from_entropy() }))
    }

    /// A clock that moves only when told to, and repeatable randomness. For tests.
    pub fn manual(start: Timestamp, seed: u64) -> (Self, ManualClock) {
        let clock = ManualClock {
            inner: Arc::new(Manual {
                state: Mutex::new(ManualState { start, ..ManualState::default() }),
                random: SplitMix::new(seed),
            }),
        };
        (Self::on(clock.inner.clone()), clock)
    }

    /// Over any host, such as a simulator's.
    pub fn on(host: Arc<dyn Host>) -> Self {
        Self { host, tasks: TaskTracker::new() }
    }

    /// The same clock and randomness with tasks of its own, so that [`Self::join`] waits for these alone.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::on(Arc::clone(&self.host))
    }

    /// Wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.host.now()
    }

    /// Monotonic time since the environment began.
    pub fn uptime(&self) -> Duration {
        self.host.uptime()
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        self.host.sleep(duration).await;
    }

    /// Sixty-four random bits.
    pub fn random(&self) -> u64 {
        self.host.random()
    }

    /// `duration` shortened or lengthened by up to `percent` percent, so that crowds disperse.
    pub fn jitter(&self, duration: Duration, percent: u32) -> Duration {
        let span = u64::from(percent.min(100)) * 2 + 1;
        let scale = 100 - u64::from(percent.min(100)) + self.random() % span;
        let nanos = u128::from(scale) * duration.as_nanos() / 100;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Runs a task that [`Self::join`] waits for. The task must end by a cancellation token of its own.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until every spawned task has ended; no more may be spawned afterwards.
    pub async fn join(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

struct Machine {
    /// On tokio's clock, which a test may pause and move.
    started: Instant,
    /// The same moment on the machine's.
    really: std::time::Instant,
    random: SplitMix,
}

impl Host for Machine {
    fn now(&self) -> Timestamp {
        // The wall clock, which may be set at any time, and what a test has moved tokio's clock ahead.
        let moved = self.started.elapsed().saturating_sub(self.really.elapsed());
        Timestamp::now().saturating_add(to_signed(moved)).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn random(&self) -> u64 {
        self.random.next()
    }
}

fn to_signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

/// Moves the clock of [`Env::manual`].
#[derive(Clone)]
pub struct ManualClock {
    inner: Arc<Manual>,
}

struct Manual {
    state: Mutex<ManualState>,
    random: SplitMix,
}

#[derive(Default)]
struct ManualState {
    /// What the wall said when nothing had elapsed.
    start: Timestamp,
    elapsed: Duration,
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    count: u64,
}

impl ManualClock {
    /// Sets the clock on the wall, as anybody may at any time. Nothing passes.
    pub fn set(&self, wall: Timestamp) {
        let mut state = self.inner.state.lock();
        state.start = wall.saturating_sub(to_signed(state.elapsed)).unwrap_or(Timestamp::MIN);
    }

    /// Lets `duration` pass: everything that slept until then wakes.
    pub fn advance(&self, duration: Duration) {
        let woken = {
            let mut state = self.inner.state.lock();
            state.elapsed += duration;
            let after = (state.elapsed + Duration::from_nanos(1), 0);
            let later = state.sleepers.split_off(&after);
            std::mem::replace(&mut state.sleepers, later)
        };
        for sleeper in woken.into_values() {
            // A sleeper that was dropped has nobody to wake.
            let _ = sleeper.send(());
        }
    }
}

impl Host for Manual {
    fn now(&self) -> Timestamp {
        let state = self.state.lock();
        state.start.saturating_add(to_signed(state.elapsed)).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        self.state.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.count += 1;
            let key = (state.elapsed.saturating_add(duration), state.count);
            state.sleepers.insert(key, wake);
        }
        Box::pin(async move {
            // Woken, or the clock is gone; either way there is nothing left to wait for.
            let _ = woken.await;
        })
    }

    fn random(&self) -> u64 {
        self.random.next()
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, good enough for jitter and name suffixes.
struct SplitMix(AtomicU64);

impl SplitMix {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn from_entropy() -> Self {
        let mut seed = [0; 8];
        // Without entropy the uptime-independent constant still spreads retries apart within one process.
        if getrandom::fill(&mut seed).is_err() {
            seed = std::process::id().to_le_bytes().repeat(2).try_into().unwrap_or([1; 8]);
        }
        Self::new(u64::from_le_bytes(seed))
    }

    fn next(&self) -> u64 {
        let state =
            self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_sleeper_wakes_when_its_time_has_come_and_not_before() {
        let (env, clock) = Env::manual(Timestamp::UNIX_EPOCH, 1);
        let mut sleep = Box::pin(env.sleep(Duration::from_secs(5)));
        assert!(futures::poll!(&mut sleep).is_pending());
        clock.advance(Duration::from_secs(4));
        assert!(futures::poll!(&mut sleep).is_pending());
        clock.advance(Duration::from_secs(1));
        assert!(futures::poll!(&mut sleep).is_ready());
        assert_eq!(env.now().as_second(), 5);
        clock.set(Timestamp::from_second(1_000).unwrap());
        clock.advance(Duration::from_secs(1));
        assert_eq!((env.now().as_second(), env.uptime().as_secs()), (1_001, 6), "the wall may be set");
    }

    #[tokio::test(start_paused = true)]
    async fn the_machines_time_is_the_wall_clocks_and_what_a_test_adds_to_it() {
        let env = Env::real();
        let wall = Timestamp::now();
        let ahead = |now: Timestamp| now.duration_since(wall).as_secs();
        assert_eq!(ahead(env.now()), 0);
        tokio::time::advance(Duration::from_secs(3600)).await;
        // Paused from its first reading on, which came a moment before ours.
        assert!((3599..3660).contains(&ahead(env.now())), "{}", env.now());
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let (env, _clock) = Env::manual(Timestamp::UNIX_EPOCH, seed);
            [env.random(), env.random(), env.random()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let (env, _clock) = Env::manual(Timestamp::UNIX_EPOCH, 3);
        for _ in 0..1000 {
            let jittered = env.jitter(Duration::from_secs(10), 20);
            assert!((8..=12).contains(&jittered.as_secs()), "{jittered:?}");
        }
    }
}
