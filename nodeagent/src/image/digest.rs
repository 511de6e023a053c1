//! Digests: names of contents, and a reader that finds out what it read.
//!
//! SHA-256 alone: no registry in the field uses another algorithm for images.

use std::{
    fmt,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, ids};

const ALGORITHM: &str = "sha256:";

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Reads what a manifest or a person wrote.
    ///
    /// # Errors
    /// When it is no SHA-256 digest.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let hex = text.strip_prefix(ALGORITHM).unwrap_or_default();
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if hex.len() == 64 && hex.chars().all(is_hex) {
            Ok(Self(hex.to_owned()))
        } else {
            Err(Error::Image(format!("\"{text}\" is no digest: expected sha256: and 64 hexadecimal digits")))
        }
    }

    /// Of a content.
    pub fn of(content: &[u8]) -> Self {
        Self(ids::hex(&Sha256::digest(content)))
    }

    /// The 64 digits: safe in a path.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Passes on what it reads, and knows its digest and length. The length can be looked at from elsewhere meanwhile.
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    length: Arc<AtomicU64>,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), length: Arc::default() }
    }

    /// How much was read so far.
    pub(super) fn length(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.length)
    }

    /// Of everything that was read.
    pub(super) fn digest(&self) -> Digest {
        Digest(ids::hex(&self.hasher.clone().finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.length.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_lower_case_hexadecimal_digits_after_its_algorithm() {
        let good = Digest::of(b"abc").to_string();
        assert_eq!(good, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::parse(&good).unwrap().to_string(), good);
        for bad in ["", "sha256:", "sha256:abc", "sha256:../../etc/passwd", &good[7..], &good.to_uppercase()]
        {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_read_is_counted_and_digested() {
        let mut reader = Hashing::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.digest(), Digest::of(b"abc"));
        assert_eq!(reader.length().load(Ordering::Relaxed), 3);
    }
}
