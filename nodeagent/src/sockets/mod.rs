//! Sockets that outlive the agent that made them. Whoever calls while it restarts waits for the next one, and is not refused.
//!
//! A small process, the *holder of sockets*, has a copy of each and reads none of them. What comes meanwhile lies in the kernel, as far
//! as that keeps it; the next agent is handed the sockets and goes on. An agent that stays away is not restarting: after a while the
//! holder ends, the sockets with it, and who calls is refused at once, as by every program that does not run.
//!
//! Must never know: what the sockets are for.

mod holder;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::Child,
};

use parking_lot::Mutex;
use tokio::net::UnixDatagram;

use self::wire::Message;
use crate::Error;

/// First argument of a re-executed holder.
const HOLDER_ARGUMENT: &str = "__clawbernetes-socket-holder";

/// Where a holder is found by the next agent.
const SOCKET: &str = "sockets.sock";

/// Runs as holder, and does not return, if this process was executed as one. Call it first thing in `main`, before any
/// thread exists.
pub fn hold_if_asked() {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == HOLDER_ARGUMENT)
        && let (Some(folder), Some(network)) = (arguments.next(), arguments.next())
    {
        holder::hold(Path::new(&folder), &network.to_string_lossy())
    }
}

/// The sockets of the agent whose state is in a folder.
pub(crate) struct Sockets {
    folder: PathBuf,
    /// The network that they are in. Those of another lead nowhere any more.
    network: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    holder: Option<Holder>,
    /// By name: copies of what the holder has.
    all: BTreeMap<String, OwnedFd>,
    /// What this agent has asked for.
    used: BTreeSet<String>,
}

/// A holder that runs.
struct Holder {
    /// Closed at the other end when it ends.
    wire: OwnedFd,
    /// If this agent started it: who starts a process has to take leave of it.
    process: Option<Child>,
}

impl Sockets {
    /// None yet; `network` is a name that no other network has.
    pub fn new(folder: &Path, network: String) -> Self {
        Self { folder: folder.to_owned(), network, state: Mutex::default() }
    }

    /// The socket of this name: that of an earlier agent, or a new one, which is kept from now on. A copy, so dropping it closes
    /// nothing.
    pub fn get(&self, name: &str, make: impl FnOnce() -> Result<OwnedFd, Error>) -> Result<OwnedFd, Error> {
        let mut state = self.state.lock();
        self.find_holder(&mut state);
        if !state.all.contains_key(name) {
            let made = make()?;
            if let Some(holder) = &state.holder {
                holder.keep(name, &made);
            }
            state.all.insert(name.to_owned(), made);
        }
        state.used.insert(name.to_owned());
        state.all[name].try_clone().map_err(Error::io("duplicating", "a socket"))
    }

    /// Closes the socket of this name, once nobody has a copy of it.
    pub fn close(&self, name: &str) {
        let mut state = self.state.lock();
        state.used.remove(name);
        state.forget(name);
    }

    /// Closes what an earlier agent had and this one has not asked for.
    pub fn close_unused(&self) {
        let mut state = self.state.lock();
        let unused: Vec<_> = state.all.keys().filter(|name| !state.used.contains(*name)).cloned().collect();
        unused.iter().for_each(|name| state.forget(name));
    }

    /// Closes all of them, and ends the holder.
    pub fn close_all(&self) {
        let mut state = self.state.lock();
        self.find_holder_that_runs(&mut state);
        if let Some(holder) = state.holder.take() {
            holder.end();
        }
        *state = State::default();
    }

    /// Waits until the holder is gone, and has another take its place. For ever, where there is none to be had.
    pub async fn tend(&self) {
        let wire = self.state.lock().holder.as_ref().and_then(|holder| holder.wire.try_clone().ok());
        let Some(wire) = wire else { return std::future::pending().await };
        // It says nothing more, so what can be read is its end.
        if let Ok(wire) = UnixDatagram::from_std(wire.into()) {
            let _ = wire.readable().await;
        }
        let mut state = self.state.lock();
        if let Some(holder) = state.holder.take() {
            holder.end();
        }
        self.find_holder(&mut state);
    }

    /// Sees to it that there is a holder and that it has everything. Says so where it cannot be.
    fn find_holder(&self, state: &mut State) {
        self.find_holder_that_runs(state);
        if state.holder.is_some() {
            return;
        }
        match start(&self.folder, &self.network).and_then(|holder| holder.join(&self.network, state)) {
            Ok(()) => {}
            Err(error) => tracing::warn!(
                error = %error.full(),
                "names and the API server are out of pods' reach whenever this agent restarts"
            ),
        }
    }

    /// Finds the holder of an earlier agent.
    fn find_holder_that_runs(&self, state: &mut State) {
        if state.holder.is_some() {
            return;
        }
        let Ok(wire) = wire::connect(&self.folder, SOCKET) else { return };
        if let Err(error) = (Holder { wire, process: None }).join(&self.network, state) {
            tracing::debug!(error = %error.full(), "the holder of sockets that was here is of no use");
        }
    }
}

impl State {
    fn forget(&mut self, name: &str) {
        if self.all.remove(name).is_some()
            && let Some(holder) = &self.holder
        {
            // One that is gone holds nothing.
            let _ = wire::send(&holder.wire, &Message::Close(name.to_owned()), None);
        }
    }
}

impl Holder {
    /// Takes over what it has, gives it what it has not, and makes it the holder. One that cannot be it is ended.
    fn join(self, network: &str, state: &mut State) -> Result<(), Error> {
        let theirs = match self.hear(network) {
            Ok(theirs) => theirs,
            Err(error) => {
                self.end();
                return Err(error);
            }
        };
        for (name, socket) in &state.all {
            if !theirs.contains_key(name) {
                self.keep(name, socket);
            }
        }
        for (name, socket) in theirs {
            state.all.entry(name).or_insert(socket);
        }
        state.holder = Some(self);
        Ok(())
    }

    /// All that it has, if that is of this network.
    fn hear(&self, network: &str) -> Result<BTreeMap<String, OwnedFd>, Error> {
        let talking = || Error::io("talking with", "the holder of sockets");
        let mut theirs = BTreeMap::new();
        loop {
            match wire::receive(&self.wire).map_err(talking())? {
                Some((Message::Network(its), _)) if its == network => {}
                Some((Message::Keep(name), Some(socket))) => drop(theirs.insert(name, socket)),
                Some((Message::All, _)) => return Ok(theirs),
                other => {
                    let said = other.map(|(message, _)| message);
                    return Err(Error::Network(format!("the holder of sockets said {said:?}")));
                }
            }
        }
    }

    fn keep(&self, name: &str, socket: &OwnedFd) {
        if let Err(error) = wire::send(&self.wire, &Message::Keep(name.to_owned()), Some(socket.as_fd())) {
            tracing::warn!(%error, name, "a socket will not outlive this agent");
        }
    }

    /// Returns when it is gone, with its sockets.
    fn end(mut self) {
        let _ = wire::send(&self.wire, &Message::End, None);
        while let Ok(Some(_)) = wire::receive(&self.wire) {}
        if let Some(process) = &mut self.process {
            // Whether or not it has understood.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[cfg(test)]
use tests::start;

#[cfg(not(test))]
fn start(folder: &Path, network: &str) -> Result<Holder, Error> {
    use std::{
        os::unix::process::CommandExt as _,
        process::{Command, Stdio},
    };

    let (wire, theirs) = wire::pair().map_err(Error::io("making", "a pair of sockets"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("clawbernetes").arg(HOLDER_ARGUMENT).arg(folder).arg(network).current_dir("/").env_clear();
    command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
    let process =
        command.spawn().map_err(Error::io("starting the holder of sockets from", "/proc/self/exe"))?;
    Ok(Holder { wire, process: Some(process) })
}
