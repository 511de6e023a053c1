//! The process that holds sockets.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::setsid,
};

use super::{
    SOCKET,
    wire::{self, Message},
};
use crate::shim::sys;

/// How long an agent may be away. A restart takes a second; whoever waits for a name gives up after ten; and a client of the API
/// server without a limit of its own should not wait for longer than for a server that is restarting.
const AWAY_LIMIT: Duration = Duration::from_secs(30);

/// Holds what it is given, first by who started it, over its standard input.
pub(super) fn hold(folder: &Path, network: &str) -> ! {
    // A name of its own in `ps`; the kernel keeps 15 bytes.
    let _ = fs::write("/proc/self/comm", "claw-sockets");
    // The agent may be stopped from a terminal; what it leaves must not be.
    let _ = setsid();
    sys::reset_signals();
    let done = first_agent().and_then(|agent| Holder::begin(agent, folder, network, AWAY_LIMIT)).and_then(
        |holder| {
            sys::let_go_of_program();
            holder.run()
        },
    );
    std::process::exit(i32::from(done.is_err()))
}

/// Who started it, at the other end of its standard input.
fn first_agent() -> io::Result<OwnedFd> {
    let agent = io::stdin().as_fd().try_clone_to_owned()?;
    sys::detach_standard_streams()?;
    Ok(agent)
}

/// The fields are dropped in this order: an agent that sees the end of this may have the addresses at once.
pub(super) struct Holder {
    all: BTreeMap<String, OwnedFd>,
    listener: OwnedFd,
    /// To the agent, while there is one.
    agent: Option<OwnedFd>,
    network: String,
    away_limit: Duration,
}

/// What there is to do.
enum Next {
    Agent,
    Message,
    Nothing,
}

impl Holder {
    pub(super) fn begin(
        agent: OwnedFd,
        folder: &Path,
        network: &str,
        away_limit: Duration,
    ) -> io::Result<Self> {
        let listener = wire::serve(folder, SOCKET)?;
        let mut holder =
            Self { network: network.to_owned(), listener, agent: None, all: BTreeMap::new(), away_limit };
        holder.greet(agent);
        Ok(holder)
    }

    /// Until it is told to end, or the agent is away for too long.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut away_since = Instant::now();
        loop {
            let left = match self.agent {
                Some(_) => None,
                None => Some(self.away_limit.saturating_sub(away_since.elapsed())),
            };
            let next = self.wait(left)?;
            if self.agent.is_some() {
                away_since = Instant::now();
            }
            match next {
                Next::Agent => {
                    if let Ok(agent) = wire::accept(&self.listener) {
                        self.greet(agent);
                    }
                }
                Next::Message => match self.agent.as_ref().map(wire::receive) {
                    Some(Ok(Some((Message::End, _)))) => return Ok(()),
                    Some(Ok(Some((Message::Keep(name), Some(socket))))) => {
                        drop(self.all.insert(name, socket))
                    }
                    Some(Ok(Some((Message::Close(name), _)))) => drop(self.all.remove(&name)),
                    // Words of an agent that is newer than this.
                    Some(Ok(Some(_))) => {}
                    Some(Ok(None) | Err(_)) | None => self.agent = None,
                },
                Next::Nothing if self.agent.is_none() && away_since.elapsed() >= self.away_limit => {
                    return Ok(());
                }
                Next::Nothing => {}
            }
        }
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<Next> {
        let mut asked = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        asked.extend(self.agent.iter().map(|agent| PollFd::new(agent.as_fd(), PollFlags::POLLIN)));
        // Rounded up: to wake a moment before the time would be to wake again and again.
        let limit = limit.map(|limit| limit + Duration::from_millis(1));
        let limit =
            limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        match poll(&mut asked, limit) {
            Err(nix::errno::Errno::EINTR) => return Ok(Next::Nothing),
            done => done?,
        };
        let has_news =
            |one: Option<&PollFd<'_>>| one.and_then(|one| one.revents()).is_some_and(|news| !news.is_empty());
        Ok(match (has_news(asked.get(1)), has_news(asked.first())) {
            // What the agent that is going had to say, before another comes.
            (true, _) => Next::Message,
            (false, true) => Next::Agent,
            (false, false) => Next::Nothing,
        })
    }

    /// Tells an agent what there is. One that does not listen is none.
    fn greet(&mut self, agent: OwnedFd) {
        let told = wire::send(&agent, &Message::Network(self.network.clone()), None)
            .and_then(|()| {
                let mut all = self.all.iter();
                all.try_for_each(|(name, socket)| {
                    wire::send(&agent, &Message::Keep(name.clone()), Some(socket.as_fd()))
                })
            })
            .and_then(|()| wire::send(&agent, &Message::All, None));
        self.agent = told.is_ok().then_some(agent);
    }
}
