//! The SDK for controllers: programs that watch objects of a Kubernetes API and make the world follow them.
//!
//! You write a pure function, [`Controller::plan`]: from one object and a snapshot of the world to what to do next. The
//! runtime does all the rest: it watches, decides when to call you, carries out what you planned, and tries again.
//! It works against this project's API server and against any other that speaks the API of Kubernetes.
//!
//! # The smallest whole program
//!
//! Every namespace gets a ConfigMap that greets it. Take it away, and it comes back.
//!
//! ```no_run
//! use std::{env, sync::Arc};
//!
//! use claw_client::{Client, kubeconfig::Selected};
//! use claw_runtime::{Action, Controller, Env, Manager, Plan, Watches, World, owner};
//! use k8s_openapi::{
//!     api::core::v1::{ConfigMap, Namespace},
//!     apimachinery::pkg::apis::meta::v1::ObjectMeta,
//!     jiff::Timestamp,
//! };
//! use tokio_util::sync::CancellationToken;
//!
//! struct Greeter;
//!
//! impl Controller for Greeter {
//!     type Object = Namespace;
//!
//!     fn name(&self) -> &'static str {
//!         "greeter"
//!     }
//!
//!     fn watches(&self, watches: &mut Watches<Namespace>) {
//!         watches.owned::<ConfigMap>();
//!     }
//!
//!     fn plan(&self, namespace: &Arc<Namespace>, world: &World, _now: Timestamp) -> Plan {
//!         let name = namespace.metadata.name.as_deref().unwrap_or_default();
//!         let leaves = namespace.metadata.deletion_timestamp.is_some();
//!         if leaves || world.kind::<ConfigMap>().get(name, "greeting").is_some() {
//!             return Plan::nothing();
//!         }
//!         let metadata = ObjectMeta {
//!             name: Some("greeting".to_owned()),
//!             namespace: Some(name.to_owned()),
//!             owner_references: Some(vec![owner::reference_to(&**namespace)]),
//!             ..ObjectMeta::default()
//!         };
//!         let data = Some([("hello".to_owned(), name.to_owned())].into());
//!         Plan::nothing().then(Action::create(&ConfigMap { metadata, data, ..ConfigMap::default() }))
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let selected = Selected::find(|name| env::var_os(name), env::home_dir().as_deref())?;
//!     let client = Client::connect(&selected.endpoint, "greeter")?;
//!     let manager = Manager::new(client, Env::real(), "greeter").elected("default", "greeter-0");
//!     manager.run(CancellationToken::new(), |runtime| runtime.spawn(Greeter)).await;
//!     Ok(())
//! }
//! ```
//!
//! `examples/controller/` is a larger one, with a kind of its own, a status and tests; `docs/controllers.md` tells how to write
//! yours. A test needs no cluster: `claw-testing` is an API server in the test's own process.
//!
//! # What you can rely on
//!
//! * **Level, not edge.** A plan is told which object to look at, never what happened to it. It is called when anything that
//!   it declared in [`watches`](Controller::watches) changes, when it asked for that
//!   ([`Plan::again_after`]), after a failure, and every [`RESYNC`](driver::RESYNC) besides. Events may be merged, and
//!   none that matters is lost, so it makes no difference whether the program was away for an hour.
//! * **One run a key.** No two plans of one object run at a time, and triggers that come meanwhile become one run after
//!   it. Different objects run side by side.
//! * **Nothing before the caches are whole**: those of the kinds that a controller declared. One that cannot be listed holds
//!   up only those who need it, and [`Readiness`] tells whom and why. Every plan reads one picture of each kind ([`World`]), which does not
//!   change under its hands.
//! * **Read your writes.** An object is planned again only when the caches show what its last run wrote. So a plan that
//!   makes what is missing makes it once.
//! * **A clock that is set moves no deadline.** How long ago a time stamp was, [`World::age`] tells by what has passed since it
//!   was first asked; the wall is believed once.
//! * **Order.** Actions happen in the order of the plan, neighbours of one verb and kind side by side; the first failure
//!   ends the run. The status is written last, in one request, and only if it differs.
//! * **Nobody is overwritten.** Actions are guarded by the uid of the object they were planned for, updates and
//!   [`Action::merge_unchanged`] by its revision. Who loses a race is planned anew, silently.
//! * **Names.** [`Action::ensure`] adds what a plan does not look at, once; that somebody else has the name is a failure with a reason.
//! * **Backoff.** What fails comes back after 20 ms, doubled each time up to five minutes, spread by a fifth, for that object
//!   alone ([`queue`]). A plan that panics is such a failure. What it was is in [`World::last_failure`].
//! * **Fencing.** An elected program stops writing before another may begin ([`lease`]): no action starts once the
//!   lease is lost.
//! * **Adoption.** [`caches::ORPHANS`] finds objects that nobody controls; [`Action::confirm`] makes sure, before one is
//!   adopted, that the owner still lives.
//! * **A death is no event.** Actions are idempotent and nothing is kept in memory that the server does not know, so
//!   `kill -9` at any line costs nothing but the wait for the lease ([`lease::LEASE`]).
//!
//! Not promised: that every state an object went through is seen, or that plans of different objects see one moment.
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`Controller`], [`Watches`] | what you implement, and how you say what you look at |
//! | [`World`], [`caches`] | what a plan may know |
//! | [`Plan`], [`Action`] | what it wants done, as data that can be printed and compared |
//! | [`conditions`], [`owner`], [`finalizer`] | the conventions of Kubernetes, as functions |
//! | [`Manager`], [`lease`] | a process that runs controllers, and which of several does |
//! | [`Runtime`] | the same by hand, for controllers beyond one object a plan (a scheduler, say), which use [`queue`] |
//! | [`events`], [`figures`], [`readiness`] | Events for people, numbers for dashboards, and who has not begun |
//! | [`Env`] | clock, randomness and tasks, so that a test or a simulation can own them |
//!
//! Kinds of your own are `claw_client::custom`. Everything is logged by `tracing`.
//!
//! Must never know: any one controller.

#![warn(missing_docs)]

pub mod action;
mod ages;
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
pub mod manager;
pub mod owner;
pub mod queue;
pub mod readiness;

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
pub use manager::Manager;
pub use readiness::Readiness;

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
    /// Who has not begun. To share it, replace it likewise.
    pub readiness: Readiness,
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
        Self {
            client,
            env,
            caches,
            recorder,
            leadership,
            cancel,
            figures: Figures::default(),
            readiness: Readiness::default(),
        }
    }

    /// Runs one controller as a task of [`Self::env`], until cancelled.
    pub fn spawn(&self, controller: impl Controller) {
        self.env.spawn(self.drive(controller));
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
