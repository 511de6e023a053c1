//! What the process may use, by the control groups that it sees, and how much of that is left for tensors.

use super::failure;
use crate::cpu::scratch_bytes;
use crate::device::Device;
use crate::plan::Plan;
use claw_graph::order::{Failure, Order, Reason, Source};
use claw_graph::{Graph, TensorType};
use std::fs;
use std::path::Path;

/// Where control groups are.
pub const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Memory that is kept free of tensors beside all that is counted: stacks and scratch blocks of threads, the allocator's rest.
const MARGIN_BYTES: u64 = 32 << 20;

/// No limit is as high: version 1 writes "no limit" as a number near 2^63.
const LIMIT_BYTES_MAX: u64 = 1 << 60;

/// Processes of this container that the kernel has ended so far because memory ran out, in the words of version 2 or 1.
pub fn killed_for_memory(groups: &Path) -> u64 {
    let counted = |file: &str| {
        let text = read(groups, file)?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    };
    counted("memory.events").or_else(|| counted("memory/memory.oom_control")).unwrap_or(0)
}

/// What the process may use; `None` where nothing limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    /// As many threads as are of any use.
    pub threads: Option<usize>,
}

impl Limits {
    /// As the control groups in a folder say, of version 2 or 1.
    pub fn of(groups: &Path) -> Self {
        let number = |file: &str| read(groups, file)?.parse::<u64>().ok();
        let memory = number("memory.max").or_else(|| number("memory/memory.limit_in_bytes"));
        let pair = read(groups, "cpu.max").and_then(|text| {
            let (quota, period) = text.split_once(' ')?;
            Some((quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?))
        });
        // Without a limit the quota of version 1 is -1, which is no number of these.
        let pair = pair.or_else(|| Some((number("cpu/cpu.cfs_quota_us")?, number("cpu/cpu.cfs_period_us")?)));
        let threads =
            pair.filter(|(_, period)| *period > 0).map(|(quota, period)| quota.div_ceil(period).max(1));
        Self {
            memory_bytes: memory.filter(|bytes| *bytes < LIMIT_BYTES_MAX),
            threads: threads.and_then(|threads| usize::try_from(threads).ok()),
        }
    }

    /// The device with what is left of the memory, if it calculates in the process's own.
    ///
    /// # Errors
    /// When what passes through the process's memory alone is too much.
    pub fn applied(
        &self,
        device: Device,
        order: &Order,
        graph: &Graph,
        plan: &Plan,
    ) -> Result<Device, Failure> {
        let Some(limit) = self.memory_bytes else { return Ok(device) };
        let passing = passing_bytes(order, graph);
        let free = limit.saturating_sub(resident_bytes() + MARGIN_BYTES);
        let Some(left) = free.checked_sub(passing) else {
            let message = format!(
                "{passing} bytes pass through the process's memory at once, and {free} of {limit} are free"
            );
            return Err(failure(Reason::OutOfMemory, message));
        };
        let properties = device.properties();
        if !properties.is_cpu {
            return Ok(device);
        }
        let limit = if properties.id == "cpu" { for_processors(left, plan) } else { for_pools(left) };
        Ok(device.limited_to(limit))
    }
}

/// Some steps take memory beside their tensors.
fn for_processors(left: u64, plan: &Plan) -> u64 {
    left.saturating_sub(plan.steps.iter().map(scratch_bytes).max().unwrap_or(0))
}

/// Memory of a device of Vulkan that is the processors comes from pools, which round up and keep what was given back: at worst the
/// double.
const fn for_pools(left: u64) -> u64 {
    left / 2
}

/// The most that is in the process's memory on its way to a device or back: one tensor at a time, twice where its driver copies it.
fn passing_bytes(order: &Order, graph: &Graph) -> u64 {
    let inputs = order.inputs.iter().zip(graph.inputs());
    let made = inputs.filter(|(input, _)| matches!(input.source, Source::Values(_) | Source::File(_)));
    let values = made.map(|(_, value)| value).chain(graph.outputs());
    values.map(|value| 2 * bytes(graph.of(*value))).max().unwrap_or(0)
}

fn bytes(of: &TensorType) -> u64 {
    of.size_bytes() as u64
}

/// What the process has in memory now.
fn resident_bytes() -> u64 {
    let told = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

fn read(groups: &Path, file: &str) -> Option<String> {
    Some(fs::read_to_string(groups.join(file)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(files: &[(&str, &str)]) -> Limits {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        Limits::of(folder.path())
    }

    #[test]
    fn both_versions_of_control_groups_say_what_may_be_used() {
        let some = |bytes, threads| Limits { memory_bytes: Some(bytes), threads: Some(threads) };
        assert_eq!(limits(&[("memory.max", "1048576"), ("cpu.max", "150000 100000")]), some(1 << 20, 2));
        let quota = [("cpu/cpu.cfs_quota_us", "20000"), ("cpu/cpu.cfs_period_us", "100000")];
        assert_eq!(
            limits(&[&quota[..], &[("memory/memory.limit_in_bytes", "4096")]].concat()),
            some(4_096, 1)
        );
    }

    #[test]
    fn who_was_ended_to_make_room_is_counted() {
        let counted = |file: &str, text: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            killed_for_memory(folder.path())
        };
        assert_eq!(counted("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(counted("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), 1);
        assert_eq!(counted("other", ""), 0);
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(limits(&[]), Limits::default());
        assert_eq!(limits(&[("memory.max", "max"), ("cpu.max", "max 100000")]), Limits::default());
        let old = [
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("cpu/cpu.cfs_quota_us", "-1"),
            ("cpu/cpu.cfs_period_us", "100000"),
        ];
        assert_eq!(limits(&old), Limits::default());
    }

    #[test]
    fn the_process_knows_what_it_has_in_memory() {
        assert!(resident_bytes() > 1 << 20);
    }

    #[test]
    fn what_steps_take_beside_their_tensors_is_not_for_tensors() {
        let softmax = |axis: usize| {
            let mut graph = Graph::new();
            let of = TensorType::new(claw_graph::DType::F32, claw_graph::Shape::new([256, 1_024]).unwrap());
            let x = graph.input("x", of).unwrap();
            let y = graph.add("y", claw_graph::Op::Softmax { axis, log: false }, &[x]).unwrap();
            graph.output(y[0]);
            Plan::of(&graph)
        };
        assert_eq!(for_processors(10 << 20, &softmax(1)), 10 << 20, "rows are worked on where they are");
        assert_eq!(for_processors(10 << 20, &softmax(0)), 9 << 20, "columns are copied");
        assert_eq!(for_processors(1, &softmax(0)), 0);
    }
}
