//! What the system knows of this process, by the names that all Prometheus clients use.

use std::fs;

use super::Text;

/// Clock ticks a second in `/proc`: part of what Linux promises to programs.
const TICKS_A_SECOND: f64 = 100.0;

/// Where the fields begin that follow the program's name in `/proc/self/stat`: the third is the first of them.
const FIRST_FIELD: usize = 3;

/// Writes what can be read; on a system without `/proc` that is nothing.
pub fn write(text: &mut Text) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        let help = "User and system CPU time spent in seconds.";
        text.counter("process_cpu_seconds_total", help, stat.cpu_s);
        if let Some(boot_s) = boot_time_s() {
            let help = "Start time of the process since unix epoch in seconds.";
            text.gauge("process_start_time_seconds", help, boot_s + stat.started_s);
        }
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (field, name, help) in [
            ("VmRSS:", "process_resident_memory_bytes", "Resident memory size in bytes."),
            ("VmSize:", "process_virtual_memory_bytes", "Virtual memory size in bytes."),
        ] {
            if let Some(kib) = number_after(&status, field) {
                text.gauge(name, help, kib * 1024.0);
            }
        }
        if let Some(threads) = number_after(&status, "Threads:") {
            text.gauge("process_threads", "Number of threads.", threads);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        text.gauge("process_open_fds", "Number of open file descriptors.", open.count());
    }
    let limits = fs::read_to_string("/proc/self/limits").ok();
    if let Some(most) = limits.and_then(|limits| number_after(&limits, "Max open files")) {
        text.gauge("process_max_fds", "Maximum number of open file descriptors.", most);
    }
}

struct Stat {
    cpu_s: f64,
    started_s: f64,
}

impl Stat {
    /// The program's name may hold anything, so fields count from its end.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds =
            |number: usize| Some(fields.get(number - FIRST_FIELD)?.parse::<f64>().ok()? / TICKS_A_SECOND);
        Some(Self { cpu_s: seconds(14)? + seconds(15)?, started_s: seconds(22)? })
    }
}

fn boot_time_s() -> Option<f64> {
    number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

/// The number that follows a word at the beginning of a line.
fn number_after(text: &str, word: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_odd_name_does_not_confuse_its_figures() {
        let rest = (3..=30).map(|number| (number * 100).to_string()).collect::<Vec<_>>().join(" ");
        let stat = Stat::parse(&format!("1 (a) b (c) {rest}")).unwrap();
        assert!((stat.cpu_s - 29.0).abs() < 1e-9 && (stat.started_s - 22.0).abs() < 1e-9);
    }
}
