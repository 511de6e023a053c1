//! The way between the clients and the server: a TCP proxy that can be cut and held.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The proxy.
pub struct Proxy {
    address: SocketAddr,
    /// Every connection ends when it changes.
    cuts: watch::Sender<u64>,
    held: watch::Sender<bool>,
}

impl Proxy {
    /// Listens, and passes on to the server at `server`, which may go and come back.
    pub async fn in_front_of(server: &str) -> Self {
        let server: SocketAddr = server.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, held) = (watch::Sender::new(0), watch::Sender::new(false));
        let (cut, hold) = (cuts.subscribe(), held.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server, cut.clone(), hold.clone()));
            }
        });
        Self { address, cuts, held }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }
}

async fn connect(
    client: TcpStream,
    server: SocketAddr,
    mut cut: watch::Receiver<u64>,
    held: watch::Receiver<bool>,
) {
    cut.mark_unchanged();
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        _ = pass(from_client, to_server, held.clone()) => {}
        _ = pass(from_server, to_client, held) => {}
        _ = cut.changed() => {}
    }
}

/// Passes on what comes, as long as nobody holds it up. It reads no further than that, so that the sender is slowed down.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut held: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        let open = held.wait_for(|held| !held).await.is_ok();
        if read == 0 || !open {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
