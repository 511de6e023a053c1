//! What is read as upstream reads it, and what is written so that it is read back.

use proptest::prelude::*;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::*;

fn all(text: &str) -> Result<Vec<Value>, String> {
    documents(text)
        .map(|document| document.and_then(|document| Value::deserialize(&document)))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn one(text: &str) -> Value {
    all(text).unwrap_or_else(|error| panic!("{text}: {error}")).into_iter().next().unwrap_or_default()
}

#[test]
fn words_mean_what_they_mean_to_kubectl() {
    for (word, value) in [
        ("yes", json!(true)),
        ("Yes", json!(true)),
        ("y", json!(true)),
        ("on", json!(true)),
        ("TRUE", json!(true)),
        ("no", json!(false)),
        ("N", json!(false)),
        ("off", json!(false)),
        ("yEs", json!("yEs")),
        ("\"yes\"", json!("yes")),
        ("'on'", json!("on")),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("", json!(null)),
        ("0644", json!(420)),
        ("-0644", json!(-420)),
        ("\"0644\"", json!("0644")),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("0b101", json!(5)),
        ("-0b101", json!(-5)),
        ("1_000", json!(1000)),
        ("+5", json!(5)),
        ("0", json!(0)),
        ("08", json!(8)),
        ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("1e3", json!(1000)),
        ("1.0", json!(1)),
        ("0.1234567890123456789", json!(0.123_456_789_012_345_68)),
        ("1e23", json!(1e23)),
        ("5e-324", json!(5e-324)),
        ("1e18", json!(1_000_000_000_000_000_000_i64)),
        ("1e400", json!("1e400")),
        ("-9223372036854775808", json!(i64::MIN)),
        ("-9223372036854775809", json!(-9_223_372_036_854_775_808.0)),
        ("1.2.3", json!("1.2.3")),
        ("1Gi", json!("1Gi")),
        ("100m", json!("100m")),
        ("0x", json!("0x")),
        ("--5", json!("--5")),
        ("-c", json!("-c")),
        ("e5", json!("e5")),
        ("infinity", json!("infinity")),
        ("1:30", json!("1:30")),
        ("2026-01-02", json!("2026-01-02")),
        ("2026-01-02T03:04:05Z", json!("2026-01-02T03:04:05Z")),
        ("!!str 0644", json!("0644")),
        ("!!str yes", json!("yes")),
        ("!!int \"12\"", json!(12)),
        ("!!float 3", json!(3)),
        ("!!binary aGk=", json!("hi")),
        ("!mine 12", json!("12")),
        ("!mine [12]", json!([12])),
        ("!!str", json!("")),
        ("!!timestamp 2026-01-02", json!("2026-01-02")),
        ("|\n  yes\n", json!("yes\n")),
        (">-\n  a\n  b\n", json!("a b")),
    ] {
        assert_eq!(one(&format!("k: {word}")), json!({"k": value}), "{word}");
    }
}

#[test]
fn keys_become_texts() {
    assert_eq!(
        one("on: 1\n1: 2\n1.5: 3\n\"yes\": 4\n0x10: 5\n"),
        json!({"true": 1, "1": 2, "1.5": 3, "yes": 4, "16": 5})
    );
    assert_eq!(one(".Inf: 1\n-.INF: 2\n"), json!({".inf": 1, "-.inf": 2}));
    for text in ["~: 1", "? [a]\n: 1", "? {a: b}\n: 1"] {
        assert!(all(text).unwrap_err().contains("a key of a map must"), "{text}");
    }
}

#[test]
fn names_stand_for_what_they_were_given_to() {
    assert_eq!(one("a: &x {b: [1, 2]}\nc: *x\n"), json!({"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}));
    assert_eq!(one("a: &x word\n*x : 1\n"), json!({"a": "word", "word": 1}));
    assert_eq!(one("- &a 1\n- &a 2\n- *a\n"), json!([1, 2, 2]), "the last before it counts");
    for text in ["a: *unknown", "a: 1\n---\nb: *x", "a: &x 1\n---\nb: *x"] {
        assert!(all(text).is_err(), "{text}");
    }
    assert!(all("a: &x [*x, *x]").unwrap_err().contains("nests deeper"));
}

#[test]
fn maps_are_merged_and_what_they_say_themselves_goes_before() {
    let base = "base: &base {a: 1, b: {c: 2}}\nother: &other {a: 9, d: 4}\n";
    for (merged, expected) in [
        ("{<<: *base}", json!({"a": 1, "b": {"c": 2}})),
        ("{<<: *base, a: 5}", json!({"a": 5, "b": {"c": 2}})),
        ("{a: 5, <<: *base}", json!({"a": 5, "b": {"c": 2}})),
        ("{<<: [*base, *other], e: 6}", json!({"a": 1, "b": {"c": 2}, "d": 4, "e": 6})),
        ("{<<: [*other, *base]}", json!({"a": 9, "b": {"c": 2}, "d": 4})),
        ("{<<: {<<: *other, d: 7}}", json!({"a": 9, "d": 7})),
        ("{\"<<\": 1}", json!({"<<": 1})),
    ] {
        assert_eq!(one(&format!("{base}x: {merged}\n"))["x"], expected, "{merged}");
    }
    assert!(all("a: {<<: 1}").unwrap_err().contains("map merge requires map or sequence of maps"));
}

#[test]
fn a_small_text_cannot_become_endless() {
    let mut text = "a0: &a0 {k: v}\n".to_owned();
    for at in 1..40 {
        let before = at - 1;
        text += &format!("a{at}: &a{at} {{<<: [*a{before}, *a{before}], k{at}: v}}\n");
    }
    assert!(all(&text).unwrap_err().contains("its aliases expand to more than"));
    let mut text = "a0: &a0 [x]\n".to_owned();
    for at in 1..40 {
        let before = at - 1;
        text += &format!("a{at}: &a{at} [*a{before}, *a{before}]\n");
    }
    assert!(all(&text).unwrap_err().contains("its aliases expand to more than"));
    let text = format!("a: &a [{}]\nb:\n{}", "{},".repeat(2000), "- <<: *a\n".repeat(2000));
    assert!(
        all(&text).unwrap_err().contains("its aliases expand to more than"),
        "what is merged may be empty"
    );
    for deep in ["[", "{a: ", "- ", "? "] {
        assert!(all(&deep.repeat(100_000)).is_err(), "{deep}");
    }
}

#[test]
fn documents_come_one_after_the_other() {
    let text = "---\n# nothing\n---\na: 1\n...\n---\n- b\n";
    assert_eq!(all(text).unwrap(), [json!(null), json!({"a": 1}), json!(["b"])]);
    assert_eq!(all("\u{feff}a: 1").unwrap(), [json!({"a": 1})]);
    assert_eq!(all("# words\n").unwrap(), Vec::<Value>::new());
    assert_eq!(all("{\"a\": \"\\u00e4\\n\"}").unwrap(), [json!({"a": "ä\n"})]);
    for text in ["a: [", "a: b: c", "a: 1\n b: 2", "{a: 1} x", "\u{0}", "%TAG x"] {
        assert!(all(text).is_err(), "{text}");
    }
}

#[test]
fn numbers_that_json_does_not_have_are_refused() {
    assert!(all("a: .inf").unwrap_err().contains("is no number in JSON"));
    assert!(all("a: .nan").is_err());
    assert!(all("a: !!int word").unwrap_err().contains("cannot decode `word` as a !!int"));
}

#[test]
fn long_keys_are_marked_since_readers_do_not_look_that_far_ahead() {
    let long = "k".repeat(2000);
    let object = json!({&long: {"a": 1}, "b": [{&long: [1], "c": 2}], "d": {&long: "x\ny", &format!("{long}\n"): null}});
    let text = to_string(&object);
    assert_eq!(one(&text), object, "{text}");
    assert_eq!(serde_yaml::from_str::<Value>(&text).unwrap(), object);
}

#[test]
fn numbers_are_written_so_that_every_reader_takes_them_for_numbers() {
    for (number, written) in
        [(1e23, "1.0e+23"), (5e-324, "5.0e-324"), (1.5, "1.5"), (-0.25, "-0.25"), (1.25e-9, "1.25e-9")]
    {
        assert_eq!(to_string(&json!(number)), format!("{written}\n"));
    }
    for word in ["._5", "0x_", "1_0", ".5_0", "y_es", "12_", "0b1", "1e5", "0o7", "1:30:00.5", "2026-01-02"] {
        let text = to_string(&json!(word));
        assert_eq!(text.starts_with('"'), word != "y_es", "{text}");
    }
}

#[test]
fn what_is_written_looks_like_what_kubectl_writes() {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"annotations": {}, "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "web", "on": "yes"}},
        "spec": {
            "containers": [{"args": ["-c", "--flag", "a: b", "*", "it's", "'it'", "0644", ""], "name": "c", "ports": [{"containerPort": 80}]}],
            "volumes": [], "nested": [["a", ["b"]], {}],
        },
        "text": "line\n  more\n", "bare": "a\nb", "kept": "a\n\n", "odd": " a\nb", "flag": true, "nothing": null, "number": 1.5,
    });
    let expected = "\
apiVersion: v1
bare: |-
  a
  b
flag: true
kept: |+
  a

kind: Pod
metadata:
  annotations: {}
  creationTimestamp: \"2026-01-02T03:04:05Z\"
  labels:
    app: web
    \"on\": \"yes\"
nothing: null
number: 1.5
odd: \" a\\nb\"
spec:
  containers:
  - args:
    - -c
    - --flag
    - 'a: b'
    - '*'
    - it's
    - '''it'''
    - \"0644\"
    - \"\"
    name: c
    ports:
    - containerPort: 80
  nested:
  - - a
    - - b
  - {}
  volumes: []
text: |
  line
    more
";
    assert_eq!(to_string(&object), expected);
    assert_eq!(one(expected), object);
}

/// Texts out of pieces that mean something to YAML, and others.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "yes",
        "no",
        "on",
        "~",
        "null",
        "0644",
        "1_000",
        "0x1F",
        "1e3",
        ".5",
        ".inf",
        "1:30",
        "2026-01-02",
        "<<",
        "=",
        "-",
        "--",
        "---",
        "...",
        "?",
        ":",
        ": ",
        " #",
        "#",
        "&a",
        "*a",
        "!",
        "!!str",
        "|",
        ">",
        "'",
        "\"",
        "%",
        "@",
        "`",
        ",",
        "[",
        "]",
        "{",
        "}",
        " ",
        "\n",
        "\t",
        "\\",
        "a",
        "ä",
        "\u{1}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\r",
    ]);
    prop_oneof![prop::collection::vec(pieces, 0..5).prop_map(|pieces| pieces.concat()), ".{0,12}"]
}

/// Numbers that are not whole, or too large to be read as such.
fn fractions() -> impl Strategy<Value = f64> {
    let any = prop_oneof![any::<f64>(), any::<i16>().prop_map(|tenths| f64::from(tenths) / 10.0)];
    any.prop_filter("whole ones lose their point", |number| {
        number.is_finite() && number.to_string().parse::<i64>().is_err()
    })
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        fractions().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(texts(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in values()) {
        let text = to_string(&value);
        let read = all(&text).unwrap();
        prop_assert_eq!(read, [value], "{}", text);
    }

    #[test]
    fn others_read_back_what_is_written_too(value in values()) {
        let text = to_string(&value);
        let read: Result<Value, _> = serde_yaml::from_str(&text);
        prop_assert_eq!(read.map_err(|error| error.to_string()), Ok(value), "{}", text);
    }

    #[test]
    fn no_text_does_more_harm_than_an_error(text in texts()) {
        let _ = all(&text);
    }
}
