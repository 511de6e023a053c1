//! Field numbers of the built-in types, from `numbers.txt`: one type a line, `field=number` each. `*Type=number` is a
//! message whose fields stand directly in the JSON object; `field=number?` is one whose zero means absent.

use std::{collections::HashMap, sync::LazyLock};

use crate::schema::bare_name;

/// What a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A field of the object, and whether zero or false means that it was never set.
    Field(&'static str, bool),
    /// A message with more fields of the same object.
    Inline(&'static str),
}

type Table = HashMap<&'static str, Vec<(u32, Entry)>>;

/// Parsed when somebody first sends protobuf.
static TABLE: LazyLock<Table> = LazyLock::new(|| parse(include_str!("numbers.txt")));

/// The entry of a type, by the type's full name or its bare one.
pub(super) fn entry(ty: &str, number: u32) -> Option<Entry> {
    let entries = TABLE.get(bare_name(ty).unwrap_or(ty))?;
    entries.iter().find(|(own, _)| *own == number).map(|(_, entry)| *entry)
}

fn parse(text: &'static str) -> Table {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let entries = |word: &'static str| {
                let (name, number) = word.split_once('=')?;
                let (number, zero_is_absent) =
                    number.strip_suffix('?').map_or((number, false), |number| (number, true));
                let entry = name.strip_prefix('*').map_or(Entry::Field(name, zero_is_absent), Entry::Inline);
                Some((number.parse().ok()?, entry))
            };
            Some((words.next()?, words.filter_map(entries).collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a field has a number in a type, directly or through an inlined message.
    fn has(ty: &str, field: &str) -> bool {
        TABLE.get(ty).is_some_and(|entries| {
            entries.iter().any(|(_, entry)| match entry {
                Entry::Field(name, _) => *name == field,
                Entry::Inline(inner) => has(inner, field),
            })
        })
    }

    #[test]
    fn every_line_parses() {
        let words: usize = include_str!("numbers.txt").lines().map(|line| line.split(' ').count() - 1).sum();
        assert_eq!(TABLE.values().map(Vec::len).sum::<usize>(), words);
    }

    #[test]
    fn every_field_of_every_served_type_has_a_number() {
        let mut missing = Vec::new();
        let kinds = crate::kinds::all().into_iter().filter(super::super::has_form);
        let kinds = kinds.map(|kind| kind.schema.document());
        let reviews = crate::kinds::reviews().iter().map(|kind| kind.schema.document());
        let carried = crate::kinds::carried().into_iter().map(|document| (document.schema)());
        for mut schema in kinds.chain(reviews).chain(carried) {
            let definitions = schema["$defs"].take();
            let root = (&schema["title"].as_str().unwrap_or_default().to_owned(), &schema);
            for (name, definition) in definitions.as_object().into_iter().flatten().chain([root]) {
                let ty = bare_name(name).unwrap_or(name);
                for field in definition["properties"].as_object().into_iter().flatten().map(|(name, _)| name)
                {
                    // An object says its type in the envelope.
                    let of_every_object = matches!(field.as_str(), "apiVersion" | "kind")
                        && (has(ty, "metadata") || ty == "DeleteOptions");
                    if !has(ty, field) && !of_every_object {
                        missing.push(format!("{ty}.{field}"));
                    }
                }
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}
