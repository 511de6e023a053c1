//! Objects against schemas: reasons, paths and words as `kube-apiserver` has them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn compiled(schema: &Value) -> Node {
    let mut faults = Faults::default();
    let node = Node::compile(schema, &Path::Root, &mut faults);
    assert_eq!(faults.into_causes(), [], "{schema}");
    node
}

fn judged(schema: &Value, old: Option<&Value>, new: &Value) -> Vec<(String, String, String)> {
    let mut faults = Faults::default();
    check(&compiled(schema), old, new, &Path::Root, &Budget::of_object(), &mut faults);
    let causes = faults.into_causes().into_iter();
    causes.map(|cause| (cause.field, cause.reason, cause.message)).collect()
}

/// A schema with one field, and what is wrong with a value of it.
fn of_field(field: &Value, value: Value) -> Option<(String, String)> {
    let schema = json!({"type": "object", "properties": {"f": field}});
    let faults = judged(&schema, None, &json!({"f": value}));
    assert!(faults.len() <= 1, "{faults:?}");
    faults.into_iter().next().map(|(field, reason, message)| {
        assert!(field.starts_with('f'), "{field}");
        (reason, message)
    })
}

#[test]
fn each_demand_is_made_in_the_words_of_kubernetes() {
    for (field, sound, broken, reason, message) in [
        (
            json!({"type": "integer"}),
            json!(1),
            json!("x"),
            "FieldValueTypeInvalid",
            "Invalid value: \"x\": f in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "string"}),
            json!("x"),
            Value::Null,
            "FieldValueTypeInvalid",
            "Invalid value: null: f in body must be of type string: \"null\"",
        ),
        (
            json!({"type": "integer"}),
            json!(2.0),
            json!(1.5),
            "FieldValueTypeInvalid",
            "Invalid value: 1.5: f in body must be of type integer: \"number\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!("25%"),
            json!(true),
            "FieldValueTypeInvalid",
            "Invalid value: true: f in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("a"),
            json!("c"),
            "FieldValueNotSupported",
            "Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("aa"),
            json!("b"),
            "FieldValueInvalid",
            "Invalid value: \"b\": f in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("äö"),
            json!("ä"),
            "FieldValueInvalid",
            "Invalid value: \"ä\": f in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("äö"),
            json!("abc"),
            "FieldValueTooLong",
            "Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!("2026-01-02"),
            json!("soon"),
            "FieldValueTypeInvalid",
            "Invalid value: \"soon\": f in body must be of type date: \"soon\"",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(1),
            json!(0),
            "FieldValueInvalid",
            "Invalid value: 0: f in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(2),
            json!(1),
            "FieldValueInvalid",
            "Invalid value: 1: f in body should be greater than 1",
        ),
        (
            json!({"type": "number", "maximum": 1.5}),
            json!(1.5),
            json!(2),
            "FieldValueInvalid",
            "Invalid value: 2: f in body should be less than or equal to 1.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(10),
            json!(7),
            "FieldValueInvalid",
            "Invalid value: 7: f in body should be a multiple of 5",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}),
            json!([1]),
            json!([]),
            "FieldValueInvalid",
            "Invalid value: []: f in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "integer"}, "maxItems": 1}),
            json!([1]),
            json!([1, 2]),
            "FieldValueTooMany",
            "Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}),
            json!({"a": "b"}),
            json!({}),
            "FieldValueInvalid",
            "Invalid value: {}: f in body should have at least 1 properties",
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({"a": "b"}),
            json!({}),
            "FieldValueRequired",
            "Required value",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "b"]),
            json!(["a", "a"]),
            "FieldValueDuplicate",
            "Duplicate value: \"a\"",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
            json!([{"k": "a"}, {"k": "b"}]),
            json!([{"k": "a"}, {"k": "a"}]),
            "FieldValueDuplicate",
            "Duplicate value: {\"k\":\"a\"}",
        ),
        (
            json!({"type": "string", "anyOf": [{"pattern": "^a"}, {"pattern": "^b"}]}),
            json!("b"),
            json!("c"),
            "FieldValueInvalid",
            "Invalid value: \"c\": \"f\" must validate at least one schema (anyOf)",
        ),
        (
            json!({"type": "string", "oneOf": [{"pattern": "^a"}, {"pattern": "b$"}]}),
            json!("a"),
            json!("ab"),
            "FieldValueInvalid",
            "Invalid value: \"ab\": \"f\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (
            json!({"type": "string", "not": {"pattern": "^a"}}),
            json!("b"),
            json!("a"),
            "FieldValueInvalid",
            "Invalid value: \"a\": \"f\" must not validate the schema (not)",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"apiVersion": "v1", "kind": "Pod"}),
            json!({"apiVersion": "v1"}),
            "FieldValueRequired",
            "Required value: must not be empty",
        ),
    ] {
        assert_eq!(of_field(&field, sound), None, "{field}");
        assert_eq!(of_field(&field, broken), Some((reason.to_owned(), message.to_owned())), "{field}");
    }
}

#[test]
fn nullable_places_take_null() {
    assert_eq!(of_field(&json!({"type": "string", "nullable": true}), Value::Null), None);
}

#[test]
fn faults_name_their_exact_place() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "items": {"type": "array", "items": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    }}}});
    let object = json!({"spec": {"items": [{"name": "a"}, {"n": "x"}], "map": {"k": "v"}}});
    let mut places: Vec<_> = judged(&schema, None, &object).into_iter().map(|(field, ..)| field).collect();
    places.sort();
    assert_eq!(places, ["spec.items[1].n", "spec.items[1].name", "spec.map.k"]);
}

#[test]
fn what_did_not_change_is_not_judged_again() {
    let schema = json!({"type": "object", "properties": {
        "old": {"type": "string", "maxLength": 1},
        "new": {"type": "string", "maxLength": 1},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
    }});
    let before = json!({"old": "long", "list": [{"k": "a", "v": 9}]});
    let after = json!({"old": "long", "new": "long", "list": [{"k": "b", "v": 7}, {"k": "a", "v": 9}]});
    let places: Vec<_> =
        judged(&schema, Some(&before), &after).into_iter().map(|(field, ..)| field).collect();
    assert_eq!(places, ["list[0].v", "new"]);
}

/// Any JSON, a few levels deep.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        "[a-z\\^\\*\\[(]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A schema of the words that schemas have, with values that may be anything.
fn schema() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 24] = [
        "type",
        "properties",
        "items",
        "additionalProperties",
        "required",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "nullable",
        "default",
        "format",
        "anyOf",
        "not",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
    ];
    let ty = prop_oneof![Just("object"), Just("array"), Just("string"), Just("integer"), Just("number")];
    let leaf = ty.prop_map(|ty| json!({"type": ty}));
    leaf.prop_recursive(4, 24, 4, |inner| {
        let words =
            proptest::collection::vec((0..WORDS.len(), prop_oneof![json_value(), inner.clone()]), 0..4);
        (inner.clone(), inner, words).prop_map(|(a, b, words)| {
            let mut schema = json!({"type": "object", "properties": {"a": a, "b": b}});
            for (word, value) in words {
                schema[WORDS[word]] = value;
            }
            schema
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_schema_and_no_object_make_anything_fall_over(schema in schema(), old in json_value(), mut new in json_value()) {
        let mut faults = Faults::default();
        super::super::structural::check(&schema, &Path::Root, &mut faults);
        let node = Node::compile(&schema, &Path::Root, &mut faults);
        claw_schemas::schema::Schema::compile_custom(&schema).normalize(&mut new);
        super::super::fill::fill(&node, &mut new);
        check(&node, Some(&old), &new, &Path::Root, &Budget::of_object(), &mut faults);
    }
}

#[test]
fn items_with_keys_are_compared_with_their_own_past_wherever_they_stand() {
    let item = json!({
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "size": {"type": "integer", "maximum": 5}},
    });
    let list = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item,
    });
    let schema = json!({"type": "object", "properties": {"f": list}});
    let old = json!({"f": [{"name": "a", "size": 9}, {"name": "b", "size": 1}]});
    let moved = json!({"f": [{"name": "b", "size": 2}, {"name": "a", "size": 9}]});
    assert_eq!(judged(&schema, Some(&old), &moved), []);
    let swapped = json!({"f": [{"name": "b", "size": 9}, {"name": "a", "size": 9}]});
    let faults = judged(&schema, Some(&old), &swapped);
    assert_eq!(faults.iter().map(|(field, ..)| field.as_str()).collect::<Vec<_>>(), ["f[0].size"]);
}

#[test]
fn the_least_number_is_divided_without_falling_over() {
    let field = json!({"type": "integer", "multipleOf": -1});
    assert_eq!(of_field(&field, json!(i64::MIN)), None);
}
