//! How much is left of what pods share, and what each has of it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;

use super::{Containers, blocking};
use crate::{
    pressure::{Good, Level},
    runtime::cgroups,
};

impl Containers {
    pub(super) async fn measured_levels(&self) -> BTreeMap<Good, Level> {
        let root = self.root_dir.clone();
        let measure = move || {
            let all = [(Good::Memory, memory()), (Good::Disk, disk(&root)), (Good::Pids, pids())];
            Ok(all.into_iter().filter_map(|(good, level)| Some((good, level?))).collect())
        };
        blocking(measure).await.unwrap_or_default()
    }

    pub(super) async fn measured_use(&self, pod_uid: &str, good: Good) -> u64 {
        let cgroup = self.pod_cgroup(pod_uid);
        let folder = self.pod_folder(pod_uid);
        let measure = move || {
            Ok(match good {
                Good::Memory => cgroups::memory_in_use(&cgroup),
                Good::Pids => cgroups::processes_in_use(&cgroup),
                Good::Disk => written_below(&folder?),
            })
        };
        blocking(measure).await.unwrap_or(0)
    }
}

fn memory() -> Option<Level> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    };
    Some(Level { available: bytes("MemAvailable:")?, capacity: bytes("MemTotal:")? })
}

fn disk(folder: &Path) -> Option<Level> {
    let found = statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Some(Level { available: bytes(found.blocks_available()), capacity: bytes(found.blocks()) })
}

/// Threads have numbers, too.
fn pids() -> Option<Level> {
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let capacity = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let threads: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Level { available: capacity.saturating_sub(threads), capacity })
}

/// What a pod has written on the disk of its folder: the top layers of its containers, logs, volumes. What is mounted there
/// from elsewhere is not its own.
fn written_below(folder: &Path) -> u64 {
    let Ok(device) = fs::symlink_metadata(folder).map(|found| found.dev()) else { return 0 };
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
            if found.dev() != device {
                continue;
            }
            // Blocks are of 512 bytes whatever the file system's are.
            bytes += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_good_of_this_machine_is_measured() {
        for level in [memory(), disk(Path::new("/")), pids()] {
            let level = level.unwrap();
            assert!(level.available <= level.capacity && level.capacity > 0, "{level:?}");
        }
    }

    #[test]
    fn what_is_written_counts_by_its_blocks_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let before = written_below(folder.path());
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        let written = written_below(folder.path()) - before;
        assert!((1 << 20..2 << 20).contains(&written), "{written}");
    }
}
