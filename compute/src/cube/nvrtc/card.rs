//! A runtime of CubeCL that has its compiler for CUDA, NVIDIA's behind it, and no card: nothing is remembered, and nothing runs.

use cubecl::CubeTask;
use cubecl::bytes::Bytes;
use cubecl::cuda::{CudaCompiler, CudaRuntime};
use cubecl::device::{Device, DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl::future::DynFut;
use cubecl::ir::features::{Plane, Tma, TypeUsage};
use cubecl::ir::{
    BarrierLevel, DeviceProperties, ElemType, FloatKind, HardwareProperties, MemoryDeviceProperties,
    OpaqueType, SemanticType, TargetProperties, VectorSize,
};
use cubecl::prelude::*;
use cubecl::profile::{ProfileDuration, TimingMethod};
use cubecl::server::{
    Binding, ComputeServer, CopyDescriptor, IoError, KernelArguments, ProfileError, ProfilingToken,
    ServerCommunication, ServerError, ServerUtilities,
};
use cubecl::stream_id::StreamId;
use cubecl::zspace::{Shape, Strides};
use cubecl_cpp::DialectWmmaCompiler as _;
use cubecl_cpp::cuda::arch::CudaArchitecture;
use cubecl_cpp::cuda::mma::CudaWmmaCompiler;
use cubecl_cpp::shared::{
    CompilationOptions, CppSupportedFeatures, register_mma_features, register_wmma_features,
};
use cubecl_runtime::allocator::PitchedMemoryLayoutPolicy;
use cubecl_runtime::logging::ServerLogger;
use cubecl_runtime::memory_management::{ManagedMemoryHandle, MemoryAllocationMode, MemoryUsage};
use cubecl_runtime::storage::{ComputeStorage, ManagedResource, StorageHandle, StorageId};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What was made for an architecture.
#[derive(Default)]
struct Made {
    /// Full names of kernels.
    started: BTreeSet<String>,
    /// Sources that were compiled.
    sources: BTreeSet<String>,
    errors: Vec<String>,
}

static MADE: LazyLock<Mutex<BTreeMap<u32, Made>>> = LazyLock::new(Mutex::default);

fn made<R>(architecture: u32, of: impl FnOnce(&mut Made) -> R) -> R {
    of(MADE.lock().unwrap_or_else(PoisonError::into_inner).entry(architecture).or_default())
}

/// Names of kernels that were started since this was asked last.
pub fn started(architecture: u32) -> BTreeSet<String> {
    made(architecture, |made| std::mem::take(&mut made.started))
}

/// How many different sources were compiled.
pub fn compiled(architecture: u32) -> usize {
    made(architecture, |made| made.sources.len())
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/cuda/nvidia/cu13")
}

fn load_library(name: &str) -> Result<(), String> {
    let library = tools().join("lib").join(name);
    let lacks = || format!("{} (run `make deps`)", library.display());
    if !library.exists() {
        return Err(lacks());
    }
    // SAFETY: NVIDIA's library, whose initialisers do nothing to this process. What is loaded is found by its name from then on.
    let loaded =
        unsafe { libloading::Library::new(&library) }.map_err(|error| format!("{}: {error}", lacks()))?;
    std::mem::forget(loaded);
    Ok(())
}

/// Loads NVRTC for the rest of the process, or says what is missing.
pub fn load() -> Result<(), String> {
    // The compiler looks for its built-in functions by name: they are loaded before it.
    static LOADED: LazyLock<Result<(), String>> = LazyLock::new(|| {
        ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"].iter().try_for_each(|name| load_library(name))
    });
    LOADED.clone()
}

/// Compiles as CubeCL's server for CUDA does, to PTX; or returns what the compiler said.
pub fn compile(source: &str, architecture: u32) -> Result<(), String> {
    use cudarc::nvrtc::result::{compile_program, create_program, destroy_program, get_program_log};
    let suffix = if architecture >= 90 { "a" } else { "" };
    let include = tools().join("include");
    let options = [
        format!("--gpu-architecture=sm_{architecture}{suffix}"),
        format!("--include-path={}", include.display()),
        format!("--include-path={}", include.join("cccl").display()),
    ];
    let source = CString::new(source).map_err(|error| error.to_string())?;
    let program = create_program(&source, None).map_err(|error| error.to_string())?;
    // SAFETY: the program was created above, and is destroyed once, after its log was read.
    unsafe {
        let outcome = compile_program(program, &options).map_err(|error| {
            let log = get_program_log(program).unwrap_or_default();
            // The log ends with a zero.
            let text = log.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
            format!("{error}\n{}", String::from_utf8(text).unwrap_or_default())
        });
        destroy_program(program).map_err(|error| error.to_string())?;
        outcome
    }
}

/// A card of this architecture: 80 is A100, 90 is H100.
#[derive(Clone, Debug, Default)]
pub struct Card(pub u32);

impl Device for Card {
    fn from_id(id: DeviceId) -> Self {
        Self(u32::from(id.index_id))
    }

    fn to_id(&self) -> DeviceId {
        DeviceId { type_id: 0, index_id: u16::try_from(self.0).expect("architectures are small numbers") }
    }
}

#[derive(Clone, Debug)]
pub struct Nvrtc;

impl Runtime for Nvrtc {
    type Compiler = CudaCompiler;
    type Server = Server;
    type Device = Card;

    fn client(device: &Card) -> ComputeClient<Self> {
        ComputeClient::load(device)
    }

    fn name(_: &ComputeClient<Self>) -> &'static str {
        "cuda"
    }

    fn require_array_lengths() -> bool {
        CudaRuntime::require_array_lengths()
    }

    fn max_cube_count() -> (u32, u32, u32) {
        CudaRuntime::max_cube_count()
    }

    fn can_read_tensor(shape: &Shape, strides: &Strides) -> bool {
        CudaRuntime::can_read_tensor(shape, strides)
    }

    fn target_properties() -> TargetProperties {
        CudaRuntime::target_properties()
    }

    fn enumerate_devices(_: u16, (): &()) -> Vec<DeviceId> {
        Vec::new()
    }
}

/// What CubeCL finds out about a card of this architecture.
fn properties(architecture: u32) -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1_024,
        max_shared_memory_size: 100 << 10,
        max_cube_count: (i32::MAX.unsigned_abs(), 65_535, 65_535),
        max_units_per_cube: 1_024,
        max_cube_dim: (1_024, 1_024, 64),
        num_streaming_multiprocessors: Some(132),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        max_vector_size: VectorSize::MAX,
    };
    let memory = MemoryDeviceProperties { max_page_size: 1 << 34, alignment: 512 };
    let mut properties = DeviceProperties::new(Default::default(), memory, hardware, TimingMethod::System);
    cubecl_cpp::register_supported_types(&mut properties);
    properties.register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);
    properties.register_semantic_type(SemanticType::Pipeline);
    for level in [BarrierLevel::Unit, BarrierLevel::Cube] {
        properties.register_type_usage(OpaqueType::Barrier(level), TypeUsage::Buffer);
    }
    properties.features.copy_async = true;
    properties.features.memory_reinterpret = true;
    properties.features.alignment = true;
    for operation in [Plane::Sync, Plane::Ops, Plane::NonUniformControlFlow] {
        properties.features.plane.insert(operation);
    }
    for kind in [FloatKind::F16, FloatKind::BF16] {
        properties.features.matmul.ldmatrix.insert(ElemType::Float(kind).into());
    }
    if architecture >= 90 {
        properties.features.tma.insert(Tma::Base);
        properties.register_semantic_type(SemanticType::TensorMap);
        properties.features.cube_cluster = true;
        for kind in [FloatKind::F16, FloatKind::BF16] {
            properties.features.matmul.stmatrix.insert(ElemType::Float(kind).into());
        }
    }
    let architecture = CudaArchitecture { version: architecture };
    register_wmma_features(CudaWmmaCompiler::supported_wmma_combinations(&architecture), &mut properties);
    register_mma_features(CudaWmmaCompiler::supported_mma_combinations(&architecture), &mut properties);
    properties
}

/// The memory of a card that is not there.
pub struct NoStorage;

impl ComputeStorage for NoStorage {
    type Resource = ();

    fn alignment(&self) -> usize {
        1
    }

    fn get(&mut self, _: &StorageHandle) {}

    fn alloc(&mut self, _: u64) -> Result<StorageHandle, IoError> {
        unreachable!("nothing is stored")
    }

    fn dealloc(&mut self, _: StorageId) {}

    fn flush(&mut self) {}
}

pub struct Server {
    architecture: u32,
    options: CompilationOptions,
    utilities: Arc<ServerUtilities<Self>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}", self.architecture)
    }
}

impl DeviceService for Server {
    fn init(id: DeviceId) -> Self {
        let Card(architecture) = Card::from_id(id);
        let supports_features = CppSupportedFeatures {
            fast_math: true,
            grid_constants: true,
            fast_tanh: true,
            clusters: architecture >= 90,
            elect_sync: architecture >= 90,
        };
        let logger = Arc::new(ServerLogger::default());
        let policy = PitchedMemoryLayoutPolicy::new(512);
        let utilities = Arc::new(ServerUtilities::new(properties(architecture), logger, (), policy));
        Self { architecture, options: CompilationOptions { warp_size: 32, supports_features }, utilities }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::clone(&self.utilities) as ServerUtilitiesHandle
    }
}

impl ServerCommunication for Server {
    const SERVER_COMM_ENABLED: bool = false;
}

impl Server {
    fn make(&self, kernel: &dyn CubeTask<CudaCompiler>, mode: ExecutionMode) -> Result<(), String> {
        let mut compiler = CudaCompiler::default();
        let compiled = kernel
            .compile(&mut compiler, &self.options, mode, kernel.address_type())
            .map_err(|error| error.to_string())?;
        let is_new = made(self.architecture, |made| {
            made.started.insert(kernel.name().to_owned());
            made.sources.insert(compiled.source.clone())
        });
        if is_new { compile(&compiled.source, self.architecture) } else { Ok(()) }
            .map_err(|error| format!("{}: {error}\n{}", kernel.name(), compiled.source))
    }
}

impl ComputeServer for Server {
    type Kernel = Box<dyn CubeTask<CudaCompiler>>;
    type Info = ();
    type MemoryLayoutPolicy = PitchedMemoryLayoutPolicy;
    type Storage = NoStorage;

    fn initialize_memory(&mut self, _: ManagedMemoryHandle, _: u64, _: StreamId) {}

    fn logger(&self) -> Arc<ServerLogger> {
        Arc::clone(&self.utilities.logger)
    }

    fn utilities(&self) -> Arc<ServerUtilities<Self>> {
        Arc::clone(&self.utilities)
    }

    fn read(&mut self, _: Vec<CopyDescriptor>, _: StreamId) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        Box::pin(async { unreachable!("nothing was calculated that could be read") })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, stream: StreamId) -> DynFut<Result<(), ServerError>> {
        let outcome = self.flush(stream);
        Box::pin(async { outcome })
    }

    fn get_resource(&mut self, _: Binding, _: StreamId) -> Result<ManagedResource<()>, ServerError> {
        unreachable!("there is no memory")
    }

    unsafe fn launch(
        &mut self,
        kernel: Self::Kernel,
        _: CubeCount,
        _: KernelArguments,
        mode: ExecutionMode,
        _: StreamId,
    ) {
        if let Err(error) = self.make(kernel.as_ref(), mode) {
            made(self.architecture, |made| made.errors.push(error));
        }
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        let errors = made(self.architecture, |made| std::mem::take(&mut made.errors));
        if errors.is_empty() {
            return Ok(());
        }
        Err(ServerError::Generic { reason: errors.join("\n"), backtrace: Default::default() })
    }

    fn memory_usage(&mut self, _: StreamId) -> Result<MemoryUsage, ServerError> {
        unreachable!("there is no memory")
    }

    fn memory_cleanup(&mut self, _: StreamId) {}

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        unreachable!("nothing runs")
    }

    fn end_profile(&mut self, _: StreamId, _: ProfilingToken) -> Result<ProfileDuration, ProfileError> {
        unreachable!("nothing runs")
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}
