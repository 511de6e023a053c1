//! Forgets where the kernel sends UDP packets when nobody is there any more.
//!
//! The kernel chooses an endpoint for the first packet of a client to a service, and sends there whatever follows, as long as it
//! keeps coming: a client that asks again and again would never hear of the endpoint that took over. TCP helps itself, since a
//! connection ends. So after each change of what UDP may lead to, what the kernel remembers is compared with it.
//!
//! The messages are those of `linux/netfilter/nfnetlink_conntrack.h`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
};

use bytes::BufMut as _;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

use super::rules::{HostPort, SERVICE_RANGE};
use crate::{
    Error,
    services::{Protocol, Services},
};

/// The protocol.
const UDP: u8 = 17;

const CONNTRACK: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// Within a direction.
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
/// Within addresses, and within a protocol: what comes first, and second after it.
const FIRST: u16 = 1;
const SECOND: u16 = 2;
const THIRD: u16 = 3;

/// Flags of an attribute's kind.
const NESTED: u16 = 0x8000;
const KIND: u16 = 0x3fff;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
const INET: u8 = 2;
/// Behind the header: family, version, resource.
const FAMILY_BYTES: usize = 4;
/// The kernel hands out what it remembers in pieces of at most 32 KiB.
const PIECE_BYTES: usize = 64 * 1024;

type Port = (Ipv4Addr, u16);

/// Where UDP to services and ports of the machine may lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leads {
    /// What the pods of this network have in common: the first three bytes of their addresses.
    network: [u8; 3],
    services: BTreeMap<Port, BTreeSet<Port>>,
    /// Of any address of the machine.
    ports: BTreeMap<u16, BTreeSet<Port>>,
}

/// One thing that the kernel remembers.
#[derive(Debug)]
struct Flow {
    protocol: u8,
    from: Port,
    to: Port,
    /// Who answers.
    answers: Port,
    /// What names it to the kernel, as it came.
    name: Vec<u8>,
}

impl Leads {
    pub(super) fn of(gateway: Ipv4Addr, services: &Services, host_ports: &[HostPort]) -> Self {
        let [a, b, c, _] = gateway.octets();
        let mut leads = Self { network: [a, b, c], ..Self::default() };
        for route in services.routes.iter().filter(|route| route.protocol == Protocol::Udp) {
            let endpoints: BTreeSet<Port> = route.backends.keys().copied().collect();
            for address in route.address.iter().chain(&route.external) {
                leads.services.entry((*address, route.port)).or_default().extend(&endpoints);
            }
            if let Some(port) = route.node_port {
                leads.ports.entry(port).or_default().extend(&endpoints);
            }
        }
        for port in host_ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            leads.ports.entry(port.port).or_default().insert(port.to);
        }
        leads
    }

    /// Whether its packets go where nothing leads any more.
    fn is_stale(&self, flow: &Flow) -> bool {
        let is_of_network = |address: Ipv4Addr| address.octets()[..3] == self.network;
        if flow.protocol != UDP
            // Others on this machine have services of their own, and maybe with the same addresses.
            || !(is_of_network(flow.from.0) || is_of_network(flow.answers.0))
        {
            return false;
        }
        if let Some(endpoints) = self.services.get(&flow.to) {
            return !endpoints.contains(&flow.answers);
        }
        // A port of somebody else's machine has the same number, and nothing was rewritten.
        let is_rewritten = flow.answers != flow.to;
        match self.ports.get(&flow.to.1) {
            Some(endpoints) => is_rewritten && !endpoints.contains(&flow.answers),
            None => is_rewritten && is_of_services(flow.to.0),
        }
    }
}

fn is_of_services(address: Ipv4Addr) -> bool {
    let (range, bits) = SERVICE_RANGE;
    (address.to_bits() ^ range.to_bits()) >> (32 - u32::from(bits)) == 0
}

/// Makes the kernel forget what is stale. How much that was.
pub(super) fn forget_stale(leads: &Leads) -> Result<usize, Error> {
    let failed = |source: io::Error| Error::System { doing: "forgetting where UDP packets went", source };
    let socket = open().map_err(failed)?;
    let flows = dump(&socket).map_err(failed)?;
    let stale = flows.iter().filter(|flow| leads.is_stale(flow));
    let mut forgotten = 0;
    for flow in stale {
        socket.send(&request(DELETE, NLM_F_ACK, &flow.name), 0).map_err(failed)?;
        match verdict(&socket) {
            Ok(()) => forgotten += 1,
            // It went by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(forgotten)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    Ok(socket)
}

fn request(what: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES + FAMILY_BYTES + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.put_u32_ne(u32::try_from(length).unwrap_or(0));
    message.put_u16_ne(CONNTRACK << 8 | what);
    message.put_u16_ne(NLM_F_REQUEST | flags);
    // Sequence number and sender: one socket asks one thing at a time.
    message.put_u64_ne(1);
    message.put_u8(INET);
    message.put_bytes(0, FAMILY_BYTES - 1);
    message.extend(attributes);
    message
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    socket.recv(&mut piece, 0)?;
    Ok(piece)
}

fn dump(socket: &Socket) -> io::Result<Vec<Flow>> {
    socket.send(&request(GET, NLM_F_DUMP, &[]), 0)?;
    let mut flows = Vec::new();
    loop {
        let piece = receive(socket)?;
        for (kind, body) in messages(&piece) {
            match kind {
                DONE => return Ok(flows),
                ERROR => code(body)?,
                _ => flows.extend(body.get(FAMILY_BYTES..).and_then(flow)),
            }
        }
    }
}

fn verdict(socket: &Socket) -> io::Result<()> {
    let piece = receive(socket)?;
    let answer = messages(&piece).find(|(kind, _)| *kind == ERROR);
    answer.map_or(Ok(()), |(_, body)| code(body))
}

/// Of a kernel's verdict: 0, or an error's number below it.
fn code(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// Kinds and bodies of the messages in a piece.
fn messages(mut piece: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*piece.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(piece.get(4..6)?.try_into().ok()?);
        let body = piece.get(HEADER_BYTES..length)?;
        piece = piece.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Kinds and contents of attributes.
fn attributes(mut text: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*text.first_chunk()?));
        let kind = u16::from_ne_bytes(text.get(2..4)?.try_into().ok()?) & KIND;
        let content = text.get(4..length)?;
        text = text.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

fn attribute(text: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(text).find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
}

/// `None` for what has no ports or other addresses than ours.
fn flow(text: &[u8]) -> Option<Flow> {
    let (original, reply) = (attribute(text, ORIGINAL)?, attribute(text, REPLY)?);
    let mut name = Vec::new();
    for (kind, content) in attributes(text).filter(|(kind, _)| [ORIGINAL, ID, ZONE].contains(kind)) {
        let nested = if kind == ORIGINAL { NESTED } else { 0 };
        name.put_u16_ne(u16::try_from(content.len() + 4).ok()?);
        name.put_u16_ne(kind | nested);
        name.extend(content);
        name.resize(name.len().next_multiple_of(4), 0);
    }
    let protocol = *attribute(attribute(original, PROTOCOL)?, FIRST)?.first()?;
    Some(Flow {
        protocol,
        from: port(original, FIRST, SECOND)?,
        to: port(original, SECOND, THIRD)?,
        answers: port(reply, FIRST, SECOND)?,
        name,
    })
}

/// An address and a port of one direction.
fn port(direction: &[u8], address: u16, port: u16) -> Option<Port> {
    let address: &[u8; 4] = attribute(attribute(direction, ADDRESSES)?, address)?.first_chunk()?;
    let port = attribute(attribute(direction, PROTOCOL)?, port)?.first_chunk()?;
    Some((Ipv4Addr::from(*address), u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Route;

    const CLIENT: Port = (Ipv4Addr::new(10, 88, 3, 9), 4_000);
    const SERVICE: Port = (Ipv4Addr::new(10, 96, 0, 7), 53);
    const POD: Port = (Ipv4Addr::new(10, 88, 3, 4), 5_353);
    const GONE: Port = (Ipv4Addr::new(10, 88, 3, 5), 5_353);
    const OUTSIDE: Port = (Ipv4Addr::new(192, 0, 2, 1), 4_000);
    const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);

    fn leads() -> Leads {
        let route = Route {
            service: ("default".to_owned(), "names".to_owned()),
            port_name: String::new(),
            address: Some(SERVICE.0),
            external: BTreeSet::new(),
            protocol: Protocol::Udp,
            port: SERVICE.1,
            node_port: Some(30_053),
            affinity_s: None,
            backends: BTreeMap::from([(POD, 1)]),
        };
        let services = Services { routes: vec![route], ..Services::default() };
        let host_port = HostPort { protocol: Protocol::Udp, address: None, port: 53, to: POD };
        Leads::of(Ipv4Addr::new(10, 88, 3, 1), &services, &[host_port])
    }

    fn is_stale(from: Port, to: Port, answers: Port) -> bool {
        let flow = |protocol| Flow { protocol, from, to, answers, name: Vec::new() };
        assert!(!leads().is_stale(&flow(6)), "TCP helps itself");
        leads().is_stale(&flow(UDP))
    }

    #[test]
    fn what_leads_to_an_endpoint_stays_and_what_leads_elsewhere_is_stale() {
        for to in [SERVICE, (MACHINE, 30_053), (MACHINE, 53)] {
            assert!(!is_stale(CLIENT, to, POD), "{to:?}");
            assert!(is_stale(CLIENT, to, GONE), "{to:?}");
            assert!(is_stale(OUTSIDE, to, GONE), "{to:?}");
        }
        // There was no endpoint when the first packet came.
        assert!(is_stale(CLIENT, SERVICE, SERVICE));
        // Of a service that is gone.
        assert!(is_stale(CLIENT, (SERVICE.0, 54), GONE));
    }

    #[test]
    fn what_is_others_stays() {
        let elsewhere = (Ipv4Addr::new(198, 51, 100, 1), 53);
        assert!(!is_stale(CLIENT, elsewhere, elsewhere), "a server with the number of one of our ports");
        let (their_client, their_pod) = ((Ipv4Addr::new(10, 88, 4, 9), 1), (Ipv4Addr::new(10, 88, 4, 5), 53));
        assert!(!is_stale(their_client, SERVICE, their_pod), "another cluster on this machine");
    }

    #[test]
    fn messages_are_read_whatever_is_cut_off() {
        let named = |kind: u16, content: &[u8]| {
            let mut text = Vec::new();
            text.put_u16_ne(u16::try_from(content.len() + 4).unwrap());
            text.put_u16_ne(kind);
            text.extend(content);
            text.resize(text.len().next_multiple_of(4), 0);
            text
        };
        let direction = |kind: u16, from: Port, to: Port| {
            let addresses = [named(FIRST, &from.0.octets()), named(SECOND, &to.0.octets())].concat();
            let (from, to) = (from.1.to_be_bytes(), to.1.to_be_bytes());
            let protocol = [named(FIRST, &[17]), named(SECOND, &from), named(THIRD, &to)].concat();
            let both = [named(ADDRESSES | NESTED, &addresses), named(PROTOCOL | NESTED, &protocol)].concat();
            named(kind | NESTED, &both)
        };
        let (original, reply) = (direction(ORIGINAL, CLIENT, SERVICE), direction(REPLY, POD, CLIENT));
        let id = named(ID, &[1, 2, 3, 4]);
        let whole = [&original[..], &reply, &id].concat();
        let read = flow(&whole).unwrap();
        assert_eq!((read.protocol, read.from, read.to, read.answers), (17, CLIENT, SERVICE, POD));
        assert_eq!(read.name, [original, id].concat());
        for length in 0..whole.len() {
            // What is there is read, and never more than that.
            let _ = flow(&whole[..length]);
            assert!(messages(&whole[..length]).count() <= length);
        }
    }
}
