//! `KernelJob`: a graph of tensor operations, calculated once on a device of the cluster.
//!
//! Like the types of Kubernetes, these read an object that lacks what its schema demands: nobody who lists objects fails because of one.
//! Judging them is the API server's.

use claw_graph::document::{Fault, Operation, Random};
use claw_graph::order::{Backend, OUTPUTS_MAX, Order, OrderInput, OrderOutput, Source};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ResourceRequirements, Toleration, Volume},
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::custom::{CustomResource, Spec};

/// Elements that inputs may have inline, all together: what one object of an API may reasonably carry.
const VALUES_MAX: usize = 16_384;

/// Type of the condition of a pod that says, in its message, what the worker in it does. Not there while none works.
pub const PROGRESS: &str = "clawbernetes.io/Progress";

/// The image that carries out an order.
pub const IMAGE: &str = "clawbernetes.io/kernels:1";
/// Label of a job's pods: its name.
pub const JOB_LABEL: &str = "clawbernetes.io/kernel-job";

/// A graph of tensor operations, calculated on a device of the cluster.
pub type KernelJob = CustomResource<KernelJobSpec>;

/// A graph of tensor operations, calculated on a device of the cluster: what is calculated, on what, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.clawbernetes.v1.KernelJobSpec")]
pub struct KernelJobSpec {
    /// Tensors that are made before the first run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub inputs: Vec<KernelInput>,
    /// The graph: each operation reads inputs and results of operations before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub operations: Vec<Operation>,
    /// What is wanted. Each output is digested; small ones stand in the status, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub outputs: Vec<KernelOutput>,
    /// How often the graph runs, each run timed. 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<i32>,
    /// How often it runs before that without being timed. 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmups: Option<i32>,
    /// On what it runs. The processors, if nothing is said here and no device is asked for in `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<KernelDevice>,
    /// What its pod may use: processors, memory, and devices by their resource (`nvidia.com/gpu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Volumes that inputs are read from and outputs are written to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
    /// Labels that its node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it bears.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// How important it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// How often it is tried again, elsewhere if there is an elsewhere, after a worker or a device failed. 2 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
    /// Seconds from its start after which it fails, whatever it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds after which a single run has hung: its worker is ended, and another tried. 600 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout_seconds: Option<i32>,
    /// Seconds after its end when it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Whether it stands still: its worker is ended, and begins anew once this is no longer so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// A tensor, and where its elements come from: exactly one of `values`, `fill`, `random`, `configMap` and `volume`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.KernelInput", extend("required" = ["name", "dtype"]))]
pub struct KernelInput {
    /// What operations call it.
    pub name: String,
    /// One of f32, f16, bf16, i32, i8.
    pub dtype: String,
    /// Its extents, outermost axis first; none for a single number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub shape: Vec<i64>,
    /// Its elements in row-major order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Option<Vec<f64>>,
    /// One number for all elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<f64>,
    /// Drawn by a seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<Random>,
    /// From a key of a `ConfigMap` of the same namespace. Keys that end with `.npy` hold NumPy's format, with `.txt` numbers as text, others
    /// elements as they lie in memory: row-major, little-endian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyOf>,
    /// From a file in one of `volumes`, in the format that its name says, as for `configMap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<PathIn>,
}

/// A key of a `ConfigMap`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.KeyOf", extend("required" = ["name", "key"]))]
pub struct KeyOf {
    /// The `ConfigMap`'s name.
    pub name: String,
    /// The key in its `data` or `binaryData`.
    pub key: String,
}

/// A file in a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.PathIn", extend("required" = ["name", "path"]))]
pub struct PathIn {
    /// The volume's name in `spec.volumes`.
    pub name: String,
    /// The file, from the volume's root.
    pub path: String,
}

/// A value that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.KernelOutput", extend("required" = ["value"]))]
pub struct KernelOutput {
    /// An input, or the result of an operation, by its name.
    pub value: String,
    /// A file that it is written to, in the format that its name says: `.npy`, `.txt`, else elements as they lie in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<PathIn>,
}

/// On what a graph runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.clawbernetes.v1.KernelDevice")]
pub struct KernelDevice {
    /// Ways to a device (`cuda`, `vulkan`, `cpu`): the first that works on its node is taken. If not given, `cuda` and `vulkan` where a device
    /// is asked for, otherwise `cpu`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<String>,
    /// A `DeviceClass`: one device of it is claimed for each try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What the device must be, each in CEL, e.g. `device.capacity["gpu.clawbernetes.io"].memory.isGreaterThan(quantity("40Gi"))`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub selectors: Vec<String>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.clawbernetes.v1.KernelJobStatus")]
pub struct KernelJobStatus {
    /// The generation that this is said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Complete`, `Failed`, `Suspended`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// In one word, for people: `Pending`, `Running`, `Complete`, `Failed`, `Suspended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// When its first pod was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What its worker does: `run 3 of 10`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Its tries, in order: all but the last have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<KernelJobAttempt>,
    /// What was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<KernelFigures>,
    /// What came out, in the order of `spec.outputs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub outputs: Vec<KernelResult>,
}

/// One try: a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.KernelJobAttempt", extend("required" = ["pod"]))]
pub struct KernelJobAttempt {
    /// The pod's name.
    pub pod: String,
    /// The pod itself, once it was seen: another one of its name is another try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// On what it calculated: `cuda:0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What the device's maker calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Why it failed, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was seen to have ended. One that has a reason and has not ended is being ended for that reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<MicroTime>,
}

/// What was reached. Rates are those of the run in the middle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.KernelFigures", extend("required" = ["runs", "secondsMin", "secondsMedian", "secondsMax", "flops", "bytes", "gflopsPerSecond", "gigabytesPerSecond", "memoryBytes"]))]
pub struct KernelFigures {
    /// Runs that were timed.
    pub runs: i32,
    /// Seconds of the quickest run.
    pub seconds_min: f64,
    /// Seconds of the run in the middle.
    pub seconds_median: f64,
    /// Seconds of the slowest run.
    pub seconds_max: f64,
    /// Arithmetic operations of a run, by the textbook.
    pub flops: i64,
    /// Bytes that operations read and write in a run, each for itself.
    pub bytes: i64,
    /// 10⁹ arithmetic operations a second.
    pub gflops_per_second: f64,
    /// 10⁹ bytes a second.
    pub gigabytes_per_second: f64,
    /// The most bytes that tensors took on the device at once.
    pub memory_bytes: i64,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.KernelResult", extend("required" = ["value", "dtype", "digest"]))]
pub struct KernelResult {
    /// Its name in the graph.
    pub value: String,
    /// `f32`, ...
    pub dtype: String,
    /// Its extents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub shape: Vec<i64>,
    /// `sha256:` and the digest of its elements as they lie in memory: row-major, little-endian.
    pub digest: String,
    /// Its elements, if they are very few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

impl Spec for KernelJobSpec {
    const API_VERSION: &'static str = "clawbernetes.io/v1";
    const KIND: &'static str = "KernelJob";
    const PLURAL: &'static str = "kerneljobs";
    const SHORT: &'static [&'static str] = &["kj"];
    type Scope = NamespaceResourceScope;
    type Status = KernelJobStatus;
}

/// Where a worker finds what its pod mounts. Inputs and volumes are numbered as in the spec.
pub mod places {
    use std::path::PathBuf;

    /// The order, a JSON document.
    pub const ORDER: &str = "/job/order.json";

    /// The folder in which workers of a namespace, on one node, keep what the next need not find out again.
    pub const KEPT: &str = "/kept";

    /// The folder of the key that an input is read from.
    #[must_use]
    pub fn input(number: usize) -> PathBuf {
        PathBuf::from(format!("/inputs/{number}"))
    }

    /// The folder of a volume.
    #[must_use]
    pub fn volume(name: &str) -> PathBuf {
        PathBuf::from("/volumes").join(name)
    }
}

impl KernelJobSpec {
    /// Whether a device other than processors is asked for.
    #[must_use]
    pub fn wants_device(&self) -> bool {
        let claims = self.device.as_ref().is_some_and(|device| device.class.is_some());
        let resources = self.resources.iter().flat_map(|all| [&all.limits, &all.requests]).flatten();
        let plain = |name: &String| !name.contains('/');
        claims || resources.flat_map(BTreeMap::keys).any(|name| !plain(name))
    }

    /// What a worker is told to do. Whoever makes its pod mounts what it names, as [`places`] says.
    ///
    /// # Errors
    /// What is wrong with the spec beyond the types of its fields, with the path from `spec`: the graph is built to find out.
    pub fn order(&self) -> Result<Order, Fault> {
        let order = Order {
            inputs: self.order_inputs()?,
            operations: self.operations.clone(),
            outputs: self.order_outputs()?,
            backends: self.backends()?,
            runs: counted("runs", self.runs.unwrap_or(1), 1)?,
            warmups: counted("warmups", self.warmups.unwrap_or(0), 0)?,
            run_timeout_seconds: counted("runTimeoutSeconds", self.run_timeout_seconds.unwrap_or(600), 1)?,
        };
        order.graph()?;
        Ok(order)
    }

    fn order_inputs(&self) -> Result<Vec<OrderInput>, Fault> {
        let inline: usize = self.inputs.iter().filter_map(|input| input.values.as_ref()).map(Vec::len).sum();
        if inline > VALUES_MAX {
            let why = format!(
                "{inline} values stand in the object, and at most {VALUES_MAX} may: put them into a ConfigMap or a volume"
            );
            return Err(Fault { path: "inputs".to_owned(), why });
        }
        let input = |(number, input): (usize, &KernelInput)| {
            let source =
                self.source(number, input).map_err(|fault| fault.below(&format!("inputs[{number}]")))?;
            let (name, dtype, shape) = (input.name.clone(), input.dtype.clone(), input.shape.clone());
            Ok(OrderInput { name, dtype, shape, source })
        };
        self.inputs.iter().enumerate().map(input).collect()
    }

    fn source(&self, number: usize, input: &KernelInput) -> Result<Source, Fault> {
        let given = [
            input.values.clone().map(Source::Values),
            input.fill.map(Source::Fill),
            input.random.clone().map(Source::Random),
            input.config_map.as_ref().map(|of| Source::File(places::input(number).join(&of.key))),
        ];
        let file = input.volume.as_ref().map(|of| self.file("volume", of).map(Source::File));
        let mut given: Vec<Source> = given.into_iter().flatten().chain(file.transpose()?).collect();
        match (given.pop(), given.is_empty()) {
            (Some(source), true) => Ok(source),
            _ => Err(Fault {
                path: String::new(),
                why: format!(
                    "{:?} needs exactly one of values, fill, random, configMap and volume",
                    input.name
                ),
            }),
        }
    }

    fn order_outputs(&self) -> Result<Vec<OrderOutput>, Fault> {
        if self.outputs.is_empty() || self.outputs.len() > OUTPUTS_MAX {
            let why = format!("there are {}, and 1 to {OUTPUTS_MAX} are possible", self.outputs.len());
            return Err(Fault { path: "outputs".to_owned(), why });
        }
        let output = |(number, output): (usize, &KernelOutput)| {
            let path = format!("outputs[{number}].volume");
            let file = output.volume.as_ref().map(|of| self.file(&path, of)).transpose()?;
            Ok(OrderOutput { value: output.value.clone(), file })
        };
        self.outputs.iter().enumerate().map(output).collect()
    }

    /// Where a file of a volume is to the worker.
    fn file(&self, at: &str, of: &PathIn) -> Result<std::path::PathBuf, Fault> {
        let fault = |field: &str, why: String| Fault { path: format!("{at}.{field}"), why };
        if !self.volumes.iter().any(|volume| volume.name == of.name) {
            return Err(fault("name", format!("no volume in spec.volumes is called {:?}", of.name)));
        }
        let parts = || of.path.split('/');
        if of.path.is_empty() || parts().any(|part| part.is_empty() || part == "." || part == "..") {
            let why = format!(
                "{:?} is no path below the volume's root: leave out leading slashes, . and ..",
                of.path
            );
            return Err(fault("path", why));
        }
        Ok(places::volume(&of.name).join(&of.path))
    }

    fn backends(&self) -> Result<Vec<Backend>, Fault> {
        let named: &[String] = self.device.as_ref().map_or(&[], |device| &device.backends);
        if named.is_empty() {
            let devices = vec![Backend::Cuda, Backend::Vulkan];
            return Ok(if self.wants_device() { devices } else { vec![Backend::Cpu] });
        }
        let parsed = |(at, name): (usize, &String)| {
            name.parse().map_err(|why| Fault { path: format!("device.backends[{at}]"), why })
        };
        named.iter().enumerate().map(parsed).collect()
    }
}

fn counted(path: &str, value: i32, least: u32) -> Result<u32, Fault> {
    let counted = u32::try_from(value).ok().filter(|counted| *counted >= least);
    counted.ok_or_else(|| Fault { path: path.to_owned(), why: format!("{value} is less than {least}") })
}

#[cfg(test)]
mod tests;
