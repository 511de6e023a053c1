//! What a plain word means: the rules of version 2 of go-yaml.

/// The meaning of a word that is not quoted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Word {
    Null,
    Flag(bool),
    Whole(i64),
    /// Above what [`Self::Whole`] holds.
    Large(u64),
    Number(f64),
    /// Only itself.
    Text,
}

/// Reads a word.
pub(super) fn meaning(word: &str) -> Word {
    if let Some(meaning) = known(word) {
        return meaning;
    }
    match word.as_bytes().first() {
        Some(b'.') => float(word),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let digits = word.replace('_', "");
            whole(&digits).unwrap_or_else(|| float(&digits))
        }
        _ => Word::Text,
    }
}

fn known(word: &str) -> Option<Word> {
    Some(match word {
        "" | "~" | "null" | "Null" | "NULL" => Word::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Word::Flag(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Word::Flag(false)
        }
        ".nan" | ".NaN" | ".NAN" => Word::Number(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Word::Number(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Word::Number(f64::NEG_INFINITY),
        _ => return None,
    })
}

/// A whole number, by the base that its beginning names: `0x1f`, `0b11`, `0o17`, and `017` as before YAML 1.2.
fn whole(digits: &str) -> Option<Word> {
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let (base, magnitude) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    // A second sign would be taken for a part of the number.
    if !magnitude.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let sign = if digits.starts_with('-') { "-" } else { "" };
    match i64::from_str_radix(&format!("{sign}{magnitude}"), base) {
        Ok(number) => Some(Word::Whole(number)),
        Err(_) if sign.is_empty() => u64::from_str_radix(magnitude, base).ok().map(Word::Large),
        Err(_) => None,
    }
}

fn float(digits: &str) -> Word {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match digits.parse::<f64>() {
        Ok(number) if is_number && number.is_finite() => Word::Number(number),
        _ => Word::Text,
    }
}

/// Whether readers of some version of YAML take a plain word for something else than itself.
pub(super) fn is_ambiguous(word: &str) -> bool {
    meaning(word) != Word::Text
        || matches!(word, "<<" | "=")
        || is_time(word)
        || is_sexagesimal(word)
        || is_number_with_gaps(word)
}

/// `._5`, `0x_`: some readers look at the digits only after they have taken it for a number.
fn is_number_with_gaps(word: &str) -> bool {
    let digits = word.replace('_', "");
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    word.contains('_')
        && unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit())
        && (meaning(&digits) != Word::Text || matches!(unsigned, "." | "0x" | "0X" | "0b" | "0B" | "0o"))
}

/// `2026-01-02`, with or without a time.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5].is_ascii_digit()
}

/// `1:30`, which was once a number of minutes.
fn is_sexagesimal(word: &str) -> bool {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let is_part = |byte: u8| byte.is_ascii_digit() || b":._".contains(&byte);
    unsigned.contains(':')
        && unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned.bytes().all(is_part)
}
