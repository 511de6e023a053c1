//! Verbs that reach into pods: `exec`, `attach`, `cp`, `port-forward`.
//!
//! | module | owns |
//! |---|---|
//! | `talk` | a conversation with a process, over the channels of one connection |
//! | `terminal` | the user's own terminal: its mode, its size, its keys |
//! | `exec`, `attach` | the verbs that put the two together |
//! | `copy` | files, as archives that `tar` in the container makes and takes |
//! | `forward` | ports, a connection of its own for each that comes |
//!
//! Must never know: what the server does with it.

pub mod attach;
pub mod copy;
pub mod exec;
pub mod forward;
mod talk;
mod terminal;

use claw_client::ResourceRef;
use serde_json::Value;

use super::session::{Session, text};

/// Part of a pod, which was read before.
fn part(session: &Session, pod: &Value, part: &str) -> anyhow::Result<ResourceRef> {
    let kind = session.kind("v1", "Pod")?;
    let collection = Session::collection(&kind, Some(text(pod, "/metadata/namespace")));
    Ok(collection.named(text(pod, "/metadata/name")).sub(part))
}
