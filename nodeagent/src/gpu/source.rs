//! Where inventories come from: a driver, or a recording of one.

use std::{fs, path::PathBuf};

use super::Inventory;

/// Somebody who knows the GPUs of this machine.
pub trait Source: Send + Sync + 'static {
    /// All GPUs, as they are now. May take a second: the first question wakes GPUs up.
    ///
    /// # Errors
    /// When nobody answers.
    fn ask(&self) -> Result<Inventory, Unavailable>;
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Most machines: no NVIDIA driver at all.
    #[error("there is no NVIDIA driver: {0}")]
    Absent(String),
    /// There is a driver, and it does not answer.
    #[error("the NVIDIA driver does not answer: {0}")]
    Silent(String),
    /// A recording cannot be read.
    #[error("the recording {}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Replays what a driver once answered, from a file of `clawbernetes gpu record`. The file is read anew each time, so
/// that editing it is how a replayed GPU breaks.
#[derive(Debug)]
pub struct Recording(pub PathBuf);

impl Source for Recording {
    fn ask(&self) -> Result<Inventory, Unavailable> {
        let read = || -> Result<Inventory, String> {
            let text = fs::read(&self.0).map_err(|error| error.to_string())?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        };
        let inventory = read().map_err(|why| Unavailable::Unreadable { path: self.0.clone(), why })?;
        Ok(Inventory { replayed: true, ..inventory })
    }
}
