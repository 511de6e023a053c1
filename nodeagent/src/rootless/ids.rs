//! Which users and groups there are in a namespace, and giving it those that a user may give.

use std::{fs, path::Path, process::Command};

use nix::unistd::{Pid, User, getgid, getuid};

use crate::Error;

/// Ids of users or of groups that are there: all others cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids(Vec<Range>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

impl Ids {
    /// The users of this process's namespace.
    #[must_use]
    pub fn of_users() -> Self {
        Self::read("/proc/self/uid_map")
    }

    /// The groups.
    #[must_use]
    pub fn of_groups() -> Self {
        Self::read("/proc/self/gid_map")
    }

    fn read(file: &str) -> Self {
        Self::parse(&fs::read_to_string(file).unwrap_or_default())
    }

    /// From lines of `FIRST-HERE FIRST-OUTSIDE COUNT`.
    fn parse(map: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
            Some(Range { first, count })
        };
        Self(map.lines().filter_map(range).collect())
    }

    /// Whether these are all that the kernel knows: nobody has taken some away.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Range { first: 0, count: u32::MAX })
    }

    /// Whether there is but one.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.0.iter().map(|range| u64::from(range.count)).sum::<u64>() == 1
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(&self, id: u32) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|range| id.checked_sub(range.first).is_some_and(|at| at < range.count))
    }
}

/// Gives the namespace of a process that just made it this user as root, and behind that the user's subordinate ids, if there
/// are such.
pub(super) fn give(holder: Pid) -> Result<(), Error> {
    let name = User::from_uid(getuid()).ok().flatten().map(|user| user.name);
    let subordinate = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        subordinate(&text, name.as_deref(), getuid().as_raw())
    };
    let (users, groups) = (subordinate("/etc/subuid"), subordinate("/etc/subgid"));
    if users.is_empty() || groups.is_empty() {
        return give_one(holder);
    }
    map("newuidmap", holder, getuid().as_raw(), &users)?;
    map("newgidmap", holder, getgid().as_raw(), &groups)
}

/// The ranges of a user in a file of `NAME-OR-ID:FIRST:COUNT`.
fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let one = |line: &str| {
        let mut parts = line.trim().split(':');
        let who = parts.next()?;
        let is_ours = Some(who) == name || who.parse() == Ok(uid);
        let range = Range { first: parts.next()?.parse().ok()?, count: parts.next()?.parse().ok()? };
        (is_ours && range.count > 0).then_some(range)
    };
    text.lines().filter_map(one).collect()
}

/// Only a program that belongs to root may give more than one's own, and it looks the ranges up itself.
fn map(program: &str, holder: Pid, own: u32, ranges: &[Range]) -> Result<(), Error> {
    let output = Command::new(program).arg(holder.to_string()).args(arguments(own, ranges)).output();
    let output = output.map_err(|error| {
        Error::Unsupported(format!("running {program}, which gives subordinate ids: {error}; install uidmap"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Unsupported(format!("{program} refused: {}", said.trim())))
}

/// Triples of the first id inside, the first outside, and how many.
fn arguments(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut next = 1_u32;
    let mut all = vec![[0, own, 1]];
    for range in ranges {
        all.push([next, range.first, range.count]);
        next = next.saturating_add(range.count);
    }
    all.concat().iter().map(ToString::to_string).collect()
}

/// What a user may give without help: themselves.
fn give_one(holder: Pid) -> Result<(), Error> {
    let write = |file: &str, text: String| {
        let path = Path::new("/proc").join(holder.to_string()).join(file);
        fs::write(&path, text).map_err(Error::io("writing", &path))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {} 1", getuid()))?;
    write("gid_map", format!("0 {} 1", getgid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_map_and_a_machine_has_them_all() {
        let machine = Ids::parse("         0          0 4294967295\n");
        assert!(machine.is_all() && machine.has(0) && machine.has(4_000_000_000));
        let user = Ids::parse("0 1000 1\n1 100000 65536\n");
        assert!(!user.is_all() && !user.is_single());
        assert!(user.has(0) && user.has(65_536) && !user.has(65_537));
        let alone = Ids::parse("0 1000 1\n");
        assert!(alone.is_single() && alone.has(0) && !alone.has(1));
        assert!(Ids::parse("").is_all(), "a kernel without namespaces of users");
    }

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let text = "other:1:2\nworker:100000:65536\n1000:300000:10\nworker:7:0\nbroken\n";
        let found = subordinate(text, Some("worker"), 1000);
        assert_eq!(
            arguments(1000, &found).join(" "),
            "0 1000 1 1 100000 65536 65537 300000 10",
            "the user first, then one range behind the other"
        );
        assert!(subordinate(text, None, 5).is_empty());
    }
}
