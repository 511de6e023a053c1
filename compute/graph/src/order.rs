//! What a worker process is told to do, and what it says of it: two JSON documents.
//!
//! Whoever manages workers (a controller, through files in a container) and the worker itself (`claw-compute`) share these types and nothing
//! else.

use crate::document::{Fault, Operation, Random, graph, tensor_type};
use crate::qualification::Qualification;
use crate::{DType, Graph, Op, TensorType};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// First argument of a program that is to be a worker.
pub const VERB: &str = "kernel-worker";
/// Bytes that a report may have at most: what Kubernetes keeps of a container's last words.
pub const REPORT_BYTES_MAX: usize = 4_096;
/// Outputs that an order may have, so that what is said of all fits into a report.
pub const OUTPUTS_MAX: usize = 12;
/// Elements up to which the values of an output stand in the report.
pub const VALUES_MAX: usize = 4;

/// Calculate this, this often, on one of these devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Made once, before the first run.
    pub inputs: Vec<OrderInput>,
    /// The graph.
    pub operations: Vec<Operation>,
    /// What is wanted of it; at most [`OUTPUTS_MAX`].
    pub outputs: Vec<OrderOutput>,
    /// The first that can be opened is taken.
    pub backends: Vec<Backend>,
    /// Runs that are timed; at least 1.
    pub runs: u32,
    /// Runs before them that are not.
    pub warmups: u32,
    /// Seconds after which a single run has hung.
    pub run_timeout_seconds: u32,
}

/// An input, and where its elements come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderInput {
    /// What operations call it.
    pub name: String,
    /// `f32`, ...
    pub dtype: String,
    /// Its extents.
    pub shape: Vec<i64>,
    /// Its elements.
    pub source: Source,
}

/// Where elements come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// One by one, in row-major order.
    Values(Vec<f64>),
    /// All of them this one.
    Fill(f64),
    /// Drawn by a seed.
    Random(Random),
    /// A file: NumPy's format if its name ends with `.npy`, numbers as text if with `.txt`, elements as they lie in memory (row-major,
    /// little-endian) otherwise.
    File(PathBuf),
}

/// A wanted value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderOutput {
    /// An input or a result, by its name.
    pub value: String,
    /// Where it is written, in the format that its name says, as in [`Source::File`]. Without one it is only digested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// NVIDIA's own.
    Cuda,
    /// Any graphics card with a Vulkan driver (Metal on a Mac).
    Vulkan,
    /// The processors.
    Cpu,
}

impl Backend {
    /// The fastest first.
    pub const ALL: [Self; 3] = [Self::Cuda, Self::Vulkan, Self::Cpu];

    /// Its name, which is also that of its devices, before their number.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|backend| backend.name() == name);
        found.ok_or_else(|| {
            format!("there is no backend {name:?}: use one of {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

impl Order {
    /// The graph that is to be calculated.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its path in this document.
    pub fn graph(&self) -> Result<Graph, Fault> {
        let mut types: Vec<(&str, TensorType)> = Vec::with_capacity(self.inputs.len());
        for (at, input) in self.inputs.iter().enumerate() {
            let of = input.checked().map_err(|fault| fault.below(&format!("inputs[{at}]")))?;
            types.push((&input.name, of));
        }
        graph(types, &self.operations, self.outputs.iter().map(|output| output.value.as_str()))
    }
}

impl OrderInput {
    /// Its type, if its source can be of that type. Paths of sources are their names: `values`, `random.low`.
    ///
    /// # Errors
    /// What is wrong with it. Files are not looked into.
    pub fn checked(&self) -> Result<TensorType, Fault> {
        let of = tensor_type(&self.dtype, &self.shape)?;
        match &self.source {
            Source::Values(values) if values.len() != of.shape.elements() => {
                let why = format!("{:?} is {of}, and has {} values", self.name, values.len());
                return Err(Fault { path: "values".to_owned(), why });
            }
            Source::Values(values) => {
                values.iter().enumerate().try_for_each(|(at, value)| {
                    holds(of.dtype, *value).map_err(|why| Fault { path: format!("values[{at}]"), why })
                })?;
            }
            Source::Fill(value) => {
                holds(of.dtype, *value).map_err(|why| Fault { path: "fill".to_owned(), why })?;
            }
            Source::Random(random) => {
                drawn(&self.name, random, &of).map_err(|fault| fault.below("random"))?;
            }
            Source::File(_) => {}
        }
        Ok(of)
    }
}

/// The graph that draws random numbers.
///
/// # Errors
/// A distribution that there is not, or not for that type.
pub fn drawn(name: &str, random: &Random, of: &TensorType) -> Result<Graph, Fault> {
    let (distribution, seed) = random.distribution()?;
    let op = Op::Random { distribution, seed, dtype: of.dtype, shape: of.shape.clone() };
    let mut graph = Graph::new();
    let results = graph.add(name, op, &[]);
    let results = results.map_err(|error| Fault { path: String::new(), why: error.to_string() })?;
    graph.output(results[0]);
    Ok(graph)
}

/// Whether an element of that type can be this number, but for rounding.
fn holds(dtype: DType, value: f64) -> Result<(), String> {
    let (low, high) = match dtype {
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        _ => return Ok(()),
    };
    let whole = value.fract() == 0.0 && (low..=high).contains(&value);
    if whole { Ok(()) } else { Err(format!("{value} is no {dtype}")) }
}

/// What a worker says: again and again while it runs, then once for good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How far it is.
    pub state: State,
    /// What it does, or did when it ended, in words: `run 3 of 10`.
    pub doing: String,
    /// Runs that were timed so far.
    pub runs: u32,
    /// On what it calculates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<ReportDevice>,
    /// What was reached, once at least one run was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// What came out, in the order of the order's outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<ReportOutput>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What was found, if it was told to look at a device instead of calculating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualification: Option<Qualification>,
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It is at work. From a process that has ended: it was killed, or crashed.
    #[default]
    Running,
    /// All that was ordered is done, and written.
    Complete,
    /// It gave up.
    Failed,
}

/// A device, as it describes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportDevice {
    /// `cuda:0`
    pub id: String,
    /// What its maker calls it.
    pub model: String,
}

/// What was reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Of the quickest run.
    pub seconds_min: f64,
    /// Of the run in the middle.
    pub seconds_median: f64,
    /// Of the slowest run.
    pub seconds_max: f64,
    /// Arithmetic operations of one run, by the textbook.
    pub flops: u64,
    /// Bytes that the graph's operations read and write in one run, each for itself.
    pub bytes: u64,
    /// The most bytes that tensors took on the device at once.
    pub memory_bytes: u64,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportOutput {
    /// Its name in the graph.
    pub value: String,
    /// `f32`, ...
    pub dtype: String,
    /// Its extents.
    pub shape: Vec<u64>,
    /// `sha256:` and the digest of its elements as they lie in memory, row-major and little-endian.
    pub digest: String,
    /// Its elements, where they are at most [`VALUES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Why a worker gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// In one word.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

/// Why a worker gave up, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The order cannot be carried out anywhere: a graph, an input file or an output folder that is wrong.
    BadOrder,
    /// An output could not be written, for a reason that is the disk's or the machine's.
    OutputFailed,
    /// An index lies outside its axis.
    IndexOutOfRange,
    /// None of the backends has a device here that can be opened.
    NoDevice,
    /// The device has not the types that are needed.
    Unsupported,
    /// There is not enough memory on the device.
    OutOfMemory,
    /// The device, its driver or its compiler failed.
    DeviceFailed,
    /// Runs with the same inputs had different results.
    NotDeterministic,
    /// A run did not end in time.
    Hung,
    /// The worker was told to stop.
    Stopped,
}

/// As it stands in a report.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Reason {
    /// Whether another device, or another try, may succeed.
    #[must_use]
    pub const fn may_succeed_elsewhere(self) -> bool {
        !matches!(self, Self::BadOrder | Self::IndexOutOfRange)
    }
}

#[cfg(test)]
mod tests;
