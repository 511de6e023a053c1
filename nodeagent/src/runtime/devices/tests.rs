//! Against the kernel of this machine, with groups of our own and a program in them. Ordinary devices stand in for GPUs.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use serde_json::json;

use super::*;

/// A folder of a hierarchy that goes when the test is over.
struct Group(PathBuf);

impl Group {
    fn new(parent: &Path, name: &str) -> io::Result<Self> {
        let path = parent.join(format!("claw-devices-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn child(&self) -> Self {
        Self::new(&self.0, "child").unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A shell in a group, which says of each line whether it works.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: io::BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn within(group: &Group) -> Self {
        let mut shell = Command::new("sh");
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = shell.spawn().unwrap();
        fs::write(group.0.join("cgroup.procs"), child.id().to_string()).unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: io::BufReader::new(output) }
    }

    fn can(&mut self, command: &str) -> bool {
        writeln!(self.input, "if ({command}); then echo yes; else echo no; fi").unwrap();
        let mut answer = String::new();
        io::BufRead::read_line(&mut self.output, &mut answer).unwrap();
        match answer.trim() {
            "yes" => true,
            "no" => false,
            other => panic!("{other:?} to {command}"),
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root_of(kind: &str, option: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut parts = line.split(' ').skip(1);
        let (path, found, options) = (parts.next()?, parts.next()?, parts.next()?);
        let has = option.is_empty() || options.split(',').any(|one| one == option);
        (found == kind && has).then(|| PathBuf::from(path))
    })
}

fn skipped(story: &str, lacks: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {story}: lacks {lacks}");
}

/// Read by root on every machine, and by no container: stands in for a GPU.
const DEVICE: &str = ": < /dev/kmsg";
const WRITTEN: &str = ": > /dev/kmsg";
const NULL: &str = ": > /dev/null";

/// Closed, with the right to read the device or without.
fn closed(with_device: bool) -> Rules {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    if with_device {
        rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}));
    }
    Rules::of(&serde_json::from_value::<Vec<_>>(json!(rules)).unwrap())
}

#[test]
fn a_program_keeps_a_group_of_version_2_from_devices_that_are_not_its_own() {
    let story = "a_program_keeps_a_group_of_version_2_from_devices_that_are_not_its_own";
    let Some(group) = root_of("cgroup2", "").and_then(|root| Group::new(&root, "v2").ok()) else {
        return skipped(story, "root, and version 2 of control groups");
    };
    if bpf::load(&program::program(&Rules::default())).is_err() {
        return skipped(story, "a kernel that takes programs for control groups");
    }
    let mut shell = Shell::within(&group);
    assert!(shell.can(DEVICE), "nobody forbids it yet");
    let is_attached = || bpf::is_attached(&File::open(&group.0).unwrap()).unwrap();
    assert!(!is_attached());

    attach(&group.0, &closed(true)).unwrap();
    assert!(is_attached());
    assert!(shell.can(DEVICE) && shell.can(NULL));
    assert!(!shell.can(WRITTEN), "what it may do is what it was given");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy");
    let make = |number: &str| format!("rm -f {0}; mknod {0} c 1 {number} 2>&1", file.display());
    assert!(shell.can(&make("3")) && shell.can(&format!(": > {}", file.display())));
    assert!(shell.can(&make("4")), "a file may be made");
    assert!(!shell.can(&format!(": < {}", file.display())), "and does not open anything");

    attach(&group.0, &closed(false)).unwrap();
    assert!(!shell.can(DEVICE) && shell.can(NULL), "all programs of a group must agree");
    drop(shell);
}

#[test]
fn a_group_of_version_2_that_lost_its_program_gets_it_again() {
    let story = "a_group_of_version_2_that_lost_its_program_gets_it_again";
    let Some(group) = root_of("cgroup2", "").and_then(|root| Group::new(&root, "lost").ok()) else {
        return skipped(story, "root, and version 2 of control groups");
    };
    if bpf::load(&program::program(&Rules::default())).is_err() {
        return skipped(story, "a kernel that takes programs for control groups");
    }
    let mut shell = Shell::within(&group);
    assert_eq!(mend_program(&group.0, &closed(false)).unwrap().len(), 1, "it has none");
    assert!(!shell.can(DEVICE) && shell.can(NULL));
    assert_eq!(mend_program(&group.0, &closed(false)).unwrap(), [""; 0]);
    drop(shell);
}

#[test]
fn a_group_of_version_1_whose_list_somebody_wrote_over_gets_its_devices_again() {
    let story = "a_group_of_version_1_whose_list_somebody_wrote_over_gets_its_devices_again";
    let Some((top, above)) =
        root_of("cgroup", "devices").and_then(|root| Some((root.clone(), Group::new(&root, "v1").ok()?)))
    else {
        return skipped(story, "root, and version 1 of control groups");
    };
    let group = above.child();
    let rules = closed(true);
    fs::write(group.0.join("devices.deny"), "a").unwrap();
    let mut shell = Shell::within(&group);
    assert!(!shell.can(DEVICE) && !shell.can(NULL));
    assert_eq!(mend_list(&group.0, &top, &rules).unwrap().len(), rules.exceptions.len());
    assert!(shell.can(DEVICE) && shell.can(NULL) && !shell.can(WRITTEN));
    assert_eq!(mend_list(&group.0, &top, &rules).unwrap(), [""; 0], "nothing is missing any more");

    fs::write(group.0.join("devices.deny"), "c 1:11 r").unwrap();
    assert!(!shell.can(DEVICE));
    assert_eq!(mend_list(&group.0, &top, &rules).unwrap(), ["c 1:11 r"]);
    assert!(shell.can(DEVICE));

    // What is taken from the group above is taken from all below.
    fs::write(above.0.join("devices.deny"), "c 1:11 rwm").unwrap();
    assert!(!shell.can(DEVICE));
    assert_eq!(mend_list(&group.0, &top, &rules).unwrap(), ["c 1:11 r"], "but not the right to make all");
    assert!(shell.can(DEVICE) && shell.can(NULL));
    let why = mend_list(&group.0, &top, &rules).unwrap_err();
    assert!(why.to_string().contains("c *:* m"), "{why}");
    drop(shell);
}
