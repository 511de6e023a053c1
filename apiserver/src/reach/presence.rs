//! Whether a client is still there. One that vanished says nothing: it is noticed by writing to it.
//!
//! Must never know: what is said.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

/// Between two checks of a client that is heard, and whose hanging up would be.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);

/// Between two checks of one whose words wait. Two show that it is gone: its machine answers the first with a reset.
const DOUBT_INTERVAL: Duration = Duration::from_secs(2);

/// Rings while what a client says waits to be taken. Nothing more is read from the client then, and that it has hung up comes
/// behind all it has said.
#[derive(Debug, Default)]
pub struct Doubt(Notify);

impl Doubt {
    /// Does something during which nothing is read.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            match timeout(DOUBT_INTERVAL, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.0.notify_one(),
            }
        }
    }
}

/// When to write to a client.
pub struct Checks<'a> {
    regular: Interval,
    doubt: &'a Doubt,
}

impl<'a> Checks<'a> {
    pub fn new(doubt: &'a Doubt) -> Self {
        let mut regular = interval(CHECK_INTERVAL);
        regular.set_missed_tick_behavior(MissedTickBehavior::Delay);
        regular.reset();
        Self { regular, doubt }
    }

    /// Returns when the next is due.
    pub async fn due(&mut self) {
        tokio::select! {
            _ = self.regular.tick() => {}
            () = self.doubt.0.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn checks_come_sooner_while_words_wait_and_no_more_than_before_once_they_are_taken() {
        let doubt = Doubt::default();
        let mut checks = Checks::new(&doubt);
        let start = Instant::now();
        doubt.during(async { tokio::task::yield_now().await }).await;
        checks.due().await;
        assert_eq!(start.elapsed(), CHECK_INTERVAL);
        let waits = doubt.during(std::future::pending::<()>());
        let checked = async {
            checks.due().await;
            checks.due().await;
        };
        tokio::select! {
            () = waits => {}
            () = checked => {}
        }
        assert_eq!(start.elapsed(), CHECK_INTERVAL + 2 * DOUBT_INTERVAL);
    }
}
