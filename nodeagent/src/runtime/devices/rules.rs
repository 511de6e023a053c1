//! What a container may do with which devices, as version 1 of control groups counts it: all or nothing, and exceptions.
//! Pure.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

/// Making a device file, reading and writing, as bits of the kernel's.
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

/// What every container may do besides: make device files, which opens nothing, and use those that each has. The same as
/// libcontainer writes with version 1.
const ALWAYS: [(Kind, Option<u32>, Option<u32>, u32); 12] = [
    (Kind::Character, None, None, MAKE),
    (Kind::Block, None, None, MAKE),
    (Kind::Character, Some(1), Some(3), MAKE | READ | WRITE),
    (Kind::Character, Some(1), Some(5), MAKE | READ | WRITE),
    (Kind::Character, Some(1), Some(7), MAKE | READ | WRITE),
    (Kind::Character, Some(1), Some(8), MAKE | READ | WRITE),
    (Kind::Character, Some(1), Some(9), MAKE | READ | WRITE),
    (Kind::Character, Some(5), Some(0), MAKE | READ | WRITE),
    (Kind::Character, Some(5), Some(1), MAKE | READ | WRITE),
    (Kind::Character, Some(5), Some(2), MAKE | READ | WRITE),
    (Kind::Character, Some(10), Some(200), MAKE | READ | WRITE),
    (Kind::Character, Some(136), None, MAKE | READ | WRITE),
];

/// Devices are of two kinds, numbered apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Character,
}

/// Some devices: of a kind, with a number, or with any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Devices {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

/// The rules of one container, put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// What is not an exception may be used.
    pub is_open: bool,
    /// What of these devices is otherwise, in bits.
    pub exceptions: BTreeMap<Devices, u32>,
}

impl Rules {
    /// Those that a container's configuration says, in its order, and what every container may.
    pub fn of(configured: &[LinuxDeviceCgroup]) -> Self {
        let mut rules = Self::default();
        for rule in configured {
            rules.add(rule);
        }
        for (kind, major, minor, access) in ALWAYS {
            rules.count(Devices { kind, major, minor }, access, true);
        }
        rules
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup) {
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => {
                *self = Self { is_open: rule.allow(), ..Self::default() };
                return;
            }
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
            // A pipe is no device.
            LinuxDeviceType::P => return,
        };
        // A negative number is how some write "any".
        let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
        let devices = Devices { kind, major: number(rule.major()), minor: number(rule.minor()) };
        self.count(devices, access(rule.access().as_deref().unwrap_or_default()), rule.allow());
    }

    fn count(&mut self, devices: Devices, access: u32, is_allowed: bool) {
        let known = self.exceptions.entry(devices).or_default();
        if is_allowed == self.is_open {
            *known &= !access;
        } else {
            *known |= access;
        }
        self.exceptions.retain(|_, access| *access != 0);
    }

    /// What of these is not there, in the kernel's list of what there is.
    pub fn missing_from(&self, list: &str) -> Vec<String> {
        let there: Vec<(Option<Kind>, Devices, u32)> = list.lines().filter_map(parsed).collect();
        let is_there = |(devices, access): &(&Devices, &u32)| {
            there.iter().any(|(kind, known, held)| {
                kind.is_none_or(|kind| kind == devices.kind)
                    && known.major.is_none_or(|major| Some(major) == devices.major)
                    && known.minor.is_none_or(|minor| Some(minor) == devices.minor)
                    && *access & !held == 0
            })
        };
        // One that is open to all has nothing that could be missing.
        let missing = self.exceptions.iter().filter(|one| !self.is_open && !is_there(one));
        missing.map(|(devices, access)| line(devices, *access)).collect()
    }
}

/// As the kernel writes and reads it: `c 195:* rwm`.
fn line(devices: &Devices, access: u32) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let kind = if devices.kind == Kind::Block { 'b' } else { 'c' };
    let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
    let access: String =
        letters.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect();
    format!("{kind} {}:{} {access}", number(devices.major), number(devices.minor))
}

/// The other way; without a kind where it is any.
fn parsed(line: &str) -> Option<(Option<Kind>, Devices, u32)> {
    let mut parts = line.split_whitespace();
    let kind = match parts.next()? {
        "a" => None,
        "b" => Some(Kind::Block),
        "c" => Some(Kind::Character),
        _ => return None,
    };
    let (major, minor) = parts.next()?.split_once(':')?;
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    let devices =
        Devices { kind: kind.unwrap_or(Kind::Character), major: number(major)?, minor: number(minor)? };
    Some((kind, devices, access(parts.next()?)))
}

fn access(letters: &str) -> u32 {
    [('m', MAKE), ('r', READ), ('w', WRITE)]
        .iter()
        .filter(|(letter, _)| letters.contains(*letter))
        .fold(0, |all, (_, bit)| all | bit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(configured: &serde_json::Value) -> Rules {
        Rules::of(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(configured.clone()).unwrap())
    }

    fn lines(rules: &Rules) -> Vec<String> {
        rules.exceptions.iter().map(|(devices, access)| line(devices, *access)).collect()
    }

    #[test]
    fn rules_count_in_order_and_all_takes_back_what_was_said_before() {
        let closed = json!([
            {"allow": true, "type": "c", "major": 9, "minor": 9, "access": "rwm"},
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "r"},
            {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "wm"},
            {"allow": true, "type": "b", "major": 8, "access": "rw"},
            {"allow": false, "type": "b", "major": 8, "access": "w"},
        ]);
        let rules = rules(&closed);
        assert!(!rules.is_open);
        let lines = lines(&rules);
        assert!(
            lines.contains(&"c 195:0 rwm".to_owned()) && lines.contains(&"b 8:* r".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"c 1:3 rwm".to_owned()) && lines.contains(&"b *:* m".to_owned()),
            "{lines:?}"
        );
        assert!(!lines.iter().any(|line| line.starts_with("c 9:9")), "{lines:?}");
    }

    #[test]
    fn who_may_do_everything_needs_no_exceptions() {
        let open = rules(&json!([{"allow": true, "access": "rwm"}]));
        assert_eq!(open, Rules { is_open: true, exceptions: BTreeMap::new() });
        assert_eq!(open.missing_from(""), [""; 0]);
    }

    #[test]
    fn what_is_missing_from_the_kernels_list_is_what_no_line_covers() {
        let gpu = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"},
        ]);
        let rules = rules(&gpu);
        assert_eq!(rules.missing_from("a *:* rwm\n"), [""; 0]);
        let all = lines(&rules).join("\n");
        assert_eq!(rules.missing_from(&all), [""; 0]);
        assert_eq!(rules.missing_from(&all.replace("c 195:0 rw", "c 195:0 r")), ["c 195:0 rw"]);
        assert_eq!(rules.missing_from(&all.replace("c 195:0 rw", "c 195:* rwm")), [""; 0]);
        assert_eq!(rules.missing_from(&all.replace("c 195:0 rw", "b 195:0 rw")), ["c 195:0 rw"]);
        assert_eq!(rules.missing_from("").len(), rules.exceptions.len());
    }
}
