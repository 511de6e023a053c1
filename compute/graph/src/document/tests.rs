//! Each operation by its name, each attribute where it has a use and where it has none, and what is said of what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// What the tables below calculate with.
const INPUTS: [(&str, &str, &[i64]); 8] = [
    ("x", "f32", &[2, 4]),
    ("m", "f32", &[4, 3]),
    ("v", "f32", &[4]),
    ("h", "f16", &[2, 4]),
    ("i", "i32", &[3]),
    ("q", "i8", &[2, 4]),
    ("s", "f32", &[2]),
    ("a", "f32", &[1, 2, 3, 4]),
];

fn read(operation: Value) -> Operation {
    serde_json::from_value(operation).expect("its fields have their types")
}

fn inputs() -> Vec<(&'static str, TensorType)> {
    let of =
        |(name, dtype, shape): &(&'static str, &str, &[i64])| (*name, tensor_type(dtype, shape).unwrap());
    INPUTS.iter().map(of).collect()
}

/// The graph of one operation called `o`.
fn one(mut operation: Value) -> Result<Graph, Fault> {
    operation["name"] = "o".into();
    graph(inputs(), &[read(operation)], ["o"])
}

/// What comes out of it: `f32[2,4]`, two of them with a blank between.
fn results(operation: Value) -> Result<String, String> {
    let graph = one(operation).map_err(|fault| fault.to_string())?;
    let types = graph.nodes()[0].results.iter().map(|result| graph.of(*result).to_string());
    Ok(types.collect::<Vec<_>>().join(" "))
}

/// Operations that are neither functions of one or two numbers nor reductions, and what comes out.
fn others() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"op": "Where", "inputs": ["x", "v", "x"]}), "f32[2,4]"),
        (json!({"op": "Cast", "inputs": ["x"], "dtype": "bf16"}), "bf16[2,4]"),
        (json!({"op": "Reshape", "inputs": ["x"], "shape": [8]}), "f32[8]"),
        (json!({"op": "Permute", "inputs": ["x"], "order": [1, 0]}), "f32[4,2]"),
        (json!({"op": "Broadcast", "inputs": ["v"], "shape": [5, 4]}), "f32[5,4]"),
        (json!({"op": "Slice", "inputs": ["x"], "start": 1, "length": 3}), "f32[2,3]"),
        (json!({"op": "Concat", "inputs": ["x", "x"], "axis": 0}), "f32[4,4]"),
        (json!({"op": "ArgMax", "inputs": ["x"]}), "i32[2]"),
        (json!({"op": "ArgMin", "inputs": ["x"], "axis": 0, "keepAxis": true}), "i32[1,4]"),
        (json!({"op": "CountDifferent", "inputs": ["x", "x"], "axis": 0}), "i32[4]"),
        (json!({"op": "Softmax", "inputs": ["x"]}), "f32[2,4]"),
        (json!({"op": "LogSoftmax", "inputs": ["x"], "axis": -2}), "f32[2,4]"),
        (json!({"op": "LayerNorm", "inputs": ["x", "v", "v"], "epsilon": 0.5}), "f32[2,4]"),
        (json!({"op": "RmsNorm", "inputs": ["x", "v"]}), "f32[2,4]"),
        (json!({"op": "Rotary", "inputs": ["x"], "base": 100, "offset": 3}), "f32[2,4]"),
        (json!({"op": "MatMul", "inputs": ["h", "h"], "transposeSecond": true, "wide": true}), "f32[2,2]"),
        (json!({"op": "Attention", "inputs": ["a", "a", "a"], "causal": true, "scale": 0.5}), "f32[1,2,3,4]"),
        (json!({"op": "TopK", "inputs": ["x"], "k": 2, "smallest": true}), "f32[2,2] i32[2,2]"),
        (json!({"op": "Gather", "inputs": ["x", "i"]}), "f32[2,3]"),
        (json!({"op": "ScatterAdd", "inputs": ["m", "i", "m"], "axis": 1}), "f32[4,3]"),
        (json!({"op": "Quantize", "inputs": ["x"]}), "i8[2,4] f32[2]"),
        (json!({"op": "Dequantize", "inputs": ["q", "s"], "dtype": "f16"}), "f16[2,4]"),
        (json!({"op": "Fill", "value": 3, "dtype": "i32", "shape": []}), "i32[]"),
        (json!({"op": "Random", "dtype": "f16", "shape": [7]}), "f16[7]"),
    ]
}

#[test]
fn each_operation_is_written_by_its_name() {
    let named = |op: &str, inputs: &[&str]| json!({"op": op, "inputs": inputs});
    let unary = Unary::ALL.iter().map(|op| (named(op.name(), &["h"]), "f16[2,4]"));
    let binary = Binary::ALL.iter().map(|op| (named(op.name(), &["x", "v"]), "f32[2,4]"));
    let reductions =
        Reduction::ALL.iter().map(|op| (named(&format!("Reduce{}", op.name()), &["x"]), "f32[2]"));
    let all: Vec<(Value, &str)> = unary.chain(binary).chain(reductions).chain(others()).collect();
    for (operation, expected) in &all {
        assert_eq!(results(operation.clone()).as_deref(), Ok(*expected), "{operation}");
        let graph = one(operation.clone()).unwrap();
        assert_eq!(operation["op"], graph.nodes()[0].op.name(), "it is the operation of that name");
    }
    let written: Vec<&str> = all.iter().filter_map(|(operation, _)| operation["op"].as_str()).collect();
    assert_eq!(written, names(), "no name is left out");
    assert_eq!(names().iter().collect::<BTreeSet<_>>().len(), names().len(), "no two have one name");
}

#[test]
fn attributes_mean_what_they_say() {
    let op = |operation: Value| {
        one(operation).map(|graph| graph.nodes()[0].op.clone()).map_err(|fault| fault.to_string())
    };
    let shape = |extents: &[usize]| Shape::new(extents).unwrap();
    for (operation, expected) in [
        (
            json!({"op": "ReduceMax", "inputs": ["x"], "axis": -2}),
            Op::Reduce { reduction: Reduction::Max, axis: 0, keep: false },
        ),
        (
            json!({"op": "ReduceSum", "inputs": ["x"], "keepAxis": true}),
            Op::Reduce { reduction: Reduction::Sum, axis: 1, keep: true },
        ),
        (json!({"op": "ArgMin", "inputs": ["x"]}), Op::ArgReduce { largest: false, axis: 1, keep: false }),
        (json!({"op": "LogSoftmax", "inputs": ["a"], "axis": -3}), Op::Softmax { axis: 1, log: true }),
        (
            json!({"op": "Slice", "inputs": ["x"], "axis": 0, "length": 1}),
            Op::Slice { axis: 0, start: 0, len: 1 },
        ),
        (json!({"op": "LayerNorm", "inputs": ["x", "v", "v"]}), Op::LayerNorm { epsilon: 1e-5 }),
        (json!({"op": "RmsNorm", "inputs": ["x", "v"], "epsilon": 0}), Op::RmsNorm { epsilon: 0.0 }),
        (json!({"op": "Rotary", "inputs": ["x"]}), Op::Rotary { base: 10_000.0, offset: 0 }),
        (
            json!({"op": "MatMul", "inputs": ["x", "m"]}),
            Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs: false },
        ),
        (
            json!({"op": "MatMul", "inputs": ["m", "m"], "transposeFirst": true}),
            Op::MatMul { wide: false, transpose_lhs: true, transpose_rhs: false },
        ),
        (json!({"op": "Attention", "inputs": ["a", "a", "a"]}), Op::Attention { causal: false, scale: None }),
        (json!({"op": "TopK", "inputs": ["x"], "k": 1}), Op::TopK { k: 1, largest: true }),
        (
            json!({"op": "Random", "dtype": "i32", "shape": [2], "random": {"seed": -1, "distribution": "Integers", "low": -3, "high": 3}}),
            Op::Random {
                distribution: Distribution::Integers { low: -3, high: 3 },
                seed: u64::MAX,
                dtype: DType::I32,
                shape: shape(&[2]),
            },
        ),
        (
            json!({"op": "Random", "dtype": "f32", "shape": [2], "random": {"distribution": "Uniform", "high": 9.5}}),
            Op::Random {
                distribution: Distribution::Uniform { low: 0.0, high: 9.5 },
                seed: 0,
                dtype: DType::F32,
                shape: shape(&[2]),
            },
        ),
    ] {
        assert_eq!(op(operation.clone()), Ok(expected), "{operation}");
    }
}

/// Every attribute that there is, each with a value that it may have.
fn attributes() -> Map<String, Value> {
    let all = json!({
        "axis": 0, "keepAxis": true, "shape": [2], "dtype": "f32", "order": [0], "start": 0, "length": 1, "epsilon": 0.1, "base": 2.0,
        "offset": 0, "wide": true, "transposeFirst": true, "transposeSecond": true, "causal": true, "scale": 1.0, "k": 1,
        "smallest": true, "value": 1.0, "random": {},
    });
    all.as_object().unwrap().clone()
}

/// Which attributes an operation takes, and which of them it needs, found out by giving all and leaving out each.
fn taken(op: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let fault = |attributes: &Map<String, Value>| {
        let mut operation = json!({"op": op});
        operation.as_object_mut().unwrap().extend(attributes.clone());
        one(operation).err().map_or_else(|| (String::new(), String::new()), |fault| (fault.path, fault.why))
    };
    let mut all = attributes();
    while let (path, why) = fault(&all)
        && why.ends_with("has no use for it")
    {
        let name = path.strip_prefix("operations[0].").expect("it is about the operation");
        assert!(all.remove(name).is_some(), "{op} has no use for {name}, which was not given");
    }
    let needed = all.keys().filter(|name| {
        let mut less = all.clone();
        less.remove(*name);
        let (path, why) = fault(&less);
        path == format!("operations[0].{name}") && why.ends_with("needs it")
    });
    (all.keys().cloned().collect(), needed.cloned().collect())
}

/// Rows of the table of operations in `docs/kernel-jobs.md`: attributes by operation, needed ones in bold.
fn documented() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let reference = include_str!("../../../../docs/kernel-jobs.md");
    let table =
        reference.split("\n| op | inputs | attributes |").nth(1).expect("it has a table of operations");
    let quoted =
        |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<String>>();
    let bold = |cell: &str| quoted(&cell.split("**").skip(1).step_by(2).collect::<String>());
    let mut rows = BTreeMap::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').collect();
        for op in quoted(cells[1]) {
            rows.insert(op, (quoted(cells[3]), bold(cells[3])));
        }
    }
    rows
}

#[test]
fn the_reference_names_every_operation_with_its_attributes_and_nothing_else() {
    let documented = documented();
    let known: BTreeMap<_, _> = names().into_iter().map(|op| (op.to_owned(), taken(op))).collect();
    assert_eq!(documented.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
    for (op, expected) in &known {
        assert_eq!(&documented[op], expected, "{op}: what it takes, and what it needs of that");
    }
}

#[test]
fn every_attribute_has_a_use_somewhere() {
    let used: BTreeSet<String> = names().iter().flat_map(|op| taken(op).0).collect();
    assert_eq!(used, attributes().keys().cloned().collect());
    let full: Operation = {
        let mut all = attributes();
        all.extend([
            ("name".to_owned(), "o".into()),
            ("op".to_owned(), "Exp".into()),
            ("inputs".to_owned(), json!(["x"])),
        ]);
        serde_json::from_value(all.into()).unwrap()
    };
    let fields = serde_json::to_value(&full).unwrap().as_object().unwrap().len();
    assert_eq!(fields, attributes().len() + 3, "an attribute is in none of these tests");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (operation, expected) in [
        (
            json!({"op": "Matmul", "inputs": ["x", "m"]}),
            "operations[0].op: there is no operation \"Matmul\": use one of Neg, ",
        ),
        (json!({}), "operations[0].op: there is no operation \"\""),
        (
            json!({"op": "Exp", "inputs": ["x", "y"]}),
            "operations[0].inputs[1]: \"o\" reads \"y\", and no input or earlier",
        ),
        (json!({"op": "Exp", "inputs": ["o"]}), "operations[0].inputs[0]: \"o\" reads \"o\""),
        (json!({"op": "Exp"}), "operations[0]: \"o\" (Exp): takes 1 operands and was given 0"),
        (
            json!({"op": "Exp", "inputs": ["i"]}),
            "operations[0]: \"o\" (Exp): calculates with f32, f16 and bf16",
        ),
        (
            json!({"op": "Softmax", "inputs": ["x"], "axis": 2}),
            "operations[0].axis: \"o\" (Softmax): there is no axis 2 in [2,4]",
        ),
        (
            json!({"op": "Softmax", "inputs": ["x"], "axis": -3}),
            "operations[0].axis: \"o\" (Softmax): there is no axis -3",
        ),
        (json!({"op": "Softmax", "inputs": ["x"], "axis": i64::MIN}), "operations[0].axis: "),
        (json!({"op": "Softmax", "inputs": ["x"], "axis": i64::MAX}), "operations[0].axis: "),
        (json!({"op": "Softmax"}), "operations[0]: \"o\" (Softmax): takes 1 operands and was given 0"),
        (
            json!({"op": "Cast", "inputs": ["x"], "dtype": "f64"}),
            "operations[0].dtype: there is no type \"f64\"",
        ),
        (
            json!({"op": "Reshape", "inputs": ["x"], "shape": [2, -4]}),
            "operations[0].shape[1]: -4 is no extent",
        ),
        (
            json!({"op": "Reshape", "inputs": ["x"], "shape": [i64::MAX, 2]}),
            "operations[0].shape: more than 2^40 elements",
        ),
        (
            json!({"op": "Reshape", "inputs": ["x"], "shape": [1 << 20, 1 << 21]}),
            "operations[0].shape: more than 2^40 elements",
        ),
        (
            json!({"op": "Reshape", "inputs": ["x"], "shape": [1, 1, 1, 1, 1, 1, 1, 1, 8]}),
            "operations[0].shape: 9 axes",
        ),
        (
            json!({"op": "Reshape", "inputs": ["x"], "shape": [7]}),
            "operations[0]: \"o\" (Reshape): f32[2,4] has 8 elements, and [7] 7",
        ),
        (
            json!({"op": "Permute", "inputs": ["x"], "order": [0, -1]}),
            "operations[0].order[1]: -1 is negative",
        ),
        (json!({"op": "Permute", "inputs": ["x"], "order": [0, 0]}), "operations[0]: \"o\" (Permute): "),
        (
            json!({"op": "Slice", "inputs": ["x"], "start": -1, "length": 1}),
            "operations[0].start: -1 is negative",
        ),
        (
            json!({"op": "Slice", "inputs": ["x"], "start": i64::MAX, "length": i64::MAX}),
            "operations[0]: \"o\" (Slice): ",
        ),
        (json!({"op": "TopK", "inputs": ["x"], "k": -1}), "operations[0].k: -1 is negative"),
        (
            json!({"op": "TopK", "inputs": ["x"], "k": 5}),
            "operations[0]: \"o\" (TopK): 5 of rows of f32[2,4]",
        ),
        (
            json!({"op": "Fill", "value": 0.5, "dtype": "i32", "shape": [1]}),
            "operations[0]: \"o\" (Fill): 0.5 is no i32",
        ),
        (
            json!({"op": "Random", "dtype": "f32", "shape": [1], "random": {"low": 1}}),
            "operations[0].random.low: Normal has no use for it",
        ),
        (
            json!({"op": "Random", "dtype": "f32", "shape": [1], "random": {"distribution": "Uniform", "mean": 1}}),
            "operations[0].random.mean: Uniform has no use",
        ),
        (
            json!({"op": "Random", "dtype": "f32", "shape": [1], "random": {"distribution": "Gamma"}}),
            "operations[0].random.distribution: there is no distribution \"Gamma\"",
        ),
        (
            json!({"op": "Random", "dtype": "i32", "shape": [1], "random": {"distribution": "Integers", "high": 2.5}}),
            "operations[0].random.high: 2.5 is no 32-bit integer",
        ),
        (
            json!({"op": "Random", "dtype": "i32", "shape": [1], "random": {"distribution": "Integers", "low": 3e9}}),
            "operations[0].random.low: 3000000000 is no 32-bit",
        ),
    ] {
        let said = results(operation.clone()).expect_err("it is wrong");
        assert!(said.starts_with(expected), "{operation}: {said}");
    }
}

#[test]
fn names_of_inputs_operations_and_outputs_are_told_apart() {
    let exp = |name: &str, of: &str| read(json!({"name": name, "op": "Exp", "inputs": [of]}));
    let x = tensor_type("f32", &[2]).unwrap();
    let said = |inputs: &[&str], operations: &[Operation], outputs: &[&str]| {
        let inputs = inputs.iter().map(|name| (*name, x.clone()));
        graph(inputs, operations, outputs.iter().copied()).map(|_| ()).map_err(|fault| fault.path)
    };
    assert_eq!(said(&["a", "b"], &[exp("o", "a")], &["o", "a", "o"]), Ok(()));
    assert_eq!(said(&["a", "a"], &[], &[]), Err("inputs[1].name".to_owned()));
    assert_eq!(said(&["a.b"], &[], &[]), Err("inputs[0].name".to_owned()));
    assert_eq!(said(&["a"], &[exp("o", "a"), exp("o", "a")], &[]), Err("operations[1].name".to_owned()));
    assert_eq!(said(&["a"], &[exp("", "a")], &[]), Err("operations[0].name".to_owned()));
    assert_eq!(said(&["a"], &[exp(&"o".repeat(64), "a")], &[]), Err("operations[0].name".to_owned()));
    assert_eq!(said(&["a"], &[exp("o", "a")], &["o", "p"]), Err("outputs[1].value".to_owned()));
    let many: Vec<Operation> = (0..1024).map(|n| exp(&format!("o{n}"), "a")).collect();
    assert_eq!(said(&["a"], &many, &["a"]), Err("operations[1023]".to_owned()));
    let two = [
        read(json!({"name": "t", "op": "TopK", "inputs": ["a"], "k": 1})),
        read(json!({"name": "z", "op": "Quantize", "inputs": ["a"]})),
    ];
    assert_eq!(said(&["a"], &two, &["t", "t.indices", "z", "z.scale"]), Ok(()));
    assert_eq!(said(&["a"], &two, &["t.scale"]), Err("outputs[0].value".to_owned()));
}

#[test]
fn what_no_operation_has_does_not_parse() {
    let read = |text: Value| serde_json::from_value::<Operation>(text).is_ok();
    assert!(read(json!({"name": "o", "op": "Exp", "inputs": ["x"]})));
    assert!(!read(json!({"name": "o", "op": "Exp", "axes": 1})));
    assert!(!read(json!({"name": "o", "op": "Exp", "random": {"sede": 1}})));
}

#[test]
fn a_fault_has_its_place_in_the_document_around_it() {
    let fault = |path: &str| Fault { path: path.to_owned(), why: "w".to_owned() };
    assert_eq!(fault("axis").below("operations[0]").path, "operations[0].axis");
    assert_eq!(fault("").below("operations[0]").path, "operations[0]");
    assert_eq!(fault("axis").below("").path, "axis");
    assert_eq!(fault("axis").to_string(), "axis: w");
}

/// Any operation with any attributes, over names that may stand for something.
fn operation() -> impl Strategy<Value = Value> {
    let names = names();
    let known = prop::sample::select(vec![
        "x",
        "m",
        "v",
        "h",
        "i",
        "q",
        "s",
        "a",
        "o0",
        "o1",
        "o2.indices",
        "o3.scale",
    ]);
    let whole = prop_oneof![4 => -4_i64..5, 1 => any::<i64>(), 1 => Just(1 << 40)];
    let extents = prop::collection::vec(whole.clone(), 0..5);
    let dtype = prop::sample::select(vec!["f32", "f16", "bf16", "i32", "i8", "f64"]);
    let some = |value: BoxedStrategy<Value>| prop::option::weighted(0.2, value);
    let whole = whole.prop_map(Value::from).boxed();
    let attributes = [
        ("axis", whole.clone()),
        ("keepAxis", any::<bool>().prop_map(Value::from).boxed()),
        ("shape", extents.clone().prop_map(Value::from).boxed()),
        ("dtype", dtype.prop_map(Value::from).boxed()),
        ("order", extents.prop_map(Value::from).boxed()),
        ("start", whole.clone()),
        ("length", whole.clone()),
        ("k", whole.clone()),
        ("offset", whole.clone()),
        ("value", prop::num::f64::NORMAL.prop_map(Value::from).boxed()),
    ];
    let attributes: Vec<_> = attributes
        .into_iter()
        .map(|(name, value)| some(value).prop_map(move |value| (name, value)))
        .collect();
    (prop::sample::select(names), prop::collection::vec(known, 0..4), attributes).prop_map(
        |(op, inputs, attributes)| {
            let mut operation = json!({"op": op, "inputs": inputs});
            attributes
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .for_each(|(name, value)| operation[name] = value);
            operation
        },
    )
}

/// An operation with what it takes alone, so that most are right.
fn sound_operation() -> impl Strategy<Value = Value> {
    let simple = |op: &&'static str| json!({"op": op, "inputs": ["x"]});
    let named = Unary::ALL.iter().map(|op| op.name()).collect::<Vec<_>>();
    let all: Vec<Value> =
        named.iter().map(simple).chain(others().into_iter().map(|(operation, _)| operation)).collect();
    prop::sample::select(all)
}

proptest! {
    #[test]
    fn a_graph_that_is_accepted_is_the_same_when_it_was_written_and_read(
        written in prop::collection::vec(prop_oneof![1 => operation(), 3 => sound_operation()], 0..6),
    ) {
        let operations: Vec<Operation> = written.into_iter().enumerate().map(|(at, mut operation)| {
            operation["name"] = format!("o{at}").into();
            read(operation)
        }).collect();
        let output = operations.last().map_or("x".to_owned(), |last| last.name.clone());
        let made = graph(inputs(), &operations, [output.as_str()]);
        let text = serde_json::to_string(&operations).unwrap();
        let again: Vec<Operation> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&again, &operations);
        prop_assert_eq!(graph(inputs(), &again, [output.as_str()]), made.clone());
        match made {
            Ok(graph) => {
                let total = graph.cost();
                let parts = graph.nodes().iter().map(|node| graph.cost_of(node).flops).fold(0_u128, |sum, flops| sum + u128::from(flops));
                prop_assert_eq!(u128::from(total.flops), parts.min(u128::from(u64::MAX)));
            }
            Err(fault) => prop_assert!(fault.path.starts_with("operations["), "{fault}"),
        }
    }

    #[test]
    fn extents_are_refused_rather_than_multiplied_over(shape in prop::collection::vec(prop_oneof![
        2 => 0_i64..4, 1 => (0_u32..63).prop_map(|bits| 1_i64 << bits), 1 => any::<i64>(),
    ], 0..10)) {
        let counted = shape.iter().map(|extent| u128::try_from(*extent).ok().filter(|extent| *extent > 0).unwrap_or(1));
        let elements = counted.fold(1_u128, u128::saturating_mul);
        let possible = shape.iter().all(|extent| *extent >= 0) && shape.len() <= crate::RANK_MAX && elements <= 1 << 40;
        let made = tensor_type("f32", &shape);
        prop_assert_eq!(made.is_ok(), possible, "{:?}", made);
        if let Err(fault) = made {
            prop_assert!(fault.path.starts_with("shape"), "{fault}");
        }
    }
}
