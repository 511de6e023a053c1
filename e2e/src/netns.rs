//! Networks of their own: for a machine that can only dial out, as behind a home router; and for a story whose ports and rules are
//! nobody else's business.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use nix::sched::{CloneFlags, unshare};

use crate::kubectl::Outcome;

/// What comes in is dropped, but for answers.
const RULES: &str = "table inet claw_e2e {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iif lo accept
  }
}
";

/// Shows the machine's control groups and this network's interfaces under `/sys`, as a machine of its own would.
const ENTER: &str = "set -e; groups=$(mktemp -d); mount --rbind /sys/fs/cgroup $groups; mount -t sysfs sysfs /sys; \
    mount --rbind $groups /sys/fs/cgroup; umount -l $groups; rmdir $groups; exec \"$@\"";

/// The address of such a network. A range for documentation: RFC 5737.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// That address, and a way out that leads nowhere.
const ALONE: &str = "set -e; ip link set lo up; ip link add uplink type veth peer name nowhere; \
    ip address add 198.51.100.2/24 dev uplink; ip link set uplink up; ip link set nowhere up; \
    ip route add default via 198.51.100.1";

/// Gives the calling thread, and whatever it starts from now on, a network and mounts of its own, until the last of them ends. So
/// several stories may have the same ports and rules at a time.
///
/// # Panics
/// When the machine cannot.
pub fn move_out() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may have a network of its own");
    run("mount --make-rprivate /", "");
    for script in [ENTER.replace("exec \"$@\"", ""), ALONE.to_owned()] {
        let outcome = Outcome::of(Command::new("sh").args(["-c", &script]), "");
        outcome.success().unwrap_or_else(|text| panic!("{text}"));
    }
}

/// A network namespace, joined with the host by a pair of interfaces. Dropped, it is removed.
#[derive(Debug)]
pub struct DialOut {
    name: String,
    /// The host's end.
    interface: String,
    /// Address of the host, as seen from inside.
    pub host: String,
}

impl DialOut {
    /// Makes one.
    ///
    /// # Panics
    /// When the machine cannot.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("claw-e2e-{process}-{number}");
        let interface = format!("ce{process}n{number}");
        // A range for documentation and tests: RFC 2544.
        let net = format!("198.19.{}.{}", process % 256, u32::from(number) * 4 % 256);
        let (base, last) = net.rsplit_once('.').expect("an address has dots");
        let last: u32 = last.parse().expect("a number was written");
        let (host, inside) = (format!("{base}.{}", last + 1), format!("{base}.{}", last + 2));
        let made = Self { name, interface, host };
        let Self { name, interface, host } = &made;
        for line in [
            format!("ip netns add {name}"),
            format!("ip link add {interface} type veth peer name uplink netns {name}"),
            format!("ip address add {host}/30 dev {interface}"),
            format!("ip link set {interface} up"),
            format!("ip -n {name} address add {inside}/30 dev uplink"),
            format!("ip -n {name} link set uplink up"),
            format!("ip -n {name} link set lo up"),
            format!("ip -n {name} route add default via {host}"),
        ] {
            run(&line, "");
        }
        run(&format!("nsenter --net={} nft -f -", made.path().display()), RULES);
        made
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// What to put before a command so that it runs inside.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        let network = format!("--net={}", self.path().display());
        ["nsenter", &network, "unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Default for DialOut {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DialOut {
    fn drop(&mut self) {
        for line in [format!("ip link delete {}", self.interface), format!("ip netns delete {}", self.name)] {
            let _ = Outcome::of(&mut command(&line), "");
        }
    }
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

fn run(line: &str, input: &str) {
    Outcome::of(&mut command(line), input).success().unwrap_or_else(|text| panic!("{text}"));
}
