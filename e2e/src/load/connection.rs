//! One keep-alive HTTP/1.1 connection over TLS.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Cluster,
    http::{Credentials, tls},
};

/// Bytes asked of the socket at a time: a TLS record and then some.
const READ_BYTES: usize = 32 << 10;

/// Where to connect, and as whom.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Target {
    /// The administrator on a cluster.
    ///
    /// # Errors
    /// When the cluster's address is none.
    pub fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let credentials = Credentials::of(cluster);
        let mut config: ClientConfig = tls(&credentials.ca, Some(&credentials));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let address = cluster.address().parse().context("the cluster's address")?;
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)) })
    }
}

/// A connection. One request at a time.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    out: Vec<u8>,
    buffer: Vec<u8>,
    /// How much of the buffer was given out.
    used: usize,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
struct Head {
    code: u16,
    length: Option<usize>,
}

impl Connection {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When the server does not.
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = target.tls.connect(name, stream).await?;
        Ok(Self { stream, out: Vec::new(), buffer: Vec::new(), used: 0 })
    }

    /// Sends a request and reads the whole answer. Gives its code and body.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is none.
    pub async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.ask_as("application/json", method, path, body).await
    }

    /// As [`Self::ask`], for an answer in another form.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_as(
        &mut self,
        accept: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<(u16, &[u8])> {
        self.send(accept, method, path, body).await?;
        let head = self.head().await?;
        let Some(length) = head.length else {
            let body = self.chunks().await?;
            return Ok((head.code, body));
        };
        while self.buffer.len() - self.used < length {
            self.read().await?;
        }
        let start = self.used;
        self.used += length;
        Ok((head.code, &self.buffer[start..self.used]))
    }

    /// Begins a watch. Its lines come from [`Self::more`].
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn watch(&mut self, path: &str) -> anyhow::Result<()> {
        self.send("application/json", "GET", path, b"").await?;
        let head = self.head().await?;
        ensure!(head.code == 200 && head.length.is_none(), "{path}: {head:?}");
        Ok(())
    }

    /// Whatever came next on a watch, with the marks between chunks still in it.
    ///
    /// # Errors
    /// When the server ends the watch.
    pub async fn more(&mut self) -> anyhow::Result<&[u8]> {
        if self.used == self.buffer.len() {
            self.read().await?;
        }
        let start = std::mem::replace(&mut self.used, self.buffer.len());
        Ok(&self.buffer[start..])
    }

    async fn send(&mut self, accept: &str, method: &str, path: &str, body: &[u8]) -> anyhow::Result<()> {
        use std::io::Write as _;
        self.out.clear();
        write!(self.out, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n")?;
        write!(self.out, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())?;
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn head(&mut self) -> anyhow::Result<Head> {
        let end = self.find(b"\r\n\r\n").await?;
        let text = std::str::from_utf8(&self.buffer[self.used..end])?;
        let mut lines = text.split("\r\n");
        let code = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?.parse()?;
        let mut length = None;
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            }
        }
        self.used = end + 4;
        Ok(Head { code, length })
    }

    /// Reads chunks to their end, and gives them joined.
    async fn chunks(&mut self) -> anyhow::Result<&[u8]> {
        let mut body = self.used;
        let start = body;
        loop {
            let line = self.find_from(self.used, b"\r\n").await?;
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[self.used..line])?.trim(), 16)?;
            let chunk = line + 2;
            while self.buffer.len() < chunk + size + 2 {
                self.append().await?;
            }
            self.buffer.copy_within(chunk..chunk + size, body);
            body += size;
            self.used = chunk + size + 2;
            if size == 0 {
                return Ok(&self.buffer[start..body]);
            }
        }
    }

    async fn find(&mut self, what: &[u8]) -> anyhow::Result<usize> {
        if self.used == self.buffer.len() {
            self.read().await?;
        }
        self.find_from(self.used, what).await
    }

    async fn find_from(&mut self, start: usize, what: &[u8]) -> anyhow::Result<usize> {
        loop {
            let found = self.buffer[start..].windows(what.len()).position(|window| window == what);
            match found {
                Some(place) => return Ok(start + place),
                None => self.append().await?,
            }
        }
    }

    /// Reads more, over what was given out.
    async fn read(&mut self) -> anyhow::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.append().await
    }

    async fn append(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}
