//! Orders carried out in this process, on the processors, and on processors that fail in the ways in which devices do.

use super::files::Destination;
use super::guard::Guard;
use super::job::Job;
use super::limits::Limits;
use super::report::Reporter;
use crate::backend::{Backend, Fault, Properties, Step};
use crate::cpu::Cpu;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Lease, View};
use crate::plan::Plan;
use claw_graph::DType;
use claw_graph::order::{Failure, Order, Reason, Report, State};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Carries out an order on a device, and gives what the report says.
fn carry_out_on(device: Device, order: Value) -> std::result::Result<Report, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    let reporter = Reporter::open(&path).unwrap();
    let guard = Guard::new(reporter.clone());
    let order: Order = serde_json::from_value(order).unwrap();
    let graph = order.graph().unwrap();
    let prepare = |(output, value): (&claw_graph::order::OrderOutput, &claw_graph::Value)| {
        output.file.as_ref().map(|file| Destination::prepare(file, graph.of(*value)).unwrap())
    };
    let destinations = order.outputs.iter().zip(graph.outputs()).map(prepare).collect();
    let plan = Plan::of(&graph);
    let job = Job { order, graph, plan, device, reporter: &reporter, guard: &guard };
    job.carry_out(destinations)?;
    assert!(reporter.end(None));
    Ok(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

fn carry_out(order: Value) -> Report {
    carry_out_on(Device::cpu(), order).unwrap()
}

fn reason(device: Device, order: Value) -> Reason {
    carry_out_on(device, order).unwrap_err().reason
}

/// An order with one input, one operation and its result.
fn order(input: Value, operation: Value) -> Value {
    json!({
        "inputs": [input], "operations": [operation], "outputs": [{"value": operation["name"]}],
        "backends": ["cpu"], "runs": 3, "warmups": 1, "runTimeoutSeconds": 600,
    })
}

fn doubled() -> Value {
    order(
        json!({"name": "x", "dtype": "f32", "shape": [2], "source": {"values": [1.5, -2.0]}}),
        json!({"name": "y", "op": "Add", "inputs": ["x", "x"]}),
    )
}

#[test]
fn a_report_says_what_came_out_and_what_was_reached() {
    let report = carry_out(doubled());
    assert_eq!((report.state, report.runs), (State::Complete, 3));
    let output = &report.outputs[0];
    assert_eq!((output.value.as_str(), output.dtype.as_str(), &output.shape[..]), ("y", "f32", &[2][..]));
    assert_eq!(output.values, ["3.0", "-4.0"]);
    // sha256 of 3.0 and -4.0, four bytes each, little-endian; by coreutils.
    assert_eq!(output.digest, format!("sha256:{DIGEST}"));
    let figures = report.figures.unwrap();
    assert!(0.0 <= figures.seconds_min && figures.seconds_min <= figures.seconds_median);
    assert!(figures.seconds_median <= figures.seconds_max);
    assert_eq!((figures.flops, figures.bytes, figures.memory_bytes), (2, 24, 16));
}

const DIGEST: &str = "0ec319d2388b30d58b4984c0910963c7f01e7bba46c69b0f0db4d7f2f0935f64";

#[test]
fn what_is_no_number_is_told_by_name() {
    // 1e300 is beyond the type, and 0 times that is no number.
    let input = json!({"name": "x", "dtype": "f32", "shape": [3], "source": {"values": [1e300, -1e300, 0]}});
    let mut order = order(input, json!({"name": "y", "op": "Mul", "inputs": ["x", "zero"]}));
    let zero = json!({"name": "zero", "op": "Fill", "dtype": "f32", "shape": [3], "value": 0});
    order["operations"].as_array_mut().unwrap().insert(0, zero);
    order["outputs"] = json!([{"value": "x"}, {"value": "y"}]);
    let report = carry_out(order);
    assert_eq!(report.outputs[0].values, ["inf", "-inf", "0.0"]);
    assert_eq!(report.outputs[1].values, ["NaN", "NaN", "0.0"]);
}

#[test]
fn inputs_come_from_everywhere_in_every_type() {
    let folder = TempDir::new().unwrap();
    let text = folder.path().join("x.txt");
    std::fs::write(&text, "1 2\n3,4").unwrap();
    for dtype in DType::ALL.map(|dtype| dtype.to_string()) {
        let integers = json!({"random": {"seed": 5, "distribution": "Integers", "low": 3, "high": 3}});
        let mut sources = vec![
            (json!({"values": [1, 2, 3, 4]}), ["1", "2", "3", "4"]),
            (json!({"fill": 7}), ["7"; 4]),
            (json!({"file": text}), ["1", "2", "3", "4"]),
        ];
        if dtype == "i32" {
            sources.push((integers, ["3"; 4]));
        }
        for (source, expected) in sources {
            let mut order = doubled();
            order["inputs"][0] = json!({"name": "x", "dtype": dtype, "shape": [2, 2], "source": source});
            order["operations"] = json!([]);
            order["outputs"] = json!([{"value": "x"}]);
            let values = carry_out(order).outputs.remove(0).values;
            let plain: Vec<&str> = values.iter().map(|value| value.trim_end_matches(".0")).collect();
            assert_eq!(plain, expected, "{dtype} of {source}");
        }
    }
}

#[test]
fn what_one_order_writes_another_reads() {
    let folder = TempDir::new().unwrap();
    for name in ["x.npy", "x.txt", "x.bin"] {
        let file = folder.path().join(name);
        let mut first = doubled();
        first["inputs"][0]["source"] = json!({"random": {"seed": 11}});
        first["outputs"][0]["file"] = json!(file);
        let written = carry_out(first).outputs.remove(0);
        let mut second = doubled();
        second["inputs"][0]["source"] = json!({"file": file});
        second["outputs"] = json!([{"value": "x"}]);
        assert_eq!(carry_out(second).outputs[0].digest, written.digest, "{name}");
    }
}

#[test]
fn one_run_without_warm_ups_is_compared_with_nothing() {
    let mut order = doubled();
    (order["runs"], order["warmups"]) = (json!(1), json!(0));
    assert_eq!(carry_out_on(Broken::device(How::Drifts), order).unwrap().runs, 1);
}

#[test]
fn every_way_to_fail_has_its_word() {
    let index = |value: i32| {
        let mut order = order(
            json!({"name": "x", "dtype": "f32", "shape": [3], "source": {"fill": 1}}),
            json!({"name": "y", "op": "Gather", "inputs": ["x", "at"]}),
        );
        let at = json!({"name": "at", "dtype": "i32", "shape": [1], "source": {"values": [value]}});
        order["inputs"].as_array_mut().unwrap().push(at);
        order
    };
    assert!(carry_out_on(Device::cpu(), index(2)).is_ok());
    assert_eq!(reason(Device::cpu(), index(3)), Reason::IndexOutOfRange);
    assert_eq!(reason(Device::cpu().limited_to(8), doubled()), Reason::OutOfMemory);
    assert_eq!(reason(Broken::device(How::Drifts), doubled()), Reason::NotDeterministic);
    assert_eq!(reason(Broken::device(How::Fails), doubled()), Reason::DeviceFailed);
    let mut narrow = doubled();
    narrow["inputs"][0]["dtype"] = json!("bf16");
    assert_eq!(reason(Broken::device(How::Drifts), narrow), Reason::Unsupported);
    let mut missing = doubled();
    missing["inputs"][0]["source"] = json!({"file": "/nowhere/x.npy"});
    assert_eq!(reason(Device::cpu(), missing), Reason::BadOrder);
}

#[test]
fn a_limit_below_what_the_process_has_leaves_nothing() {
    let order: Order = serde_json::from_value(doubled()).unwrap();
    let graph = order.graph().unwrap();
    let plan = Plan::of(&graph);
    let applied = |memory_bytes: Option<u64>| {
        Limits { memory_bytes, threads: None }.applied(Device::cpu(), &order, &graph, &plan)
    };
    assert_eq!(applied(Some(1 << 20)).err().unwrap().reason, Reason::OutOfMemory);
    assert_eq!(applied(None).unwrap().memory_limit(), Device::cpu().memory_limit());
}

/// Processors with something wrong with them, and without bf16.
struct Broken {
    cpu: Cpu,
    properties: Properties,
    how: How,
    downloads: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// What is read is something else each time.
    Drifts,
    /// Whatever was started has failed.
    Fails,
}

impl Broken {
    fn device(how: How) -> Device {
        let cpu = Cpu::new();
        let properties = Properties { floats: vec![DType::F32], ..cpu.properties().clone() };
        Device::with(Arc::new(Self { cpu, properties, how, downloads: AtomicUsize::new(0) }))
    }
}

impl Backend for Broken {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize, lease: Lease) -> Result<Buffer> {
        self.cpu.allocate(bytes, lease)
    }

    fn upload(&self, bytes: &[u8], lease: Lease) -> Result<Buffer> {
        self.cpu.upload(bytes, lease)
    }

    fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
        let mut content = self.cpu.download(buffer, bytes)?;
        content[0] ^= u8::try_from(self.downloads.fetch_add(1, Ordering::Relaxed) % 2).unwrap();
        Ok(content)
    }

    fn start(&self, step: &Step, operands: &[View], results: &[View], fault: Option<&Fault>) -> Result<()> {
        self.cpu.start(step, operands, results, fault)
    }

    fn finish(&self) -> Result<()> {
        if self.how == How::Fails { Err(Error::Failed("it is lost".to_owned())) } else { Ok(()) }
    }
}
