//! What a scalar means, by its style, its tag and its words.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use granit_parser::{ScalarStyle, Tag};

use super::{
    read::Error,
    words::{Word, meaning},
};

/// What a scalar is to be read as.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Whatever it looks like.
    Plain,
    Text,
    Whole,
    Number,
    Flag,
    Null,
    Binary,
}

impl Form {
    pub fn of(style: ScalarStyle, tag: Option<&Tag>) -> Self {
        let Some(tag) = tag else {
            return if style == ScalarStyle::Plain { Self::Plain } else { Self::Text };
        };
        let whole = format!("{}{}", tag.handle(), tag.suffix());
        match whole.strip_prefix("tag:yaml.org,2002:") {
            Some("int") => Self::Whole,
            Some("float") => Self::Number,
            Some("bool") => Self::Flag,
            Some("null") => Self::Null,
            Some("binary") => Self::Binary,
            Some("merge") => Self::Plain,
            // A text, a time, and everything that only its author understands.
            _ => Self::Text,
        }
    }

    /// As tags call it.
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "int",
            Self::Number => "float",
            Self::Flag => "bool",
            Self::Null => "null",
            Self::Binary => "binary",
            Self::Plain | Self::Text => "str",
        }
    }
}

/// The value of a scalar.
pub(super) enum Scalar<'t> {
    Text(Cow<'t, str>),
    Word(Word),
}

pub(super) fn scalar(text: &str, form: Form) -> Result<Scalar<'_>, Error> {
    let found = meaning(text);
    match (form, found) {
        (Form::Text, _) | (Form::Plain, Word::Text) => Ok(Scalar::Text(text.into())),
        (Form::Plain, _)
        | (Form::Whole, Word::Whole(_) | Word::Large(_))
        | (Form::Number, Word::Number(_) | Word::Whole(_) | Word::Large(_))
        | (Form::Flag, Word::Flag(_))
        | (Form::Null, Word::Null) => Ok(Scalar::Word(found)),
        (Form::Binary, _) => {
            let decoded = STANDARD.decode(text.replace(char::is_whitespace, ""));
            let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            text.map(|text| Scalar::Text(text.into()))
                .ok_or_else(|| Error::new("!!binary value contains invalid base64 data"))
        }
        _ => Err(Error::new(format!("cannot decode `{text}` as a !!{}", form.name()))),
    }
}
