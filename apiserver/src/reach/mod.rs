//! Reaching into pods: `exec`, `attach` and `port-forward`, by WebSocket and by SPDY/3.1.
//!
//! | module | owns |
//! |---|---|
//! | `upgrade` | which protocol a client asks for, and the answer that begins it |
//! | `session` | a talk with a process, whatever the protocol |
//! | `presence` | when to look whether a client is still there |
//! | `websocket`, `terminal` | what clients of `exec` and `attach` say and hear, by WebSocket and by SPDY |
//! | `forward`, `channels` | connections to ports, by SPDY (also within a WebSocket) and by channels of a WebSocket |
//! | `spdy` | SPDY/3.1 itself |
//!
//! Whatever can be refused is refused before the connection is upgraded, as a `Status`. After that, what goes wrong is
//! told in the protocol's own way. Nodes know none of this: they are spoken to in frames of NodeLink.
//!
//! Must never know: who may do what, what pods are.

mod channels;
mod forward;
mod presence;
mod session;
mod spdy;
mod terminal;
mod upgrade;
mod websocket;

use std::{io, pin::pin};

use axum::body::Body;
use claw_schemas::ApiError;
use futures::StreamExt as _;
use http::{Response, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    forward::Ports,
    terminal::Parts as TerminalParts,
    upgrade::{Upgrade, Wire},
    websocket::{Hearing, Speaking},
};
use crate::service::Reached;

/// The open connections of all clients.
#[derive(Clone, Default)]
pub struct Sessions {
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Sessions {
    /// Connections run as tasks of `tasks`, and end when told to.
    pub fn new(tasks: TaskTracker, closing: CancellationToken) -> Self {
        Self { tasks, closing }
    }

    /// Answers a request to reach into a pod, and goes on with its connection. `open` is asked once it is sure that the
    /// client speaks something that we do.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub async fn answer(
        &self,
        parts: &Parts,
        is_forward: bool,
        open: impl Future<Output = Result<Reached, ApiError>>,
    ) -> Result<Response<Body>, ApiError> {
        let upgrade = Upgrade::asked(&parts.headers, is_forward)?;
        let on_upgrade = parts.extensions.get::<OnUpgrade>().cloned();
        let on_upgrade = on_upgrade.ok_or_else(upgrade::required)?;
        let reached = open.await?;
        let wire = upgrade.wire;
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            match on_upgrade.await {
                Ok(connection) => serve(connection, wire, reached, closing).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        });
        Ok(upgrade.response())
    }
}

async fn serve(connection: Upgraded, wire: Wire, reached: Reached, closing: CancellationToken) {
    let connection = TokioIo::new(connection);
    match (wire, reached) {
        (Wire::Spdy, Reached::Process { node, request, has_exit_code, _place }) => {
            let (reader, writer) = tokio::io::split(connection);
            let (drive, connection) = spdy::connect(reader, writer);
            let parts = TerminalParts {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr && !request.tty,
                tty: request.tty,
            };
            let talk = async {
                if let Some((hearing, speaking)) = terminal::open(connection, parts).await {
                    session::talk(hearing, speaking, node, has_exit_code, closing).await;
                }
            };
            while_connected(drive, talk).await;
        }
        (Wire::Channels | Wire::Tunnel, Reached::Process { node, has_exit_code, _place, .. }) => {
            let (sink, stream) = websocket::accept(connection).await.split();
            session::talk(Hearing(stream), Speaking(sink), node, has_exit_code, closing).await;
        }
        (wire, Reached::Ports { streams, node, request, numbers, _place }) => {
            let ports = Ports { streams, node, request };
            closing.run_until_cancelled(forward(connection, wire, ports, numbers)).await;
        }
    }
}

async fn forward(connection: TokioIo<Upgraded>, wire: Wire, ports: Ports, numbers: Vec<u16>) {
    match wire {
        Wire::Spdy => {
            let (reader, writer) = tokio::io::split(connection);
            let (drive, connection) = spdy::connect(reader, writer);
            while_connected(drive, forward::serve(connection, ports)).await;
        }
        Wire::Tunnel => {
            let (reader, writer) = websocket::tunnel(websocket::accept(connection).await);
            let (drive, connection) = spdy::connect(reader, writer);
            while_connected(drive, forward::serve(connection, ports)).await;
        }
        Wire::Channels => channels::serve(websocket::accept(connection).await, ports, numbers).await,
    }
}

/// Does the work on a connection. Once the client is gone there is nobody to do it for, though a node may still be waited for.
async fn while_connected(drive: impl Future<Output = io::Result<()>>, work: impl Future<Output = ()>) {
    let mut drive = pin!(drive);
    log(tokio::select! {
        ended = &mut drive => ended,
        () = work => drive.await,
    });
}

/// Clients go away all the time; it is worth a line only to somebody who looks for it.
fn log(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to a pod ended");
    }
}
