//! Where inventories come from: a driver, or a recording of one.

use std::{fs, path::PathBuf};

use super::{Inventory, amd, beside::Beside, nvml::Driver, vulkan::AskVulkan};

/// What a source says.
pub type Answer = Result<Inventory, Unavailable>;

/// Somebody who knows the GPUs of this machine.
pub trait Source: Send + 'static {
    /// Gives `listener` all GPUs as they are now, again each time that it returns true. It is called on a thread that may
    /// wait: the first answer wakes GPUs up, and a driver that is stuck never gives one.
    fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool);

    /// All GPUs, once.
    ///
    /// # Errors
    /// When nobody answers.
    fn ask(&self) -> Answer {
        let mut said = None;
        self.tell(&mut |answer| {
            said = Some(answer);
            false
        });
        said.unwrap_or_else(|| Err(Unavailable::Silent("nothing was said".to_owned())))
    }
}

/// Whoever knows the GPUs of this machine. Vulkan only where it is said how it is asked.
pub fn machine(vulkan: Option<AskVulkan>) -> impl Source {
    Beside { source: Driver, sys: "/sys".into(), vulkan }
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Most machines: no NVIDIA driver at all, and nothing of others.
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

/// Replays what a driver once answered, from a file of `clawbernetes gpu record`; or a machine with GPUs of AMD, from a
/// folder with a copy of what its `/sys` said of them, and in `dev` such device files as its containers shall be given. Either
/// is read anew each time, so that editing it is how a replayed GPU breaks.
#[derive(Debug)]
pub struct Recording(pub PathBuf);

impl Source for Recording {
    fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool) {
        while listener(self.read()) {}
    }
}

impl Recording {
    fn read(&self) -> Answer {
        if self.0.is_dir() {
            return self.read_folder();
        }
        let read = || -> Result<Inventory, String> {
            let text = fs::read(&self.0).map_err(|error| error.to_string())?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        };
        let inventory = read().map_err(|why| Unavailable::Unreadable { path: self.0.clone(), why })?;
        Ok(Inventory { replayed: true, ..inventory })
    }

    fn read_folder(&self) -> Answer {
        let (sys, dev) = (self.0.join("sys"), self.0.join("dev"));
        if !sys.is_dir() {
            let why = "it has no folder sys".to_owned();
            return Err(Unavailable::Unreadable { path: self.0.clone(), why });
        }
        let dev = dev.is_dir().then_some(dev);
        Ok(Inventory { replayed: true, dev, ..amd::inventory(&sys) })
    }
}
