//! Nodes of ordinary users: namespaces in which the agent is root, and which outlive it.
//!
//! An agent that is not root goes into namespaces of its own before it does anything else. In that of users it is root, and has the
//! user's subordinate ids; what it mounts stays in that of mounts. A small process, the *holder*, has made them and does nothing but
//! keep them. Whoever comes next finds it by the lock that it holds and goes into the same, so that pods are as they were. The
//! machine's network remains the agent's: it dials, pulls and listens like any program of the user. Pods are on a network of the
//! agent's own (`runtime::network`).
//!
//! Must never know: pods, the API, tokio.

mod holder;
mod ids;

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::{Pid, setgroups},
};

pub use self::ids::Ids;
use crate::{Error, shim::sys};

/// First argument of a re-executed holder.
const HOLDER_ARGUMENT: &str = "__clawbernetes-namespace-holder";

/// Held by the holder for its life, from when its namespaces are whole.
const LOCK: &str = "holder.lock";

/// Runs as holder, and does not return, if this process was executed as one. Call it first thing in `main`, before any
/// thread exists.
pub fn hold_if_asked() {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == HOLDER_ARGUMENT) {
        holder::hold(arguments.next().as_deref().map(Path::new))
    }
}

/// Whether root is not root of the machine here, but an ordinary user's.
pub fn is_inside() -> bool {
    !Ids::of_users().is_all()
}

/// Goes into the namespaces of the agent whose state is in `folder`, which are made if they are not there. Call it before any
/// thread exists. Afterwards this process is root among the ids that the user has.
///
/// # Errors
/// When this machine lets nobody but root have namespaces; the message says what is in the way.
pub fn enter(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io("creating", folder))?;
    // Logs, secrets and sockets are for this user alone.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        .map_err(Error::io("setting the mode of", folder))?;
    let lock = folder.join(LOCK);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock)
        .map_err(Error::io("creating", &lock))?;
    let holder = match living(&lock)? {
        Some(holder) => holder,
        None => start(&lock)?,
    };
    join(holder)
}

/// Goes into namespaces that end with this process, and in which there are the same users.
///
/// # Errors
/// As [`enter`].
pub fn enter_alone() -> Result<(), Error> {
    let mut child = command(None).spawn().map_err(starting())?;
    let (pid, stdin) = guide(&mut child)?;
    join(pid)?;
    // Its other end is told when this process is gone.
    std::mem::forget(stdin);
    Ok(())
}

/// Ends the holder, which nobody needs any more. The namespaces go with the last process that is in them.
pub(crate) fn leave(folder: &Path) -> Result<(), Error> {
    if let Some(holder) = living(&folder.join(LOCK))? {
        // It holds the lock, so the process is certainly the holder.
        let _ = kill(holder, Signal::SIGKILL);
    }
    Ok(())
}

fn living(lock: &Path) -> Result<Option<Pid>, Error> {
    sys::lock_holder(lock).map_err(Error::io("asking for the lock", lock))
}

/// Has a holder make namespaces, gives it the user's ids, and returns once all is there.
fn start(lock: &Path) -> Result<Pid, Error> {
    let mut child = command(Some(lock)).spawn().map_err(starting())?;
    match guide(&mut child) {
        Ok((pid, _)) => Ok(pid),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            // Another agent may have been quicker.
            living(lock)?.ok_or(error)
        }
    }
}

fn starting() -> impl FnOnce(io::Error) -> Error {
    Error::io("starting the holder of namespaces from", "/proc/self/exe")
}

fn command(lock: Option<&Path>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("clawbernetes").arg(HOLDER_ARGUMENT).args(lock);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Gives a holder what it asks for, until it is ready. With its standard input, which it reads no more.
fn guide(child: &mut Child) -> Result<(Pid, Option<ChildStdin>), Error> {
    let talking = Error::io("talking with", "the holder of namespaces");
    let pid = i32::try_from(child.id()).map(Pid::from_raw).unwrap_or(Pid::this());
    let mut said = BufReader::new(child.stdout.take().ok_or_else(|| Error::Shim("no pipe".to_owned()))?);
    expect(&mut said, holder::Said::Apart)?;
    ids::give(pid)?;
    let mut stdin = child.stdin.take();
    stdin.iter_mut().try_for_each(|stdin| stdin.write_all(b"\n")).map_err(talking)?;
    expect(&mut said, holder::Said::Ready)?;
    Ok((pid, stdin))
}

fn expect(said: &mut BufReader<ChildStdout>, what: holder::Said) -> Result<(), Error> {
    let mut line = String::new();
    said.read_line(&mut line).map_err(Error::io("reading from", "the holder of namespaces"))?;
    match line.trim() {
        line if line == what.word() => Ok(()),
        "" => Err(Error::Unsupported("the holder of the namespaces ended before they were made".to_owned())),
        trouble => Err(Error::Unsupported(trouble.to_owned())),
    }
}

/// Becomes root of the holder's namespaces. The working folder stays.
fn join(holder: Pid) -> Result<(), Error> {
    let open = |name: &str| {
        let path = format!("/proc/{holder}/ns/{name}");
        File::open(&path).map_err(Error::io("opening", path))
    };
    let (users, mounts) = (open("user")?, open("mnt")?);
    let folder = env::current_dir();
    setns(users, CloneFlags::CLONE_NEWUSER).map_err(Error::system("joining a namespace of users"))?;
    setns(mounts, CloneFlags::CLONE_NEWNS).map_err(Error::system("joining a namespace of mounts"))?;
    if let Ok(folder) = folder {
        env::set_current_dir(&folder).map_err(Error::io("going back to", &folder))?;
    }
    // Containers would have the user's other groups, too. Where there are no subordinate ids the kernel lets nobody drop them.
    match setgroups(&[]) {
        Err(nix::errno::Errno::EPERM) | Ok(()) => Ok(()),
        Err(errno) => {
            Err(Error::System { doing: "leaving the user's other groups", source: io::Error::from(errno) })
        }
    }
}
