//! The agent's side of starters and shims.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixDatagram as StdDatagram, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicI32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixDatagram, UnixStream},
    sync::Mutex,
    task::spawn_blocking,
    time::timeout,
};

use super::{
    ExecJob, ExecReply, RunJob, RunReply, STARTER_ARGUMENT, ShimRequest, StarterRequest, TalkJob, TalkReply,
    console::receive_descriptors, files, short_path, starter::REQUEST_BYTES_MAX, sys,
};
use crate::Error;

/// How long a container may take to start. Far above the tens of milliseconds it takes, since a
/// machine under load may stall; beyond it the attempt counts as failed.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the starter of an agent that is gone may take to work off its last requests.
const EARLIER_STARTER_LIMIT: Duration = Duration::from_secs(30);

/// How often to look whether it has.
const EARLIER_STARTER_POLL: Duration = Duration::from_millis(5);

/// How long a shim may take to answer: it is idle but for log lines.
const SHIM_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer to a request to talk: libcontainer's chains of causes are a few KiB.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// What an exec may take on top of its own time-out: joining the container.
const EXEC_MARGIN: Duration = Duration::from_secs(10);

/// The agent's starter, started when first needed and again if it dies.
pub struct Starter {
    /// Held by the process for its life.
    lock: PathBuf,
    running: Mutex<Option<Running>>,
    /// Its process id, or 0: to be asked for while somebody sends.
    pid: AtomicI32,
}

struct Running {
    /// Whose other end takes whole messages and says when this one is gone.
    socket: UnixDatagram,
    process: Child,
}

impl Running {
    /// A starter that is behind makes the sender wait, and no thread.
    async fn send(&self, text: &[u8], reply: &StdStream) -> io::Result<()> {
        let descriptors = [reply.as_raw_fd()];
        let send = || {
            let control = [ControlMessage::ScmRights(&descriptors)];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(text)], &control, flags, None)
                .map(drop)?)
        };
        let sent = timeout(START_TIMEOUT, self.socket.async_io(Interest::WRITABLE, send)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn end(mut self) {
        let ended = spawn_blocking(move || {
            let _ = self.process.kill();
            let _ = self.process.wait();
        });
        let _ = ended.await;
    }
}

impl Starter {
    /// Nothing is started yet. `lock` is a file of its own for one state folder; it is made where it is missing.
    pub fn new(lock: PathBuf) -> Self {
        Self { lock, running: Mutex::new(None), pid: AtomicI32::new(0) }
    }

    /// Returns once no starter of an earlier agent lives; one that does not end by itself is killed.
    ///
    /// # Errors
    /// When the lock cannot be read.
    pub async fn outlive_earlier(&self) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + EARLIER_STARTER_LIMIT;
        loop {
            let holder =
                sys::lock_holder(&self.lock).map_err(Error::io("asking for the lock", &self.lock))?;
            match holder {
                Some(earlier) if Some(earlier) != self.pid() => {
                    if tokio::time::Instant::now() > deadline {
                        // It holds the lock, so the process is certainly a starter.
                        let _ = nix::sys::signal::kill(earlier, nix::sys::signal::Signal::SIGKILL);
                    }
                    tokio::time::sleep(EARLIER_STARTER_POLL).await;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Starts a container.
    ///
    /// # Errors
    /// [`Error::Shim`] when the container does not start; the reason is in the message. What holds no lock on its
    /// bundle by then never will.
    pub async fn run(&self, job: RunJob) -> Result<super::ShimRecord, Error> {
        let asked = Instant::now();
        let reply = self.ask(&StarterRequest::Run(job), START_TIMEOUT).await;
        if asked.elapsed() >= START_TIMEOUT {
            // It may only have been slow: what was given up must not come to life later.
            self.end().await;
        }
        match reply? {
            RunReply::Started(record) => Ok(record),
            RunReply::Failed(message) => Err(Error::Shim(message)),
        }
    }

    /// Runs a command in a container.
    ///
    /// # Errors
    /// When no answer comes; whatever the command does is an [`ExecReply`].
    pub async fn exec(&self, job: ExecJob) -> Result<ExecReply, Error> {
        let limit = Duration::from_millis(job.timeout_ms) + EXEC_MARGIN;
        self.ask(&StarterRequest::Exec(job), limit).await
    }

    /// Starts a program in a container, to talk to.
    ///
    /// # Errors
    /// [`Error::Shim`] when it does not start; the reason is in the message.
    pub async fn talk(&self, job: TalkJob) -> Result<Talking, Error> {
        let mut reply = self.request(&StarterRequest::Talk(job)).await?;
        timeout(START_TIMEOUT, started(&mut reply))
            .await
            .map_err(|_| Error::Shim(format!("no answer within {START_TIMEOUT:?}")))?
            .map(|ends| Talking { ends, reply })
    }

    /// The process, if it runs.
    pub fn pid(&self) -> Option<Pid> {
        let pid = self.pid.load(Ordering::Relaxed);
        (pid > 0).then(|| Pid::from_raw(pid))
    }

    /// Ends the starter; the next request starts another.
    async fn end(&self) {
        if let Some(starter) = self.running.lock().await.take() {
            self.pid.store(0, Ordering::Relaxed);
            starter.end().await;
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: &StarterRequest, limit: Duration) -> Result<T, Error> {
        let mut reply = self.request(request).await?;
        let mut answer = Vec::new();
        timeout(limit, reply.read_to_end(&mut answer))
            .await
            .map_err(|_| Error::Shim(format!("no answer within {limit:?}")))?
            .map_err(Error::io("reading", "a reply socket"))?;
        if answer.is_empty() {
            return Err(Error::Shim("the shim ended without an answer".to_owned()));
        }
        serde_json::from_slice(&answer).map_err(|source| Error::Record { path: "shim reply".into(), source })
    }

    /// Sends a request; where its answer will come.
    async fn request(&self, request: &StarterRequest) -> Result<UnixStream, Error> {
        let text = serde_json::to_vec(request)
            .map_err(|source| Error::Record { path: "starter request".into(), source })?;
        if text.len() > REQUEST_BYTES_MAX {
            return Err(Error::Shim(format!(
                "the command line is too long: {} bytes, at most {REQUEST_BYTES_MAX}",
                text.len()
            )));
        }
        let (ours, theirs) = StdStream::pair().map_err(Error::io("making", "a reply socket"))?;
        self.send(&text, &theirs).await?;
        ours.set_nonblocking(true).map_err(Error::io("making non-blocking", "a reply socket"))?;
        UnixStream::from_std(ours).map_err(Error::io("watching", "a reply socket"))
    }

    /// Sends to the starter; one that died, or reads no more, is replaced once.
    async fn send(&self, text: &[u8], reply: &StdStream) -> Result<(), Error> {
        let mut running = self.running.lock().await;
        for attempt in 0..2 {
            if running.is_none() {
                *running = Some(self.launch().await?);
            }
            // It stays where it is: whoever stops waiting for this must not take it along.
            let Some(starter) = running.as_ref() else { break };
            match starter.send(text, reply).await {
                Ok(()) => return Ok(()),
                Err(error) if attempt > 0 => {
                    return Err(Error::io("sending to", "the container starter")(error));
                }
                Err(_) => {
                    if let Some(dead) = running.take() {
                        dead.end().await;
                    }
                }
            }
        }
        Err(Error::Shim("the container starter does not stay alive".to_owned()))
    }

    async fn launch(&self) -> Result<Running, Error> {
        let lock = self.lock.clone();
        let launched = spawn_blocking(move || launch(&lock)).await;
        let (socket, process) = launched.map_err(|error| Error::Shim(error.to_string()))??;
        self.pid.store(i32::try_from(process.id()).unwrap_or(0), Ordering::Relaxed);
        let watched = Error::io("watching", "the container starter");
        let socket = StdDatagram::from(socket);
        socket
            .set_nonblocking(true)
            .and_then(|()| UnixDatagram::from_std(socket))
            .map_err(watched)
            .map(|socket| Running { socket, process })
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        if let Some(Running { socket, mut process }) = self.running.get_mut().take() {
            // It ends when its socket does.
            drop(socket);
            let _ = process.wait();
        }
    }
}

fn launch(lock: &Path) -> Result<(OwnedFd, Child), Error> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(lock)
        .map_err(Error::io("creating", lock))?;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(Error::system("making a socket for the container starter"))?;
    let sealed = sys::sealed_program();
    if sealed.is_none() {
        tracing::warn!(
            "this kernel cannot keep containers from writing to the agent's program; Linux 5.12 can"
        );
    }
    // It is executed before it is closed on exec.
    let program = match &sealed {
        Some(program) => format!("/proc/self/fd/{}", program.as_raw_fd()),
        None => "/proc/self/exe".to_owned(),
    };
    let mut command = Command::new(program);
    command.arg(STARTER_ARGUMENT).arg(lock).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::command_with_descriptor(&mut command, theirs);
    let process = command.spawn().map_err(Error::io("executing as container starter:", "/proc/self/exe"))?;
    Ok((ours, process))
}

/// A program that runs in a container. Dropping it hangs up: the program is told, and soon ended.
pub struct Talking {
    /// Its terminal; or the pipes that were asked for, in order.
    pub ends: Vec<OwnedFd>,
    reply: UnixStream,
}

impl Talking {
    /// Takes the ends, once.
    pub fn take_ends(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.ends)
    }

    /// Waits for its end: exit code, 128 + signal for a signal.
    ///
    /// # Errors
    /// When whoever watches over it is gone.
    pub async fn exit_code(&mut self) -> Result<i32, Error> {
        let mut rest = Vec::new();
        self.reply.read_to_end(&mut rest).await.map_err(Error::io("reading", "a reply socket"))?;
        match serde_json::from_slice(&rest) {
            Ok(TalkReply::Exited(code)) => Ok(code),
            _ => Err(Error::Shim("the program's exit code is lost".to_owned())),
        }
    }
}

/// The first answer to a request to talk, and what comes with it.
async fn started(reply: &mut UnixStream) -> Result<Vec<OwnedFd>, Error> {
    let mut buffer = vec![0; REPLY_BYTES_MAX];
    let (length, ends) = {
        let reply = &*reply;
        reply
            .async_io(Interest::READABLE, || Ok(receive_descriptors(reply, &mut buffer)?))
            .await
            .map_err(Error::io("reading", "a reply socket"))?
    };
    // Descriptors end a read, so what is there is this line; one without may come in parts.
    let mut line = buffer[..length].to_vec();
    while !line.ends_with(b"\n") {
        let mut more = [0; 256];
        let length = reply.read(&mut more).await.map_err(Error::io("reading", "a reply socket"))?;
        if length == 0 || line.len() > REPLY_BYTES_MAX {
            return Err(Error::Shim("the shim ended without an answer".to_owned()));
        }
        line.extend_from_slice(&more[..length]);
    }
    match serde_json::from_slice(&line) {
        Ok(TalkReply::Started) => Ok(ends),
        Ok(TalkReply::Failed(message)) => Err(Error::Shim(message)),
        Ok(TalkReply::Exited(_)) => Err(Error::Shim("the shim ended without a start".to_owned())),
        Err(source) => Err(Error::Record { path: "shim reply".into(), source }),
    }
}

/// Attaches to the first process of the container in `bundle`: frames of [`super::Frame`] follow, both ways.
///
/// # Errors
/// When the shim cannot be reached or takes nobody.
pub async fn attach(bundle: &Path, stdin: bool) -> Result<UnixStream, Error> {
    let mut stream = connect(bundle, &ShimRequest::Attach { stdin }).await?;
    let answer = timeout(SHIM_TIMEOUT, line(&mut stream))
        .await
        .map_err(|_| Error::Shim(format!("no answer within {SHIM_TIMEOUT:?}")))?
        .map_err(Error::io("reading from", bundle.join(files::SOCKET)))?;
    match answer.as_str() {
        "ok" => Ok(stream),
        other => Err(Error::Shim(other.to_owned())),
    }
}

/// Reads one line and not a byte more.
async fn line(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            byte => line.push(byte),
        }
    }
}

/// Sends a signal to the first process of the container in `bundle`. Success if it is over already.
///
/// # Errors
/// When the shim cannot be reached or the signal does not exist.
pub async fn signal(bundle: &Path, number: i32) -> Result<(), Error> {
    let mut stream = connect(bundle, &ShimRequest::Signal(number)).await?;
    let mut answer = String::new();
    timeout(SHIM_TIMEOUT, stream.read_to_string(&mut answer))
        .await
        .map_err(|_| Error::Shim(format!("no answer within {SHIM_TIMEOUT:?}")))?
        .map_err(Error::io("reading from", bundle.join(files::SOCKET)))?;
    match answer.trim() {
        "ok" => Ok(()),
        other => Err(Error::Shim(other.to_owned())),
    }
}

/// Returns once the shim has closed the connection: the container is over, or the shim was killed.
///
/// # Errors
/// When the shim cannot be reached, which also means that it is over or about to be.
pub async fn wait(bundle: &Path) -> Result<(), Error> {
    let mut stream = connect(bundle, &ShimRequest::Wait).await?;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    Ok(())
}

async fn connect(bundle: &Path, request: &ShimRequest) -> Result<UnixStream, Error> {
    let socket = bundle.join(files::SOCKET);
    let (_folder, path) = short_path(bundle, files::SOCKET)?;
    let connecting = async {
        let mut stream = UnixStream::connect(&path).await?;
        let line = serde_json::to_string(request)? + "\n";
        stream.write_all(line.as_bytes()).await?;
        Ok(stream)
    };
    timeout(SHIM_TIMEOUT, connecting)
        .await
        .map_err(|_| Error::Shim(format!("no answer within {SHIM_TIMEOUT:?}")))?
        .map_err(Error::io("connecting to", socket))
}
