//! Bytes as choices.
//!
//! A fuzzer makes bytes; what a decoder should get are documents, programs and histories that are nearly right. So a driver
//! reads its input as a list of choices, and builds from them. When the bytes are used up the first choice is always taken,
//! so that every input means something, a shorter input is a simpler case, and none goes on for ever.

/// Choices that are still to be made.
pub struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    /// The choices that these bytes are.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all that follow are the first choice.
    pub const fn is_spent(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// A number below `limit`, which is at most 65,536.
    pub fn below(&mut self, limit: usize) -> usize {
        let choice = match limit {
            0 | 1 => 0,
            2..=256 => usize::from(self.byte()),
            _ => usize::from(self.byte()) << 8 | usize::from(self.byte()),
        };
        choice % limit.max(1)
    }

    /// No, then yes.
    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Whether to go on with a list that has so many items; lists end with the bytes.
    pub fn more(&mut self, items: usize, limit: usize) -> bool {
        items < limit && !self.is_spent() && self.below(4) != 0
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A whole number, often a small one, sometimes an extreme one.
    pub fn number(&mut self) -> i64 {
        match self.below(8) {
            0..=4 => self.below(6) as i64 - 1,
            5 => i64::from(self.byte()) << 8 | i64::from(self.byte()),
            6 => self.pick(&[i64::MAX, i64::MIN, 1 << 31, -(1 << 31) - 1, 1 << 53, 65_536]),
            _ => i64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// A short text: a word that means something somewhere, or a few letters.
    pub fn text(&mut self, words: &[&str]) -> String {
        if !words.is_empty() && self.below(4) != 3 {
            return self.pick(words).to_owned();
        }
        let mut text = String::new();
        while self.more(text.len(), 24) {
            text.push(self.pick(&LETTERS));
        }
        text
    }

    /// The bytes that are left, as they are.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// At most so many of them.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// Letters that are something special to somebody.
const LETTERS: [char; 40] = [
    'a',
    'b',
    'c',
    'x',
    'z',
    'A',
    'Z',
    '0',
    '1',
    '9',
    '-',
    '_',
    '.',
    '/',
    ':',
    ',',
    ' ',
    '=',
    '!',
    '(',
    ')',
    '[',
    ']',
    '{',
    '}',
    '"',
    '\'',
    '\\',
    '$',
    '%',
    '*',
    '~',
    '&',
    '<',
    '\n',
    '\t',
    '\0',
    'é',
    '€',
    '\u{10ffff}',
];
