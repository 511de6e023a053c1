//! Objects that are being written, taken apart: the document, and apart from it the text that says who owns its fields.
//!
//! Most writes only carry that text along, and it is half of what a pod is: as a part of the document it would be read into
//! a tree, copied and written again each time. Whoever shows the document to others, or converts it, opens it first.

use std::fmt;

use claw_schemas::ApiError;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};

use super::{
    encode,
    object::metadata_mut,
    owners::{self, FIELD},
};
use crate::{
    fields::{Account, Entry},
    store::{Draft, Record},
};

/// An object without its `managedFields`, and these.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sealed {
    pub object: Value,
    /// `None` while nobody keeps account of this object.
    pub owners: Option<Account>,
}

impl Sealed {
    /// What is stored.
    pub fn of(record: &Record) -> Result<Self, ApiError> {
        read(&record.value).map_err(|error| encode::unreadable(record, &error))
    }

    /// A document, taken apart.
    pub fn closed(mut object: Value) -> Self {
        let owners = owners::take(&mut object).as_ref().map(Account::from);
        Self { object, owners }
    }

    /// The document as others see it.
    pub fn opened(&self) -> Value {
        let mut object = self.object.clone();
        if let Some(owners) = &self.owners {
            metadata_mut(&mut object).insert(FIELD.to_owned(), owners.to_json());
        }
        object
    }

    /// As it is stored, with a hole for its revision.
    pub fn draft(&self) -> Draft {
        encode::draft_with(&self.object, self.owners.as_ref().map(Account::text))
    }

    /// Who owns what.
    pub fn entries(&self) -> Vec<Entry> {
        self.owners.as_ref().map(Account::entries).unwrap_or_default()
    }
}

fn read(stored: &[u8]) -> Result<Sealed, serde_json::Error> {
    let mut owners = None;
    let mut json = serde_json::Deserializer::from_slice(stored);
    let object = Level::Top(&mut owners).deserialize(&mut json)?;
    json.end()?;
    Ok(Sealed { object, owners })
}

/// How deep a document is taken apart, and where to put what is taken out.
enum Level<'o> {
    Top(&'o mut Option<Account>),
    Metadata(&'o mut Option<Account>),
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut json: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = json.next_key::<String>()? {
            let value = match &mut self {
                Self::Top(owners) if key == "metadata" => json.next_value_seed(Level::Metadata(owners))?,
                Self::Metadata(owners) if key == FIELD => {
                    **owners = Some(json.next_value::<&RawValue>()?.into());
                    continue;
                }
                _ => json.next_value()?,
            };
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Key;

    fn record(object: &Value) -> Record {
        let key = Key::object("", "events", "default", "x");
        Record { key, revision: 5, value: encode::draft(object).at(5) }
    }

    fn sample() -> Value {
        json!({
            "kind": "Event",
            "involvedObject": {"managedFields": [1], "metadata": {"managedFields": [2]}},
            "metadata": {
                "annotations": {"managedFields": "[]"},
                "managedFields": [{"manager": "a\"b", "fieldsV1": {"f:x": {}}}],
                "name": "x",
                "resourceVersion": "5",
                "uid": "u",
            },
        })
    }

    #[test]
    fn a_sealed_object_is_stored_and_shown_like_an_open_one() {
        let object = sample();
        let stored = record(&object);
        let sealed = Sealed::of(&stored).unwrap();
        assert_eq!(
            sealed.owners.as_ref().map(Account::text),
            Some(r#"[{"fieldsV1":{"f:x":{}},"manager":"a\"b"}]"#)
        );
        assert_eq!(sealed.object["metadata"].get(FIELD), None);
        assert_eq!(sealed.draft().at(5), stored.value);
        assert_eq!(sealed.opened(), object);
        assert_eq!(Sealed::closed(object), sealed);
    }

    #[test]
    fn an_object_of_which_nobody_keeps_account_has_no_owners() {
        let mut object = sample();
        owners::take(&mut object);
        let stored = record(&object);
        let sealed = Sealed::of(&stored).unwrap();
        assert_eq!(sealed, Sealed { object: object.clone(), owners: None });
        assert_eq!((sealed.draft().at(5), sealed.opened()), (stored.value, object));
    }

    #[test]
    fn what_is_no_object_is_told_by_its_key() {
        for broken in ["", "[]", "{\"metadata\":{\"managedFields\":[}}", "{\"metadata\":[]}", "{} {}"] {
            let broken = Record { value: broken.into(), ..record(&sample()) };
            let error = Sealed::of(&broken).unwrap_err();
            assert!(error.message.contains("events") && error.code == 500, "{}", error.message);
        }
    }
}
