//! The SDK for controllers: work queue, driver, caches, leases, finalizers, conditions, events, clock.
//!
//! A controller is a pure function, [`Controller::plan`]: from an object and a snapshot of the world to ordered,
//! idempotent actions, a status and a time to look again. [`Runtime::drive`] does everything else: it waits for
//! the caches, runs one plan a key at a time, executes, backs off, writes the status once, and never plans a key
//! on a cache that has not yet seen the key's own last writes.
//!
//! Must never know: any one controller.

#![warn(missing_docs)]

pub mod action;
pub mod caches;
pub mod conditions;
pub mod controller;
pub mod driver;
pub mod env;
pub mod events;
pub mod execute;
pub mod figures;
pub mod finalizer;
pub mod lease;
pub mod owner;
pub mod queue;

use std::future::Future;

use claw_client::Client;
use tokio_util::sync::CancellationToken;

pub use action::{Action, Outcome, Plan};
pub use caches::{Caches, World};
pub use claw_client::ObjectKey;
pub use controller::{Controller, Watches};
pub use env::Env;
pub use events::Recorder;
pub use figures::Figures;
pub use lease::Leadership;

/// What controllers of one process share: a client, a clock, one watch a kind, one event recorder.
#[derive(Clone)]
pub struct Runtime {
    /// The API.
    pub client: Client,
    /// Clock, randomness, tasks.
    pub env: Env,
    /// One cache a kind.
    pub caches: Caches,
    /// Writes Events.
    pub recorder: Recorder,
    /// The right to act.
    pub leadership: Leadership,
    /// Ends everything.
    pub cancel: CancellationToken,
    /// What the queues see. To share them, replace them before the first controller starts.
    pub figures: Figures,
}

impl Runtime {
    /// Starts what controllers share. `component` names the source of events. Everything ends when `cancel`
    /// does; `env.join()` then waits for the tasks behind it.
    pub fn start(
        client: Client,
        env: Env,
        component: &str,
        leadership: Leadership,
        cancel: CancellationToken,
    ) -> Self {
        let caches = Caches::new(client.clone(), env.clone(), cancel.clone());
        let recorder = Recorder::start(client.clone(), env.clone(), component, cancel.clone());
        Self { client, env, caches, recorder, leadership, cancel, figures: Figures::default() }
    }

    /// Runs one controller until cancelled.
    pub fn drive<C: Controller>(&self, controller: C) -> impl Future<Output = ()> + Send + 'static {
        driver::drive(self.clone(), controller)
    }

    /// Carries out actions that belong to no controller's plan, in order; stops at the first failure.
    ///
    /// # Errors
    /// The first failure, with the action it happened to.
    pub async fn execute(&self, actions: &[Action]) -> Result<(), execute::Failure> {
        let done = execute::all(&self.client, &self.leadership, actions, &|_, _| {}).await;
        done.failure.map_or(Ok(()), Err)
    }
}
