//! Processes: what `ps` shows, and the first one of a namespace that several containers share.
#![expect(unsafe_code, reason = "the standard library cannot ignore a signal")]

use std::{ffi::c_int, fs, time::Duration};

use super::say;

const SIGCHLD: c_int = 17;

unsafe extern "C" {
    fn sigignore(number: c_int) -> c_int;
}

/// One line a process: its number, its state, its command line.
pub(super) fn list() -> Result<u8, String> {
    let entries = fs::read_dir("/proc").map_err(|error| format!("ps: {error}"))?;
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    numbers.sort_unstable();
    // Some end while they are looked at.
    numbers.into_iter().filter_map(line).for_each(|line| say(&line));
    Ok(0)
}

fn line(number: u32) -> Option<String> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{number}/{file}")).ok();
    let (name, state) = name_and_state(&read("stat")?)?;
    let words = read("cmdline").unwrap_or_default().replace('\0', " ");
    let words = if words.is_empty() { format!("[{name}]") } else { words };
    Some(format!("{number} {state} {}", words.trim_end()))
}

/// `NUMBER (NAME) STATE ...`, where a name may hold anything.
fn name_and_state(stat: &str) -> Option<(String, char)> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    Some((name, after.trim_start().chars().next()?))
}

/// Whose exit nobody wants to know is reaped by the kernel.
pub(super) fn pause() -> Result<u8, String> {
    // SAFETY: ignoring is a disposition like any other.
    unsafe { sigignore(SIGCHLD) };
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_read_whole() {
        assert_eq!(name_and_state("7 (a) b (c) S 1 7"), Some(("a) b (c".to_owned(), 'S')));
        assert_eq!(name_and_state("nonsense"), None);
    }

    #[test]
    fn a_process_finds_itself() {
        let own = line(std::process::id()).unwrap();
        assert!(own.starts_with(&std::process::id().to_string()), "{own}");
    }
}
