//! The controllers: one module each, all of them pure plans over `claw-runtime`.
//!
//! [`run`] starts every one of them over one client, which may be in process or remote; they cannot tell.
//!
//! Must never know: the API server, the store, other controllers' insides.

use std::future::Future;

use claw_client::Client;
use claw_runtime::{Env, Leadership, Runtime, lease::Election};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use tokio_util::sync::CancellationToken;

/// How to run the controllers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stand for election under this name, because other processes may run the same controllers. `None` when
    /// something else, such as the lock on a data folder, makes sure that there is only one.
    pub elect_as: Option<String>,
}

/// The lease that decides which process runs the controllers.
const LEASE_NAMESPACE: &str = "kube-system";
const LEASE_NAME: &str = "clawbernetes-controllers";

/// Runs all controllers until cancelled; every task they started has ended when this returns.
pub async fn run(client: Client, env: Env, options: Options, cancel: CancellationToken) {
    let work = |leadership: Leadership, term: CancellationToken| {
        let (client, env) = (client.clone(), env.fork());
        async move {
            let runtime = Runtime::start(client, env.clone(), "clawbernetes-controllers", leadership, term);
            join_all(controllers(&runtime)).await;
            env.join().await;
        }
    };
    match &options.elect_as {
        None => work(Leadership::unchallenged(), cancel).await,
        Some(identity) => {
            let election = Election::new(&client, env.clone(), LEASE_NAMESPACE, LEASE_NAME, identity);
            election.lead(cancel, work).await;
        }
    }
}

fn controllers(_runtime: &Runtime) -> Vec<BoxFuture<'static, ()>> {
    let all: Vec<BoxFuture<'static, ()>> = Vec::new();
    all
}

/// One more future for [`controllers`].
#[expect(dead_code, reason = "used from the next commit on")]
fn boxed(future: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
    future.boxed()
}
