//! What a cluster leaves on its machine: processes, mounts. Stories compare it with nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Processes that belong to `folder`: their command line names it, or they live in a mount namespace of their own
/// whose root came from there, as containers do. With their command lines.
#[must_use]
pub fn processes(folder: &Path) -> Vec<(i32, String)> {
    let needle = folder.to_string_lossy().into_owned();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let own_mounts = fs::read_link("/proc/self/ns/mnt").ok();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let has_own = fs::read_link(format!("/proc/{pid}/ns/mnt"))
                .is_ok_and(|mounts| Some(&mounts) != own_mounts.as_ref());
            let is_contained = has_own
                && fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                    .is_ok_and(|mounts| mounts.lines().any(|line| shows_elsewhere(line, &needle)));
            (is_contained || line.contains(&needle)).then_some((pid, line))
        })
        .collect()
}

/// Whether a mount shows something of a folder at another place, as in containers. Services of the machine with mounts of their own
/// see the folder's mounts where everybody does, and are nobody's to end.
fn shows_elsewhere(line: &str, needle: &str) -> bool {
    line.contains(needle) && line.split(' ').nth(4).is_some_and(|point| !point.contains(needle))
}

/// Regular files below a folder that has this name, wherever that is below `folder`.
#[must_use]
pub fn files_in(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        // What goes while it is looked at was not meant.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(path),
                Ok(kind) if kind.is_file() && path.iter().any(|part| part == name) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Mount points under `folder`.
#[must_use]
pub fn mounts(folder: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect()
}

/// Whether nothing is left of a cluster in `folder`.
///
/// # Errors
/// What is left.
pub fn is_clean(folder: &Path) -> Result<(), String> {
    let mut left = mounts(folder);
    left.extend(processes(folder).into_iter().map(|(pid, line)| format!("{pid} {line}")));
    if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
}

/// Ends what a failed story left, so that one failure does not spoil the next story.
pub fn sweep(folder: &Path) {
    for (pid, line) in processes(folder) {
        eprintln!("left behind, killed: {pid} {line}");
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for point in mounts(folder).iter().rev() {
        eprintln!("left behind, unmounted: {point}");
        let _ = umount2(point.as_str(), MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_sees_mounts_of_a_folder_is_none_of_its_processes() {
        let pinned = "99 20 0:4 net:[4026532] /tmp/c/pods/u/ns/net rw shared:9 - nsfs nsfs rw";
        let inside = "98 90 254:0 /tmp/c/pods/u/etc/hosts /etc/hosts rw - ext4 /dev/vda rw";
        let root = "97 90 0:40 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/tmp/c/pods/u/upper";
        assert!(!shows_elsewhere(pinned, "/tmp/c"));
        assert!(shows_elsewhere(inside, "/tmp/c") && shows_elsewhere(root, "/tmp/c"));
        assert!(!shows_elsewhere(root, "/tmp/d"));
    }
}
