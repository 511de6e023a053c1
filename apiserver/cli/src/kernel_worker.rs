//! The program in containers of the image of kernels: this one, as a worker that calculates, or that looks at a device.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use claw_compute::worker::Given;
use claw_graph::{
    known::VULKAN_DEVICES,
    order::{Backend, VERB},
    qualification::{self, Level},
};
use claw_schemas::api::places;

use crate::roles::gpu::check;

/// Where a container's last words are read from, unless its pod says otherwise.
const LAST_WORDS: &str = "/dev/termination-log";

/// Works, if that is what this process was started for; `ORDER` and `REPORT` may follow the verb. Comes before everything that costs time or
/// memory, and before there are threads.
pub fn work_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let verb = arguments.next()?;
    if verb == qualification::VERB {
        return Some(look(arguments));
    }
    if verb != VERB {
        return None;
    }
    let mut place = |usual: &str| arguments.next().map_or_else(|| Path::new(usual).to_owned(), PathBuf::from);
    let (order, report) = (place(places::ORDER), place(LAST_WORDS));
    let kept = Some(Path::new(places::KEPT)).filter(|folder| folder.is_dir());
    Some(claw_compute::worker::main(&order, &report, given().as_ref(), kept))
}

/// The devices of Vulkan that this container was given by name.
fn given() -> Option<Given> {
    std::env::var(VULKAN_DEVICES).ok().and_then(|uuids| Given::parse(&uuids))
}

/// Looks at the one device that this container was given: `LEVEL BACKEND` follow the verb.
fn look(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let wanted = match words.as_slice() {
        [level, backend] => Level::of(level).zip(backend.parse::<Backend>().ok()),
        _ => None,
    };
    let Some((level, backend)) = wanted else {
        eprintln!("{} LEVEL BACKEND, e.g. {} Quick cuda", qualification::VERB, qualification::VERB);
        return ExitCode::from(2);
    };
    let by_name = given().filter(|_| backend == Backend::Vulkan);
    let device = by_name.map_or_else(|| check::given(backend), |given| given.first());
    match check::looking_at(&[&device], level) {
        Ok(process) => claw_compute::worker::look(process, &device, level, Path::new(LAST_WORDS)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
