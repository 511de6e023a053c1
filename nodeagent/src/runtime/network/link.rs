//! Bridges and veth pairs, over rtnetlink.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd as _,
    path::Path,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::{Wire, namespace};
use crate::Error;

/// Routing table `main`.
const MAIN_TABLE: u8 = 254;

/// In a new namespace the loopback interface is the first, and we number the pod's own.
const LOOPBACK_INDEX: u32 = 1;
const POD_INDEX: u32 = 2;

pub(super) fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

fn index(name: &str) -> Result<u32, Error> {
    let path = Path::new("/sys/class/net").join(name).join("ifindex");
    let text = std::fs::read_to_string(&path).map_err(Error::io("reading", &path))?;
    text.trim().parse().map_err(|_| Error::Network(format!("{} holds no number", path.display())))
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
    netlink.add_address(index, address)
}

/// Makes a veth pair with one end on the bridge and the other, configured, in the pod's namespace.
pub(super) fn connect(wire: &Wire) -> Result<(), Error> {
    if exists(&wire.host_end) {
        // Left by a run that died in between.
        delete(&wire.host_end)?;
    }
    let namespace = File::open(&wire.namespace).map_err(Error::io("opening", &wire.namespace))?;
    let mut inner = LinkMessage::default();
    inner.header.index = POD_INDEX;
    inner.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
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
    let (address, gateway) = (wire.address, wire.gateway);
    namespace::run_inside(&namespace, move || configure_pod_end(address, gateway))
}

fn configure_pod_end(address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    netlink.add_address(POD_INDEX, address)?;
    netlink.set_up(POD_INDEX)?;
    netlink.add_default_route(gateway)
}

/// Brings up the loopback interface of the calling thread's network namespace.
pub(super) fn enable_loopback() -> Result<(), Error> {
    Netlink::open()?.set_up(LOOPBACK_INDEX)
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

    fn add_address(&self, index: u32, address: Ipv4Addr) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 24;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
        let doing = format!("giving an interface the address {address}");
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, &doing)
    }

    fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = MAIN_TABLE;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        self.ask(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            "adding the default route",
        )
    }

    /// Sends one request and waits for the kernel's verdict.
    fn ask(&self, message: RouteNetlinkMessage, flags: u16, doing: &str) -> Result<(), Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.header.sequence_number = 1;
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        let failed = |why: String| Error::Network(format!("{doing}: {why}"));
        self.socket.send(&buffer, 0).map_err(|error| failed(error.to_string()))?;
        let (answer, _) = self.socket.recv_from_full().map_err(|error| failed(error.to_string()))?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|error| failed(error.to_string()))?;
        match answer.payload {
            NetlinkPayload::Error(verdict) if verdict.code.is_some() => {
                Err(failed(verdict.to_io().to_string()))
            }
            NetlinkPayload::Error(_) => Ok(()),
            other => Err(failed(format!("unexpected answer {other:?}"))),
        }
    }
}
