//! A place in a JSON text, and how to pass over what nobody wants: strings are searched for their end, nothing is built.
//!
//! For texts that were written by a serialiser. One that is not JSON is told where it is read as a value; what is passed
//! over is only known to be balanced.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::Error as _;
use serde_json::{Error, Result, Value};

/// As deep as `serde_json` reads.
const DEPTH_MAX: usize = 127;

/// Strings are looked at in words so far, since most are short.
const SHORT: usize = 32;

/// One in each byte of a word.
const ONES: u64 = u64::MAX / 0xff;

/// Where a reader is.
pub(super) struct Cursor<'a> {
    json: &'a [u8],
    at: usize,
    depth: usize,
    /// The value or key to come is the first of its container.
    first: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(json: &'a [u8]) -> Self {
        Self { json, at: 0, depth: 0, first: false }
    }

    /// The first byte of what comes next.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Goes into the container at hand.
    pub fn enter(&mut self) -> Result<()> {
        if self.depth == DEPTH_MAX {
            return Err(Error::custom(format!("it nests deeper than {DEPTH_MAX} levels")));
        }
        self.at += 1;
        self.depth += 1;
        self.first = true;
        Ok(())
    }

    /// Goes on with a container that was gone into and is over.
    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Whether there is one more item in the container before its end, which is passed over.
    pub fn more(&mut self, end: u8) -> Result<bool> {
        let first = std::mem::take(&mut self.first);
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !first => self.at += 1,
            Some(_) if first => {}
            _ => return Err(self.unexpected()),
        }
        Ok(true)
    }

    /// The key at hand; then comes its value.
    pub fn key(&mut self) -> Result<Cow<'a, str>> {
        let key = match self.peek() {
            Some(b'"') => self.string()?,
            _ => return Err(self.unexpected()),
        };
        if self.peek() != Some(b':') {
            return Err(self.unexpected());
        }
        self.at += 1;
        match key {
            Text::Plain(text) => utf8(text).map(Cow::Borrowed),
            Text::Escaped(quoted) => serde_json::from_slice(quoted).map(Cow::Owned),
        }
    }

    /// The value at hand, whole.
    pub fn value(&mut self) -> Result<Value> {
        if self.peek() == Some(b'"') {
            return match self.string()? {
                Text::Plain(text) => Ok(utf8(text)?.into()),
                Text::Escaped(quoted) => serde_json::from_slice(quoted),
            };
        }
        serde_json::from_slice(self.skip()?)
    }

    /// Where the value at hand begins.
    pub fn at_value(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// The text of what was read or passed over since then.
    pub fn text_since(&self, start: usize) -> Result<&'a str> {
        utf8(&self.json[start..self.at])
    }

    /// Passes over the value at hand.
    pub fn skip(&mut self) -> Result<&'a [u8]> {
        let first = self.peek().ok_or_else(|| self.unexpected())?;
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => self.skip_container()?,
            _ => self.skip_word(),
        }
        match &self.json[start..self.at] {
            [] => Err(self.unexpected()),
            text => Ok(text),
        }
    }

    fn skip_container(&mut self) -> Result<()> {
        let mut open = 0_usize;
        loop {
            match self.json.get(self.at) {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') => open -= 1,
                Some(_) => {}
                None => return Err(self.unexpected()),
            }
            self.at += 1;
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// A number, or a word.
    fn skip_word(&mut self) {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        self.at += self.json[self.at..].iter().take_while(is_part).count();
    }

    /// Passes over a string.
    fn string(&mut self) -> Result<Text<'a>> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = &self.json[self.at..];
            let Some(end) = special(rest) else { return Err(Error::custom("a string does not end")) };
            self.at += end + 1;
            if rest[end] == b'"' {
                break;
            }
            escaped = true;
            self.at = (self.at + 1).min(self.json.len());
        }
        let quoted = &self.json[start..self.at];
        Ok(if escaped { Text::Escaped(quoted) } else { Text::Plain(&quoted[1..quoted.len() - 1]) })
    }

    fn unexpected(&self) -> Error {
        Error::custom(format!("it is not JSON at byte {}", self.at))
    }
}

/// Where the first quote or backslash is.
fn special(text: &[u8]) -> Option<usize> {
    let (words, _) = text[..text.len().min(SHORT)].as_chunks();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A byte of zero borrows from the one above it, so that the lowest bit set is right whatever is above it.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let looked_at = words.len() * 8;
    memchr2(b'"', b'\\', &text[looked_at..]).map(|at| looked_at + at)
}

/// A string.
enum Text<'a> {
    /// What is between the quotes means itself.
    Plain(&'a [u8]),
    /// With its quotes.
    Escaped(&'a [u8]),
}

fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_ends_where_it_ends() {
        for value in [
            r#""a\"b\\""#,
            r#""a long text without anything special in it, \" but for this""#,
            r#"{"a":[{"b":"}"},[]],"c":"\\"}"#,
            "[]",
            "-1.5e+10",
            "true",
            "null",
        ] {
            let json = format!(" {value} ,1");
            let mut cursor = Cursor::new(json.as_bytes());
            let start = cursor.at_value();
            assert_eq!(cursor.skip().unwrap(), value.as_bytes());
            assert_eq!(cursor.text_since(start).unwrap(), value);
            let mut cursor = Cursor::new(json.as_bytes());
            assert_eq!(cursor.value().unwrap(), serde_json::from_str::<Value>(value).unwrap());
            assert_eq!(cursor.peek(), Some(b','));
        }
    }

    #[test]
    fn the_first_quote_or_backslash_is_found_wherever_it_is() {
        for length in 0..100 {
            for sign in ["\"", "\\"] {
                let text = format!("{}{sign}ü#!]\"\\", "aü".repeat(length));
                assert_eq!(special(text.as_bytes()), text.find(sign), "{text}");
            }
            assert_eq!(special("#!]x".repeat(length).as_bytes()), None);
        }
    }

    #[test]
    fn what_breaks_off_is_told() {
        for json in ["", "{", "[1,", "\"a", "\"a\\", "{\"a\":[}", ":"] {
            assert!(Cursor::new(json.as_bytes()).skip().is_err(), "{json}");
        }
        for json in ["{\"a\" 1}", "{1:2}", "{\"a\":1 \"b\":2}", "{,}"] {
            let mut cursor = Cursor::new(json.as_bytes());
            cursor.enter().unwrap();
            let mut read = || -> Result<()> {
                while cursor.more(b'}')? {
                    cursor.key()?;
                    cursor.value()?;
                }
                Ok(())
            };
            assert!(read().is_err(), "{json}");
        }
    }
}
