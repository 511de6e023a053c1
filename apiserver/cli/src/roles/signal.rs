//! How a role is asked to stop.

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and SIGTERM.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Takes over both signals. Do it before anything is started that must be stopped in order.
    pub fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be listened to");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next of them.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Stops in order, unless asked once more: whoever repeats it does not want to wait. Nothing is lost by that,
    /// because a role can be killed at any moment.
    pub async fn in_order<T>(&mut self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::select! {
            done = work => Ok(done),
            () = self.asked() => bail!("asked twice to stop, so it stopped at once"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use nix::sys::signal::raise;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_twice_does_not_wait() {
        let mut stop = Stop::listen().unwrap();
        assert_eq!(stop.in_order(ready(7)).await.unwrap(), 7);
        raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        stop.asked().await;
        raise(nix::sys::signal::Signal::SIGINT).unwrap();
        let error = stop.in_order(pending::<()>()).await.unwrap_err();
        assert!(error.to_string().contains("asked twice"), "{error}");
    }
}
