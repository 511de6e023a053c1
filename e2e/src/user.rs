//! An ordinary user of this machine, who is made up for one story. Nothing of the machine is changed: what is run as that user
//! sees accounts and subordinate ids of its own under `/etc`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::binary::clawbernetes;

/// Its number, which nobody should have. Its subordinate ids begin somewhere else.
pub const UID: u32 = 61_357;
/// The first of its subordinate ids, which is 1 to itself.
pub const FIRST_SUBORDINATE: u32 = 1_878_982_656;
const SUBORDINATES: u32 = 65_536;

/// The user.
#[derive(Clone, Debug)]
pub struct User {
    prefix: Vec<String>,
}

impl User {
    /// A user whose home is `scratch`, which is given to it.
    ///
    /// # Panics
    /// When this process is not root.
    #[must_use]
    pub fn new(scratch: &Path) -> Self {
        Self::with(scratch, &ids(), "")
    }

    /// One whose processes start in a control group (version 2), which it may change.
    ///
    /// # Panics
    /// As [`User::new`].
    #[must_use]
    pub fn in_group(scratch: &Path, group: &Path) -> Self {
        for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
            chown(group.join(file), Some(UID), Some(UID)).expect("root may");
        }
        Self::with(scratch, &ids(), &format!("echo $$ >{}/cgroup.procs && ", group.display()))
    }

    /// One who may open `/dev/net/tun`, as users may on most machines.
    ///
    /// # Panics
    /// As [`User::new`].
    #[must_use]
    pub fn with_tun(scratch: &Path) -> Self {
        let file = scratch.join("tun");
        // Of "misc", the 200th. Source: linux/Documentation/admin-guide/devices.txt.
        let make = format!(
            "case $(stat -c %a /dev/net/tun) in *[67]) ;; *) mknod -m 666 {0} c 10 200 && mount --bind {0} /dev/net/tun ;; esac\n",
            file.display()
        );
        Self::with(scratch, &ids(), &make)
    }

    /// One without subordinate ids.
    ///
    /// # Panics
    /// As [`User::new`].
    #[must_use]
    pub fn alone(scratch: &Path) -> Self {
        Self::with(scratch, "", "")
    }

    fn with(scratch: &Path, ids: &str, before: &str) -> Self {
        chown(scratch, Some(UID), Some(UID)).expect("root may");
        let etc = scratch.join("etc");
        fs::create_dir_all(&etc).expect("the scratch folder is writable");
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let home = scratch.display();
        let accounts = format!("{accounts}claw-story:x:{UID}:{UID}::{home}:/bin/sh\n");
        let mut script = format!("shift\n{before}");
        for (name, text) in [("passwd", &*accounts), ("subuid", ids), ("subgid", ids)] {
            let file = etc.join(name);
            fs::write(&file, text).expect("the scratch folder is writable");
            script += &format!(
                "[ -e /etc/{name} ] || touch /etc/{name}; mount --bind {} /etc/{name} && ",
                file.display()
            );
        }
        // The program that is tested may be where only root gets to.
        let program = program(scratch);
        script += &format!(
            "exec setpriv --reuid {UID} --regid {UID} --clear-groups -- env -i PATH=\"$PATH\" HOME={home} {} \"$@\"",
            program.display()
        );
        let prefix = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", &script, "sh"];
        Self { prefix: prefix.map(str::to_owned).to_vec() }
    }

    /// What to write before a command line of ours to have this user run it.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        self.prefix.clone()
    }

    /// Our command line, run by this user.
    #[must_use]
    pub fn cli(&self) -> Command {
        let mut command = Command::new(&self.prefix[0]);
        command.args(&self.prefix[1..]).arg(clawbernetes());
        command
    }
}

fn ids() -> String {
    format!("claw-story:{FIRST_SUBORDINATE}:{SUBORDINATES}\n")
}

fn program(scratch: &Path) -> PathBuf {
    let copy = scratch.join("clawbernetes");
    if !copy.exists() {
        let linked = fs::hard_link(clawbernetes(), &copy);
        linked.or_else(|_| fs::copy(clawbernetes(), &copy).map(drop)).expect("the program can be copied");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("root may");
    }
    copy
}
