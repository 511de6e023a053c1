//! Random strings, digests and comparisons for secrets.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Letters of join tokens, as Kubernetes allows them.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Hex of so many random bytes.
pub(crate) fn random_hex(bytes: usize) -> Result<String, getrandom::Error> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)?;
    Ok(hex(&random))
}

/// So many random lower-case letters and digits.
pub(crate) fn random_letters(count: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(count);
    while text.len() < count {
        let mut random = [0; 64];
        getrandom::fill(&mut random)?;
        // 252 is the largest multiple of 36 in a byte: what is above would make some letters likelier.
        let fair = random
            .iter()
            .filter(|byte| **byte < 252)
            .map(|byte| char::from(ALPHABET[usize::from(byte % 36)]));
        text.extend(fair.take(count - text.len()));
    }
    Ok(text)
}

/// SHA-256 of a secret, so that secrets are compared by digests, in a time that says nothing about them.
pub(crate) fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Hex of the SHA-256 digest.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_strings_have_their_length_and_alphabet_and_differ() {
        let (one, two) = (random_letters(16).unwrap(), random_letters(16).unwrap());
        assert_eq!(one.len(), 16);
        assert!(one.bytes().all(|letter| ALPHABET.contains(&letter)));
        assert_ne!(one, two);
        assert_eq!(random_hex(16).unwrap().len(), 32);
    }

    #[test]
    fn digests_are_sha256() {
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
