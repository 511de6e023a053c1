//! Makes batches durable: an append-only log in preallocated segments, one `fdatasync` a batch.
//!
//! The next batch is written only when the one before is on the disk. So on opening, a frame that does not check
//! out is the torn end of an unacknowledged batch if nothing valid follows it, and damage if something does: the first is
//! cut off, the second is an error. The last valid frame is written and synced once more before anybody reads its
//! changes, because a crash may have come between its write and its sync.
//!
//! sled's own flush is not safe against power cuts, and flush plus `fsync` are two trips to the disk; this is one, which is
//! what bounds the writes a second of a single client.

mod frame;
mod segment;

use std::{
    collections::VecDeque,
    fs, mem,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use self::{
    frame::Frame,
    segment::{START, Segment, damaged},
};
use super::{Event, Key, Record, Revision, StoreError, folder::failed};

/// The append buffer is let go of when it has grown beyond this.
const BUFFER_BYTES: usize = 1 << 20;

/// What a small transaction's frame has beside the objects: headers, and keys of 253 bytes twice over.
const SLACK: u64 = 4096;

/// The log, owned by its one writer.
pub(super) struct Journal {
    segments: Arc<Segments>,
    active: Segment,
    /// Where the next frame goes.
    at: u64,
    last: Revision,
    buffer: Vec<u8>,
}

/// Why a batch could not be appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Nothing was written. Another try may go well.
    Refused(StoreError),
    /// Half a batch may be on the disk, or the disk may have forgotten what it was given: no append may follow.
    Broken(String),
}

/// What the writer shares with the thread that keeps house.
pub(super) struct Segments {
    folder: PathBuf,
    /// Length of a segment, unless a batch needs a longer one.
    segment_bytes: u64,
    next: Mutex<Next>,
    sealed: Mutex<VecDeque<Sealed>>,
    /// Bytes of frames in all segments.
    bytes: AtomicU64,
}

/// The segment to come. Locked while it is being made, so that nobody makes it twice.
struct Next {
    number: u64,
    ready: Option<Segment>,
    /// A retired segment to make it from.
    old: Option<PathBuf>,
}

/// A segment that gets no more frames.
struct Sealed {
    path: PathBuf,
    /// The last revision in it, or before it.
    last: Revision,
    bytes: u64,
    length: u64,
}

impl Journal {
    /// Makes a journal without changes in an empty folder.
    pub fn create(folder: &Path, segment_bytes: u64) -> Result<(), StoreError> {
        Segment::create(folder, 1, segment_bytes, None).map(drop)
    }

    /// Opens a journal, and hands the changes after `base` to `sink`, in order.
    pub fn open(
        folder: &Path,
        segment_bytes: u64,
        base: Revision,
        sink: &mut dyn FnMut(Record, bool),
    ) -> Result<Self, StoreError> {
        let mut replay = Replay::new(base, sink);
        let numbers = relevant(segment::numbers(folder)?);
        for &number in &numbers {
            let (segment, bytes) = Segment::open(folder, number)?;
            replay.read(segment, &bytes)?;
        }
        if numbers.is_empty() {
            return Err(StoreError::Unusable(format!(
                "{} is empty, so writes after revision {base} may be missing; restore the data folder from a snapshot",
                folder.display()
            )));
        }
        replay.finish(folder, segment_bytes)
    }

    /// Makes a batch durable.
    pub fn append(&mut self, events: &[Arc<Event>]) -> Result<(), AppendError> {
        let length = frame::length(events) as u64;
        if self.at + length > self.active.length {
            self.roll(length).map_err(AppendError::Refused)?;
        }
        frame::encode(&mut self.buffer, &self.active.salt, events);
        debug_assert_eq!(self.buffer.len() as u64, length);
        let file = &self.active.file;
        let written = file.write_all_at(&self.buffer, self.at).and_then(|()| file.sync_data());
        let why = |error: std::io::Error| format!("cannot append to {}: {error}", self.active.path.display());
        written.map_err(|error| AppendError::Broken(why(error)))?;
        self.at += length;
        self.segments.bytes.fetch_add(length, Ordering::Relaxed);
        self.last = events.last().map_or(self.last, |event| event.record.revision);
        if self.buffer.capacity() > BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Whether a transaction of about so many bytes goes into the segment at hand.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.at + bytes as u64 + SLACK <= self.active.length
    }

    fn roll(&mut self, length: u64) -> Result<(), StoreError> {
        let (next, passed_over) = self.segments.take_next(START + length)?;
        let full = mem::replace(&mut self.active, next);
        let bytes = mem::replace(&mut self.at, START) - START;
        let mut sealed = self.segments.sealed.lock();
        sealed.push_back(Sealed { path: full.path, last: self.last, bytes, length: full.length });
        sealed.extend(passed_over.map(|empty| Sealed {
            path: empty.path,
            last: self.last,
            bytes: 0,
            length: empty.length,
        }));
        Ok(())
    }

    /// What others may know of the journal while it is written.
    pub fn segments(&self) -> Arc<Segments> {
        self.segments.clone()
    }
}

impl Segments {
    fn new(folder: &Path, segment_bytes: u64, active: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            segment_bytes,
            next: Mutex::new(Next { number: active + 1, ready: None, old: None }),
            sealed: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes that opening would have to replay.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the segment to come has yet to be made. Never waits for one in the making.
    pub fn wants_next(&self) -> bool {
        self.next.try_lock().is_some_and(|next| next.ready.is_none())
    }

    /// Makes the segment to come, so that the writer need not.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let mut next = self.next.lock();
        if next.ready.is_none() {
            next.ready = Some(self.make(&mut next, self.segment_bytes)?);
        }
        Ok(())
    }

    fn make(&self, next: &mut Next, length: u64) -> Result<Segment, StoreError> {
        let old = next.old.take();
        let segment = Segment::create(&self.folder, next.number, length, old.as_deref())?;
        next.number += 1;
        Ok(segment)
    }

    /// A segment of at least `length` bytes, and one that was too short for it and stays empty.
    fn take_next(&self, length: u64) -> Result<(Segment, Option<Segment>), StoreError> {
        let mut next = self.next.lock();
        match next.ready.take() {
            Some(ready) if ready.length >= length => Ok((ready, None)),
            short => match self.make(&mut next, length.max(self.segment_bytes)) {
                Ok(made) => Ok((made, short)),
                Err(error) => {
                    next.ready = short;
                    Err(error)
                }
            },
        }
    }

    /// Lets go of the segments whose changes are all known elsewhere.
    pub fn retire(&self, known: Revision) -> Result<(), StoreError> {
        loop {
            let retired = {
                let mut sealed = self.sealed.lock();
                match sealed.front() {
                    Some(front) if front.last <= known => sealed.pop_front(),
                    _ => None,
                }
            };
            let Some(retired) = retired else { return Ok(()) };
            self.bytes.fetch_sub(retired.bytes, Ordering::Relaxed);
            let mut next = self.next.lock();
            if next.old.is_none() && retired.length == self.segment_bytes {
                let old = self.folder.join("spare.partial");
                fs::rename(&retired.path, &old).map_err(failed("rename", &retired.path))?;
                next.old = Some(old);
            } else {
                fs::remove_file(&retired.path).map_err(failed("remove", &retired.path))?;
            }
        }
    }
}

/// The segments that matter: those after the last gap. Before it lies what was retired, and may show up again because
/// the removal of a name is not made durable.
fn relevant(mut numbers: Vec<u64>) -> Vec<u64> {
    let gap = numbers.windows(2).rposition(|pair| pair[0] + 1 != pair[1]);
    numbers.split_off(gap.map_or(0, |at| at + 1))
}

/// Reads segments in order.
struct Replay<'a> {
    base: Revision,
    sink: &'a mut dyn FnMut(Record, bool),
    /// The last revision seen; `None` before the first frame.
    last: Option<Revision>,
    /// All segments, with the place after their last frame.
    read: Vec<(Segment, u64, Revision)>,
    /// The last frame: index into `read`, place, bytes.
    tail: Option<(usize, u64, Vec<u8>)>,
}

impl<'a> Replay<'a> {
    fn new(base: Revision, sink: &'a mut dyn FnMut(Record, bool)) -> Self {
        Self { base, sink, last: None, read: Vec::new(), tail: None }
    }

    fn read(&mut self, segment: Segment, bytes: &[u8]) -> Result<(), StoreError> {
        let mut at = START as usize;
        let mut tail = None;
        while let Some(frame) = bytes.get(at..).and_then(|rest| frame::parse(rest, &segment.salt)) {
            self.check_order(&segment, &frame, at)?;
            self.replay(&segment, &frame, at)?;
            tail = Some(at..at + frame.length);
            at += frame.length;
        }
        let behind = (at..bytes.len()).step_by(frame::ALIGN).skip(1);
        if let Some(next) = behind.into_iter().find(|at| frame::parse(&bytes[*at..], &segment.salt).is_some())
        {
            return Err(damaged(&segment.path, &format!("bytes {at} to {next} are not what was written")));
        }
        if let Some(tail) = tail {
            // Padding may be cut off by the end of a segment of odd length.
            let end = tail.end.min(bytes.len());
            self.tail = Some((self.read.len(), tail.start as u64, bytes[tail.start..end].to_vec()));
        }
        self.read.push((segment, at as u64, self.last.unwrap_or(0)));
        Ok(())
    }

    fn check_order(&self, segment: &Segment, frame: &Frame<'_>, at: usize) -> Result<(), StoreError> {
        let next = self.last.unwrap_or(self.base) + 1;
        let fits = match self.last {
            Some(_) => frame.first == next,
            None => frame.first <= next,
        };
        if fits {
            return Ok(());
        }
        let first = frame.first;
        let how = format!("at byte {at} revision {first} follows where {next} should");
        Err(damaged(&segment.path, &how))
    }

    fn replay(&mut self, segment: &Segment, frame: &Frame<'_>, at: usize) -> Result<(), StoreError> {
        for (revision, change) in (frame.first..).zip(frame.iter()) {
            let malformed = || damaged(&segment.path, &format!("the batch at byte {at} makes no sense"));
            let change = change.ok_or_else(malformed)?;
            self.last = Some(revision);
            if revision > self.base {
                let (key, value) = (Key::from_text(change.key), Bytes::copy_from_slice(change.value));
                (self.sink)(Record { key, revision, value }, change.deleted);
            }
        }
        Ok(())
    }

    /// The journal, ready to be appended to after its last frame.
    fn finish(mut self, folder: &Path, segment_bytes: u64) -> Result<Journal, StoreError> {
        let last = self.last.unwrap_or(self.base);
        if last < self.base {
            return Err(StoreError::Unusable(format!(
                "{} ends at revision {last}, but the state is of {}; restore the data folder from a snapshot",
                folder.display(),
                self.base
            )));
        }
        let place = self.tail.as_ref().map_or(0, |(place, ..)| *place);
        let after = self.read.split_off(place + 1);
        let (active, at, _) = self.read.pop().expect("the segments read reach beyond the last frame");
        if let Some((_, at, bytes)) = &self.tail {
            let written = active.file.write_all_at(bytes, *at).and_then(|()| active.file.sync_data());
            written.map_err(failed("sync", &active.path))?;
        }
        let segments = Segments::new(folder, segment_bytes, active.number);
        keep_one(after, &mut segments.next.lock())?;
        for (segment, end, last) in self.read {
            let (bytes, length) = (end - START, segment.length);
            segments.sealed.lock().push_back(Sealed { path: segment.path, last, bytes, length });
            segments.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        segments.bytes.fetch_add(at - START, Ordering::Relaxed);
        Ok(Journal { segments: Arc::new(segments), active, at, last, buffer: Vec::new() })
    }
}

/// Of empty segments, the first is the one to come; more than one are the remains of a crash.
fn keep_one(empty: Vec<(Segment, u64, Revision)>, next: &mut Next) -> Result<(), StoreError> {
    let mut empty = empty.into_iter().map(|(segment, ..)| segment);
    next.ready = empty.next();
    next.number += u64::from(next.ready.is_some());
    for segment in empty.rev() {
        fs::remove_file(&segment.path).map_err(failed("remove", &segment.path))?;
    }
    Ok(())
}
