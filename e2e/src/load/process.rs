//! What `/proc` says of a process.

use std::{fs, time::Duration};

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
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let (now, peak) = field("VmRSS:").zip(field("VmHWM:")).context("memory figures")?;
    Ok((now / 1024.0, peak / 1024.0))
}
