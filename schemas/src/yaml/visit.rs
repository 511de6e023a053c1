//! Documents as serde visits them.

use std::{borrow::Cow, collections::HashSet};

use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};

use super::{
    read::{DEPTH_MAX, Document, Error, Event, too_deep},
    scalar::{Scalar, scalar},
    words::Word,
};

impl<'de> Deserializer<'de> for &'de Document<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.events.is_empty() {
            return visitor.visit_unit();
        }
        Value { document: self, at: 0, depth: 0 }.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A value of a document.
#[derive(Clone, Copy)]
struct Value<'de, 'i> {
    document: &'de Document<'i>,
    at: usize,
    depth: usize,
}

impl<'de> Deserializer<'de> for Value<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { document, at, depth } = self;
        document.count()?;
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        match &document.events[document.meant(at)] {
            Event::Scalar(text, form) => match scalar(text, *form)? {
                Scalar::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
                Scalar::Text(Cow::Owned(text)) => visitor.visit_string(text),
                Scalar::Word(word) => visit(word, visitor),
            },
            Event::Sequence(_) => visitor.visit_seq(Items { inner: self.first() }),
            Event::Map(_) => visitor.visit_map(Entries {
                inner: self.first(),
                value: 0,
                own: HashSet::new(),
                sources: Vec::new(),
                merged: None,
            }),
            Event::End | Event::Alias(_) => Err(Error::new("a value is missing")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

fn visit<'de, V: Visitor<'de>>(word: Word, visitor: V) -> Result<V::Value, Error> {
    match word {
        Word::Null | Word::Text => visitor.visit_unit(),
        Word::Flag(flag) => visitor.visit_bool(flag),
        Word::Whole(number) => visitor.visit_i64(number),
        Word::Large(number) => visitor.visit_u64(number),
        Word::Number(number) if !number.is_finite() => {
            Err(Error::new(format!("{number} is no number in JSON")))
        }
        // JSON as Go writes it has no point in whole numbers, and who waits for one takes it.
        Word::Number(number) => match number.to_string().parse() {
            Ok(whole) => visitor.visit_i64(whole),
            Err(_) => visitor.visit_f64(number),
        },
    }
}

impl<'de, 'i> Value<'de, 'i> {
    /// The first value in this one.
    fn first(self) -> Self {
        Self { at: self.document.meant(self.at) + 1, depth: self.depth + 1, ..self }
    }

    fn is_end(self) -> bool {
        matches!(self.document.events.get(self.at), Some(Event::End) | None)
    }

    fn next(self) -> Self {
        Self { at: self.document.after(self.at), ..self }
    }
}

struct Items<'de, 'i> {
    inner: Value<'de, 'i>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.inner.is_end() {
            return Ok(None);
        }
        let item = self.inner;
        self.inner = item.next();
        seed.deserialize(item).map(Some)
    }
}

struct Entries<'de, 'i> {
    /// Where the next key is.
    inner: Value<'de, 'i>,
    /// Where the value of the last key is.
    value: usize,
    /// Keys of the map itself, while they may be in others too.
    own: HashSet<String>,
    /// What is to be merged into it.
    sources: Vec<usize>,
    /// What is merged into it and still to be told, last first.
    merged: Option<Vec<(String, usize)>>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let document = self.inner.document;
        while !self.inner.is_end() {
            let key = self.inner;
            let value = key.next();
            self.inner = value.next();
            if document.events[key.at].is_merge() {
                self.sources.push(value.at);
                continue;
            }
            self.value = value.at;
            let key = document.key(key.at)?;
            if document.merges {
                self.own.insert(key.clone().into_owned());
            }
            return seed.deserialize(key.into_deserializer()).map(Some);
        }
        if self.merged.is_none() {
            let mut merged = document.merged(&self.sources, &mut self.own, self.inner.depth)?;
            merged.reverse();
            self.merged = Some(merged);
        }
        let Some((key, value)) = self.merged.as_mut().and_then(Vec::pop) else { return Ok(None) };
        self.value = value;
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Value { at: self.value, ..self.inner })
    }
}
