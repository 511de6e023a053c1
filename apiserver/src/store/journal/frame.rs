//! The bytes of one batch in the journal.
//!
//! ```text
//! 0  magic          4   the head of the segment's salt
//! 4  crc            4   of the segment's salt and everything after this field, padding left out
//! 8  payload bytes  4
//! 12 changes        4
//! 16 first revision 8
//! 24 changes: kind 1, key bytes 4, value bytes 4, key, value
//!    padding to 8
//! ```
//!
//! Numbers are little-endian. One batch is one frame under one checksum: a batch is there whole or not at all. The
//! salt is random and different in every segment, so that neither what a segment held in an earlier life nor
//! bytes that a client chose can pass for a frame, or even make the search for one slow.

use std::sync::Arc;

use super::super::{Event, Revision};

/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;

/// What makes checksums of one segment differ from those of all others.
pub(super) type Salt = [u8; 16];

const HEADER: usize = 24;
/// Kind and the two lengths of a change.
const CHANGE_HEADER: usize = 9;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// A frame in a segment.
pub(super) struct Frame<'a> {
    pub first: Revision,
    pub changes: u32,
    /// Length with header and padding.
    pub length: usize,
    payload: &'a [u8],
}

/// One change of a frame.
pub(super) struct Change<'a> {
    pub deleted: bool,
    pub key: &'a str,
    pub value: &'a [u8],
}

/// The length of a frame of these changes.
pub(super) fn length(events: &[Arc<Event>]) -> usize {
    let change =
        |event: &Arc<Event>| CHANGE_HEADER + event.record.key.as_str().len() + event.record.value.len();
    (HEADER + events.iter().map(change).sum::<usize>()).next_multiple_of(ALIGN)
}

/// Writes a frame over what `out` held.
pub(super) fn encode(out: &mut Vec<u8>, salt: &Salt, events: &[Arc<Event>]) {
    out.clear();
    out.resize(HEADER, 0);
    for event in events {
        let key = event.record.key.as_str().as_bytes();
        out.push(if event.deleted { DELETE } else { PUT });
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(event.record.value.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(&event.record.value);
    }
    let payload = (out.len() - HEADER) as u32;
    let first = events.first().map_or(0, |event| event.record.revision);
    out[..4].copy_from_slice(&salt[..4]);
    out[8..12].copy_from_slice(&payload.to_le_bytes());
    out[12..16].copy_from_slice(&(events.len() as u32).to_le_bytes());
    out[16..24].copy_from_slice(&first.to_le_bytes());
    let crc = checksum(salt, &out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// Reads the frame at the head of `bytes`, if there is a whole one.
pub(super) fn parse<'a>(bytes: &'a [u8], salt: &Salt) -> Option<Frame<'a>> {
    let header = bytes.first_chunk::<HEADER>()?;
    if header[..4] != salt[..4] {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let end = HEADER.checked_add(word(8) as usize)?;
    let payload = bytes.get(HEADER..end)?;
    if checksum(salt, &bytes[8..end]) != word(4) {
        return None;
    }
    let first = u64::from(word(16)) | u64::from(word(20)) << 32;
    Some(Frame { first, changes: word(12), length: end.next_multiple_of(ALIGN), payload })
}

impl<'a> Frame<'a> {
    /// The changes, or `None` in the place of one that makes no sense.
    pub fn iter(&self) -> impl Iterator<Item = Option<Change<'a>>> {
        let mut rest = self.payload;
        (0..self.changes).map(move |_| {
            let (change, left) = split_change(rest)?;
            rest = left;
            Some(change)
        })
    }
}

fn split_change(bytes: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let (&kind, bytes) = bytes.split_first()?;
    let (key, bytes) = bytes.split_first_chunk::<4>()?;
    let (value, bytes) = bytes.split_first_chunk::<4>()?;
    let (key, bytes) = bytes.split_at_checked(u32::from_le_bytes(*key) as usize)?;
    let (value, bytes) = bytes.split_at_checked(u32::from_le_bytes(*value) as usize)?;
    let deleted = match kind {
        PUT => false,
        DELETE => true,
        _ => return None,
    };
    Some((Change { deleted, key: std::str::from_utf8(key).ok()?, value }, bytes))
}

fn checksum(salt: &Salt, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(salt);
    crc.update(bytes);
    crc.finalize()
}
