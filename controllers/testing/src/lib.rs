//! The harness for those who write controllers: a whole API server in the test's own process, waiting for conditions, and
//! a clock that stands still.
//!
//! A plan is a pure function, so most tests of a controller need none of this: fill
//! [`Caches::offline`](claw_runtime::Caches::offline), call `plan`, compare the actions. What is left is whether the
//! controller and a server get along: whether what it writes is accepted, whether it is triggered by what it should be,
//! whether it comes to rest. That is tested here, against the real server and never a mock of it.
//!
//! # A whole test
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use claw_runtime::{Action, Controller, Plan, World};
//! use claw_testing::{TestCluster, object};
//! use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
//! use serde_json::json;
//!
//! /// Deletes every ConfigMap labelled `scratch` an hour after it was made.
//! struct Sweeper;
//!
//! impl Controller for Sweeper {
//!     type Object = ConfigMap;
//!
//!     fn name(&self) -> &'static str {
//!         "sweeper"
//!     }
//!
//!     fn plan(&self, map: &Arc<ConfigMap>, _world: &World, now: Timestamp) -> Plan {
//!         if !map.metadata.labels.iter().flatten().any(|(label, _)| label == "scratch") {
//!             return Plan::nothing();
//!         }
//!         let Some(made) = &map.metadata.creation_timestamp else { return Plan::nothing() };
//!         let age = Duration::try_from(now.duration_since(made.0)).unwrap_or_default();
//!         match Duration::from_secs(3600).saturating_sub(age) {
//!             Duration::ZERO => Plan::nothing().then(Action::delete(&**map)),
//!             left => Plan::nothing().again_after(left),
//!         }
//!     }
//! }
//!
//! // In a test of yours this line reads #[tokio::test(start_paused = true)].
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() {
//!     let mut cluster = TestCluster::start().await;
//!     cluster.run(Sweeper);
//!     let maps = cluster.client.namespaced::<ConfigMap>("default");
//!     for labels in [json!({"scratch": ""}), json!({})] {
//!         let metadata = json!({"generateName": "map-", "labels": labels});
//!         maps.create(&object(json!({"metadata": metadata}))).await.unwrap();
//!     }
//!     let named = |all: Vec<ConfigMap>| all.into_iter().filter_map(|map| map.metadata.name).collect::<Vec<_>>();
//!     let listed = || async { named(maps.list(Default::default()).await.unwrap().items) };
//!
//!     tokio::time::advance(Duration::from_secs(3000)).await;
//!     assert_eq!(listed().await.len(), 2, "it is too early");
//!
//!     tokio::time::advance(Duration::from_secs(600)).await;
//!     claw_testing::until_async("one map is left", claw_testing::SOON, || async {
//!         claw_testing::check(listed().await.len() == 1, "both are there")
//!     })
//!     .await;
//!     cluster.stop().await;
//! }
//! ```
//!
//! # What is here
//!
//! * [`TestCluster`] is the server, with its admission, validation, watches and quotas, on a store in memory. It starts
//!   in milliseconds, one a test. [`TestCluster::define`] makes it serve a kind of yours, [`TestCluster::run`] runs your
//!   controller, [`TestCluster::controllers`] the cluster's own (so that what an object owns goes with it, a Deployment
//!   makes pods, ...), and [`TestCluster::machine`] is a node whose pods come to what the test says.
//! * [`await_condition`] waits until an object is as it should be, over any client; [`TestCluster::until`] and
//!   [`TestCluster::until_gone`] are the same in short, [`until_async`] waits for anything else. A test that sleeps and
//!   hopes is slow on a quick machine and wrong on a slow one.
//! * The clock is tokio's, which [`Env::real`](claw_runtime::Env::real) obeys. In a test with `start_paused` it stands still
//!   while anybody has something to do, jumps ahead when everybody waits, and moves by
//!   [`tokio::time::advance`](https://docs.rs/tokio/latest/tokio/time/fn.advance.html): an hour costs nothing, and no
//!   assertion depends on how fast the machine is. (The server itself stamps objects with the real time.) It needs tokio's
//!   feature `test-util`, and a runtime of one thread, which is what `#[tokio::test]` makes.
//!   [`Env::manual`](claw_runtime::Env::manual) is a clock for one controller that moves only by hand, whatever waits.
//!
//! # What it does not do
//!
//! It grants every client everything: whether a role suffices is tested with a server that checks it (see
//! `e2e/tests/examples_controllers.rs`). It runs no containers.
//!
//! Must never know: any one controller's kinds.

#![warn(missing_docs)]

mod cluster;
mod machine;
pub mod wait;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use cluster::TestCluster;
pub use machine::{Report, Script, healthy};
pub use wait::{SOON, await_condition, check, until_async};

/// An object from JSON that the test wrote itself.
///
/// # Panics
/// When it is not of that type.
pub fn object<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("the test writes valid objects")
}
