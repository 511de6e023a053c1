//! Pod templates: whether two are the same, and a short stable hash of one.
//!
//! Must never know: Deployments or ReplicaSets as a whole.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Label that tells the pods of one revision from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Consonants and digits that make neither words nor mistakes: Kubernetes' own choice for generated names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Letters of a hash: 27^10 is about 2 * 10^14, and a clash is handled besides.
const LETTERS: usize = 10;

/// Whether two templates make the same pods, whatever their hash labels say.
pub fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// A hash of a template; `collisions` makes it another one when it is already taken.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut digest = Sha256::new();
    let mut text = String::new();
    write_canonical(&canonical(template), &mut text);
    digest.update(text);
    if collisions > 0 {
        digest.update(collisions.to_be_bytes());
    }
    digest.finalize().iter().take(LETTERS).map(|byte| char::from(ALPHABET[usize::from(*byte) % 27])).collect()
}

/// The template without its hash label, nulls and empty collections.
fn canonical(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    let mut value = serde_json::to_value(template).expect("API objects serialise: their keys are strings");
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, value| !is_empty(value));
        }
        // An element of a list counts even when it says nothing.
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        // `emptyDir: {}` and its like say something by being there.
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// JSON with sorted keys, so that a hash does not depend on how maps are kept in memory.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for value in list {
                write_canonical(value, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    fn web(image: &str) -> PodTemplateSpec {
        template(json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        }))
    }

    #[test]
    fn the_hash_label_and_empty_lists_make_no_difference() {
        let mut labelled = web("i:1");
        let labels = labelled.metadata.as_mut().unwrap().labels.as_mut().unwrap();
        labels.insert(HASH_LABEL.into(), "abc".into());
        labelled.spec.as_mut().unwrap().tolerations = Some(vec![]);
        assert!(same(&web("i:1"), &labelled));
        assert_eq!(hash(&web("i:1"), 0), hash(&labelled, 0));
        assert!(!same(&web("i:1"), &web("i:2")));
    }

    #[test]
    fn a_hash_is_stable_and_differs_by_template_and_by_collision() {
        // Pinned: another value would replace every pod of every Deployment on an upgrade.
        assert_eq!(hash(&web("i:1"), 0), PINNED);
        assert_ne!(hash(&web("i:1"), 0), hash(&web("i:2"), 0));
        assert_ne!(hash(&web("i:1"), 0), hash(&web("i:1"), 1));
        assert_eq!(hash(&web("i:1"), 0).len(), LETTERS);
    }

    const PINNED: &str = "ndpgfjbp7r";
}
