//! A clock for stories of hours, on a server that keeps its own time.

use std::{sync::Arc, time::Duration};

use claw_runtime::{Env, env::Host};
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;

/// A clock that is ahead of the real one and runs faster, for what takes minutes or hours.
pub struct Warp {
    /// How far ahead of the real time.
    pub ahead: Duration,
    /// How many times faster than the real time.
    pub speed: u32,
    real: Env,
}

impl Warp {
    /// An environment on such a clock.
    pub fn env(ahead: Duration, speed: u32) -> Env {
        Env::on(Arc::new(Self { ahead, speed, real: Env::real() }))
    }
}

impl Host for Warp {
    fn now(&self) -> Timestamp {
        let extra = self.real.uptime() * (self.speed - 1) + self.ahead;
        self.real.now() + extra
    }

    fn uptime(&self) -> Duration {
        self.real.uptime() * self.speed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (real, duration) = (self.real.clone(), duration / self.speed);
        Box::pin(async move { real.sleep(duration).await })
    }

    fn random(&self) -> u64 {
        self.real.random()
    }
}
