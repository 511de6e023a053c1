//! The NVIDIA driver's own answers, through its management library. The library is loaded when it is there; nothing of
//! NVIDIA is needed to build or to start.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nvml_wrapper::{
    Device, EventSet, Nvml,
    bitmasks::{device::ThrottleReasons, event::EventTypes},
    cuda_driver_version_major, cuda_driver_version_minor,
    enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor},
    enums::{
        device::{SampleValue, UsedGpuMemory},
        event::XidError,
    },
    error::NvmlError,
    structs::device::FieldId,
    sys_exports::field_id,
};

use super::{
    Gpu, Inventory, Source, Unavailable,
    health::{Remapping, Throttle},
    inventory::{Clocks, Ecc, Mig, NvLink, Pci, Peer, Power, Process},
    mig::{self, Numbers},
    source::Answer,
};

/// The library as installed with a driver; the name without a number comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// More NVLinks than any GPU has (18 on Hopper and Blackwell).
const NVLINKS_MAX: u32 = 36;

/// More events than any GPU has between two looks; the rest is heard at the next.
const EVENTS_MAX: usize = 64;

/// Another file each time that the driver is loaded.
const MODULE: &str = "/sys/module/nvidia";

/// What the library says of an error that it has no number for.
const XID_UNKNOWN: u64 = 999;

/// The driver of this machine, if it has one.
#[derive(Debug, Default)]
pub struct Driver;

impl Source for Driver {
    fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool) {
        let mut xids = Xids::default();
        loop {
            // One that fails is opened anew the next time: drivers are replaced under running agents.
            let is_wanted = match Nvml::builder().lib_path(OsStr::new(LIBRARY)).init() {
                Ok(nvml) => tell_until_it_fails(&nvml, &mut xids, listener),
                Err(error) => listener(Err(unavailable(error))),
            };
            if !is_wanted {
                return;
            }
        }
    }
}

/// Opening it can take seconds, so it stays open. Returns whether more is wanted.
fn tell_until_it_fails(nvml: &Nvml, xids: &mut Xids, listener: &mut dyn FnMut(Answer) -> bool) -> bool {
    let (events, numbers) = (Events::listen(nvml), Numbers::find(LIBRARY));
    loop {
        xids.forget_if_loaded_anew();
        events.drain(xids);
        let answer = inventory(nvml, xids, &numbers).map_err(|error| Unavailable::Silent(error.to_string()));
        let has_failed = answer.is_err();
        let is_wanted = listener(answer);
        if has_failed || !is_wanted {
            return is_wanted;
        }
    }
}

/// What went wrong on each GPU, by uuid. The driver tells it once.
#[derive(Default)]
struct Xids {
    told: BTreeMap<String, BTreeSet<u64>>,
    /// Of which loading of the driver.
    module: Option<u64>,
}

impl Xids {
    /// Loading the driver resets GPUs.
    fn forget_if_loaded_anew(&mut self) {
        let module = fs::metadata(MODULE).ok().map(|module| module.ino());
        if self.module != module {
            self.told.clear();
            self.module = module;
        }
    }

    fn of(&self, uuid: &str) -> BTreeSet<u64> {
        self.told.get(uuid).cloned().unwrap_or_default()
    }
}

/// A place for the errors of each GPU, which the driver fills from the moment it is made. One a GPU: a GPU that is lost
/// would not say that an event is its.
struct Events<'a>(Vec<(String, EventSet<'a>)>);

impl<'a> Events<'a> {
    fn listen(nvml: &'a Nvml) -> Self {
        let of = |index: u32| -> Result<(String, EventSet<'a>), String> {
            let device = nvml.device_by_index(index).map_err(|error| error.to_string())?;
            let uuid = device.uuid().map_err(|error| error.to_string())?;
            let set = nvml.create_event_set().map_err(|error| error.to_string())?;
            let set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set);
            Ok((uuid, set.map_err(|error| error.error.to_string())?))
        };
        let all = (0..nvml.device_count().unwrap_or(0)).filter_map(|index| {
            of(index).inspect_err(|why| tracing::warn!(index, why, "errors of a GPU will not be heard")).ok()
        });
        Self(all.collect())
    }

    /// Takes what has happened since the last time.
    fn drain(&self, xids: &mut Xids) {
        for (uuid, set) in &self.0 {
            for _ in 0..EVENTS_MAX {
                // A millisecond: what has happened is there, and nothing more is waited for.
                let Ok(event) = set.wait(1) else { break };
                let xid = match event.event_data {
                    Some(XidError::Value(xid)) => xid,
                    Some(XidError::Unknown) => XID_UNKNOWN,
                    None => continue,
                };
                if xids.told.entry(uuid.clone()).or_default().insert(xid) {
                    tracing::warn!(uuid, xid, "an error on a GPU");
                }
            }
        }
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

fn inventory(nvml: &Nvml, xids: &Xids, numbers: &Numbers) -> Result<Inventory, NvmlError> {
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
        let gpu = Gpu { peers: peers(device, &devices, &gpu.uuid), xids: xids.of(&gpu.uuid), ..gpu };
        let parts = mig::parts(&gpu, device, numbers);
        Some(std::iter::once(gpu).chain(parts))
    });
    let gpus = gpus.flatten().collect();
    Ok(Inventory {
        driver_version: Some(nvml.sys_driver_version()?),
        cuda_version: nvml.sys_cuda_driver_version().ok().map(|version| {
            format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version))
        }),
        nvml_version: nvml.sys_nvml_version().ok(),
        library: loaded_from(),
        gpus,
        ..Inventory::default()
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
struct Answers {
    refused: BTreeMap<String, String>,
    /// One of the refusals was that the GPU is not there any more.
    is_lost: bool,
    /// Or that it must be reset.
    is_to_reset: bool,
}

impl Answers {
    fn take<T>(&mut self, question: &str, answer: Result<T, NvmlError>) -> Option<T> {
        let refuse = |error: NvmlError| {
            self.is_lost |= matches!(error, NvmlError::GpuLost);
            self.is_to_reset |= matches!(error, NvmlError::ResetRequired);
            self.refused.insert(question.to_owned(), error.to_string())
        };
        answer.map_err(refuse).ok()
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
        remapping: remapping(device, &mut answers),
        throttle: answers
            .take("throttle", device.current_throttle_reasons())
            .map(throttle)
            .unwrap_or_default(),
        clocks: clocks(device, &mut answers),
        power: Power {
            usage_milliwatts: answers.take("power_usage", device.power_usage()),
            limit_milliwatts: answers.take("power_limit", device.enforced_power_limit()),
        },
        temperature_celsius: answers.take("temperature", device.temperature(TemperatureSensor::Gpu)),
        nvlinks: nvlinks(device, &mut answers),
        processes: processes(device, &mut answers),
        ..Gpu::default()
    };
    gpu.numa_node = numa_node(&gpu.pci.bus_id);
    gpu.pci.root = pci_root(&gpu.pci.bus_id);
    (gpu.lost, gpu.reset_required, gpu.refused) = (answers.is_lost, answers.is_to_reset, answers.refused);
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
    Pci::root_in(&fs::canonicalize(format!("/sys/bus/pci/devices/{bus_id}")).ok()?)
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

/// Only memory of the Ampere kind and newer has spare rows.
fn remapping(device: &Device<'_>, answers: &mut Answers) -> Option<Remapping> {
    let ids = [
        field_id::NVML_FI_DEV_REMAPPED_COR,
        field_id::NVML_FI_DEV_REMAPPED_UNC,
        field_id::NVML_FI_DEV_REMAPPED_PENDING,
        field_id::NVML_FI_DEV_REMAPPED_FAILURE,
    ];
    let fields = answers.take("remapping", device.field_values_for(&ids.map(FieldId)))?;
    let mut values = fields.into_iter().map(|field| field.and_then(|field| field.value).map(number));
    let mut next = || answers.take("remapping", values.next()?);
    let (corrected, uncorrected, pending, failed) = (next()?, next()?, next()?, next()?);
    Some(Remapping { corrected, uncorrected, pending: pending > 0, failed: failed > 0 })
}

/// Counts of the driver, which come in several sizes.
fn number(value: SampleValue) -> u32 {
    let wide = match value {
        SampleValue::U32(value) => return value,
        SampleValue::U64(value) => value,
        SampleValue::I64(value) => u64::try_from(value).unwrap_or(0),
        SampleValue::F64(_) => 0,
    };
    u32::try_from(wide).unwrap_or(u32::MAX)
}

/// Those that say something of the GPU's health; idle clocks and limits that people set do not.
fn throttle(reasons: ThrottleReasons) -> BTreeSet<Throttle> {
    let known = [
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Throttle::HardwareHeat),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Throttle::PowerBrake),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Throttle::Heat),
    ];
    let mut all: BTreeSet<Throttle> =
        known.into_iter().filter(|(reason, _)| reasons.contains(*reason)).map(|(_, why)| why).collect();
    let says_why = all.contains(&Throttle::HardwareHeat) || all.contains(&Throttle::PowerBrake);
    if reasons.contains(ThrottleReasons::HW_SLOWDOWN) && !says_why {
        all.insert(Throttle::Hardware);
    }
    all
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
                answers.take::<()>("nvlinks", Err(error));
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
    fn what_holds_clocks_back_is_told_apart_from_what_people_set() {
        let idle = ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_POWER_CAP;
        assert_eq!(throttle(idle), BTreeSet::new());
        let hot = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(throttle(hot), [Throttle::HardwareHeat].into());
        assert_eq!(throttle(ThrottleReasons::HW_SLOWDOWN), [Throttle::Hardware].into());
    }

    #[test]
    fn a_driver_that_is_loaded_anew_has_no_errors_yet() {
        let told = BTreeMap::from([("GPU-a".to_owned(), BTreeSet::from([79]))]);
        let mut xids = Xids { told, module: Some(u64::MAX) };
        xids.forget_if_loaded_anew();
        assert!(xids.of("GPU-a").is_empty());
        xids.told.entry("GPU-a".to_owned()).or_default().insert(79);
        xids.forget_if_loaded_anew();
        assert_eq!(xids.of("GPU-a"), [79].into());
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
        let driver = Driver;
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
