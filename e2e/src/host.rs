//! What a cluster leaves on its machine: processes, mounts. Stories compare it with nothing.

use std::{fs, path::Path};

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
            let is_contained = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() != own_mounts
                && fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                    .is_ok_and(|mounts| mounts.contains(&needle));
            (is_contained || line.contains(&needle)).then_some((pid, line))
        })
        .collect()
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
