//! GPUs of several makers in one machine: a source of NVIDIA's, and beside it what the kernel says of AMD's and what Vulkan knows of all
//! others.

use std::path::PathBuf;

use super::{
    Inventory, Source, Unavailable, amd,
    source::Answer,
    vulkan::{AskVulkan, Others},
};

/// A source, and what others know beside it.
#[derive(Debug)]
pub struct Beside<S> {
    /// Of NVIDIA's.
    pub source: S,
    /// `/sys`
    pub sys: PathBuf,
    /// How Vulkan is asked, where it is.
    pub vulkan: Option<AskVulkan>,
}

impl<S: Source> Source for Beside<S> {
    fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool) {
        let mut others = self.vulkan.clone().map(|ask| Others::new(ask, self.sys.clone()));
        let mut has_some = false;
        self.source.tell(&mut |answer| {
            let (mut machine, absent) = match answer {
                Ok(machine) => (machine, None),
                Err(error @ Unavailable::Absent(_)) => (Inventory::default(), Some(error)),
                Err(error) => return listener(Err(error)),
            };
            let of_nvidia = machine.gpus.len();
            let amd = amd::inventory(&self.sys);
            machine.gpus.extend(amd.gpus);
            machine.amdgpu_version = amd.amdgpu_version;
            if let Some(others) = &mut others {
                others.add_to(&mut machine);
            }
            has_some |= machine.gpus.len() > of_nvidia;
            listener(match absent {
                // One that had some and has none any more has lost them: that is an answer.
                Some(error) if !has_some => Err(error),
                _ => Ok(machine),
            })
        });
    }
}
