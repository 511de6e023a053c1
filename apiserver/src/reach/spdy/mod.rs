//! SPDY/3.1 from the side of who is connected to: the peer opens streams, we accept them.
//!
//! One future drives the connection; streams are queues to and from it. Like the servers and clients of Kubernetes it
//! leaves windows alone: a stream that nobody reads holds up the connection, and so the peer.
//!
//! Must never know: what streams are for.

mod frame;
mod headers;

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};

use self::{
    frame::{CANCEL, DATA_BYTES_MAX, Decoder, Frame, REFUSED},
    headers::{Headers, Packer, Unpacker},
};
use super::presence::{Checks, Doubt};

/// Streams at a time: a forwarded connection has two, so 512 of these at once.
const STREAMS_MAX: usize = 1024;

/// Pieces of data that wait for whoever reads a stream, 32 KiB each.
const PIECES_MAX: usize = 8;

/// Bytes that wait on all streams of a connection together: a thousand that nobody reads would hold 256 MiB.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Frames that wait to be written.
const FRAMES_MAX: usize = 8;

/// After the last frame, for the peer to close its side: what it has yet to read would be lost otherwise.
const LINGER: Duration = Duration::from_secs(5);

/// The peer has given a stream up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

/// What comes on a stream, to its end or to where it was given up.
pub struct Incoming(mpsc::Receiver<Result<Piece, Cancelled>>);

/// Data that waits to be read, and the room it takes.
struct Piece {
    data: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A frame that is to be written.
struct Outgoing {
    frame: Frame,
    /// Headers go through the packer in the order of frames.
    accepts: bool,
}

/// A connection. Dropped with its streams, it ends once everything is written.
pub struct Connection {
    opened: mpsc::Receiver<Stream>,
    _out: mpsc::Sender<Outgoing>,
}

/// One stream. Dropped before it is finished, it is reset.
pub struct Stream {
    headers: Headers,
    incoming: Incoming,
    writer: Writer,
}

/// Where to write to one.
pub struct Writer {
    id: u32,
    out: mpsc::Sender<Outgoing>,
    is_finished: bool,
}

/// Speaks SPDY with a peer. The future must be polled for anything to happen; it is done when the peer is gone, or when
/// everything is written and nobody holds the connection or a stream of it.
pub fn connect<R, W>(reader: R, writer: W) -> (impl Future<Output = io::Result<()>>, Connection)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (out, outgoing) = mpsc::channel(FRAMES_MAX);
    let (accepting, opened) = mpsc::channel(PIECES_MAX);
    let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    let reading = Reading { out: out.downgrade(), accepting, streams: HashMap::new(), room };
    let drive = async {
        let doubt = Doubt::default();
        tokio::select! {
            read = reading.run(reader, &doubt) => read,
            written = write(writer, outgoing, &doubt) => written,
        }
    };
    (drive, Connection { opened, _out: out })
}

impl Connection {
    /// The next stream that the peer opens; `None` when the peer is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }
}

impl Incoming {
    /// The next piece; `None` at the end.
    pub async fn recv(&mut self) -> Option<Result<Bytes, Cancelled>> {
        self.0.recv().await.map(|piece| piece.map(|piece| piece.data))
    }
}

impl Stream {
    /// The value of a header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reading and writing apart.
    pub fn split(self) -> (Incoming, Writer) {
        (self.incoming, self.writer)
    }
}

impl Writer {
    /// Sends data.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn write(&self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(DATA_BYTES_MAX));
            self.send(Frame::Data { stream: self.id, data: piece, fin: false }).await?;
        }
        Ok(())
    }

    /// Sends nothing more.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.is_finished = true;
        self.send(Frame::Data { stream: self.id, data: Bytes::new(), fin: true }).await
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        let sent = self.out.send(Outgoing { frame, accepts: false }).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_finished {
            let frame = Frame::Reset { stream: self.id, status: CANCEL };
            let _ = self.out.try_send(Outgoing { frame, accepts: false });
        }
    }
}

/// Writes whatever there is, and flushes when there is nothing more at the moment.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
    doubt: &Doubt,
) -> io::Result<()> {
    let (mut packer, mut wire) = (Packer::new(), BytesMut::new());
    let mut checks = Checks::new(doubt);
    // Ours have even numbers.
    let mut ping = 0;
    loop {
        let next = tokio::select! {
            next = outgoing.recv() => next,
            () = checks.due() => {
                ping += 2;
                Some(Outgoing { frame: Frame::Ping(ping), accepts: false })
            }
        };
        let Some(mut next) = next else { break };
        loop {
            encode(next, &mut packer, &mut wire);
            match outgoing.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        writer.write_all_buf(&mut wire).await?;
        writer.flush().await?;
    }
    writer.shutdown().await?;
    sleep(LINGER).await;
    Ok(())
}

fn encode(Outgoing { mut frame, accepts }: Outgoing, packer: &mut Packer, wire: &mut BytesMut) {
    if accepts && let Frame::Accept { block, .. } = &mut frame {
        *block = packer.pack(&Headers::new());
    }
    frame.encode(wire);
}

/// What arrives.
struct Reading {
    /// Weak: reading alone keeps no connection open.
    out: mpsc::WeakSender<Outgoing>,
    accepting: mpsc::Sender<Stream>,
    /// Streams that have not ended, by number.
    streams: HashMap<u32, mpsc::Sender<Result<Piece, Cancelled>>>,
    /// A byte each.
    room: Arc<Semaphore>,
}

impl Reading {
    async fn run(mut self, mut reader: impl AsyncRead + Unpin, doubt: &Doubt) -> io::Result<()> {
        let (mut decoder, mut unpacker, mut read) = (Decoder::default(), Unpacker::new(), BytesMut::new());
        let nonsense = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        loop {
            while let Some(frame) = decoder.next(&mut read).map_err(nonsense)? {
                let headers = match &frame {
                    Frame::Open { block, .. }
                    | Frame::Accept { block, .. }
                    | Frame::Headers { block, .. } => unpacker.unpack(block).map_err(nonsense)?,
                    _ => Headers::new(),
                };
                doubt.during(self.take(frame, headers)).await;
            }
            // Else it would be read in pieces of 64 bytes.
            read.reserve(DATA_BYTES_MAX);
            if reader.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, frame: Frame, headers: Headers) {
        match frame {
            Frame::Open { stream, fin, .. } => self.opened(stream, headers, fin).await,
            Frame::Data { stream, data, fin } => {
                if !data.is_empty()
                    && let Some(to) = self.streams.get(&stream).filter(|to| !to.is_closed())
                {
                    // Whoever dropped the stream meanwhile wants no more of it.
                    let _ = to.send(Ok(self.waiting(data).await)).await;
                }
                if fin {
                    self.streams.remove(&stream);
                }
            }
            Frame::Headers { stream, fin: true, .. } => drop(self.streams.remove(&stream)),
            Frame::Reset { stream, .. } => {
                if let Some(to) = self.streams.remove(&stream) {
                    let _ = to.send(Err(Cancelled)).await;
                }
            }
            // Those with even numbers are answers.
            Frame::Ping(id) if id % 2 == 1 => self.send(Frame::Ping(id), false).await,
            _ => {}
        }
    }

    /// Takes the room for it, as soon as there is so much.
    async fn waiting(&self, data: Bytes) -> Piece {
        let bytes = u32::try_from(data.len().min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        Piece { data, _room: room.expect("nobody closes the semaphore") }
    }

    async fn opened(&mut self, id: u32, headers: Headers, fin: bool) {
        let Some(out) = self.out.upgrade() else { return };
        self.streams.retain(|_, to| !to.is_closed());
        let is_full = self.streams.len() >= STREAMS_MAX;
        let entry = match self.streams.entry(id) {
            Entry::Vacant(entry) if !is_full => entry,
            _ => return self.send(Frame::Reset { stream: id, status: REFUSED }, false).await,
        };
        let (to, incoming) = mpsc::channel(PIECES_MAX);
        if !fin {
            entry.insert(to);
        }
        self.send(Frame::Accept { stream: id, block: Bytes::new(), fin: false }, true).await;
        let writer = Writer { id, out, is_finished: false };
        let _ = self.accepting.send(Stream { headers, incoming: Incoming(incoming), writer }).await;
    }

    async fn send(&self, frame: Frame, accepts: bool) {
        if let Some(out) = self.out.upgrade() {
            let _ = out.send(Outgoing { frame, accepts }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    /// The other side, by hand.
    struct Peer {
        wire: DuplexStream,
        packer: Packer,
        decoder: Decoder,
        read: BytesMut,
    }

    impl Peer {
        async fn say(&mut self, frame: Frame) {
            let mut wire = BytesMut::new();
            frame.encode(&mut wire);
            self.wire.write_all(&wire).await.unwrap();
        }

        async fn open(&mut self, stream: u32, kind: &str) {
            let block = self.packer.pack(&vec![("streamType".to_owned(), kind.to_owned())]);
            self.say(Frame::Open { stream, block, fin: false }).await;
        }

        async fn next(&mut self) -> Option<Frame> {
            loop {
                if let Some(frame) = self.decoder.next(&mut self.read).unwrap() {
                    return Some(frame);
                }
                if self.wire.read_buf(&mut self.read).await.unwrap() == 0 {
                    return None;
                }
            }
        }
    }

    fn pair() -> (Peer, impl Future<Output = io::Result<()>>, Connection) {
        let (ours, wire) = duplex(4096);
        let (reader, writer) = tokio::io::split(ours);
        let (drive, connection) = connect(reader, writer);
        let peer = Peer { wire, packer: Packer::new(), decoder: Decoder::default(), read: BytesMut::new() };
        (peer, drive, connection)
    }

    #[tokio::test]
    async fn each_direction_of_a_stream_ends_by_itself_and_more_than_fits_comes_through() {
        let (mut peer, drive, mut connection) = pair();
        tokio::spawn(drive);
        peer.open(1, "data").await;
        let stream = connection.accept().await.unwrap();
        assert_eq!(stream.header("streamtype"), Some("data"));
        assert!(matches!(peer.next().await, Some(Frame::Accept { stream: 1, .. })));
        let (mut incoming, mut writer) = stream.split();
        let sent = Bytes::from(vec![7; 3 * DATA_BYTES_MAX]);
        peer.say(Frame::Data { stream: 1, data: Bytes::from_static(b"hello"), fin: true }).await;
        assert_eq!(incoming.recv().await, Some(Ok(Bytes::from_static(b"hello"))));
        assert_eq!(incoming.recv().await, None, "the peer says nothing more, and goes on reading");
        let writing = tokio::spawn({
            let sent = sent.clone();
            async move {
                writer.write(sent).await.unwrap();
                writer.finish().await.unwrap();
            }
        });
        let mut read = Vec::new();
        loop {
            match peer.next().await.unwrap() {
                Frame::Data { stream: 1, data, fin } => {
                    read.extend_from_slice(&data);
                    if fin {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        writing.await.unwrap();
        assert!(read == sent);
        drop(connection);
        assert_eq!(peer.next().await, None, "nobody holds the connection");
    }

    #[tokio::test]
    async fn who_gives_a_stream_up_is_heard_and_who_drops_one_says_so() {
        let (mut peer, drive, mut connection) = pair();
        tokio::spawn(drive);
        peer.open(1, "data").await;
        peer.open(3, "data").await;
        let (mut first, _writer) = connection.accept().await.unwrap().split();
        let second = connection.accept().await.unwrap();
        for stream in [1, 3] {
            assert!(matches!(peer.next().await, Some(Frame::Accept { stream: at, .. }) if at == stream));
        }
        peer.say(Frame::Reset { stream: 1, status: CANCEL }).await;
        assert_eq!(first.recv().await, Some(Err(Cancelled)));
        drop(second);
        assert_eq!(peer.next().await, Some(Frame::Reset { stream: 3, status: CANCEL }));
        peer.say(Frame::Ping(7)).await;
        assert_eq!(peer.next().await, Some(Frame::Ping(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_is_bounded_over_all_streams_together() {
        let (mut peer, drive, mut connection) = pair();
        tokio::spawn(drive);
        let mut held = Vec::new();
        for number in 0..1_000 {
            peer.open(2 * number + 1, "data").await;
            held.push(connection.accept().await.unwrap().split());
            assert!(matches!(peer.next().await, Some(Frame::Accept { .. })));
        }
        // Fewer pieces than a stream alone may have waiting, and twice as many bytes as all of them may.
        let data = Bytes::from(vec![7; 4_000]);
        let mut sent = 0;
        // The clock moves only when nobody can go on.
        let full = timeout(Duration::from_secs(1), async {
            for stream in (0..2_000_u32).map(|frame| frame % 1_000 * 2 + 1) {
                peer.say(Frame::Data { stream, data: data.clone(), fin: false }).await;
                sent += data.len();
            }
        });
        assert!(full.await.is_err(), "{sent} bytes wait");
        assert!(sent.abs_diff(WAITING_BYTES_MAX) < 1 << 17, "{sent}");
        let first = held[0].0.recv().await;
        assert!(first.is_some_and(|piece| piece.is_ok_and(|data| !data.is_empty())), "nothing is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_gone_behind_what_nobody_reads_is_noticed_soon() {
        let (mut peer, drive, mut connection) = pair();
        let driven = tokio::spawn(drive);
        peer.open(1, "data").await;
        let _nobody_reads = connection.accept().await.unwrap();
        for _ in 0..2 * PIECES_MAX {
            peer.say(Frame::Data { stream: 1, data: Bytes::from_static(b"and so on"), fin: false }).await;
        }
        drop(peer);
        let ended = timeout(Duration::from_secs(5), driven).await.expect("a check comes soon").unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_number_that_is_taken_is_refused_and_nonsense_ends_the_connection() {
        let (mut peer, drive, mut connection) = pair();
        let driven = tokio::spawn(drive);
        peer.open(1, "data").await;
        peer.open(1, "data").await;
        assert!(matches!(peer.next().await, Some(Frame::Accept { stream: 1, .. })));
        assert_eq!(peer.next().await, Some(Frame::Reset { stream: 1, status: REFUSED }));
        let _stream = connection.accept().await.unwrap();
        peer.wire.write_all(&[0xff; 16]).await.unwrap();
        let ended = driven.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::InvalidData);
        assert!(connection.accept().await.is_none());
    }
}
