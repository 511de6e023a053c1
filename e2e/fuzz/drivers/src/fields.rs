//! `managedFields` as clients send them: sets of fields keep their members through every form and operation.

use claw_apiserver::fields::{self, Account, Element, Set};
use serde_json::{Map, Value, json};

use crate::{json, tape::Tape};

/// Three sets, and `managedFields` of any sort.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let sets: [Set; 3] = std::array::from_fn(|_| {
        let fields = steps(&mut tape, 5);
        let set = Set::from_text(&fields.to_string()).unwrap_or_else(|error| panic!("{fields}: {error}"));
        is_kept(&set, &fields);
        set
    });
    obeys_the_laws(&sets);
    entries(&mut tape, &sets);
}

/// What is written is read as the same set, and has the members that its paths say.
fn is_kept(set: &Set, fields: &Value) {
    let written = set.to_text();
    assert_eq!(Set::from_text(&written).as_ref(), Ok(set), "{fields} was written as {written}");
    let mut again = Set::default();
    for path in set.paths() {
        assert!(set.contains(&path), "{fields} lacks {}", fields::display(&path));
        again.insert(&path);
    }
    assert_eq!(&again, set, "{fields}");
    assert_eq!(set.is_empty(), set.paths().is_empty(), "{fields}");
    // A client may spell a key in its own way; the members are the same.
    for key in set.iter().map(|(element, _)| element.to_key()) {
        assert_eq!(
            Element::parse(&key).map(|element| element.map(|element| element.to_key())),
            Ok(Some(key))
        );
    }
}

fn obeys_the_laws([a, b, c]: &[Set; 3]) {
    assert_eq!(a.union(b), b.union(a));
    assert_eq!(a.intersection(&b.union(c)), a.intersection(b).union(&a.intersection(c)));
    assert_eq!(a.difference(b).union(&a.intersection(b)), *a);
    assert!(a.difference(b).intersection(b).is_empty());
    let stored = b.to_text();
    assert_eq!(a.touches(&stored), !a.intersection(b).is_empty());
    assert_eq!(a.is_within(&stored), a.difference(b).is_empty());
}

/// An object of steps, nearly always well-formed.
fn steps(tape: &mut Tape<'_>, levels: usize) -> Value {
    let mut fields = Map::new();
    while levels > 0 && tape.more(fields.len(), 4) {
        let key = match tape.below(6) {
            0 | 1 => format!("f:{}", tape.text(&["a", "b", "spec", ""])),
            2 => format!("k:{}", json!({"name": json::WORDS[tape.below(6)], "port": tape.number()})),
            3 => format!("v:{}", json::value(tape, &["a"])),
            4 => format!("i:{}", tape.number()),
            _ => ".".to_owned(),
        };
        let below = if key == "." { json!({}) } else { steps(tape, levels - 1) };
        fields.insert(key, below);
    }
    fields.into()
}

fn entries(tape: &mut Tape<'_>, sets: &[Set; 3]) {
    let mut sent: Vec<Value> = Vec::new();
    while tape.more(sent.len(), 5) {
        sent.push(json!({
            "manager": tape.text(&["a", "b", "kubectl"]),
            "operation": tape.pick(&["Apply", "Update"]),
            "apiVersion": tape.pick(&["v1", "v2"]),
            "time": tape.pick(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
            "fieldsType": "FieldsV1",
            "fieldsV1": serde_json::from_str::<Value>(&sets[tape.below(3)].to_text()).unwrap(),
        }));
    }
    let mut sent = Value::Array(sent);
    json::damage(tape, &mut sent);
    match fields::parse(&sent) {
        Ok(parsed) => {
            let stored = Account::of(parsed.clone());
            let again = stored.as_ref().map(Account::entries).unwrap_or_default();
            assert_eq!(again.len(), parsed.len(), "{sent}");
            for entry in &again {
                let before = parsed.iter().find(|other| other.manager == entry.manager);
                assert!(
                    before.is_some_and(|before| before.set() == entry.set()),
                    "{sent}: {:?}",
                    entry.manager
                );
            }
            assert_eq!(Account::of(again), stored, "{sent}");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}
