//! What the kernel has counted for control groups and for the machine: CPU time and memory, in both versions.
//!
//! Must never know: which group is whose, and what is made of the counts.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::{
    Count,
    cgroups::{self, Version},
};
use crate::rootless;

/// What a control group and those below it have used.
pub fn of_group(path: &str) -> Option<Count> {
    let at = Instant::now();
    Some(Count { at, cpu_ns: cpu_ns(path)?, memory_bytes: memory_bytes(path)? })
}

/// What the machine has used.
pub fn of_machine() -> Option<Count> {
    let at = Instant::now();
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    // The topmost group that an ordinary user sees is not the machine's.
    let cpu_ns = (!rootless::is_inside())
        .then(|| cpu_ns("/"))
        .flatten()
        .or_else(|| cpu_of_stat(&fs::read_to_string("/proc/stat").ok()?))?;
    Some(Count { at, cpu_ns, memory_bytes: memory_of_machine(&memory)? })
}

fn cpu_ns(path: &str) -> Option<u64> {
    match cgroups::version() {
        Version::V1 => cgroups::read(path, "cpuacct", "cpuacct.usage")?.trim().parse().ok(),
        Version::V2 => {
            let stat = cgroups::read(path, "cpu", "cpu.stat")?;
            cgroups::counter(&stat, "usage_usec")?.checked_mul(1_000)
        }
    }
}

fn memory_bytes(path: &str) -> Option<u64> {
    // Files that nobody has used for a while are cached only because there is room.
    let (usage, inactive) = match cgroups::version() {
        Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
        Version::V2 => ("memory.current", "inactive_file"),
    };
    let usage: u64 = cgroups::read(path, "memory", usage)?.trim().parse().ok()?;
    let stat = cgroups::read(path, "memory", "memory.stat")?;
    Some(usage.saturating_sub(cgroups::counter(&stat, inactive)?))
}

/// From `/proc/meminfo`: the root group of version 2 does not say what it holds.
fn memory_of_machine(text: &str) -> Option<u64> {
    let kibibytes = |name: &str| -> Option<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    let held = kibibytes("MemTotal")?.saturating_sub(kibibytes("MemFree")?);
    Some(held.saturating_sub(kibibytes("Inactive(file)")?) * 1024)
}

/// From the first line of `/proc/stat`: user, nice, system, (idle, iowait,) irq, softirq and steal, in hundredths of a
/// second. What virtual machines use is in the first two already.
fn cpu_of_stat(text: &str) -> Option<u64> {
    const TICK: Duration = Duration::from_millis(10);
    let all = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks = all.split_whitespace().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().ok()?;
    let busy = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    busy.map(|(_, ticks)| ticks).sum::<u64>().checked_mul(u64::try_from(TICK.as_nanos()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_holds_is_what_is_neither_free_nor_cached_for_nothing() {
        let text = "MemTotal:  1000 kB\nMemFree:   200 kB\nInactive:  150 kB\nInactive(file):   100 kB\n";
        assert_eq!(memory_of_machine(text), Some(700 * 1024));
        assert_eq!(memory_of_machine("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn a_machine_that_waits_is_not_busy() {
        let text = "cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 1 2 4 0 0 8 16 32 64 128\n";
        assert_eq!(cpu_of_stat(text), Some(630_000_000));
        assert_eq!(cpu_of_stat("intr 1\n"), None);
    }
}
