//! The pod network of one machine: a bridge, and for every pod a network namespace that hangs on it
//! by a veth pair.
//!
//! Every agent on a machine has a bridge of its own, `claw0`, `claw1`, ..., with the addresses
//! `10.88.0.0/24`, `10.88.1.0/24`, ...; the bridge's alias names its owner. A pod has its address alone and sends everything
//! to the bridge, so that the kernel of the host sees both directions of every connection: what it rewrites on the way
//! to a service ([`rules`]) it can rewrite on the way back, and servers see who really calls. What leaves the machine carries the
//! machine's address. Between machines there is no way yet: whoever makes one gives each its own numbers ([`Network::open`])
//! and routes them.

mod conntrack;
mod dns;
mod door;
mod home;
mod keeper;
mod kernel;
mod link;
pub(super) mod namespace;
mod ports;
mod rules;
mod seats;
mod way_out;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::watch,
};

use self::rules::HostPort;
use self::way_out::WayOut;
pub(in crate::runtime) use self::{home::Home, keeper::keep};
use super::records;
use crate::{Error, ids::hex, services::Protocol, sockets::Sockets};

/// Held while a bridge is chosen and made, by all agents of the machine.
const MACHINE_LOCK: &str = "/run/clawbernetes-network.lock";

/// What is routed in the calling thread's network.
const ROUTES: &str = "/proc/thread-self/net/route";

/// Which bridge is ours.
const RECORD: &str = "network.json";

/// Hosts in a /24 beside the network, the bridge and the broadcast address.
const FIRST_HOST: u8 = 2;
const LAST_HOST: u8 = 254;

/// The pod network of one agent.
pub(super) struct Network {
    root_dir: PathBuf,
    /// First two bytes of all pod addresses.
    prefix: [u8; 2],
    /// Where the bridge is.
    home: Home,
    /// Pods' way to what is outside, from a home of our own.
    way_out: WayOut,
    /// Where this process listens for pods, and did before it was started anew.
    sockets: Arc<Sockets>,
    state: Mutex<State>,
    /// Counts whatever concerns the rules of the kernel: the bridge, ports of the machine that pods have.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    bridge: Option<Bridge>,
    /// Address → pod.
    used: BTreeMap<Ipv4Addr, String>,
    /// Pod → its ports of the machine.
    host_ports: BTreeMap<String, Vec<HostPort>>,
    /// Where the search for a free address goes on, so that addresses are not reused at once.
    next: u8,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Bridge {
    number: u8,
}

impl Bridge {
    fn name(self) -> String {
        format!("claw{}", self.number)
    }

    fn address(self, prefix: [u8; 2], host: u8) -> Ipv4Addr {
        Ipv4Addr::new(prefix[0], prefix[1], self.number, host)
    }
}

impl Network {
    pub(super) fn open(root_dir: &Path, prefix: [u8; 2]) -> Result<Self, Error> {
        let bridge = records::read(&root_dir.join(RECORD))?;
        let state = State { bridge, next: FIRST_HOST, ..State::default() };
        let changes = watch::Sender::new(0);
        let home = Home::open(root_dir)?;
        let way_out = WayOut::new(root_dir);
        let sockets = Arc::new(Sockets::new(root_dir, home.name()?));
        Ok(Self {
            root_dir: root_dir.to_owned(),
            prefix,
            home,
            way_out,
            sockets,
            state: Mutex::new(state),
            changes,
        })
    }

    /// Where the bridge is.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// Connects as a node does: to pods and services where the bridge is, to all others from the machine.
    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for address in lookup_host((host, port)).await? {
            outcome = match address.ip() {
                IpAddr::V4(ip) if self.is_inside(ip) => self.home.connect(address).await,
                _ => TcpStream::connect(address).await,
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn is_inside(&self, ip: Ipv4Addr) -> bool {
        let (services, bits) = rules::SERVICE_RANGE;
        ip.octets()[..2] == self.prefix || ip.to_bits() >> (32 - bits) == services.to_bits() >> (32 - bits)
    }

    fn has(&self, link: &str) -> bool {
        let link = link.to_owned();
        self.home.run(move || Ok(link::exists(&link))).unwrap_or(false)
    }

    /// An earlier run gave this address to a pod that still has it.
    pub(super) fn adopt(&self, pod_uid: &str, pod: &Pod, ip: IpAddr) {
        let IpAddr::V4(ip) = ip else { return };
        let mut state = self.state.lock();
        state.used.insert(ip, pod_uid.to_owned());
        state.host_ports.insert(pod_uid.to_owned(), host_ports(pod, ip));
    }

    /// The bridge's name and address, if there is one.
    fn place(&self) -> Option<(String, Ipv4Addr)> {
        let bridge = self.state.lock().bridge.filter(|bridge| self.has(&bridge.name()))?;
        Some((bridge.name(), bridge.address(self.prefix, 1)))
    }

    /// Where pods ask for names: the address of the bridge.
    pub(super) fn resolver(&self) -> Option<Ipv4Addr> {
        self.place().map(|(_, gateway)| gateway)
    }

    /// Returns once there is a bridge.
    async fn has_bridge(&self) {
        let mut changes = self.changes.subscribe();
        while self.place().is_none() {
            // The sender is ours.
            let _ = changes.changed().await;
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn host_ports(&self) -> Vec<HostPort> {
        let state = self.state.lock();
        let mut ports: Vec<HostPort> = state.host_ports.values().flatten().cloned().collect();
        ports.sort();
        ports
    }

    /// Connects a pod's network namespace, and returns its address.
    pub(super) fn attach(&self, pod_uid: &str, pod: &Pod, namespace: &Path) -> Result<IpAddr, Error> {
        let mut state = self.state.lock();
        let bridge = match state.bridge {
            Some(bridge) if self.has(&bridge.name()) => bridge,
            _ => self.make_bridge(&mut state)?,
        };
        let address = self.choose(&mut state, bridge, pod_uid)?;
        state.used.insert(address, pod_uid.to_owned());
        let wire = Wire {
            host_end: self.host_end(pod_uid),
            bridge: bridge.name(),
            namespace: namespace.to_owned(),
            address,
            gateway: bridge.address(self.prefix, 1),
        };
        let wired = self.home.run(move || link::connect(&wire));
        if wired.is_err() {
            state.used.remove(&address);
        } else {
            state.host_ports.insert(pod_uid.to_owned(), host_ports(pod, address));
        }
        drop(state);
        self.changes.send_modify(|count| *count += 1);
        wired.map(|()| IpAddr::V4(address))
    }

    /// Frees a pod's address. The veth pair goes with its namespace, but not at once: so remove it.
    pub(super) fn detach(&self, pod_uid: &str) -> Result<(), Error> {
        let name = self.host_end(pod_uid);
        self.home.run(move || remove(&name))?;
        let mut state = self.state.lock();
        state.used.retain(|_, owner| owner != pod_uid);
        state.host_ports.remove(pod_uid);
        drop(state);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Removes the bridge, if no pod is on it.
    pub(super) fn close(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        if !state.used.is_empty() {
            return Ok(());
        }
        self.way_out.close();
        self.sockets.close_all();
        let Some(bridge) = state.bridge.take() else { return Ok(()) };
        if self.owns(bridge) {
            self.home.run(move || {
                if let Err(error) = kernel::remove(&bridge.name()) {
                    tracing::debug!(error = %error.full(), "no rules to remove");
                }
                link::delete(&bridge.name())
            })?;
        }
        let record = self.root_dir.join(RECORD);
        fs::remove_file(&record).map_err(Error::io("removing", &record))
    }

    fn choose(&self, state: &mut State, bridge: Bridge, pod_uid: &str) -> Result<Ipv4Addr, Error> {
        let known = state.used.iter().find(|(_, owner)| *owner == pod_uid).map(|(address, _)| *address);
        if let Some(address) = known {
            return Ok(address);
        }
        for _ in FIRST_HOST..=LAST_HOST {
            let host = state.next;
            state.next = if host >= LAST_HOST { FIRST_HOST } else { host + 1 };
            let address = bridge.address(self.prefix, host);
            if !state.used.contains_key(&address) {
                return Ok(address);
            }
        }
        Err(Error::Network(format!("all {} addresses of this node are in use", LAST_HOST - FIRST_HOST + 1)))
    }

    /// Takes the first number whose bridge and addresses nobody has.
    fn make_bridge(&self, state: &mut State) -> Result<Bridge, Error> {
        // Nobody else makes bridges in a network of our own.
        let lock = match self.home.own() {
            Some(_) => self.root_dir.join("network.lock"),
            None => PathBuf::from(MACHINE_LOCK),
        };
        let file = File::create(&lock).map_err(Error::io("opening", &lock))?;
        let _lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::io("locking", &lock)(errno.into()))?;
        self.way_out.open(&self.home);
        let routes = self.home.run(|| Ok(fs::read_to_string(ROUTES).unwrap_or_default()))?;
        for number in 0..=u8::MAX {
            let bridge = Bridge { number };
            if self.owns(bridge)
                || (!self.has(&bridge.name()) && !is_routed(&routes, bridge.address(self.prefix, 1)))
            {
                // Recorded first: a bridge without a record would stay for ever.
                records::write_durably(&self.root_dir.join(RECORD), &bridge)?;
                state.bridge = Some(bridge);
                if !self.has(&bridge.name()) {
                    let (alias, address) = (self.alias(), bridge.address(self.prefix, 1));
                    self.home.run(move || link::create_bridge(&bridge.name(), &alias, address))?;
                }
                return Ok(bridge);
            }
        }
        Err(Error::Network(
            "all 256 pod networks of this machine are in use: is there a bridge claw0 to remove?".to_owned(),
        ))
    }

    fn owns(&self, bridge: Bridge) -> bool {
        let alias = self.home.run(move || Ok(link::alias(&bridge.name())));
        alias.is_ok_and(|alias| alias == Some(self.alias()))
    }

    /// Interface names have at most 15 bytes. Two agents may know the same pod (a restored backup).
    fn host_end(&self, pod_uid: &str) -> String {
        let name = format!("{}\n{pod_uid}", self.root_dir.display());
        format!("clv{}", &hex(&Sha256::digest(name.as_bytes()))[..12])
    }

    /// The kernel keeps 255 bytes of an alias; paths may be longer.
    fn alias(&self) -> String {
        format!("clawbernetes {}", &hex(&Sha256::digest(self.root_dir.as_os_str().as_encoded_bytes()))[..32])
    }
}

/// Removes an interface, unless it is gone, or goes with its namespace in this moment.
fn remove(name: &str) -> Result<(), Error> {
    if !link::exists(name) {
        return Ok(());
    }
    link::delete(name).or_else(|error| if link::exists(name) { Err(error) } else { Ok(()) })
}

/// The ports of the machine that a pod asks for.
fn host_ports(pod: &Pod, ip: Ipv4Addr) -> Vec<HostPort> {
    let spec = pod.spec.iter();
    let containers =
        spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let one = |port: &ContainerPort| {
        let address = match port.host_ip.as_deref().unwrap_or_default() {
            "" => None,
            // Pods have addresses of one family; those of the other lead nowhere.
            written => Some(written.parse::<Ipv4Addr>().ok()?),
        };
        Some(HostPort {
            protocol: Protocol::from_api(port.protocol.as_deref()),
            // All addresses, however it is written.
            address: address.filter(|ip| !ip.is_unspecified()),
            port: port.host_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)?,
            to: (ip, u16::try_from(port.container_port).ok()?),
        })
    };
    ports.filter_map(one).collect()
}

/// What connects a pod.
pub(super) struct Wire {
    host_end: String,
    bridge: String,
    namespace: PathBuf,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
}

/// Whether any route but the default one covers the address.
fn is_routed(routes: &str, address: Ipv4Addr) -> bool {
    let hexadecimal = |text: Option<&str>| text.and_then(|text| u32::from_str_radix(text, 16).ok());
    // The kernel prints addresses as they lie in memory.
    let address = u32::from_ne_bytes(address.octets());
    routes.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace();
        let (destination, mask) = (hexadecimal(columns.nth(1)), hexadecimal(columns.nth(5)));
        matches!((destination, mask), (Some(destination), Some(mask)) if mask != 0 && address & mask == destination)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_routed_already_is_seen() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            podman0\t0000580A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert!(is_routed(routes, Ipv4Addr::new(10, 88, 3, 1)));
        assert!(!is_routed(routes, Ipv4Addr::new(10, 89, 3, 1)));
    }

    #[test]
    fn addresses_are_not_reused_at_once_and_run_out_with_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::open(folder.path(), [10, 88]).unwrap();
        let bridge = Bridge { number: 7 };
        let mut state = State { next: FIRST_HOST, ..State::default() };
        let first = network.choose(&mut state, bridge, "a").unwrap();
        let second = network.choose(&mut state, bridge, "b").unwrap();
        assert_eq!((first, second), (Ipv4Addr::new(10, 88, 7, 2), Ipv4Addr::new(10, 88, 7, 3)));
        for host in FIRST_HOST..=LAST_HOST {
            state.used.insert(bridge.address([10, 88], host), host.to_string());
        }
        let error = network.choose(&mut state, bridge, "c").unwrap_err();
        assert!(error.to_string().contains("253 addresses"), "{error}");
        assert_eq!(network.choose(&mut state, bridge, "9").unwrap(), Ipv4Addr::new(10, 88, 7, 9));
    }
}
