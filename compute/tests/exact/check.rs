//! One graph on all devices, beside the reference.

use claw_compute::reference::{self, Exact};
use claw_compute::{DType, Device, Error, Graph, Op, Shape, Tensor, TensorType, Value};
use std::io::Write as _;
use std::sync::OnceLock;

/// Devices to be held to the reference, poisoned. Those that are not there are named once.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let found = Device::all();
        if found.iter().all(|device| device.properties().id == "cpu") {
            let lacks = "a Vulkan device (run `make deps`, which installs mesa-vulkan-drivers)";
            assert!(
                std::env::var_os("CLAW_TEST_NEEDS").is_none_or(|value| value != "all"),
                "kernels must run here, but lack {lacks}"
            );
            // Not `eprintln!`: the test harness keeps to itself what a passing test prints.
            let _ = writeln!(std::io::stderr(), "SKIPPED kernels on a GPU's runtime: lacks {lacks}");
        }
        found.into_iter().map(Device::poisoned).collect()
    })
}

/// The seed of this run's inputs.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let told = std::env::var("EXACT_SEED").ok().map(|seed| seed.parse().expect("EXACT_SEED is a number"));
        told.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64))
    })
}

/// Numbers for tests.
pub struct Dice(u64);

impl Dice {
    pub fn new(stream: u64) -> Self {
        Self(seed().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ stream.wrapping_mul(0xD134_2543_DE82_EF95) | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64*, which is enough for inputs.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From `low` up to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (self.next() >> 11) as f64 / (1u64 << 53) as f64 * (high - low)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    pub fn exact(&mut self, dtype: DType, extents: &[usize], low: f64, high: f64) -> Exact {
        let of = TensorType::new(dtype, shape(extents));
        let values: Vec<f64> = (0..of.shape.elements()).map(|_| self.between(low, high)).collect();
        Exact::new(of, &values)
    }
}

pub fn shape(extents: &[usize]) -> Shape {
    Shape::new(extents).expect("a shape")
}

pub fn of(dtype: DType, extents: &[usize]) -> TensorType {
    TensorType::new(dtype, shape(extents))
}

/// How far a result may be off beside the one rounding to its type: `relative` to its size and `absolute`, both in units of the rounding
/// of `f32`, in which it was calculated.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub relative: f64,
    pub absolute: f64,
}

impl Bound {
    /// Rounded once, and a few units of `f32` for the function before.
    pub const ONCE: Self = Self { relative: 4.0, absolute: 0.0 };

    pub const fn new(relative: f64, absolute: f64) -> Self {
        Self { relative, absolute }
    }

    fn accepts(self, dtype: DType, got: f64, want: f64) -> bool {
        if want.is_nan() || got.is_nan() {
            return want.is_nan() && got.is_nan();
        }
        if got == want {
            return true;
        }
        let unit = DType::F32.unit_roundoff();
        let rounding = dtype.unit_roundoff() * want.abs() + smallest(dtype);
        let off = (got - want).abs();
        off <= rounding + unit * (self.relative * want.abs() + self.absolute)
            // Over the largest number of the type, rounding leads to infinity.
            || (got.is_infinite() && got.signum() == want.signum() && want.abs() >= largest(dtype) * (1.0 - 4.0 * dtype.unit_roundoff()))
    }
}

/// The smallest normal number: devices may make 0 of what is below.
fn smallest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 6.2e-5,
        DType::F32 | DType::Bf16 => 1.2e-38,
        _ => 0.0,
    }
}

fn largest(dtype: DType) -> f64 {
    if dtype == DType::F16 { 65_504.0 } else { 3.4e38 }
}

/// A graph of one operation, all results wanted.
pub fn single(op: Op, inputs: &[&TensorType]) -> Graph {
    let mut graph = Graph::new();
    let values: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(at, of)| graph.input(&format!("x{at}"), (*of).clone()).expect("an input"))
        .collect();
    let results = graph.add("it", op, &values).expect("an operation that fits");
    results.into_iter().for_each(|result| graph.output(result));
    graph
}

/// Runs one operation everywhere, and compares.
pub fn compare(op: &Op, inputs: &[Exact], bound: Bound) {
    let types: Vec<&TensorType> = inputs.iter().map(|input| &input.of).collect();
    compare_graph(&single(op.clone(), &types), inputs, bound, &format!("{op:?}"));
}

/// Runs a graph everywhere, and compares.
pub fn compare_graph(graph: &Graph, inputs: &[Exact], bound: Bound, what: &str) {
    let wanted = reference::run(graph, inputs).expect("indices within their axes");
    for device in devices() {
        let Some(results) = results(device, graph, inputs) else { continue };
        for (got, want) in results.iter().zip(&wanted) {
            assert_close(
                &values(got),
                want,
                bound,
                &format!("{what} on {}, seed {}", device.properties().id, seed()),
            );
        }
    }
}

/// What a device makes of a graph; `None` if it cannot calculate with a type.
pub fn results(device: &Device, graph: &Graph, inputs: &[Exact]) -> Option<Vec<Tensor>> {
    let run = || {
        let tensors = inputs.iter().map(|input| upload(device, input)).collect::<Result<Vec<_>, _>>()?;
        device.run(graph, &tensors)
    };
    match run() {
        Err(Error::Unsupported { what, .. }) if what.starts_with("calculate with") => None,
        other => Some(other.expect("the device runs it")),
    }
}

pub fn upload(device: &Device, input: &Exact) -> Result<Tensor, Error> {
    let bytes: Vec<u8> = input.values.iter().flat_map(|value| encoded(input.of.dtype, *value)).collect();
    device.tensor_of_bytes(&bytes, &input.of)
}

fn encoded(dtype: DType, value: f64) -> Vec<u8> {
    match dtype {
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        DType::Bf16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        DType::I32 => (value as i32).to_le_bytes().to_vec(),
        DType::I8 => (value as i8).to_le_bytes().to_vec(),
    }
}

/// A tensor's elements.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    match tensor.of().dtype {
        DType::F32 => wide::<f32>(tensor, f64::from),
        DType::F16 => wide(tensor, half::f16::to_f64),
        DType::Bf16 => wide(tensor, half::bf16::to_f64),
        DType::I32 => wide::<i32>(tensor, f64::from),
        DType::I8 => wide::<i8>(tensor, f64::from),
    }
}

fn wide<T: claw_compute::Element>(tensor: &Tensor, widen: impl Fn(T) -> f64) -> Vec<f64> {
    tensor.to_vec::<T>().expect("it can be read").into_iter().map(widen).collect()
}

fn assert_close(got: &[f64], want: &Exact, bound: Bound, what: &str) {
    assert_eq!(got.len(), want.values.len(), "{what}");
    for (at, (got, wanted)) in got.iter().zip(&want.values).enumerate() {
        assert!(
            bound.accepts(want.of.dtype, *got, *wanted),
            "{what}: element {at} of {} is {got:e}, and should be {wanted:e} ({bound:?})",
            want.of
        );
    }
}

/// Shapes that are awkward to kernels: scalars, ones, primes, just over and under powers of two, empty, and one that is large.
pub const SHAPES: [&[usize]; 10] =
    [&[], &[1], &[7], &[3, 1, 5], &[31, 33], &[2, 3, 5, 7], &[257], &[0], &[4, 0, 3], &[129, 1031]];
