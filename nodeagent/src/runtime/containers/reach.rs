//! Reaching into pods: programs that somebody talks to, the container's own process, ports.

use std::{fs::File, io, path::Path, time::Duration};

use bytes::Bytes;
use k8s_openapi::api::core::v1::Container;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, unix::OwnedWriteHalf},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Containers, blocking, end::End};
use crate::{
    Error,
    runtime::{
        Heard, InstanceKey, Said, Talk, TalkWish,
        network::namespace::{self, is_pinned},
    },
    shim::{self, Frame, FrameKind, Stdin, TalkJob, client::Talking},
};

/// What is read at a time: half of what a pipe holds, so that its writer goes on meanwhile.
const READ_BYTES: usize = 32 * 1024;

/// What a pipe holds at most: after a program's exit, what is beyond that is not its own.
const PIPE_BYTES: usize = 64 * 1024;

/// After a program's exit, for its terminal to say that it is closed. It does at once, unless a child of the program
/// has taken it over.
const TERMINAL_LIMIT: Duration = Duration::from_secs(2);

/// How long a port may take to accept: connections within a machine take microseconds.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// What the pod says about the input of a container.
pub(super) fn stdin(container: &Container) -> Stdin {
    match (container.stdin == Some(true), container.stdin_once == Some(true)) {
        (false, _) => Stdin::Null,
        (true, false) => Stdin::Open,
        (true, true) => Stdin::Once,
    }
}

impl Containers {
    pub(super) async fn talk_to(
        &self,
        key: &InstanceKey,
        wish: &TalkWish,
        talk: Talk,
    ) -> Result<Option<i32>, Error> {
        if wish.command.is_empty() {
            return self.attach(key, wish, talk).await.map(|()| None);
        }
        let TalkWish { stdin, stdout, stderr, tty, .. } = *wish;
        self.expect_moves();
        let job = TalkJob { tenant: self.tenant(key, &wish.command)?, stdin, stdout, stderr, tty };
        let mut talking = self.starter.talk(job).await?;
        let Ends { mut input, stdout, stderr } = Ends::new(&mut talking, wish)?;
        let over = CancellationToken::new();
        let heard = talk.heard.clone();
        let exit = async {
            let code = talking.exit_code().await;
            over.cancel();
            code
        };
        let outputs = async {
            tokio::join!(
                exit,
                hear(stdout.as_ref(), &over, tty, &heard, Heard::Stdout),
                hear(stderr.as_ref(), &over, false, &heard, Heard::Stderr),
            )
            .0
        };
        let input = async {
            say(talk.said, &mut input, tty).await;
            std::future::pending::<()>().await
        };
        tokio::select! {
            code = outputs => code.map(Some),
            () = input => Ok(None),
            // Whoever asked is gone; returning hangs up.
            () = talk.heard.closed() => Ok(None),
        }
    }

    /// The container's own process. Returns once it is over.
    async fn attach(&self, key: &InstanceKey, wish: &TalkWish, talk: Talk) -> Result<(), Error> {
        let (bundle, run) = self.run_record(key)?;
        let stream = shim::client::attach(&bundle, wish.stdin).await?;
        let (mut reader, mut writer) = stream.into_split();
        let input = async {
            let _ = say_in_frames(talk.said, &mut writer).await;
            std::future::pending::<()>().await
        };
        tokio::select! {
            read = hear_frames(&mut reader, wish, &talk.heard) => read.map_err(Error::io("reading from", &bundle))?,
            () = input => {}
            () = talk.heard.closed() => return Ok(()),
        }
        // The shim hangs up at the end of the container; and on those who do not read.
        match self.outcome(&bundle, &run).await? {
            Some(_) => Ok(()),
            None => Err(Error::Shim("what the container writes was not read for too long".to_owned())),
        }
    }

    pub(super) async fn dial_inside(&self, pod_uid: &str, port: u16) -> Result<TcpStream, Error> {
        let pinned = self.pod_folder(pod_uid)?.join("ns/net");
        let (v4, v6) = blocking(move || sockets(&pinned)).await?;
        let connecting = async {
            match v4.connect(([127, 0, 0, 1], port).into()).await {
                Ok(stream) => Ok(stream),
                Err(error) => match v6 {
                    Some(v6) => {
                        let loopback = std::net::Ipv6Addr::LOCALHOST;
                        v6.connect((loopback, port).into()).await.map_err(|_| error)
                    }
                    None => Err(error),
                },
            }
        };
        timeout(DIAL_LIMIT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| Error::Network(format!("dial tcp 127.0.0.1:{port}: {error}")))
    }
}

/// Sockets belong to the network that they were made in. Without a network of its own, a pod has the machine's.
fn sockets(pinned: &Path) -> Result<(TcpSocket, Option<TcpSocket>), Error> {
    let make = || {
        let v4 = TcpSocket::new_v4().map_err(Error::io("making", "a socket"))?;
        // Machines without IPv6 are fine.
        Ok((v4, TcpSocket::new_v6().ok()))
    };
    if !is_pinned(pinned) {
        return make();
    }
    let namespace = File::open(pinned).map_err(Error::io("opening", pinned))?;
    namespace::run_inside(&namespace, make)
}

/// Our ends of what a program reads and writes.
struct Ends {
    input: Option<End>,
    stdout: Option<End>,
    stderr: Option<End>,
}

impl Ends {
    fn new(talking: &mut Talking, wish: &TalkWish) -> Result<Self, Error> {
        let mut descriptors = talking.take_ends().into_iter();
        let mut next = |asked: bool| -> Result<Option<End>, Error> {
            let lost = || Error::Shim("a pipe is missing".to_owned());
            if asked { descriptors.next().ok_or_else(lost).and_then(End::new).map(Some) } else { Ok(None) }
        };
        if !wish.tty {
            return Ok(Self {
                input: next(wish.stdin)?,
                stdout: next(wish.stdout)?,
                stderr: next(wish.stderr)?,
            });
        }
        let Some(terminal) = next(true)? else { return Err(Error::Shim("a terminal is missing".to_owned())) };
        Ok(Self { input: Some(terminal.double()?), stdout: Some(terminal), stderr: None })
    }
}

/// Passes on what a program writes until nothing more comes: the end of the pipe; or, once the program is `over`, until
/// nothing is left in it, because what it has started may keep it open.
async fn hear(
    end: Option<&End>,
    over: &CancellationToken,
    is_terminal: bool,
    heard: &mpsc::Sender<Heard>,
    as_what: fn(Bytes) -> Heard,
) {
    let Some(end) = end else { return };
    let mut buffer = vec![0; READ_BYTES];
    let mut left = PIPE_BYTES;
    while left > 0 {
        let is_over = over.is_cancelled();
        let read = tokio::select! {
            biased;
            read = end.read(&mut buffer) => read,
            () = over.cancelled() => if is_terminal {
                let last = timeout(TERMINAL_LIMIT, end.read(&mut buffer)).await;
                last.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            } else {
                end.read_now(&mut buffer)
            },
        };
        match read {
            Ok(length) if length > 0 => {
                if is_over {
                    left = left.saturating_sub(length);
                }
                if heard.send(as_what(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Passes on what is said to a program.
async fn say(mut said: mpsc::Receiver<Said>, input: &mut Option<End>, is_terminal: bool) {
    while let Some(said) = said.recv().await {
        match (said, &input) {
            (Said::Stdin(data), Some(end)) => {
                let written = end.write(&data).await;
                // A program that has closed its input wants no more; what it writes still counts.
                if written.is_err() {
                    *input = None;
                }
            }
            // A terminal has no end: its users type one.
            (Said::StdinEnd, _) if !is_terminal => *input = None,
            (Said::Resize(columns, rows), Some(end)) if is_terminal => {
                let _ = end.resize(columns, rows);
            }
            _ => {}
        }
    }
}

async fn say_in_frames(mut said: mpsc::Receiver<Said>, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut wire = Vec::new();
    while let Some(said) = said.recv().await {
        wire.clear();
        match said {
            Said::Stdin(data) => Frame::write(FrameKind::Stdin, &data, &mut wire),
            Said::StdinEnd => Frame::write(FrameKind::StdinEnd, &[], &mut wire),
            Said::Resize(columns, rows) => {
                let size = [columns.to_be_bytes(), rows.to_be_bytes()].concat();
                Frame::write(FrameKind::Resize, &size, &mut wire);
            }
        }
        writer.write_all(&wire).await?;
    }
    Ok(())
}

async fn hear_frames(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    wish: &TalkWish,
    heard: &mpsc::Sender<Heard>,
) -> io::Result<()> {
    let (mut read, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        read.extend_from_slice(&buffer[..length]);
        while let Some(Frame { kind, data }) = Frame::take(&mut read)? {
            let heard_now = match kind {
                FrameKind::Stdout if wish.stdout => Heard::Stdout(data.into()),
                FrameKind::Stderr if wish.stderr => Heard::Stderr(data.into()),
                _ => continue,
            };
            if heard.send(heard_now).await.is_err() {
                return Ok(());
            }
        }
    }
}
