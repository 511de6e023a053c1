//! The first device that works.

use super::guard::Guard;
use super::{failure, say};
use crate::device::{Device, names_of};
use claw_graph::order::{Backend, Failure, Reason};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The devices of Vulkan that a process was given: it opens no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given(Vec<String>);

impl Given {
    /// As they stand in [`VULKAN_DEVICES`](claw_graph::known::VULKAN_DEVICES); `None` where none stands there.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = text.split(',').map(str::trim).filter(|uuid| !uuid.is_empty());
        let uuids: Vec<String> = named.map(str::to_owned).collect();
        (!uuids.is_empty()).then_some(Self(uuids))
    }

    /// How the first of them is opened.
    #[must_use]
    pub fn first(&self) -> String {
        let uuid = self.0.first().map(String::as_str).unwrap_or_default();
        format!("{}:{uuid}", Backend::Vulkan)
    }
}

/// What opening may take: drivers start, and compile their first kernels.
pub const OPEN_LIMIT: Duration = Duration::from_secs(120);

/// Opens the first device of the backends, in their order and that of their numbers; of Vulkan's only one that was given, where some were.
pub fn first(backends: &[Backend], given: Option<&Given>, guard: &Guard) -> Result<Device, Failure> {
    let mut said = Vec::new();
    for name in backends.iter().flat_map(|backend| names(*backend, given)) {
        match open(&name, guard) {
            Ok(device) => return Ok(device),
            Err(why) => {
                say(format_args!("{why}"));
                said.push(why);
            }
        }
    }
    Err(failure(Reason::NoDevice, said.join("; ")))
}

fn names(backend: Backend, given: Option<&Given>) -> Vec<String> {
    match given {
        Some(Given(uuids)) if backend == Backend::Vulkan => {
            uuids.iter().map(|uuid| format!("{backend}:{uuid}")).collect()
        }
        _ => names_of(backend),
    }
}

/// A driver that panics is one that does not work.
fn open(name: &str, guard: &Guard) -> Result<Device, String> {
    let try_it = || catch_unwind(AssertUnwindSafe(|| Device::open(name)));
    let what = format!("opening {name}");
    let (opened, panics) = guard.within(OPEN_LIMIT, &what, || guard.tolerant(try_it));
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) if panics.is_empty() => Err(error.to_string()),
        _ => Err(format!("{name}: {}", panics.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_vulkan_only_what_was_given_is_opened() {
        let given = Given::parse("VK-b, VK-a,").unwrap();
        assert_eq!(names(Backend::Vulkan, Some(&given)), ["vulkan:VK-b", "vulkan:VK-a"]);
        assert_eq!(given.first(), "vulkan:VK-b");
        assert_eq!(Given::parse(""), None);
        assert_eq!(names(Backend::Cpu, Some(&given)), ["cpu"], "others are given by their files");
        assert!(names(Backend::Vulkan, None)[0].starts_with("vulkan:"));
    }
}
