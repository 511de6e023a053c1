//! Devices of Vulkan (of Metal on a Mac): which there are, what their drivers say of them, and how one is opened.

use super::open::{floats, unavailable};
use super::{Cube, heap};
use crate::backend::{Backend, Properties};
use crate::error::{Error, Result};
use claw_graph::known::{Adapter, AdapterKind};
use cubecl::Runtime;
use cubecl::wgpu::{RuntimeOptions, WgpuRuntime, WgpuSetup, init_device};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// How names of devices begin that come from their UUID.
const UUID_PREFIX: &str = "VK-";

/// All devices, graphics cards first, else in Vulkan's order.
fn adapters() -> (wgpu::Instance, Vec<wgpu::Adapter>) {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = cubecl::future::block_on(instance.enumerate_adapters(backends));
    adapters.sort_by_key(|adapter| kind(&adapter.get_info()));
    (instance, adapters)
}

fn kind(info: &wgpu::AdapterInfo) -> AdapterKind {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Other => AdapterKind::Other,
        wgpu::DeviceType::Cpu => AdapterKind::Cpu,
    }
}

/// What the drivers say of all devices, in the order of their numbers. Nothing is opened.
pub fn known() -> Vec<Adapter> {
    adapters().1.iter().map(described).collect()
}

fn described(adapter: &wgpu::Adapter) -> Adapter {
    let info = adapter.get_info();
    let told = native::told(adapter);
    let said = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty() && text != "?");
    let mut described = Adapter {
        kind: kind(&info),
        vendor_id: info.vendor,
        device_id: info.device,
        pci_bus_id: said(&info.device_pci_bus_id),
        render_minor: told.render_minor,
        driver_name: said(&info.driver),
        driver_info: said(&info.driver_info),
        memory_bytes: heap::bytes(adapter).unwrap_or(0),
        uuid: String::new(),
        model: info.name,
    };
    described.uuid = name(told.uuid.unwrap_or_else(|| digested(&described)));
    described
}

/// Stands for the UUID of a device whose driver gives none, as that of software may.
fn digested(adapter: &Adapter) -> [u8; 16] {
    let Adapter { model, vendor_id, device_id, pci_bus_id, render_minor, .. } = adapter;
    let facts = format!("{vendor_id} {device_id} {pci_bus_id:?} {render_minor:?} {model}");
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&Sha256::digest(facts.as_bytes())[..16]);
    uuid
}

/// In groups of digits, as UUIDs are written.
fn name(uuid: [u8; 16]) -> String {
    let mut name = UUID_PREFIX.to_owned();
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            name.push('-');
        }
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

/// What a driver says that wgpu does not hand on.
#[derive(Default)]
struct Told {
    uuid: Option<[u8; 16]>,
    render_minor: Option<u32>,
}

#[cfg(not(target_vendor = "apple"))]
mod native {
    //! Asked of Vulkan itself (`VkPhysicalDeviceIDProperties`, `VK_EXT_physical_device_drm`).

    use super::Told;
    use ash::{ext, vk};

    pub fn told(adapter: &wgpu::Adapter) -> Told {
        // SAFETY: what is handed out is only asked, and lives as long as the adapter.
        let Some(adapter) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else {
            return Told::default();
        };
        let instance = adapter.shared_instance().raw_instance();
        let device = adapter.raw_physical_device();
        // SAFETY: the device is the instance's, and both are alive; the instance was made with the newest version that the loader has.
        let properties = unsafe { instance.get_physical_device_properties(device) };
        if properties.api_version < vk::API_VERSION_1_1 {
            return Told::default();
        }
        // SAFETY: as above; whoever has version 1.1 has what is asked for with it.
        let extensions = unsafe { instance.enumerate_device_extension_properties(device) };
        let has_drm = extensions.unwrap_or_default().iter().any(|extension| {
            extension.extension_name_as_c_str().is_ok_and(|name| name == ext::physical_device_drm::NAME)
        });
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut drm = vk::PhysicalDeviceDrmPropertiesEXT::default();
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        if has_drm {
            all = all.push_next(&mut drm);
        }
        // SAFETY: as above; the driver fills in structures that it knows.
        unsafe { instance.get_physical_device_properties2(device, &mut all) };
        let render_minor = u32::try_from(drm.render_minor).ok().filter(|_| drm.has_render == vk::TRUE);
        let uuid = Some(id.device_uuid).filter(|uuid| *uuid != [0; 16]);
        Told { uuid, render_minor }
    }
}

#[cfg(target_vendor = "apple")]
mod native {
    //! Metal says nothing of the kind.

    pub fn told(_: &wgpu::Adapter) -> super::Told {
        super::Told::default()
    }
}

/// Opens the device of this number.
pub fn open(number: usize) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(cube(number)?))
}

/// Opens the device that has this name ([`Adapter::uuid`]).
pub fn open_named(uuid: &str) -> Result<Arc<dyn Backend>> {
    let (instance, mut adapters) = adapters();
    let known = names(&adapters);
    match known.iter().position(|name| name == uuid) {
        Some(at) => Ok(Arc::new(opened(format!("vulkan:{uuid}"), instance, adapters.swap_remove(at))?)),
        None => Err(missing(&format!("vulkan:{uuid}"), &known)),
    }
}

pub fn cube(number: usize) -> Result<Cube<WgpuRuntime>> {
    let id = format!("vulkan:{number}");
    let (instance, mut adapters) = adapters();
    if number >= adapters.len() {
        return Err(missing(&id, &names(&adapters)));
    }
    opened(id, instance, adapters.swap_remove(number))
}

fn names(adapters: &[wgpu::Adapter]) -> Vec<String> {
    adapters.iter().map(|adapter| described(adapter).uuid).collect()
}

fn missing(id: &str, known: &[String]) -> Error {
    let why = match known {
        [] => "Vulkan has no devices: install the graphics card's driver, or mesa-vulkan-drivers".to_owned(),
        known => format!("Vulkan has {}: {}", known.len(), known.join(", ")),
    };
    unavailable(id, why)
}

fn opened(id: String, instance: wgpu::Instance, adapter: wgpu::Adapter) -> Result<Cube<WgpuRuntime>> {
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
        shares_memory: matches!(kind(&info), AdapterKind::Cpu | AdapterKind::Integrated),
    };
    let cube = Cube::new(client, properties, Vec::new());
    Ok(Cube { free: Box::new(move || heap::free_bytes(&told)), ..cube })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_name_and_is_opened_by_it() {
        let known = known();
        assert_eq!(known, super::known(), "what is asked twice is said twice");
        for (number, adapter) in known.iter().enumerate() {
            assert!(adapter.uuid.starts_with(UUID_PREFIX) && adapter.uuid.len() == 39, "{adapter:?}");
            assert!(adapter.memory_bytes > 0 && !adapter.model.is_empty(), "{adapter:?}");
            let by_number = cube(number).unwrap();
            let by_name = open_named(&adapter.uuid).unwrap();
            assert_eq!(by_name.properties().model, by_number.properties().model);
            assert_eq!(by_name.properties().id, format!("vulkan:{}", adapter.uuid));
        }
        let Err(error) = open_named("VK-nobody") else { panic!("there is no such device") };
        let names: Vec<&str> = known.iter().map(|adapter| adapter.uuid.as_str()).collect();
        assert!(error.to_string().contains(&names.join(", ")), "{error}");
    }

    #[test]
    fn a_name_is_written_as_uuids_are_and_depends_on_each_fact() {
        assert_eq!(name([0xab; 16]), "VK-abababab-abab-abab-abab-abababababab");
        let one = Adapter { model: "llvmpipe".to_owned(), ..Adapter::default() };
        let other = Adapter { render_minor: Some(128), ..one.clone() };
        assert_ne!(digested(&one), digested(&other));
        assert_eq!(digested(&one), digested(&Adapter { memory_bytes: 9, ..one.clone() }), "memory may grow");
    }
}
