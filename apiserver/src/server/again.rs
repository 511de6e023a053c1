//! Futures that wake themselves are polled again on the spot.
//!
//! hyper runs a service inside the task of its connection, and the two wake each other as a body is handed over: the task
//! wakes itself, twice for every write. Tokio takes a task that wakes itself for one that yields to others. It calls a
//! second worker to take that task over, which cost a quiet server two futex calls a create, and a quarter of its CPU.
//!
//! Must never know: what it polls.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

/// How often a future is polled before others have their turn. A write takes three; a body that comes in pieces takes
/// one for each, and whoever sends without end must not keep a worker.
const ROUNDS_MAX: usize = 8;

/// Nobody polls, and nobody has woken the task since.
const ASLEEP: u8 = 0;
/// Being polled.
const POLLED: u8 = 1;
/// Woken, be it while it is polled.
const WOKEN: u8 = 2;

/// A future that is polled again at once when it has woken itself.
pub struct Again<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// What the future wakes in place of its task.
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl<F: Future> Again<F> {
    pub fn new(future: F) -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(ASLEEP), task: AtomicWaker::new() });
        Self { future: Box::pin(future), waker: bell.clone().into(), bell }
    }
}

impl<F: Future> Future for Again<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.bell.task.register(context.waker());
        for _ in 0..ROUNDS_MAX {
            this.bell.state.store(POLLED, Ordering::SeqCst);
            let polled = this.future.as_mut().poll(&mut Context::from_waker(&this.waker));
            if polled.is_ready() || this.bell.fall_asleep() {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Bell {
    /// Whether nobody has rung since the poll began. If so, the next ring wakes the task.
    fn fall_asleep(&self) -> bool {
        self.state.compare_exchange(POLLED, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize, thread};

    use futures::task::noop_waker;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A future that wakes itself in so many polls, and is ready in the next one.
    fn busy_for(polls: usize) -> Again<impl Future<Output = ()>> {
        let mut left = polls;
        Again::new(poll_fn(move |context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    #[test]
    fn a_future_that_wakes_itself_goes_on_without_its_task_being_woken() {
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let polled = Pin::new(&mut busy_for(2)).poll(&mut Context::from_waker(&waker));
        assert_eq!((polled, wakes.0.load(Ordering::SeqCst)), (Poll::Ready(()), 0));
    }

    #[test]
    fn others_have_their_turn_when_it_goes_on_for_long() {
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let mut future = busy_for(ROUNDS_MAX + 1);
        assert_eq!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)), Poll::Pending);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)), Poll::Ready(()));
    }

    #[test]
    fn a_wake_from_elsewhere_wakes_the_task_once() {
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let mut inner = noop_waker();
        let mut future = Again::new(poll_fn(|context| {
            inner.clone_from(context.waker());
            Poll::<()>::Pending
        }));
        assert_eq!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)), Poll::Pending);
        drop(future);
        thread::spawn(move || {
            inner.wake_by_ref();
            inner.wake_by_ref();
        })
        .join()
        .unwrap();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        const ROUNDS: usize = 20_000;
        let (ask, mut asked) = tokio::sync::mpsc::channel::<usize>(1);
        let (answer, mut answers) = tokio::sync::mpsc::channel::<usize>(1);
        let echo = tokio::spawn(Again::new(async move {
            while let Some(number) = asked.recv().await {
                answer.send(number).await.unwrap();
            }
        }));
        for number in 0..ROUNDS {
            ask.send(number).await.unwrap();
            assert_eq!(answers.recv().await, Some(number));
        }
        drop(ask);
        echo.await.unwrap();
    }
}
