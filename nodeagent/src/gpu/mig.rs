//! The instances of GPUs that are cut (MIG), asked of NVIDIA's library.
//!
//! The wrapper that all else is asked through does not know the numbers of instances, so these questions go to the
//! library itself.
#![expect(unsafe_code, reason = "functions of NVIDIA's library that its wrapper leaves out")]

use std::{ffi::OsStr, mem::MaybeUninit};

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlReturn_enum_NVML_SUCCESS,
    nvmlReturn_t,
};

use super::{Gpu, inventory::Part};

/// More instances than any GPU has (7).
const INSTANCES_MAX: u32 = 16;

/// The library's functions, found once.
pub(super) struct Numbers(Option<NvmlLib>);

impl Numbers {
    /// Of a library that was loaded and set up by whoever hands in devices.
    pub fn find(library: &str) -> Self {
        // SAFETY: NVIDIA's library does nothing when it is loaded, and it was loaded before.
        Self(unsafe { NvmlLib::new(OsStr::new(library)) }.ok())
    }

    /// Numbers of the instance with the memory, and of the one in it with the processors.
    fn of(&self, device: &Device<'_>) -> Option<(u32, u32)> {
        let library = self.0.as_ref()?;
        // SAFETY: the handle is as alive as the device, which outlives the calls.
        let handle = unsafe { device.handle() };
        let ask = |function: unsafe extern "C" fn(nvmlDevice_t, *mut u32) -> nvmlReturn_t| {
            let mut number = 0;
            // SAFETY: the handle is valid, and the library writes one number.
            is_well(unsafe { function(handle, &raw mut number) }).then_some(number)
        };
        let memory = ask(*library.nvmlDeviceGetGpuInstanceId.as_ref().ok()?)?;
        let processors = ask(*library.nvmlDeviceGetComputeInstanceId.as_ref().ok()?)?;
        Some((memory, processors))
    }

    /// The first of the slices of memory that an instance of a GPU has, and how many. Only root is told.
    fn placement(&self, whole: &Device<'_>, instance: u32) -> Option<(u32, u32)> {
        let library = self.0.as_ref()?;
        let find = library.nvmlDeviceGetGpuInstanceById.as_ref().ok()?;
        let ask = library.nvmlGpuInstanceGetInfo.as_ref().ok()?;
        let mut handle = MaybeUninit::<nvmlGpuInstance_t>::uninit();
        // SAFETY: the handle of the GPU is alive, and the library writes that of the instance when it succeeds.
        if !is_well(unsafe { find(whole.handle(), instance, handle.as_mut_ptr()) }) {
            return None;
        }
        let mut said = MaybeUninit::<nvmlGpuInstanceInfo_t>::uninit();
        // SAFETY: the handle was just written, and the library fills in all of the answer when it succeeds.
        let said = unsafe {
            if !is_well(ask(handle.assume_init(), said.as_mut_ptr())) {
                return None;
            }
            said.assume_init()
        };
        Some((said.placement.start, said.placement.size))
    }
}

fn is_well(answer: nvmlReturn_t) -> bool {
    answer == nvmlReturn_enum_NVML_SUCCESS
}

/// The instances of a GPU; none of one that is not cut. One that does not say who it is, or which, cannot be given.
pub(super) fn parts(whole: &Gpu, device: &Device<'_>, numbers: &Numbers) -> Vec<Gpu> {
    if !whole.is_cut() {
        return Vec::new();
    }
    let count = device.mig_device_count().unwrap_or(0).min(INSTANCES_MAX);
    (0..count).filter_map(|index| part(whole, device, index, numbers)).collect()
}

/// `None` where the place is empty, too.
fn part(whole: &Gpu, device: &Device<'_>, index: u32, numbers: &Numbers) -> Option<Gpu> {
    let own = device.mig_device_by_index(index).ok()?;
    let (uuid, model) = (own.uuid().ok()?, own.name().ok()?);
    let (gpu_instance, compute_instance) = numbers.of(&own)?;
    let memory = own.memory_info().ok();
    Some(Gpu {
        index: whole.index,
        minor: whole.minor,
        uuid,
        brand: whole.brand.clone(),
        architecture: whole.architecture.clone(),
        compute_capability: whole.compute_capability.clone(),
        memory_bytes: memory.as_ref().map_or(0, |memory| memory.total),
        memory_used_bytes: memory.map(|memory| memory.used),
        pci: whole.pci.clone(),
        numa_node: whole.numa_node,
        cpu_affinity: whole.cpu_affinity.clone(),
        part: Some(Part {
            parent: whole.uuid.clone(),
            index,
            profile: profile(&model)?.to_owned(),
            gpu_instance,
            compute_instance,
            placement: numbers.placement(device, gpu_instance),
        }),
        model,
        ..Gpu::default()
    })
}

/// `1g.10gb` from `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
fn profile(model: &str) -> Option<&str> {
    model.rsplit_once(" MIG ").map(|(_, profile)| profile.trim()).filter(|profile| !profile.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_the_end_of_an_instances_name() {
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me"), Some("1g.10gb+me"));
        assert_eq!(profile("NVIDIA H100 80GB HBM3"), None);
    }
}
