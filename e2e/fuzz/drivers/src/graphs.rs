//! Graphs as they are written down: what is taken means the same when it is written again, fits where it is said to, and costs what
//! its parts cost. What is refused is refused with a place.

use claw_graph::{Graph, document::names, order::Order};
use serde_json::{Value, json};

use crate::{json, tape::Tape};

const TYPES: [&str; 6] = ["f32", "f16", "bf16", "i32", "i8", "f64"];
/// Names of inputs; operations are called `o0` and so on.
const INPUTS: [&str; 3] = ["a", "b", "c"];

/// An order that is nearly right, then whatever is left as one of its own.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let mut document = order(&mut tape);
    if tape.below(3) == 2 {
        json::damage(&mut tape, &mut document);
    }
    if let Ok(order) = serde_json::from_value::<Order>(document) {
        holds(&order);
    }
    if let Ok(order) = serde_json::from_slice::<Order>(tape.rest()) {
        holds(&order);
    }
}

fn holds(order: &Order) {
    let graph = match order.graph() {
        Ok(graph) => graph,
        Err(fault) => {
            let place = ["inputs", "operations", "outputs"].iter().any(|list| fault.path.starts_with(list));
            return assert!(place && !fault.why.is_empty(), "{fault}: {order:?}");
        }
    };
    let written = serde_json::to_string(order).expect("an order is JSON");
    let read: Order = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(read, *order, "{written}");
    assert_eq!(read.graph().as_ref(), Ok(&graph), "{written}");
    is_counted(&graph);
}

/// Sizes and costs, against numbers that do not overflow.
fn is_counted(graph: &Graph) {
    for of in graph.types() {
        let elements: u128 = of.shape.iter().map(|extent| *extent as u128).product();
        assert!(elements <= 1 << 40, "{of}");
        assert_eq!(of.size_bytes() as u128, elements * of.dtype.size_bytes() as u128, "{of}");
    }
    let (mut flops, mut bytes) = (0_u128, 0_u128);
    for node in graph.nodes() {
        let cost = graph.cost_of(node);
        (flops, bytes) = (flops + u128::from(cost.flops), bytes + u128::from(cost.bytes));
    }
    let (most, total) = (u128::from(u64::MAX), graph.cost());
    assert_eq!((u128::from(total.flops), u128::from(total.bytes)), (flops.min(most), bytes.min(most)));
}

fn order(tape: &mut Tape<'_>) -> Value {
    // Most inputs are alike, so that operations fit.
    let (dtype, shape) = (tape.pick(&TYPES), extents(tape));
    let inputs: Vec<Value> = INPUTS[..=tape.below(3)]
        .iter()
        .map(|name| {
            let other = tape.below(4) == 3;
            let (dtype, shape) =
                if other { (tape.pick(&TYPES), extents(tape)) } else { (dtype, shape.clone()) };
            json!({"name": name, "dtype": dtype, "shape": shape, "source": source(tape)})
        })
        .collect();
    let mut known: Vec<String> = INPUTS[..inputs.len()].iter().map(|&name| name.to_owned()).collect();
    let mut operations = Vec::new();
    while tape.more(operations.len(), 8) {
        let name = format!("o{}", operations.len());
        operations.push(operation(tape, &name, &known));
        known.push(name);
    }
    let outputs: Vec<Value> = (0..=tape.below(2)).map(|_| json!({"value": one_of(tape, &known)})).collect();
    json!({
        "inputs": inputs, "operations": operations, "outputs": outputs,
        "backends": ["cpu"], "runs": 1, "warmups": 0, "runTimeoutSeconds": 1,
    })
}

fn one_of(tape: &mut Tape<'_>, known: &[String]) -> String {
    let name = known[tape.below(known.len())].clone();
    match tape.below(8) {
        6 => name + ".indices",
        7 => name + ".scale",
        _ => name,
    }
}

fn extent(tape: &mut Tape<'_>) -> i64 {
    match tape.below(12) {
        10 => tape.pick(&[1 << 20, 1 << 31, 1 << 39, 1 << 40, (1 << 40) + 1]),
        11 => tape.number(),
        small => [4, 2, 1, 3, 0, 8, 6, 4, 2, 1][small],
    }
}

fn extents(tape: &mut Tape<'_>) -> Vec<i64> {
    (0..tape.pick(&[2, 4, 1, 0, 3, 9])).map(|_| extent(tape)).collect()
}

fn source(tape: &mut Tape<'_>) -> Value {
    match tape.below(4) {
        0 => json!({"fill": tape.number()}),
        1 => json!({"random": random(tape)}),
        2 => json!({"file": "/inputs/0/a.npy"}),
        _ => json!({"values": (0..tape.below(9)).map(|_| tape.number()).collect::<Vec<_>>()}),
    }
}

fn random(tape: &mut Tape<'_>) -> Value {
    let mut random = json!({"distribution": tape.pick(&["Normal", "Uniform", "Integers", "Cauchy"])});
    for name in ["seed", "low", "high", "mean", "deviation"] {
        if tape.below(4) == 3 {
            random[name] = tape.number().into();
        }
    }
    random
}

/// With what it needs, and now and then with something else.
fn operation(tape: &mut Tape<'_>, name: &str, known: &[String]) -> Value {
    let names = names();
    let op = names[tape.below(names.len())];
    let operands = match op {
        "Fill" | "Random" => 0,
        "Where" | "LayerNorm" | "Attention" | "ScatterAdd" => 3,
        "Add" | "Sub" | "Mul" | "Div" | "MatMul" | "RmsNorm" | "Gather" | "Dequantize" => 2,
        _ => 1 + tape.below(2),
    };
    let inputs: Vec<String> = (0..operands).map(|_| one_of(tape, known)).collect();
    let mut operation = json!({"name": name, "op": op, "inputs": inputs});
    let needed: &[&str] = match op {
        "Cast" | "Dequantize" => &["dtype"],
        "Reshape" | "Broadcast" => &["shape"],
        "Permute" => &["order"],
        "Slice" => &["length"],
        "TopK" => &["k"],
        "Fill" => &["value", "dtype", "shape"],
        "Random" => &["random", "dtype", "shape"],
        _ => &[],
    };
    needed.iter().for_each(|name| operation[name] = attribute(tape, name));
    if tape.below(3) == 2 {
        let name = tape.pick(&ATTRIBUTES);
        operation[name] = attribute(tape, name);
    }
    operation
}

const ATTRIBUTES: [&str; 18] = [
    "axis",
    "axis",
    "axis",
    "keepAxis",
    "start",
    "epsilon",
    "base",
    "offset",
    "wide",
    "transposeFirst",
    "transposeSecond",
    "causal",
    "scale",
    "smallest",
    "k",
    "value",
    "shape",
    "random",
];

fn attribute(tape: &mut Tape<'_>, name: &str) -> Value {
    match name {
        "dtype" => tape.pick(&TYPES).into(),
        "shape" => extents(tape).into(),
        "order" => (0..tape.below(5)).map(|_| tape.below(4)).collect(),
        "random" => random(tape),
        "keepAxis" | "wide" | "transposeFirst" | "transposeSecond" | "causal" | "smallest" => {
            tape.flag().into()
        }
        _ => tape.number().into(),
    }
}
