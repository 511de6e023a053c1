//! Objects made at random from the schema itself, to hold the engine against the typed kinds.

use std::sync::LazyLock;

use k8s_openapi::api::{apps::v1 as apps, coordination::v1 as coordination, core::v1 as core};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;
use crate::Registry;

/// One for all cases, so that each schema is compiled once.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

/// Levels of a generated object; pod templates are nine deep.
const DEPTH_MAX: u32 = 12;

/// A stream of choices that a failing case can repeat from its seed.
struct Choices(u64);

impl Choices {
    /// A number below `bound` (splitmix64).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    fn one_of(&mut self, values: &[Value]) -> Value {
        values[self.below(values.len())].clone()
    }
}

/// A well-typed value, with nulls and unknown fields in between.
fn value(place: Place<'_>, choices: &mut Choices, depth: u32) -> Value {
    if depth == 0 || choices.below(20) == 0 {
        return Value::Null;
    }
    match place.shape() {
        Shape::Any => choices.one_of(&[json!({"a": [1, null]}), json!({})]),
        Shape::Struct(Struct { fields, .. }) => {
            let mut object = Map::new();
            for field in fields {
                if choices.below(fields.len()) < 4 {
                    let inner = place.field(&field.name).expect("its own field");
                    object.insert(field.name.to_string(), value(inner, choices, depth - 1));
                }
            }
            if choices.below(10) == 0 {
                object.insert("noSuchField".to_owned(), json!([{"x": 1}]));
            }
            Value::Object(object)
        }
        Shape::Map(values) => (0..choices.below(3))
            .map(|n| (format!("key{n}"), value(place.at(*values), choices, depth - 1)))
            .collect::<Map<_, _>>()
            .into(),
        Shape::List(items) => {
            (0..choices.below(3)).map(|_| value(place.at(*items), choices, depth - 1)).collect()
        }
        Shape::Scalar(scalar) => leaf(*scalar, choices),
    }
}

fn leaf(scalar: Scalar, choices: &mut Choices) -> Value {
    choices.one_of(&match scalar {
        Scalar::String => [json!(""), json!("text"), json!("ünï")],
        Scalar::Bytes => [json!(""), json!("aGk="), json!("AAAA")],
        Scalar::Time => [
            json!("2026-01-02T03:04:05Z"),
            json!("2026-01-02T03:04:05.123456Z"),
            json!("2026-01-02T03:04:05+02:00"),
        ],
        Scalar::Int32 => [json!(0), json!(i32::MAX), json!(i32::MIN)],
        Scalar::Int64 => [json!(0), json!(i64::MAX), json!(i64::MIN)],
        Scalar::Number => [json!(0), json!(1.5), json!(-3)],
        Scalar::Boolean => [json!(true), json!(false), json!(true)],
        Scalar::IntOrString => [json!(7), json!("25%"), json!("http")],
        Scalar::Quantity => [json!(2), json!(0.5), json!("1.5Gi")],
    })
}

fn decodes<K: DeserializeOwned>(api_version: &str, kind: &str, seed: u64) {
    let schema = REGISTRY.kind(api_version, kind).expect("served").compiled();
    let mut object = value(schema.root(), &mut Choices(seed), DEPTH_MAX);
    if !object.is_object() {
        return;
    }
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    let report = schema.check(&object);
    assert_eq!(report.errors, [], "{object}");
    schema.normalize(&mut object);
    assert_eq!(
        schema.check(&object),
        Report::default(),
        "a normalized object has no unknown fields: {object}"
    );
    let once = object.clone();
    schema.normalize(&mut object);
    assert_eq!(object, once, "normalizing twice changes nothing");
    let decoded = serde_json::from_value::<K>(object.clone());
    assert!(decoded.is_ok(), "{kind}: {:?}: {object}", decoded.err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_passes_the_check_decodes_as_its_typed_kind(seed: u64) {
        decodes::<core::Pod>("v1", "Pod", seed);
        decodes::<core::Node>("v1", "Node", seed);
        decodes::<core::Namespace>("v1", "Namespace", seed);
        decodes::<core::ConfigMap>("v1", "ConfigMap", seed);
        decodes::<core::Secret>("v1", "Secret", seed);
        decodes::<core::Event>("v1", "Event", seed);
        decodes::<apps::Deployment>("apps/v1", "Deployment", seed);
        decodes::<apps::ReplicaSet>("apps/v1", "ReplicaSet", seed);
        decodes::<coordination::Lease>("coordination.k8s.io/v1", "Lease", seed);
    }
}
