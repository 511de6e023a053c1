//! Starts one more program in a running container, with everything that its first process was given: user, groups,
//! capabilities, environment, folder, limits, system calls.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use nix::{
    sys::memfd::{MemFdCreateFlag, memfd_create},
    unistd::Pid,
};
use oci_spec::runtime::{Process, Spec};

use super::{Tenant, console::Console, create::chain, filter::Inside};
use crate::Error;

/// What a program reads and writes.
pub(super) enum Ends {
    /// Pipes or `/dev/null`: standard input, output and error.
    Streams(OwnedFd, OwnedFd, OwnedFd),
    /// A terminal of its own.
    Terminal,
}

/// Starts it; with a terminal, gives the outer end of that.
pub(super) fn start(tenant: &Tenant, ends: Ends) -> Result<(Pid, Option<File>), Error> {
    let folder = Folder::make(tenant)?;
    let is_terminal = matches!(ends, Ends::Terminal);
    let described = describe(&process(tenant, is_terminal)?)?;
    let builder = ContainerBuilder::new(tenant.id.clone(), SyscallType::default())
        .with_root_path(&folder.path)
        .map_err(|error| Error::Shim(chain(&error)))?
        .with_executor(Inside::of(&tenant.bundle)?);
    let (builder, console) = match ends {
        Ends::Streams(stdin, stdout, stderr) => {
            (builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr), None)
        }
        Ends::Terminal => {
            let console = Console::listen(&folder.path)?;
            (builder.with_console_socket(Some(console.path())), Some(console))
        }
    };
    let pid = builder
        .as_tenant()
        .with_process(Some(format!("/proc/self/fd/{}", described.as_raw_fd())))
        .with_detach(true)
        .build()
        .map_err(|error| Error::Shim(chain(&error)))?;
    Ok((pid, console.map(Console::receive).transpose()?))
}

/// What a container was made from.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn configuration(bundle: &Path) -> Result<Spec, Error> {
    let path = bundle.join("config.json");
    Spec::load(&path).map_err(|error| Error::Shim(format!("{}: {error}", path.display())))
}

/// What the first process was given, for another program.
fn process(tenant: &Tenant, is_terminal: bool) -> Result<Process, Error> {
    let spec = configuration(&tenant.bundle)?;
    let described = spec.process().clone();
    let mut process = described.ok_or_else(|| Error::Shim("the container has no process".to_owned()))?;
    process.set_terminal(Some(is_terminal)).set_args(Some(tenant.command.clone()));
    if is_terminal {
        add_term(&mut process);
    }
    Ok(process)
}

/// Programs ask what kind of terminal they have. As other runtimes, unless the container says it itself.
pub(crate) fn add_term(process: &mut Process) {
    let mut environment = process.env().clone().unwrap_or_default();
    if !environment.iter().any(|line| line.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
        process.set_env(Some(environment));
    }
}

/// A file without a name: libcontainer reads the process from a path.
fn describe(process: &Process) -> Result<File, Error> {
    let memory = memfd_create(c"process.json", MemFdCreateFlag::MFD_CLOEXEC)
        .map_err(Error::system("making a file in memory"))?;
    let mut file = File::from(memory);
    let text = serde_json::to_vec(process)
        .map_err(|source| Error::Record { path: "process.json".into(), source })?;
    file.write_all(&text).map_err(Error::io("writing", "a file in memory"))?;
    Ok(file)
}

/// A root folder for libcontainer with this one container: it leaves sockets there for every program it starts.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn make(tenant: &Tenant) -> Result<Self, Error> {
        let path = tenant.bundle.join(format!("exec-{}", std::process::id()));
        let folder = Self { path };
        let own = folder.path.join(&tenant.id);
        fs::create_dir_all(&own).map_err(Error::io("creating", &own))?;
        let state = Path::new("state.json");
        let from = tenant.state_root.join(&tenant.id).join(state);
        fs::copy(&from, own.join(state)).map_err(Error::io("copying", &from))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
