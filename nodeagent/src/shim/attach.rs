//! Whoever is attached to a container's first process, seen from its shim: what the process writes goes to them as well
//! as to the log, and what they write goes to its standard input.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// Data in one frame: what a pipe holds.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Kind and length.
const HEAD_BYTES: usize = 5;

/// What waits for a client that does not read. With more the container waits, as it would for a slow log.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What waits for a process that does not read its input. With more the clients wait.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// How long a client may make the container wait; then it is cut off.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// At the end, for a client to take what is left.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Clients at a time. Each may hold 256 KiB.
pub(super) const ATTACHED_MAX: usize = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// For the process to read.
    Stdin = 0,
    /// There is nothing more to read.
    StdinEnd = 1,
    /// The terminal's new size: columns and rows, two bytes each.
    Resize = 2,
    /// What the process wrote.
    Stdout = 3,
    /// What it wrote to its standard error.
    Stderr = 4,
}

/// What passes between a shim and who is attached: kind, length, data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// As much as the kind has.
    pub data: Vec<u8>,
}

impl FrameKind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Stdin, Self::StdinEnd, Self::Resize, Self::Stdout, Self::Stderr]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

impl Frame {
    /// Frames for data of any length.
    pub fn write(kind: FrameKind, data: &[u8], out: &mut impl Extend<u8>) {
        let mut write_one = |part: &[u8]| {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            out.extend([kind as u8].into_iter().chain(length.to_be_bytes()));
            out.extend(part.iter().copied());
        };
        if data.is_empty() {
            write_one(&[]);
        }
        data.chunks(FRAME_BYTES_MAX).for_each(write_one);
    }

    /// Takes a whole frame from the front of what was read, if there is one.
    ///
    /// # Errors
    /// When it is none.
    pub fn take(read: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some((head, rest)) = read.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [kind, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        let kind = FrameKind::of(kind).filter(|_| length <= FRAME_BYTES_MAX);
        let kind = kind.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let Some(data) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        read.drain(..HEAD_BYTES + length);
        Ok(Some(Self { kind, data }))
    }
}

/// One client.
pub(super) struct Attached {
    stream: UnixStream,
    /// It may write to the process.
    pub writes: bool,
    waiting: VecDeque<u8>,
    read: Vec<u8>,
    full_since: Option<Instant>,
}

impl Attached {
    pub fn new(stream: UnixStream, writes: bool) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, writes, waiting: VecDeque::new(), read: Vec::new(), full_since: None })
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the container is to wait for it.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_BYTES_MAX
    }

    /// Whether it has made the container wait for too long.
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.full_since.is_some_and(|since| now.duration_since(since) >= STALL_LIMIT)
    }

    /// Sends what the process wrote, now or when the client reads.
    pub fn send(&mut self, kind: FrameKind, data: &[u8], now: Instant) -> io::Result<()> {
        Frame::write(kind, data, &mut self.waiting);
        self.flush(now)
    }

    /// Sends what waits, as far as the client takes it.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        write_some(&mut self.stream, &mut self.waiting)?;
        self.full_since = if self.is_full() { self.full_since.or(Some(now)) } else { None };
        Ok(())
    }

    /// What it has said.
    ///
    /// # Errors
    /// When it is gone, or speaks nonsense.
    pub fn hear(&mut self, buffer: &mut [u8]) -> io::Result<Vec<Frame>> {
        match self.stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.read.extend_from_slice(&buffer[..length]),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        let mut frames = Vec::new();
        while let Some(frame) = Frame::take(&mut self.read)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// The last that it gets.
    pub fn finish(mut self) {
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_write_timeout(Some(FLUSH_LIMIT));
        let _ = self.stream.write_all(self.waiting.make_contiguous());
    }
}

/// The standard input of the first process.
pub(super) struct Input {
    file: File,
    waiting: VecDeque<u8>,
    is_ending: bool,
}

impl Input {
    /// `file` does not block.
    pub fn new(file: File) -> Self {
        Self { file, waiting: VecDeque::new(), is_ending: false }
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() < INPUT_BYTES_MAX
    }

    pub fn push(&mut self, data: &[u8]) {
        if !self.is_ending {
            self.waiting.extend(data);
        }
    }

    /// Nothing more is taken; what waits is still written.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Writes what the process takes. `false` once there is nothing more to come, or nobody to read it.
    pub fn flush(&mut self) -> bool {
        write_some(&mut self.file, &mut self.waiting).is_ok() && !(self.is_ending && self.waiting.is_empty())
    }
}

fn write_some(to: &mut impl Write, waiting: &mut VecDeque<u8>) -> io::Result<()> {
    while !waiting.is_empty() {
        match to.write(waiting.as_slices().0) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => drop(waiting.drain(..length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether it is worth another try.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, data: &[u8]) -> Frame {
        Frame { kind, data: data.to_vec() }
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut wire = Vec::new();
        Frame::write(FrameKind::Stdin, b"hello", &mut wire);
        Frame::write(FrameKind::StdinEnd, b"", &mut wire);
        Frame::write(FrameKind::Stdout, &vec![7; FRAME_BYTES_MAX + 1], &mut wire);
        let (mut read, mut found) = (Vec::new(), Vec::new());
        for byte in wire {
            read.push(byte);
            found.extend(Frame::take(&mut read).unwrap());
        }
        let expected = [
            frame(FrameKind::Stdin, b"hello"),
            frame(FrameKind::StdinEnd, b""),
            frame(FrameKind::Stdout, &vec![7; FRAME_BYTES_MAX]),
            frame(FrameKind::Stdout, &[7]),
        ];
        assert!(found == expected && read.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(Frame::take(&mut vec![9, 0, 0, 0, 0]).is_err(), "no such kind");
        assert!(Frame::take(&mut vec![0, 0xff, 0, 0, 0]).is_err(), "too long");
        assert_eq!(Frame::take(&mut vec![0, 0, 0, 0]).unwrap(), None);
    }

    #[test]
    fn a_client_that_does_not_read_is_full_then_stalled_and_recovers_by_reading() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Attached::new(ours, false).unwrap();
        let start = Instant::now();
        while !client.is_full() {
            client.send(FrameKind::Stdout, &[1; 4096], start).unwrap();
        }
        assert!(!client.is_stalled(start) && client.is_stalled(start + STALL_LIMIT));
        let mut read = vec![0; WAITING_BYTES_MAX];
        while client.has_waiting() {
            let _ = theirs.read(&mut read).unwrap();
            client.flush(start).unwrap();
        }
        assert!(!client.is_full() && !client.is_stalled(start + STALL_LIMIT));
    }
}
