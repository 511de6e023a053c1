//! Blocks of headers: names and values, compressed by zlib with a dictionary that both sides know (pure).
//!
//! The compression goes on over all blocks of a direction, so every block must pass through, wanted or not.

use std::sync::LazyLock;

use bytes::{Buf as _, BufMut as _, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::Malformed;

/// Names and values. Several values of one name are separated by zero bytes.
pub type Headers = Vec<(String, String)>;

/// What a block may unpack to: Kubernetes' are a few hundred bytes, and zlib packs a thousand to one.
const UNPACKED_BYTES_MAX: usize = 64 * 1024;

const STEP_BYTES: usize = 4 * 1024;

/// Words of the dictionary that stand with their length before them, and what follows those.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
    Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=\
    iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for word in WORDS.split_whitespace() {
        put_text(&mut bytes, &word.replace('_', " "));
    }
    bytes.put_slice(TAIL.as_bytes());
    bytes
});

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

/// Packs the blocks of one direction.
pub struct Packer(Compress);

impl Packer {
    pub fn new() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        // It refuses only when something was packed already.
        let _ = zlib.set_dictionary(&DICTIONARY);
        Self(zlib)
    }

    /// The next block.
    pub fn pack(&mut self, headers: &Headers) -> Bytes {
        let mut plain = Vec::new();
        plain.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
        for (name, value) in headers {
            put_text(&mut plain, name);
            put_text(&mut plain, value);
        }
        let (start, mut packed) = (self.0.total_in(), Vec::new());
        loop {
            packed.reserve(STEP_BYTES);
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(plain.len());
            let status = self.0.compress_vec(&plain[done..], &mut packed, FlushCompress::Sync);
            let is_full = packed.len() == packed.capacity();
            if !is_full || !matches!(status, Ok(Status::Ok)) {
                return packed.into();
            }
        }
    }
}

/// Unpacks the blocks of the other direction.
pub struct Unpacker(Decompress);

impl Unpacker {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The next block.
    pub fn unpack(&mut self, block: &[u8]) -> Result<Headers, Malformed> {
        let (start, mut plain) = (self.0.total_in(), Vec::new());
        loop {
            plain.reserve(STEP_BYTES);
            let done = usize::try_from(self.0.total_in() - start).map_err(|_| Malformed)?;
            let rest = block.get(done..).ok_or(Malformed)?;
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| Malformed)?;
                    continue;
                }
                Err(_) => return Err(Malformed),
            }
            if plain.len() > UNPACKED_BYTES_MAX {
                return Err(Malformed);
            }
            if plain.len() < plain.capacity() {
                return parse(plain.into());
            }
        }
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, Malformed> {
    let count = plain.try_get_u32().map_err(|_| Malformed)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        headers.push((text(&mut plain)?.to_ascii_lowercase(), text(&mut plain)?));
    }
    Ok(headers)
}

fn text(plain: &mut Bytes) -> Result<String, Malformed> {
    let length = plain.try_get_u32().map_err(|_| Malformed)? as usize;
    if length > plain.len() {
        return Err(Malformed);
    }
    String::from_utf8(plain.split_to(length).into()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        let (mut low, mut high) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            low = (low + u32::from(*byte)) % 65_521;
            high = (high + low) % 65_521;
        }
        assert_eq!((DICTIONARY.len(), high << 16 | low), (1423, 0xe3c6_a7c2));
    }

    proptest! {
        #[test]
        fn blocks_come_out_as_they_went_in(
            blocks in proptest::collection::vec(proptest::collection::vec(("[a-z-]{1,20}", ".{0,80}"), 0..8), 0..5),
        ) {
            let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
            for block in blocks {
                prop_assert_eq!(unpacker.unpack(&packer.pack(&block)).unwrap(), block);
            }
        }

        #[test]
        fn garbage_is_refused(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut unpacker = Unpacker::new();
            if let Ok(headers) = unpacker.unpack(&garbage) {
                prop_assert!(headers.is_empty());
            }
        }
    }

    #[test]
    fn a_block_that_unpacks_without_end_is_refused() {
        let bomb = Packer::new().pack(&vec![("a".to_owned(), "x".repeat(2 * UNPACKED_BYTES_MAX))]);
        assert!(bomb.len() < 2_000);
        assert_eq!(Unpacker::new().unpack(&bomb), Err(Malformed));
    }
}
