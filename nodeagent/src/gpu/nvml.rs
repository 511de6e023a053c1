//! The NVIDIA driver's own answers, through its management library. The library is loaded when it is there; nothing of
//! NVIDIA is needed to build or to start.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use nvml_wrapper::{
    Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor,
    enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor},
    enums::device::UsedGpuMemory,
    error::NvmlError,
};
use parking_lot::Mutex;

use super::{
    Gpu, Inventory, Source, Unavailable,
    inventory::{Clocks, Ecc, Mig, NvLink, Pci, Peer, Power, Process},
};

/// The library as installed with a driver; the name without a number comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// More NVLinks than any GPU has (18 on Hopper and Blackwell).
const NVLINKS_MAX: u32 = 36;

/// The driver of this machine.
#[derive(Default)]
pub struct Driver {
    /// Kept between questions: opening it anew can take seconds.
    library: Mutex<Option<Nvml>>,
}

impl Source for Driver {
    fn ask(&self) -> Result<Inventory, Unavailable> {
        let mut library = self.library.lock();
        let nvml = match library.take() {
            Some(nvml) => nvml,
            None => Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().map_err(unavailable)?,
        };
        // One that fails is opened anew next time: drivers are replaced under running agents.
        let inventory = inventory(&nvml).map_err(|error| Unavailable::Silent(error.to_string()))?;
        *library = Some(nvml);
        Ok(inventory)
    }
}

fn unavailable(error: NvmlError) -> Unavailable {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded => {
            Unavailable::Absent(error.to_string())
        }
        _ => Unavailable::Silent(error.to_string()),
    }
}

fn inventory(nvml: &Nvml) -> Result<Inventory, NvmlError> {
    let mut devices = Vec::new();
    for index in 0..nvml.device_count()? {
        match nvml.device_by_index(index) {
            Ok(device) => devices.push((index, device)),
            // Without a name it cannot be told of, except as one that was here before.
            Err(error) => tracing::warn!(index, %error, "a GPU does not answer"),
        }
    }
    let gpus = devices.iter().filter_map(|(index, device)| {
        let gpu = gpu(*index, device)?;
        Some(Gpu { peers: peers(device, &devices, &gpu.uuid), ..gpu })
    });
    let gpus = gpus.collect();
    Ok(Inventory {
        replayed: false,
        driver_version: Some(nvml.sys_driver_version()?),
        cuda_version: nvml.sys_cuda_driver_version().ok().map(|version| {
            format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version))
        }),
        nvml_version: nvml.sys_nvml_version().ok(),
        library: loaded_from(),
        gpus,
    })
}

/// Where this process has the library from.
fn loaded_from() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let name = Path::new(path).file_name()?.to_str()?;
        name.starts_with("libnvidia-ml.so").then_some(path)
    })?;
    Some(PathBuf::from(path))
}

/// Notes what the driver would not answer.
#[derive(Default)]
struct Answers(BTreeMap<String, String>);

impl Answers {
    fn take<T>(&mut self, question: &str, answer: Result<T, NvmlError>) -> Option<T> {
        answer.map_err(|error| self.0.insert(question.to_owned(), error.to_string())).ok()
    }
}

/// `None` for one that does not say who it is.
fn gpu(index: u32, device: &Device<'_>) -> Option<Gpu> {
    let uuid = device
        .uuid()
        .inspect_err(|error| tracing::warn!(index, %error, "a GPU does not say who it is"))
        .ok()?;
    let mut answers = Answers::default();
    let memory = answers.take("memory", device.memory_info());
    let capability = answers.take("compute_capability", device.cuda_compute_capability());
    let mut gpu = Gpu {
        index,
        uuid,
        minor: answers.take("minor", device.minor_number()),
        model: answers.take("model", device.name()).unwrap_or_default(),
        brand: answers.take("brand", device.brand()).map(|brand| format!("{brand:?}")),
        architecture: answers.take("architecture", device.architecture()).map(|name| format!("{name:?}")),
        compute_capability: capability.map(|version| format!("{}.{}", version.major, version.minor)),
        memory_bytes: memory.as_ref().map_or(0, |memory| memory.total),
        memory_used_bytes: memory.map(|memory| memory.used),
        pci: pci(device, &mut answers),
        numa_node: None,
        cpu_affinity: answers
            .take("cpu_affinity", device.cpu_affinity(affinity_words()))
            .as_deref()
            .and_then(cpu_list),
        mig: answers
            .take("mig", device.mig_mode())
            .map(|mode| Mig { enabled: mode.current != 0, pending: mode.pending != 0 }),
        ecc: ecc(device, &mut answers),
        clocks: clocks(device, &mut answers),
        power: Power {
            usage_milliwatts: answers.take("power_usage", device.power_usage()),
            limit_milliwatts: answers.take("power_limit", device.enforced_power_limit()),
        },
        temperature_celsius: answers.take("temperature", device.temperature(TemperatureSensor::Gpu)),
        nvlinks: nvlinks(device, &mut answers),
        peers: Vec::new(),
        processes: processes(device, &mut answers),
        refused: BTreeMap::new(),
        withheld: None,
    };
    gpu.numa_node = numa_node(&gpu.pci.bus_id);
    gpu.pci.root = pci_root(&gpu.pci.bus_id);
    gpu.refused = answers.0;
    Some(gpu)
}

fn pci(device: &Device<'_>, answers: &mut Answers) -> Pci {
    let place = answers.take("pci", device.pci_info());
    Pci {
        bus_id: place.map(|place| bus_id(&place.bus_id)).unwrap_or_default(),
        generation: answers.take("pcie_generation", device.current_pcie_link_gen()),
        generation_max: answers.take("pcie_generation_max", device.max_pcie_link_gen()),
        width: answers.take("pcie_width", device.current_pcie_link_width()),
        width_max: answers.take("pcie_width_max", device.max_pcie_link_width()),
        root: None,
    }
}

/// `pci0000:16`, the root that the kernel reaches a GPU through.
fn pci_root(bus_id: &str) -> Option<String> {
    let path = fs::canonicalize(format!("/sys/bus/pci/devices/{bus_id}")).ok()?;
    let names = path.components().filter_map(|part| part.as_os_str().to_str());
    names.into_iter().find(|name| name.starts_with("pci") && name.contains(':')).map(str::to_owned)
}

/// `00000000:1B:00.0` as sysfs writes it: four digits of domain, lower case.
fn bus_id(nvml: &str) -> String {
    let lower = nvml.to_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) => format!("{:0>4}:{rest}", domain.trim_start_matches('0')),
        None => lower,
    }
}

/// The kernel's word: the library answers only for GPUs that are memory nodes themselves.
fn numa_node(bus_id: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/sys/bus/pci/devices/{bus_id}/numa_node")).ok()?;
    // -1 where the machine has one node only.
    text.trim().parse().ok()
}

/// Machine words that hold a bit for each processor that the machine could have, whichever this process may use.
fn affinity_words() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok()).unwrap_or(0);
    last / (usize::BITS as usize) + 1
}

/// `0-3,8` from bits.
fn cpu_list(words: &[std::ffi::c_ulong]) -> Option<String> {
    let bits = std::ffi::c_ulong::BITS as usize;
    let is_set = |cpu: usize| words.get(cpu / bits).is_some_and(|word| word >> (cpu % bits) & 1 == 1);
    let mut ranges = Vec::new();
    let mut cpu = 0;
    while cpu < words.len() * bits {
        if is_set(cpu) {
            let first = cpu;
            while is_set(cpu + 1) {
                cpu += 1;
            }
            ranges.push(if first == cpu { first.to_string() } else { format!("{first}-{cpu}") });
        }
        cpu += 1;
    }
    (!ranges.is_empty()).then(|| ranges.join(","))
}

fn ecc(device: &Device<'_>, answers: &mut Answers) -> Option<Ecc> {
    let mode = answers.take("ecc", device.is_ecc_enabled())?;
    let mut count = |question: &str, kind: MemoryError, since: EccCounter| {
        mode.currently_enabled.then(|| answers.take(question, device.total_ecc_errors(kind, since))).flatten()
    };
    Some(Ecc {
        enabled: mode.currently_enabled,
        corrected: count("ecc_corrected", MemoryError::Corrected, EccCounter::Volatile),
        uncorrected: count("ecc_uncorrected", MemoryError::Uncorrected, EccCounter::Volatile),
        corrected_ever: count("ecc_corrected_ever", MemoryError::Corrected, EccCounter::Aggregate),
        uncorrected_ever: count("ecc_uncorrected_ever", MemoryError::Uncorrected, EccCounter::Aggregate),
    })
}

fn clocks(device: &Device<'_>, answers: &mut Answers) -> Clocks {
    Clocks {
        sm_mhz: answers.take("clock_sm", device.clock_info(Clock::SM)),
        sm_max_mhz: answers.take("clock_sm_max", device.max_clock_info(Clock::SM)),
        memory_mhz: answers.take("clock_memory", device.clock_info(Clock::Memory)),
        memory_max_mhz: answers.take("clock_memory_max", device.max_clock_info(Clock::Memory)),
    }
}

fn nvlinks(device: &Device<'_>, answers: &mut Answers) -> Vec<NvLink> {
    let mut links = Vec::new();
    for number in 0..NVLINKS_MAX {
        let link = device.link_wrapper_for(number);
        match link.is_active() {
            Ok(active) => links.push(NvLink {
                link: number,
                active,
                version: link.version().ok(),
                remote_bus_id: link.remote_pci_info().ok().map(|place| bus_id(&place.bus_id)),
            }),
            // Beyond the last.
            Err(NvmlError::InvalidArg) => break,
            Err(error) => {
                answers.0.insert("nvlinks".to_owned(), error.to_string());
                break;
            }
        }
    }
    links
}

fn peers(device: &Device<'_>, all: &[(u32, Device<'_>)], own: &str) -> Vec<Peer> {
    let mut peers = Vec::new();
    for (_, other) in all {
        let Some(uuid) = other.uuid().ok().filter(|uuid| uuid != own) else { continue };
        // The library takes the other one by value; asking for it again is how to have it twice.
        let Ok(other) = device.nvml().device_by_uuid(&*uuid) else { continue };
        if let Ok(level) = device.topology_common_ancestor(other) {
            peers.push(Peer { uuid, ancestor: format!("{level:?}") });
        }
    }
    peers
}

fn processes(device: &Device<'_>, answers: &mut Answers) -> Vec<Process> {
    let found = answers.take("processes", device.running_compute_processes()).unwrap_or_default();
    found
        .into_iter()
        .map(|process| Process {
            pid: process.pid,
            memory_bytes: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn bus_ids_are_written_as_sysfs_does() {
        assert_eq!(bus_id("00000000:1B:00.0"), "0000:1b:00.0");
        assert_eq!(bus_id("00010000:01:00.0"), "10000:01:00.0");
        assert_eq!(bus_id("odd"), "odd");
    }

    #[test]
    fn processors_are_listed_in_ranges() {
        assert_eq!(cpu_list(&[0b1_0000_1111]).as_deref(), Some("0-3,8"));
        assert_eq!(cpu_list(&[1 << 63, 1]).as_deref(), Some("63-64"));
        assert_eq!(cpu_list(&[0, 0]), None);
        assert!(affinity_words() > 0);
    }

    #[test]
    fn the_driver_of_this_machine_says_who_its_gpus_are_or_is_absent_in_so_many_words() {
        let story = "the_driver_of_this_machine_says_who_its_gpus_are_or_is_absent_in_so_many_words";
        let driver = Driver::default();
        match driver.ask() {
            Ok(inventory) => {
                assert!(!inventory.replayed && inventory.driver_version.is_some(), "{inventory:?}");
                assert!(
                    inventory.library.as_ref().is_some_and(|path| path.exists()),
                    "{:?}",
                    inventory.library
                );
                for gpu in &inventory.gpus {
                    assert!(gpu.uuid.starts_with("GPU-") && !gpu.model.is_empty(), "{gpu:?}");
                    assert!(gpu.memory_bytes > 1 << 30, "{gpu:?}");
                    assert!(Path::new("/sys/bus/pci/devices").join(&gpu.pci.bus_id).exists(), "{gpu:?}");
                }
                let again = driver.ask().unwrap();
                let uuids = |all: &Inventory| all.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>();
                assert_eq!(uuids(&again), uuids(&inventory), "a second question gets the same GPUs");
            }
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED {story}: lacks an NVIDIA GPU ({error})");
                assert!(matches!(error, Unavailable::Absent(_)), "{error}");
            }
        }
    }
}
