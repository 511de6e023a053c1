//! Opening devices: everything that can be missing is an error before CubeCL, which would panic, is asked. Those of Vulkan are in `vulkan`.

use super::Cube;
use crate::backend::{Backend, Properties};
use crate::error::{Error, Result};
use claw_graph::DType;
use cubecl::prelude::*;
use std::sync::Arc;

/// The float types that a client's device has in memory.
pub(super) fn floats<R: Runtime>(client: &ComputeClient<R>) -> Vec<DType> {
    let has = |dtype: &DType| client.properties().supports_type(super::launch::storage(*dtype));
    DType::FLOATS.into_iter().filter(has).collect()
}

pub(super) fn unavailable(device: impl Into<String>, why: impl Into<String>) -> Error {
    Error::Unavailable { device: device.into(), why: why.into() }
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
