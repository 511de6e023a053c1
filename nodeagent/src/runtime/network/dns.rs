//! DNS for the pods of one node: names of the cluster from what the agent knows, all others from where the machine asks.
//!
//! Must never know: what a name means (that is [`Services::answer`]).

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, PTR, SOA, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{home::Home, seats::Seats};
use crate::{
    Error,
    services::{Answer, Data, Kind, Services, ZONE},
    sockets,
};

const PORT: u16 = 53;

/// Kubernetes' figures: an answer is good for 30 s, the news that a name does not exist for 5.
const TTL_S: u32 = 30;
const NEGATIVE_TTL_S: u32 = 5;

/// What a question without EDNS may be answered with by UDP, and the most that one with it is. Sources: RFC 1035; DNS flag day
/// 2020.
const UDP_MIN: usize = 512;
const UDP_MAX: usize = 1_232;

/// Questions at once, of all pods and of one. What comes when all are under way waits in the socket; what comes from who has its
/// share is dropped, and asked again.
const QUESTIONS_MAX: usize = 512;
const QUESTIONS_EACH: usize = 128;

/// For one server of the machine's to answer, and for a client to send its question over TCP.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(2);
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// Where the machine asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How many answers of what is asked of others are followed.
const ALIASES_MAX: usize = 8;

/// The sockets of a bridge.
pub(super) struct Sockets {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

/// Opens both, for the bridge of a home, unless an earlier agent has.
pub(super) fn open(home: &Home, kept: &sockets::Sockets, gateway: Ipv4Addr) -> Result<Sockets, Error> {
    let failed = move || Error::io("listening for DNS on", gateway.to_string());
    let udp = kept.get(&format!("dns udp {gateway}"), || {
        home.run(move || Ok(std::net::UdpSocket::bind((gateway, PORT)).map_err(failed())?.into()))
    })?;
    let tcp = kept.get(&format!("dns tcp {gateway}"), || {
        home.run(move || Ok(std::net::TcpListener::bind((gateway, PORT)).map_err(failed())?.into()))
    })?;
    let failed = || Error::io("watching", "the sockets of DNS");
    let (udp, tcp) = (std::net::UdpSocket::from(udp), std::net::TcpListener::from(tcp));
    udp.set_nonblocking(true).and_then(|()| tcp.set_nonblocking(true)).map_err(failed())?;
    let udp = Arc::new(UdpSocket::from_std(udp).map_err(failed())?);
    Ok(Sockets { udp, tcp: TcpListener::from_std(tcp).map_err(failed())? })
}

type Known = watch::Receiver<Arc<Services>>;

/// Answers until dropped.
pub(super) async fn serve(sockets: Sockets, services: Known) {
    tokio::join!(serve_udp(sockets.udp, services.clone()), serve_tcp(sockets.tcp, services));
}

async fn serve_udp(socket: Arc<UdpSocket>, services: Known) {
    let seats = Seats::new(QUESTIONS_MAX, QUESTIONS_EACH);
    let mut open = JoinSet::new();
    let mut buffer = vec![0_u8; 4_096];
    while let Some(seat) = seats.free().await {
        while open.try_join_next().is_some() {}
        // An error is about an earlier answer that could not be delivered.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(seat) = seats.give(seat, client.ip()) else { continue };
        let (question, socket, known) =
            (buffer[..length].to_vec(), Arc::clone(&socket), services.borrow().clone());
        open.spawn(async move {
            if let Some(answer) = answer(&question, &known, Way::Udp).await {
                let _ = socket.send_to(&answer, client).await;
            }
            drop(seat);
        });
    }
}

async fn serve_tcp(listener: TcpListener, services: Known) {
    let seats = Seats::new(QUESTIONS_MAX, QUESTIONS_EACH);
    let mut open = JoinSet::new();
    while let Some(seat) = seats.free().await {
        while open.try_join_next().is_some() {}
        let Ok((client, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(seat) = seats.give(seat, from.ip()) else { continue };
        let services = services.clone();
        open.spawn(async move {
            let _ = converse(client, &services).await;
            drop(seat);
        });
    }
}

/// One connection: questions, each with its length before it, until the client has no more.
async fn converse(mut client: TcpStream, services: &Known) -> std::io::Result<()> {
    loop {
        let length = timeout(CLIENT_LIMIT, client.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        timeout(CLIENT_LIMIT, client.read_exact(&mut question)).await??;
        let known = services.borrow().clone();
        let Some(answer) = answer(&question, &known, Way::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).unwrap_or_default();
        timeout(CLIENT_LIMIT, client.write_all(&[&length.to_be_bytes(), &answer[..]].concat())).await??;
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Udp,
    Tcp,
}

/// `None` for what is no question, which nobody waits for an answer to.
async fn answer(question: &[u8], services: &Services, way: Way) -> Option<Vec<u8>> {
    let query =
        Message::from_vec(question).ok().filter(|one| one.metadata.message_type == MessageType::Query)?;
    let reply = match local(&query, services) {
        Local::Reply(reply) => reply,
        Local::Alias(mut reply, target) => {
            follow(&query, &mut reply, target, services).await;
            reply
        }
        Local::Elsewhere => match upstream(question, way).await {
            Some(answer) => return Some(answer),
            None => failure(&query, ResponseCode::ServFail),
        },
    };
    let bytes = reply.to_vec().ok()?;
    let limit = match &query.edns {
        _ if way == Way::Tcp => usize::from(u16::MAX),
        Some(edns) => usize::from(edns.max_payload()).clamp(UDP_MIN, UDP_MAX),
        None => UDP_MIN,
    };
    if bytes.len() <= limit { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

enum Local {
    Reply(Message),
    /// The name is another's, who is to be asked.
    Alias(Message, Name),
    Elsewhere,
}

fn local(query: &Message, services: &Services) -> Local {
    let [asked] = &query.queries[..] else { return Local::Reply(failure(query, ResponseCode::FormErr)) };
    if query.metadata.op_code != OpCode::Query {
        return Local::Reply(failure(query, ResponseCode::NotImp));
    }
    let kind = match asked.query_type() {
        RecordType::A => Kind::Address,
        RecordType::SRV => Kind::Service,
        RecordType::PTR => Kind::Pointer,
        _ => Kind::Other,
    };
    let name = asked.name().to_ascii();
    let data = match services.answer(name.trim_end_matches('.'), kind) {
        Answer::Elsewhere => return Local::Elsewhere,
        Answer::Unknown => return Local::Reply(nothing(query, ResponseCode::NXDomain)),
        Answer::Found(data) if data.is_empty() => return Local::Reply(nothing(query, ResponseCode::NoError)),
        Answer::Found(data) => data,
    };
    let mut reply = reply(query);
    for one in data {
        match one {
            Data::Alias(target) => {
                let Ok(target) = Name::from_ascii(format!("{}.", target.trim_end_matches('.'))) else {
                    return Local::Reply(failure(query, ResponseCode::ServFail));
                };
                add(&mut reply, asked.name(), RData::CNAME(CNAME(target.clone())));
                return Local::Alias(reply, target);
            }
            Data::Address(address) => add(&mut reply, asked.name(), RData::A(A(address))),
            Data::Pointer(host) => {
                if let Ok(host) = Name::from_ascii(format!("{host}.")) {
                    add(&mut reply, asked.name(), RData::PTR(PTR(host)));
                }
            }
            Data::Service { port, host, address } => {
                if let Ok(host) = Name::from_ascii(format!("{host}.")) {
                    add(&mut reply, asked.name(), RData::SRV(SRV::new(0, 100, port, host.clone())));
                    reply.add_additional(Record::from_rdata(host, TTL_S, RData::A(A(address))));
                }
            }
        }
    }
    shuffle(&mut reply.answers);
    Local::Reply(reply)
}

/// Adds what an alias stands for: of ours, or of others.
async fn follow(query: &Message, reply: &mut Message, mut target: Name, services: &Services) {
    let Some(asked) = query.queries.first().map(|one| one.query_type()) else { return };
    for _ in 0..ALIASES_MAX {
        let mut next = query.clone();
        next.queries[0].set_name(target.clone());
        match local(&next, services) {
            Local::Reply(found) => return reply.answers.extend(found.answers),
            Local::Alias(found, further) => {
                reply.answers.extend(found.answers);
                target = further;
            }
            Local::Elsewhere => {
                let Ok(question) = next.to_vec() else { return };
                let found =
                    upstream(&question, Way::Tcp).await.and_then(|answer| Message::from_vec(&answer).ok());
                let wanted = |record: &Record| {
                    matches!(record.record_type(), RecordType::CNAME) || record.record_type() == asked
                };
                match found {
                    Some(found) => reply.answers.extend(found.answers.into_iter().filter(wanted)),
                    None => reply.metadata.response_code = ResponseCode::ServFail,
                }
                return;
            }
        }
    }
}

fn reply(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.authoritative = true;
    reply.add_queries(query.queries.iter().cloned());
    reply
}

fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut reply = reply(query);
    reply.metadata.authoritative = false;
    reply.metadata.response_code = code;
    reply
}

/// No such name, or nothing of that kind; how long that is good for stands in the zone's record.
fn nothing(query: &Message, code: ResponseCode) -> Message {
    let mut reply = reply(query);
    reply.metadata.response_code = code;
    let name = |label: &str| Name::from_ascii(format!("{label}{ZONE}.")).unwrap_or_default();
    let soa = SOA::new(name("ns.dns."), name("hostmaster."), 1, 7_200, 1_800, 86_400, NEGATIVE_TTL_S);
    reply.add_authority(Record::from_rdata(name(""), NEGATIVE_TTL_S, RData::SOA(soa)));
    reply
}

fn add(reply: &mut Message, name: &Name, data: RData) {
    reply.add_answer(Record::from_rdata(name.clone(), TTL_S, data));
}

/// Clients take the first address: another for each.
fn shuffle(records: &mut [Record]) {
    let mut random = [0_u8; 2];
    let _ = getrandom::fill(&mut random);
    if !records.is_empty() {
        let by = usize::from(u16::from_le_bytes(random)) % records.len();
        records.rotate_left(by);
    }
}

/// Asks where the machine asks, one server after the other.
async fn upstream(question: &[u8], way: Way) -> Option<Vec<u8>> {
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    for server in servers(&text) {
        let asked = async {
            match way {
                Way::Udp => by_udp(question, server).await,
                Way::Tcp => by_tcp(question, server).await,
            }
        };
        match timeout(UPSTREAM_LIMIT, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%error, %server, "a DNS server could not be asked"),
            Err(_) => tracing::debug!(%server, "a DNS server did not answer"),
        }
    }
    None
}

fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let words = resolv_conf.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .filter(|words| words.first() == Some(&"nameserver"))
        .filter_map(|words| words.get(1)?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .collect()
}

async fn by_udp(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Somebody's guess at another question's answer.
        if length >= 2 && buffer[..2] == question[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_tcp(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
