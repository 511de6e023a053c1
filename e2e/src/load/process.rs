//! What `/proc` says of a process.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// CPU time that a process has used, in user and kernel mode.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: Pid) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; the fields follow its end.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).zip(ticks(12)).map(|(user, kernel)| user + kernel).context("CPU times")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Memory that a process has resident, in MiB: now, and at most so far.
///
/// # Errors
/// When there is no such process.
pub fn resident_mib(pid: Pid) -> anyhow::Result<(f64, f64)> {
    Ok((mib(pid, "status", "VmRSS:")?, mib(pid, "status", "VmHWM:")?))
}

/// Of what it has resident, what is its own (`RssAnon`) and what are pages of files (`RssFile`), in MiB.
///
/// # Errors
/// When there is no such process.
pub fn own_and_files_mib(pid: Pid) -> anyhow::Result<(f64, f64)> {
    Ok((mib(pid, "status", "RssAnon:")?, mib(pid, "status", "RssFile:")?))
}

/// What it has resident, each page that several processes have shared out among them (`Pss`), in MiB.
///
/// # Errors
/// When there is no such process.
pub fn share_mib(pid: Pid) -> anyhow::Result<f64> {
    mib(pid, "smaps_rollup", "Pss:")
}

fn mib(pid: Pid, file: &str, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{name} of {pid}"))? / 1024.0)
}

/// The processes whose command line names something below a folder.
#[must_use]
pub fn of_folder(folder: &Path) -> Vec<Pid> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let below = format!("{}/", folder.display());
    let is_of_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&below)
    };
    pids.filter(is_of_it).map(Pid::from_raw).collect()
}
