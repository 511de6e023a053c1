//! Patches against the text of their standards: JSON patch and merge patch beside naive ones written from the RFCs, strategic
//! merge by what a patch is for: the difference between two objects leads from the one to the other.

mod difference;
mod naive;

use std::sync::{Arc, LazyLock};

use claw_apiserver::patch;
use claw_client::request::PatchKind;
use claw_schemas::{Descriptor, Registry, status::Reason};
use serde_json::{Value, json};

use crate::{json, tape::Tape};

/// Few names, so that paths meet.
const NAMES: [&str; 8] = ["a", "b", "c", "a/b", "m~n", "0", "", "-"];

/// Directives of strategic merge, beside the names they are about.
const DIRECTIVES: [&str; 10] = [
    "$patch",
    "$retainKeys",
    "$setElementOrder/a",
    "$deleteFromPrimitiveList/a",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "containers",
    "finalizers",
    "name",
    "spec",
];

/// Kinds with lists of every sort.
static KINDS: LazyLock<Vec<(Arc<Descriptor>, Value)>> = LazyLock::new(|| {
    let registry = Registry::builtin();
    let kinds = [
        ("v1", "Pod"),
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("v1", "Node"),
    ];
    let found = kinds.iter().filter_map(|(version, kind)| registry.kind(version, kind).cloned());
    found.map(|kind| (kind.clone(), kind.schema.document())).collect()
});

/// One patch of any sort.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.below(4) {
        0 => json_patch(&mut tape),
        1 => merge_patch(&mut tape),
        2 => strategic(&mut tape),
        _ => any_bytes(&mut tape),
    }
}

fn json_patch(tape: &mut Tape<'_>) {
    let target = json::object(tape, &NAMES);
    let mut operations = Vec::new();
    while tape.more(operations.len(), 6) {
        operations.push(operation(tape, &target));
    }
    let operations = Value::Array(operations);
    let ours = patch::apply(PatchKind::Json, &target, operations.to_string().as_bytes(), None);
    let expected = naive::json_patch(&target, &operations);
    match (ours, expected) {
        (Ok(ours), Some(expected)) => assert_eq!(ours, expected, "{target} + {operations}"),
        (Err(error), None) => {
            assert!((400..500).contains(&error.code) && !error.message.is_empty(), "{error:?}")
        }
        // Bounds of ours, which the standard does not have.
        (Err(error), Some(_)) if error.message.contains("deeper") || error.code == 413 => {}
        (ours, expected) => panic!("{target} + {operations}: {ours:?}, expected {expected:?}"),
    }
}

fn operation(tape: &mut Tape<'_>, target: &Value) -> Value {
    let op = tape.pick(&["add", "remove", "replace", "move", "copy", "test", "add", "frob"]);
    let mut operation = json!({"op": op, "path": pointer(tape, target)});
    if matches!(op, "move" | "copy") || tape.below(16) == 15 {
        operation["from"] = pointer(tape, target).into();
    }
    if !matches!(op, "move" | "copy" | "remove") || tape.below(16) == 15 {
        operation["value"] = json::value(tape, &NAMES);
    }
    if op == "test" && tape.flag() {
        let found = operation["path"].as_str().and_then(|path| target.pointer(path)).cloned();
        operation["value"] = found.unwrap_or_default();
    }
    if tape.below(32) == 31 {
        operation.as_object_mut().map(|fields| fields.remove("path"));
    }
    operation
}

/// A way into the target, and maybe one step beyond.
fn pointer(tape: &mut Tape<'_>, target: &Value) -> String {
    let (mut text, mut at) = (String::new(), target);
    while tape.below(4) != 3 {
        let (name, next) = match at {
            Value::Object(fields) if !fields.is_empty() => {
                let (name, value) =
                    fields.iter().nth(tape.below(fields.len())).expect("it is below their number");
                (name.clone(), value)
            }
            Value::Array(items) if !items.is_empty() => {
                let index = tape.below(items.len());
                (index.to_string(), &items[index])
            }
            _ => break,
        };
        text = format!("{text}/{}", name.replace('~', "~0").replace('/', "~1"));
        at = next;
        if tape.is_spent() {
            break;
        }
    }
    if tape.flag() {
        text += tape.pick(&["/a", "/-", "/0", "/1", "/00", "/+1", "/", "/~2", "~", "x"]);
    }
    text
}

fn merge_patch(tape: &mut Tape<'_>) {
    let (target, change) = (json::value(tape, &NAMES), json::object(tape, &NAMES));
    let ours = patch::apply(PatchKind::Merge, &target, change.to_string().as_bytes(), None);
    let ours = ours.unwrap_or_else(|error| panic!("{target} + {change}: {error:?}"));
    assert_eq!(ours, naive::merge_patch(&target, &change), "{target} + {change}");
    let again = patch::apply(PatchKind::Merge, &ours, change.to_string().as_bytes(), None);
    assert_eq!(again, Ok(ours), "{target} + {change} twice");
}

/// Two objects of a kind, and the patch from one to the other.
fn strategic(tape: &mut Tape<'_>) {
    let (kind, document) = &KINDS[tape.below(KINDS.len())];
    let root = kind.compiled().root();
    let mut before = json::of_schema(tape, document, document, 8);
    difference::make_sound(&mut before, Some(root));
    let mut after = before.clone();
    json::damage(tape, &mut after);
    if tape.flag() {
        after = json::of_schema(tape, document, document, 8);
    }
    if !after.is_object() {
        after = json!({});
    }
    difference::make_sound(&mut after, Some(root));
    let change = difference::between(&before, &after, Some(root));
    let apply = |target: &Value| {
        patch::apply(PatchKind::Strategic, target, change.to_string().as_bytes(), Some(kind.compiled()))
    };
    assert_eq!(apply(&before).as_ref(), Ok(&after), "{before} + {change}");
    assert_eq!(apply(&after).as_ref(), Ok(&after), "{after} + {change}");
}

/// Directives in any place: refused, or obeyed without being stored.
fn any_bytes(tape: &mut Tape<'_>) {
    let (kind, _) = &KINDS[tape.below(KINDS.len())];
    let target = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": json::value(tape, &["a", "containers", "name"])});
    let change = match tape.flag() {
        true => json::object(tape, &DIRECTIVES).to_string().into_bytes(),
        false => tape.rest().to_vec(),
    };
    for sort in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply] {
        match patch::apply(sort, &target, &change, Some(kind.compiled())) {
            Ok(result) => assert!(
                sort != PatchKind::Strategic || !difference::holds_directive(&result),
                "{target} + {} = {result}",
                String::from_utf8_lossy(&change)
            ),
            Err(error) => {
                let known =
                    [400, 413, 415, 422].contains(&error.code) && error.reason != Reason::InternalError;
                assert!(known && !error.message.is_empty(), "{error:?}");
            }
        }
    }
}
