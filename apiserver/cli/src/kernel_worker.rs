//! The program in containers of the image of kernels: this one, as a worker that calculates.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use claw_compute::worker::Given;
use claw_graph::{known::VULKAN_DEVICES, order::VERB};
use claw_schemas::api::places;

/// Where a container's last words are read from, unless its pod says otherwise.
const LAST_WORDS: &str = "/dev/termination-log";

/// Works, if that is what this process was started for; `ORDER` and `REPORT` may follow the verb. Comes before everything that costs time or
/// memory, and before there are threads.
pub fn work_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != VERB {
        return None;
    }
    let mut place = |usual: &str| arguments.next().map_or_else(|| Path::new(usual).to_owned(), PathBuf::from);
    let (order, report) = (place(places::ORDER), place(LAST_WORDS));
    let given = std::env::var(VULKAN_DEVICES).ok().and_then(|uuids| Given::parse(&uuids));
    let kept = Some(Path::new(places::KEPT)).filter(|folder| folder.is_dir());
    Some(claw_compute::worker::main(&order, &report, given.as_ref(), kept))
}
