//! From text to documents.
//!
//! Aliases stand for what they name, `<<` merges maps (what a map says itself goes before), tags of YAML's own make a word a text
//! or more, others are passed over. Keys become texts, as JSON needs them.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{HashMap, HashSet},
    fmt,
};

use granit_parser::{Event as Parsed, Parser, StrInput};
use serde::de;

use super::{
    scalar::{Form, Scalar, scalar},
    words::Word,
};

/// Levels of a document: as many as `serde_json` reads.
pub(super) const DEPTH_MAX: usize = 127;

/// Values that aliases and merged maps may add to those of a document itself: no manifest needs a tenth, and a hostile one
/// costs no more than about a second of reading.
const ADDED_MAX: usize = 1_000_000;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// One step of a document.
pub(super) enum Event<'i> {
    Scalar(Cow<'i, str>, Form),
    /// Until the step before that place.
    Sequence(usize),
    /// Likewise.
    Map(usize),
    End,
    /// What stands where that step is.
    Alias(usize),
}

impl Event<'_> {
    pub fn is_merge(&self) -> bool {
        matches!(self, Self::Scalar(text, Form::Plain) if text == "<<")
    }
}

/// What is known while a document is read.
#[derive(Default)]
struct Open {
    /// Where lists and maps began that have not ended.
    started: Vec<usize>,
    /// What names stand for.
    anchors: HashMap<usize, usize>,
}

/// A document, to be visited once.
pub struct Document<'i> {
    pub(super) events: Vec<Event<'i>>,
    /// Whether any map takes entries from others.
    pub(super) merges: bool,
    nodes: Cell<usize>,
}

/// The documents of a text, one after the other. After an error there are no more.
pub fn documents(text: &str) -> impl Iterator<Item = Result<Document<'_>, Error>> {
    let options = granit_parser::options! {
        emit_comments: false,
        block_scalar_eof_without_line_feed: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut parser = Some(Parser::new_from_str_with_options(text, options));
    // The parser would take it for the end.
    let has_end = text.contains('\0');
    std::iter::from_fn(move || {
        let next = match has_end {
            true => parser.as_ref().map(|_| Err(Error::new("control characters are not allowed"))),
            false => Document::next(parser.as_mut()?),
        };
        if !matches!(next, Some(Ok(_))) {
            parser = None;
        }
        next
    })
}

/// The document of a text; nothing is one, too.
///
/// # Errors
///
/// Whatever is wrong with the text, and a second document.
pub fn only(text: &str) -> Result<Option<Document<'_>>, Error> {
    let mut documents = documents(text);
    let first = documents.next().transpose()?;
    match documents.next().transpose()? {
        Some(_) => Err(Error::new("there are several documents in it; send one at a time")),
        None => Ok(first),
    }
}

/// The value of a text that holds one document.
///
/// # Errors
///
/// As those of [`only`].
pub fn from_str(text: &str) -> Result<serde_json::Value, Error> {
    only(text)?.map_or(Ok(serde_json::Value::Null), |document| de::Deserialize::deserialize(&document))
}

impl<'i> Document<'i> {
    fn next(parser: &mut Parser<'i, StrInput<'i>>) -> Option<Result<Self, Error>> {
        let mut document = Self { events: Vec::new(), merges: false, nodes: Cell::new(0) };
        let mut open = Open::default();
        for next in parser {
            match next {
                Err(error) => return Some(Err(Error(error.to_string()))),
                Ok((Parsed::DocumentEnd, _)) => return Some(Ok(document)),
                Ok((event, _)) => document.take(event, &mut open),
            }
        }
        None
    }

    fn take(&mut self, event: Parsed<'i>, open: &mut Open) {
        let at = self.events.len();
        let (event, anchor) = match event {
            Parsed::Scalar(text, style, anchor, tag) => {
                (Event::Scalar(text, Form::of(style, tag.as_deref())), anchor)
            }
            Parsed::SequenceStart(_, anchor, _) => (Event::Sequence(at), anchor),
            Parsed::MappingStart(_, anchor, _) => (Event::Map(at), anchor),
            Parsed::SequenceEnd | Parsed::MappingEnd => (Event::End, 0),
            Parsed::Alias(anchor) => match open.anchors.get(&anchor) {
                Some(meant) => (Event::Alias(*meant), 0),
                None => return,
            },
            _ => return,
        };
        match event {
            Event::Sequence(_) | Event::Map(_) => open.started.push(at),
            Event::End => self.close(open.started.pop(), at + 1),
            Event::Scalar(..) | Event::Alias(_) => {}
        }
        if anchor > 0 {
            open.anchors.insert(anchor, at);
        }
        self.merges |= event.is_merge();
        self.events.push(event);
    }

    fn close(&mut self, started: Option<usize>, after: usize) {
        if let Some(Event::Sequence(end) | Event::Map(end)) = started.and_then(|at| self.events.get_mut(at)) {
            *end = after;
        }
    }

    pub(super) fn count(&self) -> Result<(), Error> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() <= self.events.len() + ADDED_MAX {
            return Ok(());
        }
        Err(Error::new(format!("its aliases expand to more than {ADDED_MAX} values")))
    }

    /// Where what follows the value at a place is.
    pub(super) fn after(&self, at: usize) -> usize {
        match self.events.get(at) {
            Some(Event::Sequence(end) | Event::Map(end)) => *end,
            _ => at + 1,
        }
    }

    /// The event that a place stands for.
    pub(super) fn meant(&self, at: usize) -> usize {
        match self.events.get(at) {
            Some(Event::Alias(meant)) => *meant,
            _ => at,
        }
    }

    pub(super) fn key(&self, at: usize) -> Result<Cow<'_, str>, Error> {
        let Some(Event::Scalar(text, form)) = self.events.get(self.meant(at)) else {
            return Err(Error::new("a key of a map must be a word, not a list or a map"));
        };
        Ok(match scalar(text, *form)? {
            Scalar::Text(text) => text,
            Scalar::Word(Word::Flag(flag)) => flag.to_string().into(),
            Scalar::Word(Word::Whole(number)) => number.to_string().into(),
            Scalar::Word(Word::Large(number)) => number.to_string().into(),
            Scalar::Word(Word::Number(number)) if number.is_finite() => number.to_string().into(),
            Scalar::Word(Word::Number(_)) => text.to_lowercase().into(),
            Scalar::Word(Word::Null | Word::Text) => {
                return Err(Error::new("a key of a map must not be null"));
            }
        })
    }

    /// The entries that a map takes from others: key, and where the value is. Of several that have a key the first counts.
    pub(super) fn merged(
        &self,
        sources: &[usize],
        known: &mut HashSet<String>,
        depth: usize,
    ) -> Result<Vec<(String, usize)>, Error> {
        let mut found = Vec::new();
        for source in sources {
            self.count()?;
            let source = self.meant(*source);
            match self.events.get(source) {
                _ if depth > DEPTH_MAX => return Err(too_deep()),
                Some(Event::Map(_)) => found.extend(self.entries(source, known, depth)?),
                Some(Event::Sequence(_)) => {
                    let mut items = Vec::new();
                    let mut at = source + 1;
                    while !matches!(self.events.get(at), Some(Event::End) | None) {
                        items.push(at);
                        at = self.after(at);
                    }
                    found.extend(self.merged(&items, known, depth + 1)?);
                }
                _ => return Err(Error::new("map merge requires map or sequence of maps as the value")),
            }
        }
        Ok(found)
    }

    /// All entries of a map whose keys are not known yet, its own before those it takes from others.
    fn entries(
        &self,
        map: usize,
        known: &mut HashSet<String>,
        depth: usize,
    ) -> Result<Vec<(String, usize)>, Error> {
        let (mut found, mut sources) = (Vec::new(), Vec::new());
        let mut at = map + 1;
        while let Some(event) = self.events.get(at).filter(|event| !matches!(event, Event::End)) {
            self.count()?;
            let value = self.after(at);
            if event.is_merge() {
                sources.push(value);
            } else {
                let key = self.key(at)?.into_owned();
                if known.insert(key.clone()) {
                    found.push((key, value));
                }
            }
            at = self.after(value);
        }
        found.extend(self.merged(&sources, known, depth + 1)?);
        Ok(found)
    }
}

pub(super) fn too_deep() -> Error {
    Error::new(format!("it nests deeper than {DEPTH_MAX} levels"))
}
