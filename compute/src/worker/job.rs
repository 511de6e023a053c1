//! The work: an order is read, a device opened, inputs made, the graph run, and what came out digested and written.

use super::files::{Destination, Refusal};
use super::guard::Guard;
use super::inputs::Made;
use super::limits::{CONTROL_GROUPS, Limits};
use super::open::Given;
use super::report::Reporter;
use super::{failed, failure, inputs, numbers, open, say};
use crate::device::Device;
use crate::plan::Plan;
use crate::tensor::Tensor;
use claw_graph::order::{
    Failure, Figures, OUTPUTS_MAX, Order, OrderInput, OrderOutput, Reason, ReportDevice, ReportOutput,
    VALUES_MAX,
};
use claw_graph::{Graph, TensorType};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::{Duration, Instant};

/// Times that are kept: eight mebibytes. Of more runs every second is, and then every fourth.
const TIMES_MAX: usize = 1 << 20;

/// Carries out the order in a file, on a device that keeps its choices in a folder, if there is one.
///
/// # Errors
/// Why it cannot be carried out.
pub fn run(
    order: &Path,
    given: Option<&Given>,
    kept: Option<&Path>,
    reporter: &Reporter,
    guard: &Guard,
) -> Result<(), Failure> {
    let order = read(order)?;
    let graph = order.graph().map_err(|fault| failure(Reason::BadOrder, fault.to_string()))?;
    let destinations = prepare(&order.outputs, &graph)?;
    let limits = Limits::of(Path::new(CONTROL_GROUPS));
    if let Some(threads) = limits.threads {
        // The first to ask for threads decides how many there are; nobody has asked.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
    reporter.doing("opening a device".to_owned());
    let device = open::first(&order.backends, given, guard)?;
    // Never let go of: that is the end of the process.
    std::mem::forget(device.clone());
    introduce(&device, reporter);
    let device = match kept {
        Some(folder) => device.choices_kept_in(folder),
        None => device,
    };
    let plan = Plan::of(&graph);
    let device = limits.applied(device, &order, &graph, &plan)?;
    Job { order, graph, plan, device, reporter, guard }.carry_out(destinations)
}

/// The order, as far as it can be judged without its graph.
fn read(path: &Path) -> Result<Order, Failure> {
    let bad = |why: String| failure(Reason::BadOrder, format!("{}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let order: Order = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let complaint = match &order {
        order if order.outputs.is_empty() || order.outputs.len() > OUTPUTS_MAX => {
            format!("outputs: there are {}, and 1 to {OUTPUTS_MAX} are possible", order.outputs.len())
        }
        order if order.runs == 0 => "runs: at least 1 is needed".to_owned(),
        order if order.backends.is_empty() => "backends: at least one is needed".to_owned(),
        order if order.run_timeout_seconds == 0 => "runTimeoutSeconds: at least 1 is needed".to_owned(),
        _ => return Ok(order),
    };
    Err(failure(Reason::BadOrder, complaint))
}

/// Before anything is calculated: nobody wants to learn after hours that a folder is read-only.
fn prepare(outputs: &[OrderOutput], graph: &Graph) -> Result<Vec<Option<Destination>>, Failure> {
    let prepared = outputs.iter().zip(graph.outputs()).map(|(output, value)| {
        let Some(path) = &output.file else { return Ok(None) };
        let prepared = Destination::prepare(path, graph.of(*value));
        prepared.map(Some).map_err(|refusal| unwritten(&output.value, path, refusal))
    });
    prepared.collect()
}

fn unwritten(output: &str, path: &Path, refusal: Refusal) -> Failure {
    failure(refusal.reason, format!("output {output:?}: {}: {}", path.display(), refusal.why))
}

fn introduce(device: &Device, reporter: &Reporter) {
    let properties = device.properties();
    let (id, model) = (properties.id.clone(), properties.model.clone());
    let driver = properties.driver.as_ref().map(|driver| format!(", {driver}")).unwrap_or_default();
    say(format_args!("device {id}: {model}{driver}"));
    reporter.change(|report| report.device = Some(ReportDevice { id, model }));
}

/// An order with all that is needed to carry it out.
pub struct Job<'a> {
    pub order: Order,
    pub graph: Graph,
    pub plan: Plan,
    pub device: Device,
    pub reporter: &'a Reporter,
    pub guard: &'a Guard,
}

impl Job<'_> {
    /// # Errors
    /// Why it cannot be carried out.
    pub fn carry_out(&self, destinations: Vec<Option<Destination>>) -> Result<(), Failure> {
        let inputs = self.make_inputs()?;
        let mut first = None;
        for number in 1..=self.order.warmups {
            let (outputs, _) = self.run(&format!("warm-up {number} of {}", self.order.warmups), &inputs)?;
            if first.is_none() {
                first = Some(self.digests(&outputs)?);
            }
        }
        let mut times = Times::default();
        let mut last = Vec::new();
        for number in 1..=self.order.runs {
            // What the run before made is given back first: one run's memory is enough.
            last.clear();
            let (outputs, seconds) = self.run(&format!("run {number} of {}", self.order.runs), &inputs)?;
            times.add(seconds);
            self.reporter.change(|report| report.runs = number);
            if is_told(number) {
                say(format_args!("run {number} of {}: {seconds:.6} s", self.order.runs));
            }
            if first.is_none() && self.order.runs > 1 {
                first = Some(self.digests(&outputs)?);
            }
            last = outputs;
        }
        self.tell_figures(&times);
        self.deliver(&last, first.as_deref(), &destinations)
    }

    fn make_inputs(&self) -> Result<Vec<Tensor>, Failure> {
        let types = self.graph.inputs().iter().map(|value| self.graph.of(*value));
        self.order.inputs.iter().zip(types).map(|(input, of)| self.make_input(input, of)).collect()
    }

    fn make_input(&self, input: &OrderInput, of: &TensorType) -> Result<Tensor, Failure> {
        say(format_args!("input {}: {of}", input.name));
        let doing = format!("making input {}", input.name);
        self.reporter.doing(doing.clone());
        // Whoever serves a file may take their time.
        let made = inputs::made(input, of)?;
        self.on_device(&doing, || match made {
            Made::Here(bytes) => self.device.tensor_of_bytes(&bytes, of),
            Made::There(graph) => {
                let outputs = self.device.run(&graph, &[])?;
                self.device.finish()?;
                Ok(outputs[0].clone())
            }
        })
    }

    /// Does what is no run with a device, which may hang all the same.
    fn on_device<T>(&self, what: &str, work: impl FnOnce() -> crate::error::Result<T>) -> Result<T, Failure> {
        let limit = Duration::from_secs(u64::from(self.order.run_timeout_seconds)).max(open::OPEN_LIMIT);
        self.guard.within(limit, what, work).map_err(failed)
    }

    /// One run, and how many seconds it took from its first step until the device was done with its last.
    fn run(&self, what: &str, inputs: &[Tensor]) -> Result<(Vec<Tensor>, f64), Failure> {
        self.reporter.doing(what.to_owned());
        let limit = Duration::from_secs(u64::from(self.order.run_timeout_seconds));
        let timed = self.guard.within(limit, what, || -> crate::error::Result<_> {
            let begin = Instant::now();
            let outputs = self.device.run_plan(&self.plan, inputs)?;
            self.device.finish()?;
            Ok((outputs, begin.elapsed().as_secs_f64()))
        });
        timed.map_err(failed)
    }

    fn digests(&self, outputs: &[Tensor]) -> Result<Vec<String>, Failure> {
        outputs.iter().map(|output| Ok(digest(&self.bytes(output)?))).collect()
    }

    fn bytes(&self, output: &Tensor) -> Result<Vec<u8>, Failure> {
        self.on_device("reading an output", || output.to_bytes())
    }

    fn tell_figures(&self, times: &Times) {
        let [seconds_min, seconds_median, seconds_max] = times.figures();
        let cost = self.graph.cost();
        let (_, memory_bytes) = self.device.memory_used();
        let figures = Figures {
            seconds_min,
            seconds_median,
            seconds_max,
            flops: cost.flops,
            bytes: cost.bytes,
            memory_bytes,
        };
        say(format_args!(
            "{} runs: {seconds_min:.6} s the quickest, {seconds_median:.6} s in the middle, {seconds_max:.6} s the slowest; \
             {} operations, {} bytes moved, {memory_bytes} bytes of memory",
            self.order.runs, cost.flops, cost.bytes
        ));
        self.reporter.change(|report| report.figures = Some(figures));
    }

    /// Digests what came out, compares it with what came out first, and writes it.
    fn deliver(
        &self,
        outputs: &[Tensor],
        first: Option<&[String]>,
        destinations: &[Option<Destination>],
    ) -> Result<(), Failure> {
        for (number, (output, destination)) in outputs.iter().zip(destinations).enumerate() {
            let name = &self.order.outputs[number].value;
            self.reporter.doing(format!("writing output {name}"));
            let (of, bytes) = (output.of(), self.bytes(output)?);
            let digest = digest(&bytes);
            if first.is_some_and(|first| first[number] != digest) {
                let message = format!("output {name:?} of the last run is not that of the first");
                return Err(failure(Reason::NotDeterministic, message));
            }
            if let Some(destination) = destination {
                let path = destination.path();
                destination.write(of, &bytes).map_err(|refusal| unwritten(name, path, refusal))?;
                say(format_args!("output {name} is in {}", path.display()));
            }
            say(format_args!("output {name}: {of}, {digest}"));
            let few = of.shape.elements() <= VALUES_MAX;
            let told = ReportOutput {
                value: name.clone(),
                dtype: of.dtype.to_string(),
                shape: of.shape.iter().map(|extent| *extent as u64).collect(),
                digest,
                values: if few { numbers::words(of.dtype, &bytes).collect() } else { Vec::new() },
            };
            self.reporter.change(|report| report.outputs.push(told));
        }
        Ok(())
    }
}

/// Whether a run has a line in the log: ten of the first ten, nine of the next ninety, nine of the next nine hundred.
fn is_told(number: u32) -> bool {
    number.is_multiple_of(10u32.pow(number.ilog10()))
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// What runs took, or of a great many of them every so many-th; the extremes are of all.
struct Times {
    kept: Vec<f64>,
    every: usize,
    count: usize,
    min: f64,
    max: f64,
}

impl Default for Times {
    fn default() -> Self {
        Self { kept: Vec::new(), every: 1, count: 0, min: f64::INFINITY, max: 0.0 }
    }
}

impl Times {
    fn add(&mut self, seconds: f64) {
        (self.min, self.max) = (self.min.min(seconds), self.max.max(seconds));
        if self.kept.len() == TIMES_MAX {
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.every *= 2;
        }
        if self.count.is_multiple_of(self.every) {
            self.kept.push(seconds);
        }
        self.count += 1;
    }

    /// The least, the one in the middle, the most.
    fn figures(&self) -> [f64; 3] {
        let mut sorted = self.kept.clone();
        sorted.sort_by(f64::total_cmp);
        [self.min, sorted[sorted.len() / 2], self.max]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_grows_more_slowly_than_the_runs() {
        let told: Vec<u32> = (1..=3_000).filter(|number| is_told(*number)).collect();
        assert_eq!(told[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30]);
        assert_eq!(told[18..21], [100, 200, 300]);
        assert_eq!(told[told.len() - 1], 3_000);
    }

    #[test]
    fn of_a_great_many_times_the_middle_is_still_the_middle() {
        let mut times = Times::default();
        let runs = TIMES_MAX * 3;
        for number in 0..runs {
            times.add(number as f64);
        }
        let [min, median, max] = times.figures();
        assert_eq!((min, max), (0.0, (runs - 1) as f64));
        assert!((median - runs as f64 / 2.0).abs() < 8.0, "{median}");
        assert!(times.kept.len() <= TIMES_MAX);
    }
}
