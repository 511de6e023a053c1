//! Bridges and veth pairs, over rtnetlink.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd as _,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::{Wire, namespace, rules::SERVICE_RANGE};
use crate::Error;

/// Routing table `main`.
const MAIN_TABLE: u8 = 254;

/// In a new namespace the loopback interface is the first. What comes behind it is the kernel's business: with a module for tunnels that is one of
/// its interfaces, such as `sit0`.
const LOOPBACK_INDEX: u32 = 1;

/// The pod's own, in its namespace.
const POD_LINK: &str = "eth0";

/// How much of an address names the network.
const BRIDGE_BITS: u8 = 24;
const POD_BITS: u8 = 32;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What the kernel says of an interface that it does not have.
const ENODEV: i32 = nix::errno::Errno::ENODEV as i32;

/// Whether there is an interface of this name.
pub(super) fn exists(name: &str) -> bool {
    find(name).is_ok_and(|found| found.is_some())
}

/// Whose an interface is, if somebody wrote it down there.
pub(super) fn alias(name: &str) -> Option<String> {
    find(name).ok()??.attributes.into_iter().find_map(|one| match one {
        LinkAttribute::IfAlias(alias) => Some(alias),
        _ => None,
    })
}

/// Asked of the kernel's netlink: what `/sys` shows are the interfaces of whoever mounted it.
fn find(name: &str) -> Result<Option<LinkMessage>, Error> {
    Netlink::open()?.find(name)
}

fn index(name: &str) -> Result<u32, Error> {
    let found = find(name)?.ok_or_else(|| Error::Network(format!("there is no interface {name}")))?;
    Ok(found.header.index)
}

pub(super) fn delete(name: &str) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Netlink::open()?.ask(RouteNetlinkMessage::DelLink(message), 0, &format!("removing {name}"))
}

pub(super) fn create_bridge(name: &str, alias: &str, address: Ipv4Addr) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    let doing = format!("creating the bridge {name}");
    netlink.ask(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, &doing)?;
    let index = index(name)?;
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    netlink.ask(RouteNetlinkMessage::SetLink(message), 0, &doing)?;
    netlink.add_address(index, address, BRIDGE_BITS)?;
    netlink.add_service_route(index, address)?;
    // Pods talk to each other through the host, too.
    switch(FORWARDING, "1")
}

/// Makes a veth pair with one end on the bridge and the other, configured, in the pod's namespace.
pub(super) fn connect(wire: &Wire) -> Result<(), Error> {
    if exists(&wire.host_end) {
        // Left by a run that died in between.
        delete(&wire.host_end)?;
    }
    let namespace = File::open(&wire.namespace).map_err(Error::io("opening", &wire.namespace))?;
    let mut inner = LinkMessage::default();
    inner.attributes.push(LinkAttribute::IfName(POD_LINK.to_owned()));
    inner.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut outer = LinkMessage::default();
    outer.header.flags = LinkFlags::Up;
    outer.header.change_mask = LinkFlags::Up;
    outer.attributes.push(LinkAttribute::IfName(wire.host_end.clone()));
    outer.attributes.push(LinkAttribute::Controller(index(&wire.bridge)?));
    outer.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
    ]));
    let doing = format!("creating the veth pair {}", wire.host_end);
    Netlink::open()?.ask(RouteNetlinkMessage::NewLink(outer), NLM_F_CREATE | NLM_F_EXCL, &doing)?;
    // Where the machine has bridged packets rewritten (bridge-nf-call-iptables), a pod that calls a service and is chosen
    // itself would not hear itself: a bridge sends nothing back to where it came from.
    let mut message = LinkMessage::default();
    message.header.index = index(&wire.host_end)?;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ]));
    let doing = format!("letting {} hear itself", wire.host_end);
    Netlink::open()?.ask(RouteNetlinkMessage::NewLink(message), 0, &doing)?;
    let (address, gateway) = (wire.address, wire.gateway);
    namespace::run_inside(&namespace, move || configure_pod_end(address, gateway))
}

/// The pod's own address and nothing else is on its link, so that all it sends goes through the gateway.
fn configure_pod_end(address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), Error> {
    let (netlink, index) = (Netlink::open()?, index(POD_LINK)?);
    netlink.add_address(index, address, POD_BITS)?;
    netlink.set_up(index)?;
    // The host would tell it of shorter ways, past what rewrites its packets.
    for name in ["all", POD_LINK] {
        switch(&format!("/proc/sys/net/ipv4/conf/{name}/accept_redirects"), "0")?;
    }
    netlink.add_link_route(index, gateway)?;
    netlink.add_default_route(gateway)
}

/// Sets a switch of the kernel, for the calling thread's network namespace.
fn switch(path: &str, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(Error::io("writing", path))
}

/// Brings up the loopback interface of the calling thread's network namespace.
pub(super) fn enable_loopback() -> Result<(), Error> {
    Netlink::open()?.set_up(LOOPBACK_INDEX)
}

fn route(scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = MAIN_TABLE;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message
}

/// A netlink socket in the calling thread's network namespace.
struct Netlink {
    socket: Socket,
}

impl Netlink {
    fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE)
            .map_err(|source| Error::System { doing: "opening a netlink socket", source })?;
        socket.bind_auto().map_err(|source| Error::System { doing: "binding a netlink socket", source })?;
        Ok(Self { socket })
    }

    fn set_up(&self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), 0, "bringing an interface up")
    }

    fn add_address(&self, index: u32, address: Ipv4Addr, bits: u8) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = bits;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
        let doing = format!("giving an interface the address {address}");
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, &doing)
    }

    /// An address that is on an interface's link.
    fn add_link_route(&self, index: u32, address: Ipv4Addr) -> Result<(), Error> {
        let mut message = route(RouteScope::Link);
        message.header.destination_prefix_length = POD_BITS;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
        message.attributes.push(RouteAttribute::Oif(index));
        let message = RouteNetlinkMessage::NewRoute(message);
        self.ask(message, NLM_F_CREATE | NLM_F_REPLACE, "adding the route to the gateway")
    }

    fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), Error> {
        let mut message = route(RouteScope::Universe);
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        let message = RouteNetlinkMessage::NewRoute(message);
        self.ask(message, NLM_F_CREATE | NLM_F_REPLACE, "adding the default route")
    }

    /// Lets the host itself call services: a packet needs a route before it is rewritten. One bridge of the machine has it.
    fn add_service_route(&self, index: u32, source: Ipv4Addr) -> Result<(), Error> {
        let (range, bits) = SERVICE_RANGE;
        let mut message = route(RouteScope::Link);
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(range)));
        message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
        message.attributes.push(RouteAttribute::Oif(index));
        let message = RouteNetlinkMessage::NewRoute(message);
        // Appended, so that there is one left when the bridge that came first goes.
        self.ask(message, NLM_F_CREATE | NLM_F_APPEND, "adding the route to services")
    }

    /// What the kernel knows of an interface.
    fn find(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let doing = format!("looking for {name}");
        match self.exchange(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST, &doing)? {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(found)) => Ok(Some(found)),
            NetlinkPayload::Error(verdict) if verdict.raw_code() == -ENODEV => Ok(None),
            NetlinkPayload::Error(verdict) => Err(Error::Network(format!("{doing}: {}", verdict.to_io()))),
            other => Err(Error::Network(format!("{doing}: unexpected answer {other:?}"))),
        }
    }

    /// Sends one request and waits for the kernel's verdict.
    fn ask(&self, message: RouteNetlinkMessage, flags: u16, doing: &str) -> Result<(), Error> {
        let failed = |why: String| Error::Network(format!("{doing}: {why}"));
        match self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, doing)? {
            NetlinkPayload::Error(verdict) if verdict.code.is_some() => {
                Err(failed(verdict.to_io().to_string()))
            }
            NetlinkPayload::Error(_) => Ok(()),
            other => Err(failed(format!("unexpected answer {other:?}"))),
        }
    }

    fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: &str,
    ) -> Result<NetlinkPayload<RouteNetlinkMessage>, Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = 1;
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        let failed = |why: String| Error::Network(format!("{doing}: {why}"));
        self.socket.send(&buffer, 0).map_err(|error| failed(error.to_string()))?;
        let (answer, _) = self.socket.recv_from_full().map_err(|error| failed(error.to_string()))?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|error| failed(error.to_string()))?;
        Ok(answer.payload)
    }
}

#[cfg(test)]
mod tests {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    /// As the kernel's modules for tunnels do, another interface is in the pod's network first.
    #[test]
    fn a_pod_is_connected_whatever_was_in_its_network_before() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: making networks needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let pin = folder.path().join("net");
        let there = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let flags = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
            enable_loopback().unwrap();
            create_bridge("claw9", "ours", Ipv4Addr::new(10, 88, 9, 1)).unwrap();
            namespace::create_network(&pin).unwrap();
            let network = File::open(&pin).unwrap();
            let first = || create_bridge("first", "another", Ipv4Addr::new(192, 0, 2, 1));
            namespace::run_inside(&network, first).unwrap();
            let wire = Wire {
                host_end: "clvpod".to_owned(),
                bridge: "claw9".to_owned(),
                namespace: pin.clone(),
                address: Ipv4Addr::new(10, 88, 9, 2),
                gateway: Ipv4Addr::new(10, 88, 9, 1),
            };
            connect(&wire).unwrap();
            let routes = || Ok(fs::read_to_string("/proc/thread-self/net/route").unwrap());
            namespace::run_inside(&network, routes).unwrap()
        });
        let routes = there.join().unwrap();
        assert!(routes.lines().any(|line| line.starts_with("eth0\t00000000\t")), "{routes}");
    }
}
