//! Orders and reports as they cross the border between processes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn order(change: impl FnOnce(&mut Value)) -> Value {
    let mut order = json!({
        "inputs": [
            {"name": "a", "dtype": "f32", "shape": [2], "source": {"values": [1, 2.5]}},
            {"name": "b", "dtype": "i32", "shape": [2], "source": {"fill": 3}},
            {"name": "c", "dtype": "f32", "shape": [2], "source": {"random": {"seed": 7}}},
            {"name": "d", "dtype": "i8", "shape": [2], "source": {"file": "/inputs/3/d.npy"}},
        ],
        "operations": [{"name": "sum", "op": "Add", "inputs": ["a", "c"]}],
        "outputs": [{"value": "sum", "file": "/volumes/r/sum.npy"}, {"value": "b"}],
        "backends": ["cuda", "cpu"],
        "runs": 3, "warmups": 1, "runTimeoutSeconds": 60,
    });
    change(&mut order);
    order
}

fn read(order: Value) -> Order {
    serde_json::from_value(order).expect("its fields have their types")
}

fn fault(change: impl FnOnce(&mut Value)) -> String {
    read(order(change)).graph().expect_err("it is wrong").to_string()
}

#[test]
fn an_order_is_the_same_when_it_was_written_and_read() {
    let order = read(order(|_| ()));
    let text = serde_json::to_string(&order).unwrap();
    assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
    let graph = order.graph().unwrap();
    assert_eq!((graph.inputs().len(), graph.nodes().len(), graph.outputs().len()), (4, 1, 2));
    assert_eq!(order.backends, [Backend::Cuda, Backend::Cpu]);
}

#[test]
fn what_is_wrong_with_an_order_is_told_with_its_place() {
    let at = |pointer: &'static str, value: Value| {
        fault(move |order| *order.pointer_mut(pointer).expect("it is there") = value)
    };
    for (pointer, value, expected) in [
        ("/inputs/0/dtype", json!("f64"), "inputs[0].dtype: there is no type \"f64\""),
        ("/inputs/0/shape", json!([-2]), "inputs[0].shape[0]: -2 is no extent"),
        ("/inputs/0/shape", json!([3]), "inputs[0].values: \"a\" is f32[3], and has 2 values"),
        ("/inputs/0/shape", json!([]), "inputs[0].values: \"a\" is f32[], and has 2 values"),
        ("/inputs/0/name", json!("b"), "inputs[1].name: "),
        ("/inputs/0/dtype", json!("i32"), "inputs[0].values[1]: 2.5 is no i32"),
        ("/inputs/1/source/fill", json!(3e9), "inputs[1].fill: 3000000000 is no i32"),
        (
            "/inputs/1/source",
            json!({"random": {}}),
            "inputs[1].random: \"b\" (Random): i32 is drawn from Integers only",
        ),
        ("/inputs/2/source/random", json!({"low": 1}), "inputs[2].random.low: Normal has no use for it"),
        (
            "/inputs/2/source/random",
            json!({"deviation": -1}),
            "inputs[2].random: \"c\" (Random): deviation is -1",
        ),
        ("/operations/0/inputs", json!(["a", "b"]), "operations[0]: \"sum\" (Add): calculates with"),
        (
            "/outputs/1/value",
            json!("nothing"),
            "outputs[1].value: no input or operation is called \"nothing\"",
        ),
    ] {
        let said = at(pointer, value);
        assert!(said.starts_with(expected), "{pointer}: {said}");
    }
}

#[test]
fn eight_bits_hold_what_they_hold() {
    let values =
        |values: Value| move |order: &mut Value| order["inputs"][3]["source"] = json!({"values": values});
    assert!(read(order(values(json!([-128, 127])))).graph().is_ok());
    assert_eq!(fault(values(json!([0, 128]))), "inputs[3].values[1]: 128 is no i8");
    assert_eq!(fault(values(json!([-129, 0]))), "inputs[3].values[0]: -129 is no i8");
}

#[test]
fn what_nobody_knows_does_not_parse() {
    let parses = |order: Value| serde_json::from_value::<Order>(order).is_ok();
    assert!(parses(order(|_| ())));
    assert!(!parses(order(|order| order["speed"] = json!(1))));
    assert!(!parses(order(|order| order["backends"] = json!(["metal"]))));
    assert!(!parses(order(|order| order["runs"] = json!(-1))));
    assert!(!parses(order(|order| order["inputs"][0]["source"] = json!({"values": [1], "fill": 1}))));
}

#[test]
fn backends_are_known_by_their_names() {
    for backend in Backend::ALL {
        assert_eq!(backend.to_string().parse(), Ok(backend));
        assert_eq!(serde_json::to_value(backend).unwrap(), backend.name());
    }
    let said = "metal".parse::<Backend>().expect_err("there is none");
    assert_eq!(said, "there is no backend \"metal\": use one of cuda, vulkan, cpu");
}

#[test]
fn a_report_may_say_little() {
    let little: Report =
        serde_json::from_value(json!({"state": "Running", "doing": "opens cuda:0", "runs": 0})).unwrap();
    assert_eq!((little.state, little.device, little.outputs.len()), (State::Running, None, 0));
    let elsewhere = |reason: Reason| reason.may_succeed_elsewhere();
    assert!(elsewhere(Reason::NoDevice) && elsewhere(Reason::Hung) && elsewhere(Reason::OutOfMemory));
    assert!(elsewhere(Reason::OutputFailed), "another disk has room");
    assert!(!elsewhere(Reason::BadOrder) && !elsewhere(Reason::IndexOutOfRange));
}

/// A report with as much in it as an order of that kind can cause.
fn longest_report() -> Report {
    let output = ReportOutput {
        value: "v".repeat(63),
        dtype: "bf16".to_owned(),
        shape: vec![32; 8],
        digest: format!("sha256:{}", "0".repeat(64)),
        values: Vec::new(),
    };
    Report {
        state: State::Complete,
        doing: "run 1000000 of 1000000".to_owned(),
        runs: 1_000_000,
        device: Some(ReportDevice { id: "vulkan:15".to_owned(), model: "m".repeat(100) }),
        figures: Some(Figures {
            seconds_min: 0.001_234_567_890_123_4,
            seconds_median: 0.001_234_567_890_123_4,
            seconds_max: 0.001_234_567_890_123_4,
            flops: u64::MAX,
            bytes: u64::MAX,
            memory_bytes: u64::MAX,
        }),
        outputs: vec![output; OUTPUTS_MAX],
        failure: None,
        qualification: None,
    }
}

#[test]
fn what_is_said_of_as_many_outputs_as_there_may_be_fits_into_a_report() {
    let text = serde_json::to_string(&longest_report()).unwrap();
    assert!(text.len() <= REPORT_BYTES_MAX, "{} bytes", text.len());
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), longest_report());
}

proptest! {
    #[test]
    fn any_text_is_an_order_or_is_none(text in "\\PC{0,200}") {
        let _ = serde_json::from_str::<Order>(&text).map(|order| order.graph());
    }

    #[test]
    fn any_change_of_an_order_is_refused_or_means_the_same_when_it_was_written_and_read(
        at in prop::sample::select(vec![
            "/inputs/0/shape", "/inputs/0/source", "/inputs/1/source/fill", "/inputs/2/source/random", "/operations/0", "/outputs", "/runs",
        ]),
        value in prop_oneof![
            any::<i64>().prop_map(Value::from), Just(json!([])), Just(json!([2, 1])), Just(json!([1_i64 << 40])), Just(json!({})),
            Just(json!({"values": [1, 2]})), Just(json!({"seed": -1, "distribution": "Uniform", "low": 1e308, "high": 1e308})),
            Just(json!({"name": "sum", "op": "MatMul", "inputs": ["a", "a"]})), Just(json!([{"value": "a"}])),
        ],
    ) {
        let changed = order(|order| *order.pointer_mut(at).expect("it is there") = value);
        let Ok(order) = serde_json::from_value::<Order>(changed) else { return Ok(()) };
        let again: Order = serde_json::from_str(&serde_json::to_string(&order).unwrap()).unwrap();
        prop_assert_eq!(&again, &order);
        prop_assert_eq!(again.graph(), order.graph());
    }
}
