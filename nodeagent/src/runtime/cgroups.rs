//! Control groups of pods and containers, in both versions: finding them, reading what they say,
//! ending what is in them.
//!
//! With version 1 (and hybrids of both) every controller has a hierarchy of its own under
//! `/sys/fs/cgroup`, and a container has a folder in each. With version 2 there is one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
    },
    unistd::{AccessFlags, Pid, access},
};

use crate::{Error, rootless};

/// Where control groups are, for this machine's programs and for those in containers.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The controllers of version 1 in whose hierarchies a container has a folder.
const CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// How long killed processes may take to leave their cgroup.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// Which version this machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy.
    V2,
}

/// Finds out the version.
pub fn version() -> Version {
    match statfs(ROOT) {
        Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => Version::V2,
        _ => Version::V1,
    }
}

/// Whether swap can be limited (version 1 kernels may be built or booted without).
pub fn limits_swap() -> bool {
    match version() {
        Version::V1 => Path::new(ROOT).join("memory/memory.memsw.limit_in_bytes").exists(),
        Version::V2 => true,
    }
}

/// Whether groups can be made here and processes be moved to them: an ordinary user must have been given a part of the tree, and this
/// process be in it.
pub fn can_change() -> bool {
    !rootless::is_inside() || (access(ROOT, AccessFlags::W_OK).is_ok() && is_below_root())
}

fn is_below_root() -> bool {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    is_below(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// Whether the group of version 2 that a process is in is below the one that is shown as the root of all.
fn is_below(mounts: &str, groups: &str) -> bool {
    // What was mounted last is what is seen.
    let shown = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (point == ROOT).then_some(root)
    });
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    matches!((shown, own), (Some(shown), Some(own)) if Path::new(own).starts_with(shown))
}

/// Whether limits of this kind are enforced: `cpu`, `memory`, `pids`.
pub fn limits(controller: &str) -> bool {
    let is_there = || {
        let all = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
        all.split_whitespace().any(|one| one == controller)
    };
    can_change() && (version() == Version::V1 || is_there())
}

/// The folders of a cgroup that exist, one for each hierarchy.
fn folders(path: &str) -> Vec<PathBuf> {
    let relative = path.trim_start_matches('/');
    let candidates = match version() {
        Version::V2 => vec![PathBuf::from(ROOT).join(relative)],
        Version::V1 => hierarchies().into_iter().map(|root| root.join(relative)).collect(),
    };
    candidates.into_iter().filter(|folder| folder.is_dir()).collect()
}

fn hierarchies() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// With version 1: the folder that a container will have for each controller, and where its programs look for it. Hierarchies with
/// several controllers have several names (`cpu` beside `cpu,cpuacct`), and all of them are here.
pub fn views(path: &str) -> Vec<(PathBuf, PathBuf)> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let is_controllers =
        |root: &PathBuf| root.file_name().and_then(|name| name.to_str()).is_some_and(is_of_controllers);
    let roots =
        entries.flatten().map(|entry| entry.path()).filter(is_controllers).filter(|root| root.is_dir());
    roots.map(|root| (root.join(path.trim_start_matches('/')), root)).collect()
}

fn is_of_controllers(name: &str) -> bool {
    name.split(',').all(|one| CONTROLLERS.contains(&one))
}

/// One file of a cgroup, from the hierarchy of a controller.
pub fn read(path: &str, controller: &str, file: &str) -> Option<String> {
    fs::read_to_string(folder(path, controller).join(file)).ok()
}

/// The folder of a cgroup in the hierarchy of a controller, whether or not it is there.
pub fn folder(path: &str, controller: &str) -> PathBuf {
    let relative = path.trim_start_matches('/');
    let top = match version() {
        Version::V2 => PathBuf::from(ROOT),
        Version::V1 => PathBuf::from(ROOT).join(controller),
    };
    if relative.is_empty() { top } else { top.join(relative) }
}

/// How many processes of a container the kernel has killed for want of memory.
pub fn oom_kills(path: &str) -> u64 {
    let file = match version() {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    read(path, "memory", file).and_then(|text| counter(&text, "oom_kill")).unwrap_or(0)
}

/// The number behind `name` in a file of `name number` lines.
pub fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Kills every process in the cgroup and its descendants, and removes them. Nothing there is fine.
pub fn kill_and_remove(path: &str) -> Result<(), Error> {
    let deadline = Instant::now() + EMPTY_LIMIT;
    loop {
        let mut busy = false;
        for folder in folders(path) {
            kill_all(&folder);
            busy |= remove_tree(&folder).is_err();
        }
        if !busy {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let source = io::Error::other(format!("it is not empty after {EMPTY_LIMIT:?}"));
            return Err(Error::Io { doing: "removing the cgroup", path: path.into(), source });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Memory that cannot be had back without ending a process: all but what of files was not used for a while.
pub fn memory_in_use(path: &str) -> u64 {
    let (used, idle) = match version() {
        Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
        Version::V2 => ("memory.current", "inactive_file"),
    };
    let idle = read(path, "memory", "memory.stat").and_then(|text| counter(&text, idle)).unwrap_or(0);
    number(path, "memory", used).saturating_sub(idle)
}

/// Processes and threads.
pub fn processes_in_use(path: &str) -> u64 {
    number(path, "pids", "pids.current")
}

fn number(path: &str, controller: &str, file: &str) -> u64 {
    read(path, controller, file).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Kills every process in the cgroup and its descendants, once.
pub fn kill_all_in(path: &str) {
    folders(path).iter().for_each(|folder| kill_all(folder));
}

/// Removes a cgroup that has neither processes nor descendants; otherwise leaves it.
pub fn remove_if_empty(path: &str) {
    for folder in folders(path) {
        let _ = fs::remove_dir(folder);
    }
}

/// Makes the kernel ready to move processes between cgroups, so that moves soon after need not wait.
///
/// A move waits until every CPU has passed through the kernel (an RCU grace period): 5 to 25 ms on an
/// idle machine, during which a container that starts stands still. For some 15 ms after that, the
/// next moves wait for nothing. So have `process` move to where it is already, which changes nothing,
/// while what is to be moved is still being put together. If it fails, moves take as long as ever.
pub fn expect_moves(process: Pid) {
    let name = process.to_string();
    let is_in = |members: &PathBuf| {
        fs::read_to_string(members).is_ok_and(|list| list.lines().any(|member| member == name))
    };
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    if let Some(members) = groups.lines().filter_map(members_file).find(is_in) {
        let _ = fs::write(members, &name);
    }
}

/// Where the processes of a cgroup are listed. `line` is `NUMBER:CONTROLLERS:PATH`, from `/proc/PID/cgroup`.
fn members_file(line: &str) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    Some(Path::new(ROOT).join(controllers).join(path.trim_start_matches('/')).join("cgroup.procs"))
}

fn kill_all(folder: &Path) {
    for child in children(folder) {
        kill_all(&child);
    }
    let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) else { return };
    for pid in text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(counter(text, "oom_kill"), Some(3));
        assert_eq!(counter(text, "oom"), None);
    }

    #[test]
    fn the_members_of_a_cgroup_are_listed_where_its_version_puts_them() {
        let file = |line| members_file(line).unwrap().display().to_string();
        assert_eq!(file("4:cpu,cpuacct:/a/b"), "/sys/fs/cgroup/cpu,cpuacct/a/b/cgroup.procs");
        assert_eq!(file("0::/a"), "/sys/fs/cgroup/a/cgroup.procs");
        assert_eq!(members_file("nonsense"), None);
    }

    #[test]
    fn only_hierarchies_of_controllers_are_shown_to_containers() {
        assert!(is_of_controllers("memory") && is_of_controllers("cpu,cpuacct"));
        assert!(
            !is_of_controllers("systemd") && !is_of_controllers("unified") && !is_of_controllers("cpu,other")
        );
    }

    #[test]
    fn who_is_in_another_part_of_the_tree_cannot_move_anybody_here() {
        let mounts = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 none rw\n\
                       99 30 0:26 /users/a /sys/fs/cgroup rw - cgroup2 none rw\n98 20 0:5 / /dev rw - tmpfs none rw\n";
        assert!(is_below(mounts, "4:cpu:/\n0::/users/a/agent\n") && is_below(mounts, "0::/users/a\n"));
        assert!(
            !is_below(mounts, "0::/users/ab\n") && !is_below(mounts, "0::/\n") && !is_below("", "0::/\n")
        );
    }

    #[test]
    fn who_is_expected_to_move_stays_where_it_is() {
        let groups = || fs::read_to_string("/proc/self/cgroup").unwrap();
        let before = groups();
        expect_moves(Pid::this());
        assert_eq!(groups(), before);
    }

    #[test]
    fn removing_a_cgroup_that_does_not_exist_succeeds() {
        kill_and_remove("/clawbernetes-no-such-group/pod/container").unwrap();
    }
}
