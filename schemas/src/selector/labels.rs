//! The text of a label selector, by upstream's grammar (`k8s.io/apimachinery/pkg/labels`, `Parse`).

use super::{Requirement, SelectorError};

/// Letters that are never part of a word.
const SIGNS: [char; 7] = ['=', '!', '(', ')', ',', '<', '>'];

/// Letters of a name or a value, and of the prefix before a name.
const NAME_BYTES_MAX: usize = 63;
const PREFIX_BYTES_MAX: usize = 253;

/// The conditions that a text holds.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut reader = Reader { rest: text };
    let mut all = Vec::new();
    if reader.peek() == Token::End {
        return Ok(all);
    }
    loop {
        all.push(reader.requirement().ok_or_else(|| bad(text))?);
        match reader.next() {
            Token::End => return Ok(all),
            Token::Sign(",") => {}
            _ => return Err(bad(text)),
        }
    }
}

fn bad(text: &str) -> SelectorError {
    SelectorError(format!(
        "unable to parse requirement \"{text}\": use key=value, key!=value, key in (a,b), key notin (a,b), key>1, key<1, key or !key"
    ))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

/// Reads from left to right; `None` for what is no requirement.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Token<'a> {
        let text = self.rest.trim_start();
        let is_word = !text.starts_with(SIGNS);
        let length = match text.as_bytes() {
            [] => return Token::End,
            [b'=' | b'!', b'=', ..] => 2,
            _ if is_word => {
                text.find(|c: char| SIGNS.contains(&c) || c.is_whitespace()).unwrap_or(text.len())
            }
            _ => 1,
        };
        let (token, rest) = text.split_at(length);
        self.rest = rest;
        if is_word { Token::Word(token) } else { Token::Sign(token) }
    }

    fn peek(&self) -> Token<'a> {
        Reader { rest: self.rest }.next()
    }

    fn requirement(&mut self) -> Option<Requirement> {
        let key = match self.next() {
            Token::Sign("!") => return Some(Requirement::Absent(key(self.next())?)),
            word => key(word)?,
        };
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Some(Requirement::Exists(key));
        }
        Some(match self.next() {
            Token::Word("in") => Requirement::In(key, self.values()?),
            Token::Word("notin") => Requirement::NotIn(key, self.values()?),
            Token::Sign("=" | "==") => Requirement::In(key, vec![self.value()?]),
            Token::Sign("!=") => Requirement::NotIn(key, vec![self.value()?]),
            Token::Sign(">") => Requirement::Above(key, self.value()?.parse().ok()?),
            Token::Sign("<") => Requirement::Below(key, self.value()?.parse().ok()?),
            _ => return None,
        })
    }

    /// A value, which may be nothing.
    fn value(&mut self) -> Option<String> {
        if matches!(self.peek(), Token::End | Token::Sign("," | ")")) {
            return Some(String::new());
        }
        match self.next() {
            Token::Word(text) => is_name(text).then(|| text.to_owned()),
            _ => None,
        }
    }

    fn values(&mut self) -> Option<Vec<String>> {
        if self.next() != Token::Sign("(") || self.peek() == Token::Sign(")") {
            return None;
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            match self.next() {
                Token::Sign(")") => return Some(values),
                Token::Sign(",") => {}
                _ => return None,
            }
        }
    }
}

/// A label's key: a name, maybe after the DNS name of whoever gave it its meaning.
fn key(token: Token<'_>) -> Option<String> {
    let Token::Word(text) = token else { return None };
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    (prefix.is_none_or(is_prefix) && is_name(name)).then(|| text.to_owned())
}

fn is_prefix(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= PREFIX_BYTES_MAX && text.split('.').all(is_label)
}

fn is_name(text: &str) -> bool {
    let is_outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= NAME_BYTES_MAX
        && is_outer(text.as_bytes().first())
        && is_outer(text.as_bytes().last())
        && text.bytes().all(is_inner)
}
