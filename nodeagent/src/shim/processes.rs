//! Ends a program with all that it has started, as `/proc` shows it.

use std::fs;

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};

/// How often it is looked for more of them. Who is killed starts nobody new, so there are few rounds.
const ROUNDS_MAX: usize = 32;

/// A process that is not over.
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
}

/// Kills a child of ours and everything it has started, in whatever session.
pub(super) fn kill_tree(root: Pid) {
    // It starts nobody new any more, and whom it has started keeps it as parent.
    let _ = kill(root, Signal::SIGSTOP);
    for _ in 0..ROUNDS_MAX {
        let found = descendants(root.as_raw(), &all());
        if found.is_empty() {
            break;
        }
        end(found);
    }
    let _ = kill(root, Signal::SIGKILL);
    let _ = waitpid(root, None);
    kill_session(root);
}

/// Kills what is left of a session: those whose parents have left them.
pub(super) fn kill_session(leader: Pid) {
    end(all().iter().filter(|one| one.session == leader.as_raw()).map(|one| one.pid));
}

fn end(pids: impl IntoIterator<Item = i32>) {
    for pid in pids {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn descendants(root: i32, all: &[Process]) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(all.iter().filter(|one| one.parent == parent).map(|one| one.pid));
        at += 1;
    }
    found.split_off(1)
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// State, parent, group and session come after the name, which is in brackets and may hold anything.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_over = matches!(fields.next()?, "Z" | "X");
    let (parent, session) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    (!is_over).then_some(Process { pid, parent, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_over_any_number_of_generations() {
        let process = |pid, parent| Process { pid, parent, session: 1 };
        let all = [process(2, 1), process(5, 4), process(4, 2), process(3, 1), process(6, 3)];
        assert_eq!(descendants(2, &all), [4, 5]);
        assert_eq!(descendants(1, &all), [2, 3, 4, 6, 5]);
        assert!(descendants(9, &all).is_empty());
    }

    #[test]
    fn a_name_may_hold_anything_and_who_is_over_does_not_count() {
        let one = parse(7, "7 (a) Z 9 (b)) S 3 4 5 0 -1").unwrap();
        assert_eq!((one.pid, one.parent, one.session), (7, 3, 5));
        assert!(parse(7, "7 (a) Z 3 4 5 0").is_none());
        assert!(all().iter().any(|one| one.pid == Pid::this().as_raw()));
    }
}
