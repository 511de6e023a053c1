//! Opening devices: everything that can be missing is an error before CubeCL, which would panic, is asked.

use super::Cube;
use crate::backend::{Backend, Properties};
use crate::error::{Error, Result};
use claw_graph::DType;
use cubecl::prelude::*;
use std::sync::Arc;

/// The float types that a client's device has in memory.
fn floats<R: Runtime>(client: &ComputeClient<R>) -> Vec<DType> {
    let has = |dtype: &DType| client.properties().supports_type(super::launch::storage(*dtype));
    DType::FLOATS.into_iter().filter(has).collect()
}

fn unavailable(device: impl Into<String>, why: impl Into<String>) -> Error {
    Error::Unavailable { device: device.into(), why: why.into() }
}

#[cfg(feature = "wgpu")]
mod through_wgpu {
    use super::{Arc, Backend, Cube, Properties, Result, floats, unavailable};
    use crate::cube::heap;
    use cubecl::Runtime;
    use cubecl::wgpu::{RuntimeOptions, WgpuRuntime, WgpuSetup, init_device};

    /// The devices that Vulkan (Metal on a Mac) has, in its order: graphics cards first.
    fn adapters() -> (wgpu::Instance, Vec<wgpu::Adapter>) {
        let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL;
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let mut adapters = cubecl::future::block_on(instance.enumerate_adapters(backends));
        adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        });
        (instance, adapters)
    }

    /// Of each device, whether it calculates on a CPU.
    pub fn are_cpus() -> Vec<bool> {
        let is_cpu = |adapter: &wgpu::Adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu;
        adapters().1.iter().map(is_cpu).collect()
    }

    /// Opens the device of this number.
    pub fn open(number: usize) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(cube(number)?))
    }

    pub fn cube(number: usize) -> Result<Cube<WgpuRuntime>> {
        let id = format!("vulkan:{number}");
        let (instance, mut adapters) = adapters();
        if number >= adapters.len() {
            let why = format!(
                "Vulkan has {} devices: install the graphics card's driver, or mesa-vulkan-drivers",
                adapters.len()
            );
            return Err(unavailable(id, why));
        }
        let adapter = adapters.swap_remove(number);
        let wanted = wgpu::DeviceDescriptor {
            label: None,
            required_features: adapter.features().difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
        };
        let (device, queue) = cubecl::future::block_on(adapter.request_device(&wanted))
            .map_err(|error| unavailable(&id, error.to_string()))?;
        let (info, limits) = (adapter.get_info(), device.limits());
        let told = adapter.clone();
        let setup = WgpuSetup { instance, backend: info.backend, adapter, device, queue };
        let client = WgpuRuntime::client(&init_device(setup, RuntimeOptions::default()));
        let properties = Properties {
            id,
            model: info.name,
            driver: Some(format!("{} {}", info.driver, info.driver_info).trim().to_owned())
                .filter(|driver| !driver.is_empty()),
            memory_bytes: heap::bytes(&told),
            buffer_bytes_max: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            units: None,
            floats: floats(&client),
            is_cpu: info.device_type == wgpu::DeviceType::Cpu,
            shares_memory: matches!(
                info.device_type,
                wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu
            ),
        };
        let cube = Cube::new(client, properties, Vec::new());
        Ok(Cube { free: Box::new(move || heap::free_bytes(&told)), ..cube })
    }
}

/// Devices of Vulkan, or of Metal on a Mac.
#[cfg(feature = "wgpu")]
pub mod vulkan {
    #[cfg(test)]
    pub use super::through_wgpu::cube;
    pub use super::through_wgpu::{are_cpus, open};
}

/// NVIDIA's devices through CUDA, whose driver and compiler are looked for at run time.
#[cfg(feature = "cuda")]
pub mod cuda {
    use super::{Arc, Backend, Cube, Properties, Result, floats, unavailable};
    use crate::cube::matmul::on_matrix_units;
    use cubecl::Runtime;
    use cubecl::cuda::{CudaDevice, CudaRuntime};
    use cudarc::driver::{result, sys};

    /// How many devices there are: none where the driver is missing.
    pub fn count() -> usize {
        counted().unwrap_or(0)
    }

    /// How many devices there are, or what is missing.
    pub(in crate::cube) fn counted() -> std::result::Result<usize, String> {
        // SAFETY: looks for a library, and loads it if it is there.
        let (has_driver, has_compiler) =
            unsafe { (sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
        if !has_driver {
            return Err("there is no libcuda.so.1: install NVIDIA's driver".to_owned());
        }
        if !has_compiler {
            return Err("there is no libnvrtc.so: install CUDA's runtime compiler (package cuda-nvrtc), and let the loader find it".to_owned());
        }
        result::init().map_err(|error| format!("NVIDIA's driver does not start: {error}"))?;
        let count = result::device::get_count().map_err(|error| error.to_string())?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Opens the device of this number.
    pub fn open(number: usize) -> Result<Arc<dyn Backend>> {
        let id = format!("cuda:{number}");
        let count = counted().map_err(|why| unavailable(&id, why))?;
        if number >= count {
            return Err(unavailable(id, format!("NVIDIA's driver knows {count} devices")));
        }
        let facts = facts(number).map_err(|error| unavailable(&id, error.to_string()))?;
        let client = CudaRuntime::client(&CudaDevice::new(number));
        let properties = Properties {
            id,
            model: facts.model,
            driver: Some(format!("CUDA {}.{}", facts.version / 1000, facts.version % 1000 / 10)),
            memory_bytes: Some(facts.memory_bytes),
            buffer_bytes_max: client.properties().memory.max_page_size,
            units: client.properties().hardware.num_streaming_multiprocessors,
            floats: floats(&client),
            is_cpu: false,
            shares_memory: false,
        };
        let routines = on_matrix_units(&client);
        let cube = Cube::new(client, properties, routines);
        Ok(Arc::new(Cube { free: Box::new(move || free_bytes(number).ok()), ..cube }))
    }

    /// Bytes that nobody uses.
    fn free_bytes(number: usize) -> std::result::Result<u64, result::DriverError> {
        let device = result::device::get(i32::try_from(number).unwrap_or(i32::MAX))?;
        // SAFETY: the device is one that the driver gave. Its context is CubeCL's, too, which holds it as long as the process lives; a
        // thread that makes it its own disturbs nobody.
        unsafe { result::ctx::set_current(result::primary_ctx::retain(device)?)? };
        let free = result::mem_get_info().map(|(free, _)| free as u64);
        // SAFETY: retained above.
        unsafe { result::primary_ctx::release(device)? };
        free
    }

    struct Facts {
        model: String,
        memory_bytes: u64,
        /// As the driver counts: 13,000 is 13.0.
        version: i32,
    }

    fn facts(number: usize) -> std::result::Result<Facts, result::DriverError> {
        let device = result::device::get(i32::try_from(number).unwrap_or(i32::MAX))?;
        let mut version = 0;
        // SAFETY: the device is one that the driver gave; the version is written to a variable of its type.
        let memory = unsafe {
            sys::cuDriverGetVersion(&raw mut version).result()?;
            result::device::total_mem(device)?
        };
        Ok(Facts { model: result::device::get_name(device)?, memory_bytes: memory as u64, version })
    }
}
