//! Graphs as they are written down: in manifests, and in what a worker is told.
//!
//! An operation is one record whatever it does; which attributes it takes follows from its `op`. What is missing, left over or does not
//! fit is an error with the path of the field.

use crate::{Binary, DType, Distribution, Graph, GraphError, Op, Reduction, Shape, TensorType, Unary};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One step of a graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "io.clawbernetes.v1.Operation", extend("required" = ["name", "op"]))]
pub struct Operation {
    /// What later operations and outputs call the result. Of two results (`TopK`, `Quantize`) the second is called NAME.indices, or NAME.scale.
    #[serde(default)]
    pub name: String,
    /// What is done, e.g. `MatMul`, `Softmax`, `Add`. The whole list is in docs/kernel-jobs.md.
    #[serde(default)]
    pub op: String,
    /// With what: names of inputs and of earlier operations, in the order of the operation's operands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Along which axis of the first operand; negative ones count from the last, which is the default where one is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<i64>,
    /// `Reduce…`, `ArgMax`, `ArgMin`, `CountDifferent`: whether the axis stays, with extent 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_axis: Option<bool>,
    /// `Reshape`, `Broadcast`, `Fill`, `Random`: the extents of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<i64>>,
    /// `Cast`, `Dequantize`, `Fill`, `Random`: the type of the result. One of f32, f16, bf16, i32, i8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// `Permute`: axis `i` of the result is axis `order[i]` of the operand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Vec<i64>>,
    /// `Slice`: the first index that is kept; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// `Slice`: how many indices are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<i64>,
    /// `LayerNorm`, `RmsNorm`: added under the root; 0.00001 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// `Rotary`: the base of its frequencies; 10000 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<f64>,
    /// `Rotary`: the position of the first row; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// `MatMul`: the result is f32, whatever the operands are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wide: Option<bool>,
    /// `MatMul`: the last two axes of the first operand are swapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transpose_first: Option<bool>,
    /// `MatMul`: the last two axes of the second operand are swapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transpose_second: Option<bool>,
    /// `Attention`: each query sees no key that comes after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal: Option<bool>,
    /// `Attention`: by what products of queries and keys are multiplied; 1/√width if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// `TopK`: how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<i64>,
    /// `TopK`: the smallest instead of the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smallest: Option<bool>,
    /// `Fill`: the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// `Random`: from what is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<Random>,
}

/// Seeded random numbers: the same ones on every device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "io.clawbernetes.v1.Random")]
pub struct Random {
    /// Element `i` depends on nothing but the seed and `i`; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// `Uniform` from `low` to `high`, without `high`; `Normal` by `mean` and `deviation`; or whole numbers, `Integers`, from `low` to
    /// `high`, both among them. `Normal` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

/// What is wrong with a graph as it was written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Fault {
    /// Where, from the document's top: `operations[2].axis`.
    pub path: String,
    /// What, with the name of the operation, and what to do.
    pub why: String,
}

impl Fault {
    fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }

    /// Itself, seen from a document that has this one in it at `path`.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        let joined = match (path.is_empty(), self.path.is_empty()) {
            (true, _) => self.path,
            (_, true) => path.to_owned(),
            _ => format!("{path}.{}", self.path),
        };
        Self { path: joined, ..self }
    }
}

/// The graph of these operations over these inputs. Outputs are names of inputs and results.
///
/// # Errors
/// The first thing that is wrong: paths are `inputs[i].name`, `operations[i]` with what is below it, and `outputs[i].value`.
pub fn graph<'a>(
    inputs: impl IntoIterator<Item = (&'a str, TensorType)>,
    operations: &[Operation],
    outputs: impl IntoIterator<Item = &'a str>,
) -> Result<Graph, Fault> {
    let mut graph = Graph::new();
    for (at, (name, of)) in inputs.into_iter().enumerate() {
        graph.input(name, of).map_err(|error| Fault::new(format!("inputs[{at}].name"), error.to_string()))?;
    }
    for (at, operation) in operations.iter().enumerate() {
        operation.add_to(&mut graph).map_err(|fault| fault.below(&format!("operations[{at}]")))?;
    }
    for (at, output) in outputs.into_iter().enumerate() {
        let value = graph.named("outputs", output).map_err(|_| {
            Fault::new(format!("outputs[{at}].value"), format!("no input or operation is called {output:?}"))
        })?;
        graph.output(value);
    }
    Ok(graph)
}

/// A type and a shape, as they are written.
///
/// # Errors
/// A type that there is not, extents that are negative or too large. The path begins with `dtype` or `shape`.
pub fn tensor_type(dtype: &str, shape: &[i64]) -> Result<TensorType, Fault> {
    let dtype: DType = dtype.parse().map_err(|why: String| Fault::new("dtype", why))?;
    Ok(TensorType::new(dtype, extents(shape)?))
}

fn extents(shape: &[i64]) -> Result<Shape, Fault> {
    let mut extents = Vec::with_capacity(shape.len());
    for (at, extent) in shape.iter().enumerate() {
        let whole = usize::try_from(*extent);
        extents.push(whole.map_err(|_| {
            Fault::new(format!("shape[{at}]"), format!("{extent} is no extent: 0 or more are possible"))
        })?);
    }
    Shape::new(extents).map_err(|error| Fault::new("shape", error.to_string()))
}

impl Random {
    /// What it stands for.
    ///
    /// # Errors
    /// A distribution that there is not, or ends of `Integers` that are no 32-bit integers.
    pub fn distribution(&self) -> Result<(Distribution, u64), Fault> {
        let (low, high) = (self.low.unwrap_or(0.0), self.high.unwrap_or(1.0));
        let kind = self.distribution.as_deref().unwrap_or("Normal");
        let unused: &[(&str, Option<f64>)] = match kind {
            "Normal" => &[("low", self.low), ("high", self.high)],
            _ => &[("mean", self.mean), ("deviation", self.deviation)],
        };
        if let Some((name, _)) = unused.iter().find(|(_, value)| value.is_some()) {
            return Err(Fault::new(*name, format!("{kind} has no use for it")));
        }
        let distribution = match kind {
            "Uniform" => Distribution::Uniform { low, high },
            "Normal" => Distribution::Normal {
                mean: self.mean.unwrap_or(0.0),
                deviation: self.deviation.unwrap_or(1.0),
            },
            "Integers" => Distribution::Integers { low: integer("low", low)?, high: integer("high", high)? },
            other => {
                let why = format!("there is no distribution {other:?}: use Uniform, Normal or Integers");
                return Err(Fault::new("distribution", why));
            }
        };
        // A seed is 64 bits; which of them is called a sign makes no difference.
        Ok((distribution, self.seed.unwrap_or(0).cast_unsigned()))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a whole number in the range of i32")]
fn integer(name: &str, value: f64) -> Result<i32, Fault> {
    let fits = value.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value);
    if fits { Ok(value as i32) } else { Err(Fault::new(name, format!("{value} is no 32-bit integer"))) }
}

impl Operation {
    fn add_to(&self, graph: &mut Graph) -> Result<(), Fault> {
        let mut operands = Vec::with_capacity(self.inputs.len());
        for (at, input) in self.inputs.iter().enumerate() {
            let found = graph.named(&self.name, input);
            operands.push(found.map_err(|error| Fault::new(format!("inputs[{at}]"), error.to_string()))?);
        }
        let first = operands.first().map(|value| graph.of(*value).shape.clone());
        let mut attributes = Attributes { left: self.clone(), first };
        let op = attributes.op(&self.op)?;
        attributes.end()?;
        match graph.add(&self.name, op, &operands) {
            Ok(_) => Ok(()),
            Err(error @ GraphError::Name(_)) => Err(Fault::new("name", error.to_string())),
            Err(error) => Err(Fault::new("", error.to_string())),
        }
    }
}

/// Names of all operations, as manifests write them.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let functions = Unary::ALL.iter().map(|op| op.name()).chain(Binary::ALL.iter().map(|op| op.name()));
    let reductions = Reduction::ALL.iter().map(|reduction| reduced(*reduction));
    functions.chain(reductions).chain(OTHERS.iter().copied()).collect()
}

fn reduced(reduction: Reduction) -> &'static str {
    Op::Reduce { reduction, axis: 0, keep: false }.name()
}

/// Operations that are neither functions of one or two numbers nor reductions.
const OTHERS: [&str; 24] = [
    "Where",
    "Cast",
    "Reshape",
    "Permute",
    "Broadcast",
    "Slice",
    "Concat",
    "ArgMax",
    "ArgMin",
    "CountDifferent",
    "Softmax",
    "LogSoftmax",
    "LayerNorm",
    "RmsNorm",
    "Rotary",
    "MatMul",
    "Attention",
    "TopK",
    "Gather",
    "ScatterAdd",
    "Quantize",
    "Dequantize",
    "Fill",
    "Random",
];

/// What an operation was given and nobody has asked for yet.
struct Attributes {
    left: Operation,
    /// The shape of the first operand, whose axes are meant.
    first: Option<Shape>,
}

impl Attributes {
    fn op(&mut self, name: &str) -> Result<Op, Fault> {
        let named = |found: &&str| *found == name;
        if let Some(unary) = Unary::ALL.iter().find(|op| named(&op.name())) {
            return Ok(Op::Unary(*unary));
        }
        if let Some(binary) = Binary::ALL.iter().find(|op| named(&op.name())) {
            return Ok(Op::Binary(*binary));
        }
        if let Some(reduction) = Reduction::ALL.iter().find(|reduction| named(&reduced(**reduction))) {
            return Ok(Op::Reduce { reduction: *reduction, axis: self.axis()?, keep: self.keep() });
        }
        self.other(name)
    }

    fn other(&mut self, name: &str) -> Result<Op, Fault> {
        let op = match name {
            "Where" => Op::Where,
            "Cast" => Op::Cast(self.dtype()?),
            "Reshape" => Op::Reshape(self.shape()?),
            "Permute" => Op::Permute(self.order()?),
            "Broadcast" => Op::Broadcast(self.shape()?),
            "Slice" => {
                let start = whole("start", self.left.start.take().unwrap_or(0))?;
                let length = self.left.length.take();
                Op::Slice { axis: self.axis()?, start, len: whole("length", self.needed("length", length)?)? }
            }
            "Concat" => Op::Concat { axis: self.axis()? },
            "ArgMax" | "ArgMin" => {
                Op::ArgReduce { largest: name == "ArgMax", axis: self.axis()?, keep: self.keep() }
            }
            "CountDifferent" => Op::CountDifferent { axis: self.axis()?, keep: self.keep() },
            "Softmax" | "LogSoftmax" => Op::Softmax { axis: self.axis()?, log: name == "LogSoftmax" },
            "LayerNorm" => Op::LayerNorm { epsilon: self.epsilon() },
            "RmsNorm" => Op::RmsNorm { epsilon: self.epsilon() },
            "Rotary" => Op::Rotary {
                base: self.left.base.take().unwrap_or(10_000.0),
                offset: whole("offset", self.left.offset.take().unwrap_or(0))?,
            },
            "MatMul" => Op::MatMul {
                wide: self.left.wide.take().unwrap_or(false),
                transpose_lhs: self.left.transpose_first.take().unwrap_or(false),
                transpose_rhs: self.left.transpose_second.take().unwrap_or(false),
            },
            "Attention" => Op::Attention {
                causal: self.left.causal.take().unwrap_or(false),
                scale: self.left.scale.take(),
            },
            "TopK" => {
                let k = self.left.k.take();
                let largest = !self.left.smallest.take().unwrap_or(false);
                Op::TopK { k: whole("k", self.needed("k", k)?)?, largest }
            }
            "Gather" => Op::Gather { axis: self.axis()? },
            "ScatterAdd" => Op::ScatterAdd { axis: self.axis()? },
            "Quantize" => Op::Quantize,
            "Dequantize" => Op::Dequantize(self.dtype()?),
            "Fill" => {
                let value = self.left.value.take();
                Op::Fill { value: self.needed("value", value)?, dtype: self.dtype()?, shape: self.shape()? }
            }
            "Random" => self.random()?,
            other => {
                let why = format!("there is no operation {other:?}: use one of {}", names().join(", "));
                return Err(Fault::new("op", why));
            }
        };
        Ok(op)
    }

    fn random(&mut self) -> Result<Op, Fault> {
        let random = self.left.random.take().unwrap_or_default();
        let (distribution, seed) = random.distribution().map_err(|fault| fault.below("random"))?;
        Ok(Op::Random { distribution, seed, dtype: self.dtype()?, shape: self.shape()? })
    }

    fn axis(&mut self) -> Result<usize, Fault> {
        let axis = self.left.axis.take().unwrap_or(-1);
        // Without an operand the operation is refused when it is added.
        let Some(shape) = &self.first else { return Ok(0) };
        shape.axis(axis).map_err(|error| Fault::new("axis", format!("{}: {error}", self.who())))
    }

    fn keep(&mut self) -> bool {
        self.left.keep_axis.take().unwrap_or(false)
    }

    fn epsilon(&mut self) -> f64 {
        self.left.epsilon.take().unwrap_or(1e-5)
    }

    fn dtype(&mut self) -> Result<DType, Fault> {
        let dtype = self.left.dtype.take();
        self.needed("dtype", dtype)?.parse().map_err(|why: String| Fault::new("dtype", why))
    }

    fn shape(&mut self) -> Result<Shape, Fault> {
        let shape = self.left.shape.take();
        extents(&self.needed("shape", shape)?)
    }

    fn order(&mut self) -> Result<Vec<usize>, Fault> {
        let order = self.left.order.take();
        let axes = self.needed("order", order)?;
        axes.iter().enumerate().map(|(at, axis)| whole(&format!("order[{at}]"), *axis)).collect()
    }

    fn needed<T>(&self, name: &str, given: Option<T>) -> Result<T, Fault> {
        given.ok_or_else(|| Fault::new(name, format!("{} needs it", self.who())))
    }

    /// Nothing may be left over: who wrote it thinks that it does something.
    fn end(mut self) -> Result<(), Fault> {
        let who = self.who();
        self.left.inputs.clear();
        let Ok(Value::Object(left)) = serde_json::to_value(&self.left) else { return Ok(()) };
        match left.keys().find(|key| !["name", "op"].contains(&key.as_str())) {
            Some(attribute) => Err(Fault::new(attribute, format!("{who} has no use for it"))),
            None => Ok(()),
        }
    }

    fn who(&self) -> String {
        format!("{:?} ({})", self.left.name, self.left.op)
    }
}

fn whole(name: &str, value: i64) -> Result<usize, Fault> {
    usize::try_from(value).map_err(|_| Fault::new(name, format!("{value} is negative")))
}

#[cfg(test)]
mod tests;
