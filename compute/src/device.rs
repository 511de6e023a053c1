//! Devices: found, opened, and given graphs to run.

use crate::backend::{Backend, Fault, Properties};
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Meter, View};
use crate::plan::{Place, Plan};
use crate::tensor::{Element, Faults, Tensor};
use claw_graph::known::{Adapter, AdapterKind, Known};
use claw_graph::order::Backend as Kind;
use claw_graph::{Binary, DType, Graph, Op, Shape, TensorType};
use std::path::Path;
use std::sync::Arc;

/// An open device. Clones are the same one.
#[derive(Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
    meter: Arc<Meter>,
    poisons: bool,
}

/// The devices that this machine's drivers know of, the fastest kinds first. One card may be known to two drivers. Nothing is opened.
#[must_use]
pub fn known() -> Vec<Known> {
    Kind::ALL.into_iter().flat_map(known_of).collect()
}

/// The devices of one kind.
#[must_use]
pub fn known_of(kind: Kind) -> Vec<Known> {
    let plain = |number: usize| Known { name: format!("{kind}:{number}"), is_cpu: false, adapter: None };
    match kind {
        #[cfg(feature = "cuda")]
        Kind::Cuda => (0..crate::cube::cuda::count()).map(plain).collect(),
        #[cfg(not(feature = "cuda"))]
        Kind::Cuda => Vec::new(),
        #[cfg(feature = "wgpu")]
        Kind::Vulkan => {
            let described = |(number, adapter): (usize, Adapter)| Known {
                is_cpu: adapter.kind == AdapterKind::Cpu,
                adapter: Some(adapter),
                ..plain(number)
            };
            crate::cube::vulkan::known().into_iter().enumerate().map(described).collect()
        }
        #[cfg(not(feature = "wgpu"))]
        Kind::Vulkan => Vec::new(),
        Kind::Cpu => vec![Known { name: kind.to_string(), is_cpu: true, adapter: None }],
    }
}

/// Names of a kind's devices, and if there is none the first: opening that says what is missing.
pub(crate) fn names_of(kind: Kind) -> Vec<String> {
    let known: Vec<String> = known_of(kind).into_iter().map(|known| known.name).collect();
    if known.is_empty() { vec![format!("{kind}:0")] } else { known }
}

/// Squares of numbers, taken in another type.
fn square_in(dtype: DType, of: &TensorType) -> Graph {
    let mut graph = Graph::new();
    let input = graph.input("x", of.clone()).expect("a first name");
    let mut value = input;
    for (name, op) in
        [("cast", Op::Cast(dtype)), ("square", Op::Binary(Binary::Mul)), ("back", Op::Cast(DType::F32))]
    {
        let operands = if name == "square" { vec![value, value] } else { vec![value] };
        value = graph.add(name, op, &operands).expect("casts and products take all floats")[0];
    }
    graph.output(value);
    graph
}

impl Device {
    /// The machine's processors. Always there.
    #[must_use]
    pub fn cpu() -> Self {
        Self::with(Arc::new(Cpu::new()))
    }

    /// All devices of this machine that can be opened: graphics cards first, then its processors.
    ///
    /// Which there are is found out without opening them; one that is there and cannot be opened is left out here, and says why when it
    /// is opened by its name.
    #[must_use]
    pub fn all() -> Vec<Self> {
        known().iter().filter_map(|known| Self::open(&known.name).ok()).collect()
    }

    /// Opens a device by its name: `cpu`, `cuda:0`, `vulkan:0`; one of Vulkan's also by the name that it has everywhere on its machine
    /// ([`Adapter::uuid`]): `vulkan:VK-...`.
    ///
    /// # Errors
    /// [`Error::Unavailable`], with what is missing.
    pub fn open(name: &str) -> Result<Self> {
        let (kind, which) = name.split_once(':').unwrap_or((name, "0"));
        let number = which.parse::<usize>();
        match (kind, number) {
            ("cpu", Ok(0)) => Ok(Self::cpu()),
            #[cfg(feature = "cuda")]
            ("cuda", Ok(number)) => Self::with(crate::cube::cuda::open(number)?).proved(),
            #[cfg(feature = "wgpu")]
            ("vulkan", Ok(number)) => Self::with(crate::cube::vulkan::open(number)?).proved(),
            #[cfg(feature = "wgpu")]
            ("vulkan", Err(_)) => Self::with(crate::cube::vulkan::open_named(which)?).proved(),
            _ => Err(Error::Unavailable {
                device: name.to_owned(),
                why: "there is no such device: use cpu, cuda:N, vulkan:N or vulkan:UUID".to_owned(),
            }),
        }
    }

    /// Itself, if it can count in all its types: a driver whose compiler lacks a file answers with zeros and says that all went well.
    fn proved(self) -> Result<Self> {
        for dtype in self.properties().floats.clone() {
            // Whole numbers whose squares every type holds exactly.
            let values: Vec<f32> = (0..512u16).map(|number| f32::from(number % 16 + 1)).collect();
            let x = self.tensor(&values, &Shape::new([values.len()]).expect("one axis"))?;
            let squares = self.run(&square_in(dtype, x.of()), &[x])?[0].to_vec::<f32>()?;
            if !squares.iter().zip(&values).all(|(square, value)| *square == value * value) {
                let why = format!(
                    "it multiplies {dtype} wrongly; where it is CUDA, its headers may be missing: let CUDA_PATH name a folder with include/cuda_fp16.h"
                );
                return Err(Error::Unavailable { device: self.properties().id.clone(), why });
            }
        }
        Ok(self)
    }

    /// A device that works through this backend; what it says of itself is believed.
    pub(crate) fn with(backend: Arc<dyn Backend>) -> Self {
        let limit = backend.properties().memory_bytes.unwrap_or(u64::MAX);
        Self { backend, meter: Meter::new(limit), poisons: false }
    }

    /// The same device with at most this much memory for tensors made from here on.
    #[must_use]
    pub fn limited_to(self, bytes: u64) -> Self {
        let limit = bytes.min(self.meter.limit());
        Self { meter: Meter::new(limit), ..self }
    }

    /// The same device, with results that hold NaN (all ones) before they are calculated, so that an element that no kernel
    /// writes is seen.
    #[must_use]
    pub fn poisoned(self) -> Self {
        Self { poisons: true, ..self }
    }

    /// The same device, which remembers in this folder what it found to be fastest: a GPU with matrix units tries several ways to multiply
    /// when it meets a product of a new kind, which takes seconds. Without a folder it does so in each process.
    #[must_use]
    pub fn choices_kept_in(self, folder: &Path) -> Self {
        self.backend.keep_choices(folder);
        self
    }

    /// What it says about itself.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        self.backend.properties()
    }

    /// Bytes that tensors use now, and the most that they used.
    #[must_use]
    pub fn memory_used(&self) -> (u64, u64) {
        (self.meter.used(), self.meter.peak())
    }

    /// A tensor of these values in row-major order.
    ///
    /// # Errors
    /// [`Error::Data`] if they are not as many as the shape has; [`Error::OutOfMemory`]; [`Error::Unsupported`] if the device has not their type.
    pub fn tensor<T: Element>(&self, values: &[T], shape: &Shape) -> Result<Tensor> {
        self.tensor_of_bytes(bytemuck::cast_slice(values), &TensorType::new(T::DTYPE, shape.clone()))
    }

    /// A tensor of these bytes: elements in row-major order, little-endian.
    ///
    /// # Errors
    /// As [`Device::tensor`].
    pub fn tensor_of_bytes(&self, bytes: &[u8], of: &TensorType) -> Result<Tensor> {
        if bytes.len() != of.size_bytes() {
            return Err(Error::Data(format!(
                "{of} has {} bytes, and was given {}",
                of.size_bytes(),
                bytes.len()
            )));
        }
        crate::backend::supported(self.properties(), of.dtype)?;
        self.check_bytes(bytes.len())?;
        let buffer = self.backend.upload(bytes, self.meter.lease(bytes.len())?)?;
        Ok(Tensor { device: self.clone(), buffer, of: of.clone(), faults: Vec::new() })
    }

    /// Runs a graph and returns its outputs. They can be read once the device is done with them, and only if all went well.
    ///
    /// # Errors
    /// [`Error::Data`] if the inputs are not those of the graph, [`Error::Elsewhere`] if they lie on another device, and what the device says.
    pub fn run(&self, graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.run_plan(&Plan::of(graph), inputs)
    }

    /// Waits until everything that was started has ended.
    ///
    /// # Errors
    /// Whatever went wrong since it was asked last.
    pub fn finish(&self) -> Result<()> {
        self.backend.finish()
    }

    /// Bytes that nobody uses on the device, where its driver tells.
    #[must_use]
    pub fn memory_free_bytes(&self) -> Option<u64> {
        self.backend.memory_free_bytes()
    }

    /// Bytes that tensors may use at most.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        self.meter.limit()
    }

    pub(crate) fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
        self.backend.download(buffer, bytes)
    }

    /// Starts all steps of a plan. Memory is given back as soon as no later step needs it.
    pub(crate) fn run_plan(&self, plan: &Plan, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.accept(plan, inputs)?;
        let mut buffers: Vec<Option<Buffer>> =
            inputs.iter().map(|input| Some(input.buffer.clone())).collect();
        for bytes in &plan.slots[inputs.len()..] {
            // What has no elements is made by no step.
            buffers.push(if *bytes == 0 { Some(self.allocate(0)?) } else { None });
        }
        let faults = self.faults(plan)?;
        for (number, planned) in plan.steps.iter().enumerate() {
            for created in plan.created_by(number) {
                buffers[created.0] = Some(self.allocate(plan.slots[created.0])?);
            }
            let views =
                |places: &[Place]| places.iter().map(|place| place.view(&buffers)).collect::<Vec<_>>();
            let fault = planned
                .fault
                .zip(faults.as_ref())
                .map(|(word, faults)| Fault { buffer: faults.words.clone(), word });
            self.backend.start(
                &planned.step,
                &views(&planned.operands),
                &views(&planned.results),
                fault.as_ref(),
            )?;
            for freed in plan.freed_after(number) {
                buffers[freed.0] = None;
            }
        }
        let mut inherited: Vec<Arc<Faults>> = faults.into_iter().collect();
        for faults in inputs.iter().flat_map(|input| &input.faults) {
            if !inherited.iter().any(|known| Arc::ptr_eq(known, faults)) {
                inherited.push(Arc::clone(faults));
            }
        }
        let outputs = plan.outputs.iter().map(|place| {
            let View { buffer, of, .. } = place.view(&buffers);
            Tensor { device: self.clone(), buffer, of, faults: inherited.clone() }
        });
        Ok(outputs.collect())
    }

    /// Words for the operations of a plan that take indices.
    fn faults(&self, plan: &Plan) -> Result<Option<Arc<Faults>>> {
        let with_indices = plan.steps.iter().filter(|planned| planned.fault.is_some());
        let operations: Vec<String> = with_indices.map(|planned| planned.name.clone()).collect();
        if operations.is_empty() {
            return Ok(None);
        }
        let zeros = vec![0; 4 * operations.len()];
        let words = self.backend.upload(&zeros, self.meter.lease(zeros.len())?)?;
        Ok(Some(Arc::new(Faults { words, operations })))
    }

    fn accept(&self, plan: &Plan, inputs: &[Tensor]) -> Result<()> {
        if plan.inputs.len() != inputs.len() {
            return Err(Error::Data(format!(
                "the graph has {} inputs, and was given {}",
                plan.inputs.len(),
                inputs.len()
            )));
        }
        for (number, (input, expected)) in inputs.iter().zip(&plan.inputs).enumerate() {
            if input.of() != expected {
                return Err(Error::Data(format!(
                    "input {number} is {expected}, and was given as {}",
                    input.of()
                )));
            }
            if !Arc::ptr_eq(&input.device.backend, &self.backend) {
                return Err(Error::Elsewhere);
            }
        }
        for dtype in &plan.dtypes {
            crate::backend::supported(self.properties(), *dtype)?;
        }
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> Result<Buffer> {
        self.check_bytes(bytes)?;
        let lease = self.meter.lease(bytes)?;
        if self.poisons {
            self.backend.upload(&vec![0xFF; bytes], lease)
        } else {
            self.backend.allocate(bytes, lease)
        }
    }

    fn check_bytes(&self, bytes: usize) -> Result<()> {
        let max = self.properties().buffer_bytes_max;
        if bytes as u64 > max {
            let what = format!("hold {bytes} bytes in one buffer: at most {max}");
            return Err(Error::Unsupported { device: self.properties().id.clone(), what });
        }
        Ok(())
    }
}
