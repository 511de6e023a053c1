//! The controllers: one module each, all of them pure plans over `claw-runtime`.
//!
//! [`run`] starts every one of them over one client, which may be in process or remote; they cannot tell.
//!
//! Must never know: the API server, the store, other controllers' insides.

mod any_kind;
mod claim;
pub mod cluster_roles;
pub mod deployment;
pub mod device_check;
pub mod device_eviction;
pub mod device_policy;
pub mod disruption;
pub mod endpoints;
pub mod event_ttl;
pub mod garbage;
mod holdings;
pub mod kernel_job;
pub mod namespace;
pub mod node_lifecycle;
pub mod pod_gc;
mod pods;
mod pools;
pub mod replicaset;
pub mod resource_claims;
pub mod scheduler;
pub mod service_accounts;
mod sweeps;
mod taint_rules;
mod workers;

use std::sync::Arc;

use claw_client::Client;
use claw_runtime::{Env, Figures, Manager, Readiness, Runtime};
use claw_schemas::Registry;
use futures::future::{BoxFuture, FutureExt as _};
use tokio_util::sync::CancellationToken;

/// How to run the controllers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stand for election under this name, because other processes may run the same controllers. `None` when
    /// something else, such as the lock on a data folder, makes sure that there is only one.
    pub elect_as: Option<String>,
    /// The certificate by which pods are to know the API server, PEM. Without it they are not told.
    pub root_ca: Option<Arc<str>>,
    /// Where to count what the controllers do.
    pub figures: Figures,
    /// Where to tell which controllers have not begun, and why.
    pub readiness: Readiness,
}

/// The source of events, and the lease that decides which process runs the controllers.
const NAME: &str = "clawbernetes-controllers";
const LEASE_NAMESPACE: &str = "kube-system";

/// Runs all controllers until cancelled; every task they started has ended when this returns.
pub async fn run(client: Client, env: Env, options: Options, cancel: CancellationToken) {
    let mut manager = Manager::new(client, env, NAME).figures(options.figures).readiness(options.readiness);
    if let Some(identity) = &options.elect_as {
        manager = manager.elected(LEASE_NAMESPACE, identity);
    }
    let start = |runtime: &Runtime| {
        controllers(runtime, options.root_ca.clone()).into_iter().for_each(|one| runtime.env.spawn(one));
    };
    manager.run(cancel, start).await;
}

/// Every controller, each as the future that runs it.
fn controllers(runtime: &Runtime, root_ca: Option<Arc<str>>) -> Vec<BoxFuture<'static, ()>> {
    let registry = Arc::new(Registry::builtin());
    vec![
        runtime.drive(deployment::Deployments).boxed(),
        runtime.drive(replicaset::ReplicaSets).boxed(),
        runtime.drive(cluster_roles::ClusterRoles).boxed(),
        runtime.drive(device_check::DeviceChecks).boxed(),
        runtime.drive(device_policy::DevicePolicies::default()).boxed(),
        runtime.drive(device_policy::DevicesFit).boxed(),
        runtime.drive(device_eviction::Evictions).boxed(),
        runtime.drive(device_eviction::Rules).boxed(),
        runtime.drive(disruption::Budgets).boxed(),
        runtime.drive(endpoints::Endpoints).boxed(),
        runtime.drive(kernel_job::KernelJobs).boxed(),
        runtime.drive(kernel_job::Leftovers).boxed(),
        runtime.drive(node_lifecycle::NodeLifecycle).boxed(),
        runtime.drive(resource_claims::Templates).boxed(),
        runtime.drive(resource_claims::Claims).boxed(),
        scheduler::run(runtime.clone()).boxed(),
        garbage::run(runtime.clone(), Arc::clone(&registry)).boxed(),
        namespace::run(runtime.clone(), registry).boxed(),
        pod_gc::run(runtime.clone()).boxed(),
        event_ttl::run(runtime.clone()).boxed(),
        service_accounts::run(runtime.clone(), root_ca).boxed(),
    ]
}
