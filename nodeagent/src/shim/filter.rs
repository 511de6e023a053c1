//! The filter of system calls, and the last step inside a container, which loads it.
//!
//! libcontainer would compile a filter at every start (20 ms), compares masked arguments the wrong way round, and leaves out the
//! programs of `exec`. So it is told of none: this is where first processes and all others get the same one, ready made.
//!
//! Loading one takes CAP_SYS_ADMIN, and by the last step the container's own capabilities are all that is left. So a process is
//! lent what it lacks for that, and gives it back from its bounding set before it loads the filter. The program then starts
//! without: what a program holds comes from the bounding set (root) or from nothing (others).

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError, default::get_executor};
use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder, Spec};
use serde::{Deserialize, Serialize};

use super::{files, sys};
use crate::{Error, runtime::records};

/// What it takes to give back from the bounding set, and to load a filter; by name and number.
const NEEDED: [(Capability, u8); 2] = [(Capability::Setpcap, 8), (Capability::SysAdmin, 21)];

/// A filter, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Classic BPF of this machine, in base64.
    program: String,
    /// As the kernel numbers them.
    flags: u32,
    /// Capabilities, by number, that the container does not have.
    lent: Vec<u8>,
}

impl Filter {
    /// Of a program.
    pub(crate) fn new(program: &[u8], flags: u32) -> Self {
        Self { program: STANDARD.encode(program), flags, lent: Vec::new() }
    }

    /// Has the processes of a container hold what they need to load this.
    pub(crate) fn lend(&mut self, spec: &mut Spec) {
        let Some(mut process) = spec.process().clone() else { return };
        let Some(own) = process.capabilities().clone() else { return };
        let mut bounding = own.bounding().clone().unwrap_or_default();
        self.lent =
            NEEDED.iter().filter(|(name, _)| bounding.insert(*name)).map(|(_, number)| *number).collect();
        let with_needed = |own: &Option<std::collections::HashSet<Capability>>| {
            let mut all = own.clone().unwrap_or_default();
            all.extend(NEEDED.map(|(name, _)| name));
            all
        };
        let widened = LinuxCapabilitiesBuilder::default()
            .bounding(bounding)
            .effective(with_needed(own.effective()))
            .permitted(with_needed(own.permitted()))
            .inheritable(own.inheritable().clone().unwrap_or_default())
            .ambient(own.ambient().clone().unwrap_or_default())
            .build();
        process.set_capabilities(widened.ok());
        spec.set_process(Some(process));
    }

    /// For this process and all that come of it.
    fn load(&self) -> Result<(), String> {
        let program = STANDARD.decode(&self.program).map_err(|error| error.to_string())?;
        for capability in &self.lent {
            sys::drop_from_bounding_set(*capability)
                .map_err(|error| format!("giving back capability {capability}: {error}"))?;
        }
        sys::filter_system_calls(&program, self.flags)
            .map_err(|error| format!("filtering system calls: {error}"))
    }
}

/// The last step inside a container.
#[derive(Clone)]
pub(super) struct Inside {
    filter: Option<Filter>,
}

impl Inside {
    /// As the bundle of the container says.
    pub fn of(bundle: &Path) -> Result<Self, Error> {
        records::read(&bundle.join(files::FILTER)).map(|filter| Self { filter })
    }
}

impl Executor for Inside {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        if let Some(filter) = &self.filter {
            filter.load().map_err(ExecutorError::Other)?;
        }
        get_executor().exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        get_executor().validate(spec)
    }
}
