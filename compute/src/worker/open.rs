//! The first device that works.

use super::guard::Guard;
use super::{failure, say};
use crate::device::{Device, names_of};
use claw_graph::order::{Backend, Failure, Reason};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What opening may take: drivers start, and compile their first kernels.
pub const OPEN_LIMIT: Duration = Duration::from_secs(120);

/// Opens the first device of the backends, in their order and that of their numbers.
pub fn first(backends: &[Backend], guard: &Guard) -> Result<Device, Failure> {
    let mut said = Vec::new();
    for name in backends.iter().flat_map(|backend| names_of(backend.name())) {
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
