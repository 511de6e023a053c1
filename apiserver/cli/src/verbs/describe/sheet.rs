//! Lays out `Key:  value` lines, indented in levels. Pure.

use std::fmt::Write as _;

use serde_json::Value;

/// Spaces of one level.
const INDENT: usize = 2;
/// Spaces between the longest key of a group and the values.
const GAP: usize = 2;

/// A description as it grows.
#[derive(Debug, Default)]
pub struct Sheet {
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Pair {
        level: usize,
        key: String,
        value: String,
    },
    /// Free text, already complete.
    Text(String),
}

impl Sheet {
    /// `Key:  value`; further lines of the value stand under the first.
    pub fn pair(&mut self, level: usize, key: &str, value: impl Into<String>) {
        self.lines.push(Line::Pair { level, key: key.to_owned(), value: value.into() });
    }

    /// The same, unless the value is empty.
    pub fn known(&mut self, level: usize, key: &str, value: &str) {
        if !value.is_empty() {
            self.pair(level, key, value);
        }
    }

    /// A key whose contents follow on the next level.
    pub fn heading(&mut self, level: usize, key: &str) {
        self.pair(level, key, "");
    }

    /// A key and a map, one `key=value` or `key: value` a line.
    pub fn map(&mut self, level: usize, key: &str, map: &Value, separator: &str) {
        let pairs: Vec<String> = map
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}{separator}{}", plain(value)))
            .collect();
        self.pair(level, key, if pairs.is_empty() { "<none>".to_owned() } else { pairs.join("\n") });
    }

    /// A small table under a heading; the first row is its header.
    pub fn table(&mut self, level: usize, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|i| {
                rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in rows {
            let mut text = " ".repeat(level * INDENT);
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(text, "{cell:width$}  ");
            }
            self.lines.push(Line::Text(text.trim_end().to_owned()));
        }
    }

    /// The whole text. Values of neighbours on one level stand in one column.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (i, line) in self.lines.iter().enumerate() {
            match line {
                Line::Text(line) => text.push_str(line),
                Line::Pair { level, key, value } if value.is_empty() => {
                    let _ = write!(text, "{}{key}:", " ".repeat(level * INDENT));
                }
                Line::Pair { level, key, value } => {
                    let column = level * INDENT + self.width(i, *level) + 1 + GAP;
                    let head = format!("{}{key}:", " ".repeat(level * INDENT));
                    let mut values = value.lines();
                    let _ = write!(text, "{head:column$}{}", values.next().unwrap_or_default());
                    for more in values {
                        let _ = write!(text, "\n{}{more}", " ".repeat(column));
                    }
                }
            }
            text.push('\n');
        }
        text
    }

    /// The longest key around a line: on its level, up to the next line on a higher one.
    fn width(&self, at: usize, level: usize) -> usize {
        let key_of = |line: &Line| match line {
            Line::Pair { level: l, key, value } if *l == level && !value.is_empty() => {
                Some(key.chars().count())
            }
            _ => None,
        };
        let inside = |line: &&Line| match line {
            Line::Pair { level: l, .. } => *l >= level,
            Line::Text(_) => true,
        };
        let before = self.lines[..=at].iter().rev().take_while(inside).filter_map(key_of);
        let after = self.lines[at..].iter().take_while(inside).filter_map(key_of);
        before.chain(after).max().unwrap_or(0)
    }
}

/// A leaf as people read it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_one_level_stand_in_one_column() {
        let mut sheet = Sheet::default();
        sheet.pair(0, "Name", "web");
        sheet.map(0, "Labels", &json!({"a": "b", "c": "d"}), "=");
        sheet.heading(0, "Containers");
        sheet.heading(1, "main");
        sheet.pair(2, "Image", "x");
        sheet.pair(2, "Restart Count", "0");
        sheet.table(1, &[vec!["TYPE".into(), "STATUS".into()], vec!["Ready".into(), "True".into()]]);
        sheet.known(0, "Nothing", "");
        sheet.pair(0, "Annotations", "<none>");
        assert_eq!(
            sheet.render(),
            "Name:         web\n\
             Labels:       a=b\n\
             \u{20}             c=d\n\
             Containers:\n\
             \u{20} main:\n\
             \u{20}   Image:          x\n\
             \u{20}   Restart Count:  0\n\
             \u{20} TYPE   STATUS\n\
             \u{20} Ready  True\n\
             Annotations:  <none>\n"
        );
    }
}
