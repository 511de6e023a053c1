//! Frames of SPDY/3.1, as far as clients of Kubernetes use them (pure).
//!
//! Source: the draft "SPDY Protocol 3.1" of the Chromium project.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// All frames begin with eight bytes.
const HEAD_BYTES: usize = 8;

/// Kubernetes' headers are a few hundred bytes.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// How much data is passed on at a time, however long a frame is: a client's frame may be 16 MiB.
pub const DATA_BYTES_MAX: usize = 32 * 1024;

const VERSION: u16 = 3;
const FIN: u8 = 1;

/// What a stream is reset for when nobody wants it any more.
pub const CANCEL: u32 = 5;
/// What a stream is reset for that is one too many.
pub const REFUSED: u32 = 3;

/// One frame, or a piece of one with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The peer opens a stream. The block is compressed headers.
    Open { stream: u32, block: Bytes, fin: bool },
    /// The peer accepts one.
    Accept { stream: u32, block: Bytes, fin: bool },
    /// More headers of one.
    Headers { stream: u32, block: Bytes, fin: bool },
    /// A stream is over, whatever was under way.
    Reset { stream: u32, status: u32 },
    /// To be sent back as it is.
    Ping(u32),
    /// No new streams.
    GoAway { last: u32, status: u32 },
    /// For somebody who counts what is under way.
    WindowUpdate { stream: u32, bytes: u32 },
    /// What the sender would like, which binds nobody here.
    Settings,
    /// Of a kind that nobody knows, which is to be left alone.
    Unknown(u16),
    /// Data of a stream.
    Data { stream: u32, data: Bytes, fin: bool },
}

/// What came is no SPDY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client does not speak SPDY/3.1")]
pub struct Malformed;

/// Finds frames in what arrives.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Of a data frame that has begun.
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    stream: u32,
    bytes: usize,
    fin: bool,
}

impl Decoder {
    /// Takes the next frame from the front of what was read, if there is one.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        if let Some(rest) = self.rest {
            return Ok(self.data(rest, read));
        }
        let Some(mut head) = read.get(..HEAD_BYTES) else { return Ok(None) };
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0xff_ffff) as usize);
        if first >> 31 == 0 {
            read.advance(HEAD_BYTES);
            let rest = Rest { stream: first, bytes: length, fin: flags & FIN != 0 };
            return if first == 0 { Err(Malformed) } else { Ok(self.data(rest, read)) };
        }
        if (first >> 16) as u16 & 0x7fff != VERSION || length > CONTROL_BYTES_MAX {
            return Err(Malformed);
        }
        if read.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        read.advance(HEAD_BYTES);
        control((first & 0xffff) as u16, flags, read.split_to(length).freeze()).map(Some)
    }

    /// As much of a data frame as is there.
    fn data(&mut self, rest: Rest, read: &mut BytesMut) -> Option<Frame> {
        let piece = rest.bytes.min(read.len()).min(DATA_BYTES_MAX);
        let is_last = piece == rest.bytes;
        self.rest = (!is_last).then_some(Rest { bytes: rest.bytes - piece, ..rest });
        // A copy: a piece that waits holds no more memory than it counts for, and the buffer is used again.
        let data = Bytes::copy_from_slice(&read[..piece]);
        read.advance(piece);
        let says_something = !data.is_empty() || is_last;
        says_something.then_some(Frame::Data { stream: rest.stream, data, fin: rest.fin && is_last })
    }
}

fn control(kind: u16, flags: u8, mut body: Bytes) -> Result<Frame, Malformed> {
    let fin = flags & FIN != 0;
    let needed = match kind {
        1 => 10,
        2 | 8 | 6 => 4,
        3 | 7 | 9 => 8,
        _ => 0,
    };
    if body.len() < needed {
        return Err(Malformed);
    }
    let id = |body: &mut Bytes| body.get_u32() & 0x7fff_ffff;
    Ok(match kind {
        1 => {
            let stream = id(&mut body);
            // What it belongs to, its priority, a slot.
            body.advance(6);
            Frame::Open { stream, block: body, fin }
        }
        2 => Frame::Accept { stream: id(&mut body), block: body, fin },
        3 => Frame::Reset { stream: id(&mut body), status: body.get_u32() },
        4 => Frame::Settings,
        6 => Frame::Ping(body.get_u32()),
        7 => Frame::GoAway { last: id(&mut body), status: body.get_u32() },
        8 => Frame::Headers { stream: id(&mut body), block: body, fin },
        9 => Frame::WindowUpdate { stream: id(&mut body), bytes: id(&mut body) },
        other => Frame::Unknown(other),
    })
}

impl Frame {
    /// Writes it as it travels.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Open { stream, block, fin } => {
                put_control(out, 1, *fin, 10 + block.len());
                out.put_u32(*stream);
                out.put_bytes(0, 6);
                out.put_slice(block);
            }
            Self::Accept { stream, block, fin } => put_block(out, 2, *stream, block, *fin),
            Self::Headers { stream, block, fin } => put_block(out, 8, *stream, block, *fin),
            Self::Reset { stream, status } => put_pair(out, 3, *stream, *status),
            Self::GoAway { last, status } => put_pair(out, 7, *last, *status),
            Self::WindowUpdate { stream, bytes } => put_pair(out, 9, *stream, *bytes),
            Self::Ping(id) => {
                put_control(out, 6, false, 4);
                out.put_u32(*id);
            }
            Self::Settings => {
                put_control(out, 4, false, 4);
                out.put_u32(0);
            }
            Self::Unknown(kind) => put_control(out, *kind, false, 0),
            Self::Data { stream, data, fin } => {
                out.put_u32(*stream);
                put_length(out, *fin, data.len());
                out.put_slice(data);
            }
        }
    }
}

fn put_length(out: &mut BytesMut, fin: bool, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0xff_ffff;
    out.put_u32(u32::from(fin) << 24 | length);
}

fn put_control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, fin, length);
}

fn put_block(out: &mut BytesMut, kind: u16, stream: u32, block: &[u8], fin: bool) {
    put_control(out, kind, fin, 4 + block.len());
    out.put_u32(stream);
    out.put_slice(block);
}

fn put_pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    put_control(out, kind, false, 8);
    out.put_u32(first);
    out.put_u32(second);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let id = || 1_u32..0x8000_0000;
        let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from);
        let block = move || (id(), bytes(200), any::<bool>());
        prop_oneof![
            block().prop_map(|(stream, block, fin)| Frame::Open { stream, block, fin }),
            block().prop_map(|(stream, block, fin)| Frame::Accept { stream, block, fin }),
            block().prop_map(|(stream, block, fin)| Frame::Headers { stream, block, fin }),
            block().prop_map(|(stream, data, fin)| Frame::Data { stream, data, fin }),
            (id(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
            (id(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (id(), id()).prop_map(|(stream, bytes)| Frame::WindowUpdate { stream, bytes }),
            any::<u32>().prop_map(Frame::Ping),
            Just(Frame::Settings),
        ]
    }

    /// Pieces of data of one stream become one again.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut joined: Vec<Frame> = Vec::new();
        for frame in frames {
            match (joined.last_mut(), frame) {
                (
                    Some(Frame::Data { stream, data, fin }),
                    Frame::Data { stream: next, data: more, fin: end },
                ) if *stream == next && !*fin => {
                    *data = [&data[..], &more[..]].concat().into();
                    *fin = end;
                }
                (_, frame) => joined.push(frame),
            }
        }
        joined
    }

    fn decode(decoder: &mut Decoder, read: &mut BytesMut) -> Result<Vec<Frame>, Malformed> {
        let mut found = Vec::new();
        while let Some(frame) = decoder.next(read)? {
            found.push(frame);
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            frames in proptest::collection::vec(any_frame(), 0..12),
            cuts in proptest::collection::vec(1_usize..300, 1..8),
        ) {
            let mut wire = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut wire));
            let (mut decoder, mut read, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
            for cut in cuts.iter().cycle() {
                if wire.is_empty() {
                    break;
                }
                read.extend_from_slice(&wire.split_to((*cut).min(wire.len())));
                found.extend(decode(&mut decoder, &mut read).unwrap());
            }
            prop_assert_eq!(joined(found), joined(frames));
            prop_assert!(read.is_empty());
        }

        #[test]
        fn garbage_is_refused_or_waited_for_and_never_more(garbage in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut read = BytesMut::from(&garbage[..]);
            let found = decode(&mut Decoder::default(), &mut read);
            prop_assert!(found.is_err() || read.len() <= garbage.len());
        }
    }

    #[test]
    fn a_data_frame_of_any_length_comes_in_pieces_of_which_the_last_ends_it() {
        let mut read = BytesMut::new();
        Frame::Data { stream: 1, data: vec![7; 3 * DATA_BYTES_MAX + 1].into(), fin: true }.encode(&mut read);
        let found = decode(&mut Decoder::default(), &mut read).unwrap();
        let pieces: Vec<_> = found
            .iter()
            .map(|frame| match frame {
                Frame::Data { data, fin, .. } => (data.len(), *fin),
                other => panic!("{other:?}"),
            })
            .collect();
        let full = (DATA_BYTES_MAX, false);
        assert_eq!(pieces, [full, full, full, (1, true)]);
    }

    #[test]
    fn another_version_and_endless_headers_are_refused() {
        for head in [[0x80, 2, 0, 1, 0, 0, 0, 10], [0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], [0; 8]] {
            assert_eq!(Decoder::default().next(&mut BytesMut::from(&head[..])), Err(Malformed), "{head:?}");
        }
    }
}
