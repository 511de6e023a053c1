//! Matrix products, by cubek: on plain units, or on matrix units by the fastest of several routines.
//!
//! *Products of `f32` never go through matrix units*: they would round their operands to TF32, which has a tenth of the digits, and say nothing.

use super::Cube;
use super::choice::Choices;
use super::launch::storage;
use super::padded;
use crate::error::{Error, Result};
use crate::memory::{Buffer, Layout, Meter, View};
use claw_graph::{DType, Distribution, Shape, TensorType};
use cubecl::ir::features::Tma;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubek::matmul::components::tile::TileMatmulKind;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems, MatmulSetupError};
use cubek::matmul::launch::launch_tiling::{launch_ref, launch_ref_tma};
use cubek::matmul::routines::BlueprintStrategy;
use cubek::matmul::routines::ordered_double_buffering::{
    OrderedDoubleBufferingAlgorithm, OrderedSelectionArgs,
};
use cubek::matmul::routines::simple::{SimpleAlgorithm, SimpleArgs};
use cubek::matmul::routines::simple_unit::SimpleUnitAlgorithm;
use cubek::matmul::routines::specialized::{SpecializedAlgorithm, SpecializedStrategy};
use cubek::std::InputBinding;
use std::time::{Duration, Instant};

/// Products with fewer multiplications than this are over before a better routine could show.
const CHOSEN_FROM: usize = 128 * 128 * 128;
/// Extents of the product of whole numbers by which a routine is proved: as the product's own, but no larger than this and its remainder.
const PROVED_EXTENT: usize = 512;
/// What a routine may read and write at once: extents keep their remainder by it.
const ALIGNED: usize = 16;
const TURNS: usize = 3;

/// A product to be started: what is multiplied, and where to.
type Start<R> = fn(
    &ComputeClient<R>,
    InputBinding<R>,
    InputBinding<R>,
    TensorBinding<R>,
    &mut MatmulElems,
) -> std::result::Result<(), String>;

/// A way to multiply.
pub struct Routine<R: Runtime> {
    pub name: &'static str,
    start: Start<R>,
}

/// How a device multiplies.
pub struct Products<R: Runtime> {
    /// Routines for what is no `f32`, beside the plain one.
    pub routines: Vec<Routine<R>>,
    pub choices: Choices,
}

// By name, not through the list of all that cubek has: each is compiled for each runtime, and takes seconds to compile.
const fn plain<R: Runtime>() -> Routine<R> {
    Routine {
        name: "units",
        start: |client, lhs, rhs, to, elements| {
            let plan = BlueprintStrategy::<(), SimpleUnitAlgorithm>::default();
            started(launch_ref::<R, SimpleUnitAlgorithm>(client, lhs, rhs, to, &plan, elements))
        },
    }
}

/// The routines for a device's matrix units: which is fastest depends on the card and on the shape. None where there are no such units.
pub fn on_matrix_units<R: Runtime>(client: &ComputeClient<R>) -> Vec<Routine<R>> {
    let features = &client.properties().features;
    if features.matmul.cmma.is_empty() {
        return Vec::new();
    }
    let mut routines = vec![
        Routine {
            name: "simple, cmma",
            start: |client, lhs, rhs, to, elements| {
                simple(TileMatmulKind::Cmma, false, client, lhs, rhs, to, elements)
            },
        },
        Routine {
            name: "simple, cmma, several rows",
            start: |client, lhs, rhs, to, elements| {
                simple(TileMatmulKind::Cmma, true, client, lhs, rhs, to, elements)
            },
        },
        Routine {
            name: "simple, mma",
            start: |client, lhs, rhs, to, elements| {
                simple(TileMatmulKind::Mma, false, client, lhs, rhs, to, elements)
            },
        },
        Routine {
            name: "ordered, mma",
            start: |client, lhs, rhs, to, elements| {
                let args = OrderedSelectionArgs { tile_matmul: TileMatmulKind::Mma, ..Default::default() };
                let plan = BlueprintStrategy::<(), OrderedDoubleBufferingAlgorithm>::Inferred(args);
                started(launch_ref::<R, OrderedDoubleBufferingAlgorithm>(
                    client, lhs, rhs, to, &plan, elements,
                ))
            },
        },
    ];
    // Asked of a device without them, it does not refuse.
    if features.tma.contains(Tma::Base) {
        routines.push(Routine {
            name: "specialized, tensor maps, mma",
            start: |client, lhs, rhs, to, elements| {
                let args = SpecializedStrategy { tile_matmul: TileMatmulKind::Mma };
                let plan = BlueprintStrategy::<(), SpecializedAlgorithm>::Inferred(args);
                started(launch_ref_tma::<R, SpecializedAlgorithm>(client, lhs, rhs, to, &plan, elements))
            },
        });
    }
    routines
}

fn simple<R: Runtime>(
    tile_matmul: TileMatmulKind,
    multi_rows: bool,
    client: &ComputeClient<R>,
    lhs: InputBinding<R>,
    rhs: InputBinding<R>,
    to: TensorBinding<R>,
    elements: &mut MatmulElems,
) -> std::result::Result<(), String> {
    let plan = BlueprintStrategy::<(), SimpleAlgorithm>::Inferred(SimpleArgs { tile_matmul, multi_rows });
    started(launch_ref::<R, SimpleAlgorithm>(client, lhs, rhs, to, &plan, elements))
}

/// Why a routine does not take a product.
fn started(outcome: std::result::Result<(), MatmulSetupError>) -> std::result::Result<(), String> {
    outcome.map_err(|error| format!("{error:?}"))
}

impl<R: Runtime> Cube<R> {
    pub fn matmul(&self, operands: &[View], to: &View) -> Result<()> {
        let plain = plain();
        let routine = self.routine_for(operands, to)?.unwrap_or(&plain);
        self.multiply(routine, operands, to).map_err(|error| Error::Unsupported {
            device: self.properties.id.clone(),
            what: format!("multiply {} by {}: {error}", operands[0].of, operands[1].of),
        })
    }

    /// Starts a product by this routine.
    pub fn multiply(
        &self,
        routine: &Routine<R>,
        operands: &[View],
        to: &View,
    ) -> std::result::Result<(), String> {
        let dtype = storage(operands[0].of.dtype);
        let [lhs, rhs] =
            [0, 1].map(|operand: usize| InputBinding::new(tensor::<R>(&operands[operand]), dtype));
        let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
            lhs: dtype,
            rhs: dtype,
            out: storage(to.of.dtype),
        });
        (routine.start)(&self.client, lhs, rhs, tensor(to), &mut elements)
    }

    /// The routine that was the fastest for products like this; `None` is the plain one.
    fn routine_for(&self, operands: &[View], to: &View) -> Result<Option<&Routine<R>>> {
        let Products { routines, choices } = &self.products;
        let work = to.of.shape.elements() * operands[0].of.shape.last().copied().unwrap_or(0);
        if routines.is_empty() || operands[0].of.dtype == DType::F32 || work < CHOSEN_FROM {
            return Ok(None);
        }
        let class = class_of(operands, to);
        let name = match choices.get(&class) {
            Some(name) => name,
            None => {
                // What failed before must not be taken for a routine's failure, and be forgotten with it.
                self.settle()?;
                let fastest = self.fastest(routines, operands, to);
                choices.put(class, fastest.to_owned());
                fastest.to_owned()
            }
        };
        Ok(routines.iter().find(|routine| routine.name == name))
    }

    /// Times all routines on the product itself. Those that refuse it or are not right are out.
    fn fastest(&self, routines: &[Routine<R>], operands: &[View], to: &View) -> &'static str {
        let plain = plain();
        let timed = |routine: &Routine<R>| {
            let is_plain = routine.name == plain.name;
            let is_right = is_plain || self.proved(routine, &plain, operands, to).unwrap_or(false);
            let time = is_right.then(|| self.time(routine, operands, to)).flatten()?;
            Some((time, routine.name))
        };
        std::iter::once(&plain).chain(routines).filter_map(timed).min().map_or(plain.name, |(_, name)| name)
    }

    /// The best time of a few; `None` if it cannot.
    fn time(&self, routine: &Routine<R>, operands: &[View], to: &View) -> Option<Duration> {
        // The first one is compiled.
        let once = || {
            let start = Instant::now();
            self.multiply(routine, operands, to).ok()?;
            self.ended_well().then(|| start.elapsed())
        };
        once()?;
        let times: Option<Vec<Duration>> = (0..TURNS).map(|_| once()).collect();
        times?.into_iter().min()
    }

    /// Whether it makes the same of whole numbers, whose sums are exact in any order, as the plain one does, to the bit. `None` if one of them cannot.
    fn proved(&self, routine: &Routine<R>, plain: &Routine<R>, operands: &[View], to: &View) -> Option<bool> {
        let numbers: Vec<View> =
            (0..).zip(operands).map(|(seed, view)| self.whole_numbers(view, [-3, 3], seed)).collect();
        // So that an element that is not written is none of the right ones everywhere.
        let [wanted, got] = [777, -777].map(|number| self.whole_numbers(to, [number; 2], 0));
        self.multiply(plain, &numbers, &wanted).ok()?;
        self.multiply(routine, &numbers, &got).ok()?;
        let read = |view: View| self.client.read_one(view.buffer.memory::<Handle>().clone()).ok();
        let same = self.ended_well() && read(wanted)?[..] == read(got)?[..];
        Some(same && self.ended_well())
    }

    /// A smaller one that lies as this does, with random whole numbers.
    fn whole_numbers(&self, like: &View, [low, high]: [i32; 2], seed: u64) -> View {
        let (of, layout) = smaller(like);
        let reach: usize =
            of.shape.iter().zip(&layout.strides).map(|(extent, stride)| (extent - 1) * stride).sum();
        let flat = Shape::new([reach + 1]).expect("smaller than a tensor that there is");
        // A few megabytes for a moment, which nobody's limit is asked for.
        let lease = Meter::new(u64::MAX).lease(0).expect("nothing is always left");
        let buffer = Buffer::new(self.client.empty(padded((reach + 1) * of.dtype.size_bytes())), lease);
        let all =
            View { layout: Layout::rows(&flat), of: TensorType::new(of.dtype, flat), buffer: buffer.clone() };
        self.random(Distribution::Integers { low, high }, seed, &all);
        View { buffer, of, layout }
    }

    /// How everything ended that was started, without a failure being remembered: a routine that cannot is no failure of the device.
    fn ended_well(&self) -> bool {
        self.client.flush().is_ok() && cubecl::future::block_on(self.client.sync()).is_ok()
    }
}

/// No more than two of each batch axis, and matrices of the same remainders; in the same order in memory.
fn smaller(view: &View) -> (TensorType, Layout) {
    let rank = view.of.shape.rank();
    let mut extents = view.of.shape.to_vec();
    for (axis, extent) in extents.iter_mut().enumerate() {
        let most = if axis + 2 < rank { 2 } else { PROVED_EXTENT + *extent % ALIGNED };
        *extent = most.min(*extent);
    }
    let mut order: Vec<usize> = (0..rank).collect();
    if is_turned(view) {
        order.swap(rank - 1, rank - 2);
    }
    let mut strides = vec![0; rank];
    let mut stride = 1;
    for axis in order.into_iter().rev().filter(|axis| view.layout.strides[*axis] > 0) {
        strides[axis] = stride;
        stride *= extents[axis];
    }
    let shape = Shape::new(extents).expect("no larger than a shape that there is");
    (TensorType::new(view.of.dtype, shape), Layout { offset: 0, strides })
}

/// Whether columns lie one after the other.
fn is_turned(view: &View) -> bool {
    let rank = view.of.shape.rank();
    view.layout.strides[rank - 2] < view.layout.strides[rank - 1]
}

/// What products have in common that the same routine is the fastest for: types, how they lie, and extents to a power of two and to what is
/// read at once.
fn class_of(operands: &[View], to: &View) -> String {
    let extent = |extent: usize| {
        let aligned = extent.trailing_zeros().min(ALIGNED.trailing_zeros());
        format!("{}/{}", extent.next_power_of_two(), 1 << aligned)
    };
    let rank = to.of.shape.rank();
    let (m, n, k) = (to.of.shape[rank - 2], to.of.shape[rank - 1], operands[0].of.shape[rank - 1]);
    let batch: usize = to.of.shape[..rank - 2].iter().product();
    let lies = |view: &View| if is_turned(view) { "columns" } else { "rows" };
    format!(
        "{} {} to {}, {} by {}, m {} n {} k {}",
        batch.next_power_of_two(),
        operands[0].of.dtype,
        to.of.dtype,
        lies(&operands[0]),
        lies(&operands[1]),
        extent(m),
        extent(n),
        extent(k)
    )
}

fn tensor<R: Runtime>(view: &View) -> TensorBinding<R> {
    let handle = view.buffer.memory::<Handle>().clone();
    // SAFETY: the plan's layouts stay within the buffers that they are of.
    unsafe {
        TensorBinding::from_raw_parts(
            handle,
            view.layout.strides.clone().into(),
            view.of.shape.to_vec().into(),
        )
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::cube::vulkan;
    use crate::device::Device;
    use crate::tensor::Tensor;
    use claw_graph::{Graph, Op};
    use cubecl::wgpu::WgpuRuntime;
    use half::f16;
    use std::io::Write as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// What no device must do, and the plain routine under another name.
    fn routines() -> Vec<Routine<WgpuRuntime>> {
        vec![
            Routine { name: "refuses", start: |_, _, _, _, _| Err("no".to_owned()) },
            Routine { name: "writes nothing", start: |_, _, _, _, _| Ok(()) },
            Routine {
                name: "takes the operands for each other",
                start: |client, lhs, rhs, to, elements| (plain().start)(client, rhs, lhs, to, elements),
            },
            Routine {
                name: "right",
                start: |client, lhs, rhs, to, elements| (plain().start)(client, lhs, rhs, to, elements),
            },
        ]
    }

    fn tensor(device: &Device, extent: usize, factor: usize) -> Tensor {
        let values: Vec<f16> =
            (0..extent * extent).map(|at| f16::from_f32((at * factor % 5) as f32 - 2.0)).collect();
        device.tensor(&values, &Shape::new([extent, extent]).expect("a shape")).expect("fits")
    }

    fn product(device: &Device, transpose_rhs: bool, inputs: &[Tensor]) -> Vec<f16> {
        let mut graph = Graph::new();
        let values =
            [0, 1].map(|at: usize| graph.input(&format!("x{at}"), inputs[at].of().clone()).expect("fits"));
        let op = Op::MatMul { wide: false, transpose_lhs: false, transpose_rhs };
        let result = graph.add("product", op, &values).expect("fits");
        graph.output(result[0]);
        device.run(&graph, inputs).expect("runs")[0].to_vec().expect("ends well")
    }

    #[test]
    fn a_routine_that_is_not_right_is_never_chosen() {
        let Ok(mut cube) = vulkan::cube(0) else {
            let lacks = "a Vulkan device (run `make deps`, which installs mesa-vulkan-drivers)";
            assert!(
                std::env::var_os("CLAW_TEST_NEEDS").is_none_or(|value| value != "all"),
                "choosing among routines must run here, but lacks {lacks}"
            );
            let _ = writeln!(std::io::stderr(), "SKIPPED choosing among routines: lacks {lacks}");
            return;
        };
        cube.products.routines = routines();
        let cube = Arc::new(cube);
        let device = Device::with(Arc::clone(&cube) as Arc<dyn crate::backend::Backend>);
        for (extent, transpose_rhs) in [(128, false), (131, true)] {
            let cpu = Device::cpu();
            let inputs = |device: &Device| [tensor(device, extent, 7), tensor(device, extent, 11)];
            let wanted = product(&cpu, transpose_rhs, &inputs(&cpu));
            // The first measures, the second knows.
            for _ in 0..2 {
                assert_eq!(product(&device, transpose_rhs, &inputs(&device)), wanted);
            }
        }
        let chosen = cube.products.choices.all();
        assert_eq!(chosen.len(), 2, "{chosen:?}");
        assert!(chosen.values().all(|name| ["units", "right"].contains(&name.as_str())), "{chosen:?}");
    }

    static STARTS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn what_one_process_chose_the_next_need_not_choose() {
        let folder = tempfile::tempdir().expect("a folder");
        let starts = || {
            let Ok(mut cube) = vulkan::cube(0) else { return None };
            cube.products.routines = vec![Routine {
                name: "counts and refuses",
                start: |_, _, _, _, _| {
                    STARTS.fetch_add(1, Ordering::Relaxed);
                    Err("no".to_owned())
                },
            }];
            let device = Device::with(Arc::new(cube)).choices_kept_in(folder.path());
            let before = STARTS.load(Ordering::Relaxed);
            product(&device, false, &[tensor(&device, 128, 7), tensor(&device, 128, 11)]);
            Some(STARTS.load(Ordering::Relaxed) - before)
        };
        // Without a device, its neighbour says that it was skipped.
        let Some(first) = starts() else { return };
        assert!(first > 0, "it was tried");
        assert_eq!(starts(), Some(0), "its choice is known");
        std::fs::remove_dir_all(folder.path()).expect("it is ours");
        assert!(starts().is_some_and(|again| again > 0), "nothing is known any more");
    }

    #[test]
    fn what_a_routine_is_proved_by_lies_as_the_product_does() {
        let shape = |extents: &[usize]| Shape::new(extents).expect("a shape");
        let view = |extents: &[usize], strides: &[usize]| View {
            buffer: Buffer::new((), lease_of_nothing()),
            of: TensorType::new(DType::F16, shape(extents)),
            layout: Layout { offset: 0, strides: strides.to_vec() },
        };
        let (of, layout) = smaller(&view(&[9, 4_099, 65], &[0, 1, 4_099]));
        assert_eq!((&of.shape[..], layout.strides), (&[2, 515, 65][..], vec![0, 1, 515]));
        let (of, layout) = smaller(&view(&[7, 1_024], &[1_024, 1]));
        assert_eq!((&of.shape[..], layout.strides), (&[7, 512][..], vec![512, 1]));
    }

    fn lease_of_nothing() -> crate::memory::Lease {
        Meter::new(0).lease(0).expect("nothing is always left")
    }
}
