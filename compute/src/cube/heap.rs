//! The memory of a device of Vulkan, which wgpu does not tell: asked of Vulkan itself.

/// Bytes of memory that are the device's own: of its largest heap, since others may be windows into that. Of a device that shares the machine's
/// memory, what it may have of it. `None` where there is no such heap, and where it is not Vulkan.
pub fn bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    native::bytes(adapter)
}

/// Bytes that nobody uses, other processes included; `None` where the driver does not tell (`VK_EXT_memory_budget`).
pub fn free_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    native::free_bytes(adapter)
}

#[cfg(not(target_vendor = "apple"))]
mod native {
    use ash::{ext, vk};

    pub fn bytes(adapter: &wgpu::Adapter) -> Option<u64> {
        asked(adapter, |instance, device| {
            // SAFETY: the device is the instance's, and both are alive.
            let properties = unsafe { instance.get_physical_device_memory_properties(device) };
            largest(&properties).map(|(_, bytes)| bytes)
        })
    }

    pub fn free_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
        asked(adapter, |instance, device| {
            if !has_budget(instance, device) {
                return None;
            }
            let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
            let mut all = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
            // SAFETY: as above; the device has version 1.1 and knows the structure that is chained.
            unsafe { instance.get_physical_device_memory_properties2(device, &mut all) };
            let (heap, _) = largest(&all.memory_properties)?;
            // What this process may have in all, less what it has.
            Some(budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap]))
        })
    }

    fn asked<T>(
        adapter: &wgpu::Adapter,
        ask: impl FnOnce(&ash::Instance, vk::PhysicalDevice) -> Option<T>,
    ) -> Option<T> {
        // SAFETY: what is handed out is only asked, and lives as long as the adapter.
        let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
        ask(adapter.shared_instance().raw_instance(), adapter.raw_physical_device())
    }

    fn largest(properties: &vk::PhysicalDeviceMemoryProperties) -> Option<(usize, u64)> {
        let heaps = properties.memory_heaps.iter().take(properties.memory_heap_count as usize).enumerate();
        let own = heaps.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
        own.map(|(number, heap)| (number, heap.size)).max_by_key(|(_, bytes)| *bytes)
    }

    fn has_budget(instance: &ash::Instance, device: vk::PhysicalDevice) -> bool {
        // SAFETY: the device is the instance's, and both are alive; the instance was made with the newest version that the loader has.
        let (properties, extensions) = unsafe {
            (
                instance.get_physical_device_properties(device),
                instance.enumerate_device_extension_properties(device).unwrap_or_default(),
            )
        };
        let is_it = |extension: &vk::ExtensionProperties| {
            extension.extension_name_as_c_str().is_ok_and(|name| name == ext::memory_budget::NAME)
        };
        properties.api_version >= vk::API_VERSION_1_1 && extensions.iter().any(is_it)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_window_into_the_memory_is_not_the_memory() {
            let mut properties =
                vk::PhysicalDeviceMemoryProperties { memory_heap_count: 3, ..Default::default() };
            let heap = |size, flags| vk::MemoryHeap { size, flags };
            properties.memory_heaps[0] = heap(256 << 20, vk::MemoryHeapFlags::DEVICE_LOCAL);
            properties.memory_heaps[1] = heap(64 << 30, vk::MemoryHeapFlags::empty());
            properties.memory_heaps[2] = heap(8 << 30, vk::MemoryHeapFlags::DEVICE_LOCAL);
            properties.memory_heaps[3] = heap(1 << 40, vk::MemoryHeapFlags::DEVICE_LOCAL);
            assert_eq!(largest(&properties), Some((2, 8 << 30)));
        }
    }
}

#[cfg(target_vendor = "apple")]
mod native {
    pub fn bytes(_: &wgpu::Adapter) -> Option<u64> {
        None
    }

    pub fn free_bytes(_: &wgpu::Adapter) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::Backend as _;
    use crate::cube::vulkan;
    use std::io::Write as _;

    #[test]
    fn a_device_says_how_much_memory_it_has() {
        let Ok(cube) = vulkan::cube(0) else {
            let lacks = "a Vulkan device (run `make deps`, which installs mesa-vulkan-drivers)";
            assert!(
                std::env::var_os("CLAW_TEST_NEEDS").is_none_or(|value| value != "all"),
                "memory of a Vulkan device must be asked for here, but lacks {lacks}"
            );
            let _ = writeln!(std::io::stderr(), "SKIPPED memory of a Vulkan device: lacks {lacks}");
            return;
        };
        let all = cube.properties().memory_bytes.expect("every device has a heap of its own");
        assert!(all > 128 << 20, "{all} bytes");
        assert!(cube.memory_free_bytes().is_none_or(|free| free <= all), "{:?}", cube.memory_free_bytes());
    }
}
