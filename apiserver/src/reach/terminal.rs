//! Clients of `exec` and `attach` that speak SPDY: a stream for each part of the process, one for its end, one for the
//! size of the terminal.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::{
    session::{Ear, Mouth, Said, Told, size},
    spdy::{Connection, Incoming, Stream, Writer},
};

/// How long a client may take to open its streams. Kubernetes' figure.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// A size is a line of 30 bytes.
const SIZE_BYTES_MAX: usize = 1024;

/// Which streams a client opens.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// What such a client says.
pub struct Hearing {
    connection: Connection,
    stdin: Option<Incoming>,
    resize: Option<Incoming>,
    line: BytesMut,
    /// Of streams that only end.
    _others: Vec<Incoming>,
}

/// Where it listens.
pub struct Speaking {
    stdout: Option<Writer>,
    stderr: Option<Writer>,
    error: Writer,
    /// Of streams that only the client writes to.
    others: Vec<Writer>,
}

/// Waits for the client's streams. `None` when it does not open them.
pub async fn open(mut connection: Connection, parts: Parts) -> Option<(Hearing, Speaking)> {
    let mut kinds = vec!["error"];
    let asked =
        [(parts.stdin, "stdin"), (parts.stdout, "stdout"), (parts.stderr, "stderr"), (parts.tty, "resize")];
    kinds.extend(asked.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, kind)| kind));
    let mut streams: Vec<(&str, Stream)> = Vec::new();
    let all = async {
        while streams.len() < kinds.len() {
            let stream = connection.accept().await?;
            let kind = kinds.iter().find(|kind| stream.header("streamtype") == Some(kind))?;
            if streams.iter().all(|(known, _)| known != kind) {
                streams.push((kind, stream));
            }
        }
        Some(())
    };
    timeout(OPEN_LIMIT, all).await.ok()??;
    let mut take = |kind: &str| {
        let at = streams.iter().position(|(known, _)| *known == kind)?;
        Some(streams.swap_remove(at).1.split())
    };
    let (heard_error, error) = take("error")?;
    let ((heard_stdout, stdout), (heard_stderr, stderr)) = (take("stdout").unzip(), take("stderr").unzip());
    let ((stdin, no_stdin), (resize, no_resize)) = (take("stdin").unzip(), take("resize").unzip());
    let _others = [Some(heard_error), heard_stdout, heard_stderr].into_iter().flatten().collect();
    let others = [no_stdin, no_resize].into_iter().flatten().collect();
    let hearing = Hearing { connection, stdin, resize, line: BytesMut::new(), _others };
    Some((hearing, Speaking { stdout, stderr, error, others }))
}

impl Ear for Hearing {
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.next_size() {
                return Some(said);
            }
            tokio::select! {
                data = next_of(&mut self.stdin) => return Some(match data {
                    Some(data) => Said::Stdin(data),
                    None => {
                        self.stdin = None;
                        Said::StdinEnd
                    }
                }),
                data = next_of(&mut self.resize) => match data {
                    Some(data) if self.line.len() < SIZE_BYTES_MAX => self.line.extend_from_slice(&data),
                    _ => self.resize = None,
                },
                stream = self.connection.accept() => {
                    // One that nobody asked for is reset.
                    stream?;
                }
            }
        }
    }
}

impl Hearing {
    fn next_size(&mut self) -> Option<Said> {
        loop {
            let end = self.line.iter().position(|byte| *byte == b'\n')?;
            let line = self.line.split_to(end + 1);
            if let Some(said) = size(&line) {
                return Some(said);
            }
        }
    }
}

/// What comes next on a stream that there is.
async fn next_of(stream: &mut Option<Incoming>) -> Option<Bytes> {
    match stream {
        Some(stream) => stream.recv().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

impl Mouth for Speaking {
    async fn tell(&mut self, told: Told) -> io::Result<()> {
        match told {
            Told::Stdout(data) => write(self.stdout.as_ref(), data).await,
            Told::Stderr(data) => write(self.stderr.as_ref(), data).await,
            Told::Ended(status) => self.error.write(status.to_string().into()).await,
        }
    }

    /// The connection sees to that.
    async fn keep_alive(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn close(self) {
        let Self { stdout, stderr, error, others } = self;
        // The end of the error stream is what clients wait for.
        for mut writer in stdout.into_iter().chain(stderr).chain(others).chain([error]) {
            let _ = writer.finish().await;
        }
    }
}

async fn write(writer: Option<&Writer>, data: Bytes) -> io::Result<()> {
    match writer {
        Some(writer) => writer.write(data).await,
        None => Ok(()),
    }
}
