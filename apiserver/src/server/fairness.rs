//! How many requests are worked on at a time, and who is next when there are more.
//!
//! Every user has a queue of its own, and the queues take turns: a client that sends a thousand requests waits for
//! itself, not the others for it. (Kubernetes deals users out to a fixed number of queues, because it cannot know how
//! many there will be; here a user without a request takes no room, so each can have its own.) A seat is held until
//! the answer begins, and until a large one is read ([`super::answer`]): what streams is bounded by the limits of
//! connections and watches.
//!
//! Must never know: what requests mean.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use claw_schemas::ApiError;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use crate::{auth::ANONYMOUS, metrics::Fairness as Figures};

/// Requests at a time. One takes 0.1 ms in memory and a few on the disk, so this many keep every core and the disk
/// busy; each may hold a body of 3 MiB, which is 1.5 GiB, and what the few that are decoded at a time take as trees.
const SEATS: usize = 512;

/// Of these, for one user: a quarter, so that three that do their worst leave as much to all others.
const SEATS_A_USER: usize = SEATS / 4;

/// Of these, for all together who say nothing of themselves: what everybody may ask for takes no seat, so hardly anybody
/// comes here without credentials who will not be turned away.
const SEATS_OF_STRANGERS: usize = SEATS / 32;

/// Requests of one user that wait. More than this takes longer than a client should wait to be told.
const QUEUE_MAX: usize = 512;

/// How long a request waits: a quarter of the minute that clients give an answer. Kubernetes' rule.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// What a client is told to wait that is turned away.
const RETRY_AFTER_S: u32 = 1;

/// The seats, and who waits for one.
pub struct Fairness {
    limits: Limits,
    state: Mutex<State>,
    figures: Arc<Figures>,
}

#[derive(Clone, Copy)]
struct Limits {
    seats: usize,
    a_user: usize,
    strangers: usize,
    queue: usize,
}

impl Limits {
    /// The seats that a user may have.
    fn of(self, user: &str) -> usize {
        if user == ANONYMOUS { self.strangers } else { self.a_user }
    }
}

#[derive(Default)]
struct State {
    taken: usize,
    flows: HashMap<Arc<str>, Flow>,
    /// Users who wait, in the order of their turns.
    turns: VecDeque<Arc<str>>,
}

/// One user's requests.
#[derive(Default)]
struct Flow {
    taken: usize,
    waiting: VecDeque<oneshot::Sender<Seat>>,
}

/// The right to be worked on, until dropped.
pub struct Seat {
    fairness: Arc<Fairness>,
    user: Arc<str>,
    /// A seat that was offered in vain was never taken.
    taken: bool,
}

impl Fairness {
    /// With the usual limits.
    pub fn new(figures: Arc<Figures>) -> Arc<Self> {
        let (a_user, strangers) = (SEATS_A_USER, SEATS_OF_STRANGERS);
        Self::with(Limits { seats: SEATS, a_user, strangers, queue: QUEUE_MAX }, figures)
    }

    /// With one seat, and nobody who may wait long for it.
    #[cfg(test)]
    pub fn of_one() -> Arc<Self> {
        Self::with(Limits { seats: 1, a_user: 1, strangers: 1, queue: 10 }, Arc::default())
    }

    fn with(limits: Limits, figures: Arc<Figures>) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default(), figures })
    }

    /// Waits for a seat.
    ///
    /// # Errors
    /// `TooManyRequests` when too many of the user's requests wait already, or this one waited too long.
    pub async fn seat(self: &Arc<Self>, user: &str) -> Result<Seat, ApiError> {
        let busy = |why: &str| {
            Err(ApiError::too_many_requests(
                format!("the server works on other requests of \"{user}\" {why}; send fewer at a time"),
                RETRY_AFTER_S,
            ))
        };
        let turn = match self.ask(user) {
            Ask::Seated(seat) => return Ok(seat),
            Ask::Full => {
                self.figures.queue_full.inc();
                return busy("and as many wait as may");
            }
            Ask::Wait(turn) => turn,
        };
        match self.wait(turn).await {
            Some(seat) => Ok(seat),
            None => {
                self.figures.time_out.inc();
                busy("and had no time for this one")
            }
        }
    }

    async fn wait(&self, turn: oneshot::Receiver<Seat>) -> Option<Seat> {
        let _waiting = self.figures.waiting.enter();
        let since = std::time::Instant::now();
        let seat = timeout(WAIT_MAX, turn).await;
        self.figures.waited.observe_since(since);
        seat.ok()?.ok()
    }

    fn ask(self: &Arc<Self>, user: &str) -> Ask {
        let mut state = self.state.lock();
        let State { taken, flows, turns } = &mut *state;
        let user: Arc<str> = match flows.get_key_value(user) {
            Some((known, _)) => known.clone(),
            None => user.into(),
        };
        let flow = flows.entry(user.clone()).or_default();
        // Those who gave up do not count.
        flow.waiting.retain(|turn| !turn.is_closed());
        if *taken < self.limits.seats && flow.taken < self.limits.of(&user) && flow.waiting.is_empty() {
            *taken += 1;
            flow.taken += 1;
            self.figures.seated.add(1);
            return Ask::Seated(Seat { fairness: self.clone(), user, taken: true });
        }
        if flow.waiting.len() >= self.limits.queue {
            return Ask::Full;
        }
        let (turn, seated) = oneshot::channel();
        flow.waiting.push_back(turn);
        if !turns.contains(&user) {
            turns.push_back(user);
        }
        Ask::Wait(seated)
    }

    fn leave(self: &Arc<Self>, user: &Arc<str>) {
        let mut state = self.state.lock();
        state.taken -= 1;
        self.figures.seated.add(-1);
        if let Some(flow) = state.flows.get_mut(user) {
            flow.taken -= 1;
        }
        self.hand_out(&mut state);
        if state.flows.get(user).is_some_and(|flow| flow.taken == 0 && flow.waiting.is_empty()) {
            state.flows.remove(user);
        }
    }

    /// Gives free seats to those whose turn it is, one each, round and round, until all who are left have as many as
    /// they may.
    fn hand_out(self: &Arc<Self>, state: &mut State) {
        let mut without = 0;
        while state.taken < self.limits.seats && without < state.turns.len() {
            let Some(user) = state.turns.pop_front() else { return };
            let Some(flow) = state.flows.get_mut(&user) else { continue };
            let mut seated = false;
            while flow.taken < self.limits.of(&user) && !seated {
                let Some(turn) = flow.waiting.pop_front() else { break };
                seated = self.give(turn, &user);
                flow.taken += usize::from(seated);
            }
            state.taken += usize::from(seated);
            if seated {
                without = 0;
            }
            if !flow.waiting.is_empty() {
                without += usize::from(!seated);
                state.turns.push_back(user);
            } else if flow.taken == 0 {
                state.flows.remove(&user);
            }
        }
    }

    /// Whether the one whose turn it is still waits, and so has the seat now.
    fn give(self: &Arc<Self>, turn: oneshot::Sender<Seat>, user: &Arc<str>) -> bool {
        match turn.send(Seat { fairness: self.clone(), user: user.clone(), taken: true }) {
            Ok(()) => {
                self.figures.seated.add(1);
                true
            }
            Err(mut refused) => {
                // Giving it back would take the lock that is held here.
                refused.taken = false;
                false
            }
        }
    }
}

enum Ask {
    Seated(Seat),
    Wait(oneshot::Receiver<Seat>),
    Full,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.taken {
            self.fairness.leave(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::BoxFuture};

    use super::*;

    fn fairness(seats: usize, a_user: usize, queue: usize) -> Arc<Fairness> {
        Fairness::with(Limits { seats, a_user, strangers: 1, queue }, Arc::default())
    }

    type Waiting = BoxFuture<'static, Result<Seat, ApiError>>;

    /// Asks, and stays in the queue.
    fn waiting(fairness: &Arc<Fairness>, user: &'static str) -> Waiting {
        let fairness = fairness.clone();
        let mut seat = async move { fairness.seat(user).await }.boxed();
        assert!((&mut seat).now_or_never().is_none(), "{user} has to wait");
        seat
    }

    fn seated(waiting: &mut Waiting) -> Option<Seat> {
        waiting.now_or_never().map(Result::unwrap)
    }

    #[tokio::test]
    async fn all_strangers_together_have_fewer_seats_than_one_user() {
        let fairness = fairness(10, 5, 10);
        let first = fairness.seat(ANONYMOUS).await.unwrap();
        let mut second = waiting(&fairness, ANONYMOUS);
        let _user = [fairness.seat("a").await.unwrap(), fairness.seat("a").await.unwrap()];
        drop(first);
        let _second = seated(&mut second).expect("the seat that became free");
        drop(waiting(&fairness, ANONYMOUS));
    }

    #[tokio::test]
    async fn users_take_turns_however_many_requests_they_send() {
        let fairness = fairness(1, 1, 10);
        let first = fairness.seat("flood").await.unwrap();
        let mut flood = [waiting(&fairness, "flood"), waiting(&fairness, "flood")];
        let mut quiet = waiting(&fairness, "quiet");
        drop(first);
        let seat = seated(&mut flood[0]).unwrap();
        assert!(seated(&mut quiet).is_none());
        drop(seat);
        let seat = seated(&mut quiet).expect("the other's turn comes before the flood's next");
        drop(seat);
        assert!(seated(&mut flood[1]).is_some());
    }

    #[tokio::test]
    async fn one_user_cannot_have_all_seats() {
        let fairness = fairness(3, 2, 10);
        let _two = (fairness.seat("flood").await.unwrap(), fairness.seat("flood").await.unwrap());
        let mut third = waiting(&fairness, "flood");
        let _other = fairness.seat("quiet").await.unwrap();
        assert!(seated(&mut third).is_none());
    }

    #[tokio::test]
    async fn a_full_queue_turns_away_with_a_time_to_come_back() {
        let fairness = fairness(1, 1, 1);
        let _seat = fairness.seat("flood").await.unwrap();
        let queued = waiting(&fairness, "flood");
        let error = fairness.seat("flood").await.err().unwrap();
        assert_eq!((error.code, error.details.retry_after_seconds), (429, RETRY_AFTER_S));
        drop(queued);
        let _again = waiting(&fairness, "flood");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_turned_away_and_takes_no_seat() {
        let fairness = fairness(1, 1, 1);
        let seat = fairness.seat("flood").await.unwrap();
        assert_eq!(fairness.seat("flood").await.err().unwrap().code, 429);
        drop(seat);
        assert!(fairness.state.lock().flows.is_empty());
        fairness.seat("flood").await.unwrap();
        let state = fairness.state.lock();
        assert!(state.taken == 0 && state.flows.is_empty() && state.turns.is_empty());
    }

    #[tokio::test]
    async fn a_seat_that_nobody_takes_any_more_comes_back() {
        let fairness = fairness(1, 1, 10);
        let seat = fairness.seat("a").await.unwrap();
        let (gone, mut stays) = (waiting(&fairness, "b"), waiting(&fairness, "c"));
        drop(seat);
        drop(gone);
        assert!(seated(&mut stays).is_some());
    }

    #[tokio::test]
    async fn those_who_gave_up_before_their_turn_do_not_keep_the_seat_from_others() {
        let fairness = fairness(1, 1, 10);
        let seat = fairness.seat("a").await.unwrap();
        let gone = [waiting(&fairness, "b"), waiting(&fairness, "c"), waiting(&fairness, "d")];
        let mut stays = waiting(&fairness, "e");
        drop(gone);
        drop(seat);
        assert!(seated(&mut stays).is_some());
    }
}
