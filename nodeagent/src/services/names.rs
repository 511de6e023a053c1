//! The names of services and pods in DNS, as Kubernetes' specification of DNS-based service discovery has them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::api::{core::v1::ServiceSpec, discovery::v1::EndpointSlice};

use super::{Protocol, Services, is_ready};

/// The zone of all names.
pub const ZONE: &str = "cluster.local";

/// What the name of a service stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// The address of the service itself.
    pub address: Option<Ipv4Addr>,
    /// It is another name for this one.
    pub external: Option<String>,
    pub ports: Vec<NamedPort>,
    /// Only of a service without an address of its own.
    pub endpoints: Vec<NamedEndpoint>,
}

/// A port that can be asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// One of the pods behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// Its label below the service's name.
    pub host: String,
    pub address: Ipv4Addr,
    pub ports: Vec<NamedPort>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These records. None: the name exists, and has nothing of that kind.
    Found(Vec<Data>),
    /// There is no such name.
    Unknown,
    /// The name is not ours.
    Elsewhere,
}

/// A record's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Address(Ipv4Addr),
    Alias(String),
    /// A port and the name of the host that has it, with its address.
    Service {
        port: u16,
        host: String,
        address: Ipv4Addr,
    },
    Pointer(String),
}

pub(super) fn name(spec: &ServiceSpec, slices: &[&EndpointSlice]) -> Name {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Name { external: spec.external_name.clone(), ..Name::default() };
    }
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::from_api(port.protocol.as_deref()),
            port: u16::try_from(port.port).ok()?,
        })
    });
    let address: Option<Ipv4Addr> = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    let endpoints = if address.is_none() { endpoints(slices) } else { Vec::new() };
    Name { address, external: None, ports: ports.collect(), endpoints }
}

fn endpoints(slices: &[&EndpointSlice]) -> Vec<NamedEndpoint> {
    let mut all: BTreeMap<Ipv4Addr, NamedEndpoint> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(NamedPort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::from_api(port.protocol.as_deref()),
                port: u16::try_from(port.port?).ok()?,
            })
        });
        let ports: Vec<NamedPort> = ports.collect();
        for endpoint in slice.endpoints.iter().flatten().filter(|one| is_ready(one)) {
            let Some(address) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else { continue };
            let host = endpoint.hostname.clone().unwrap_or_else(|| dashed(address));
            all.insert(address, NamedEndpoint { host, address, ports: ports.clone() });
        }
    }
    all.into_values().collect()
}

fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Address,
    Service,
    Pointer,
    /// Anything else, of which we have nothing.
    Other,
}

impl Services {
    /// What a name stands for. Without a dot at its end; in any case of letters.
    pub fn answer(&self, name: &str, kind: Kind) -> Answer {
        let name = name.to_ascii_lowercase();
        if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
            return self.pointer(reversed, kind);
        }
        let Some(rest) = name.strip_suffix(ZONE) else { return Answer::Elsewhere };
        if rest.is_empty() {
            return Answer::Found(Vec::new());
        }
        let Some(rest) = rest.strip_suffix('.') else { return Answer::Elsewhere };
        let labels: Vec<&str> = rest.split('.').rev().collect();
        match labels.as_slice() {
            ["svc" | "pod"] => Answer::Found(Vec::new()),
            ["pod", _namespace] | ["svc", _namespace] => self.namespace(labels[1]),
            ["pod", _namespace, address] => pod(address, kind),
            ["svc", namespace, service, below @ ..] => self.service(namespace, service, below, kind),
            _ => Answer::Unknown,
        }
    }

    /// A namespace has a name if something in it has.
    fn namespace(&self, namespace: &str) -> Answer {
        let known = self.names.keys().any(|(one, _)| one == namespace);
        if known { Answer::Found(Vec::new()) } else { Answer::Unknown }
    }

    fn service(&self, namespace: &str, service: &str, below: &[&str], kind: Kind) -> Answer {
        let Some(name) = self.names.get(&(namespace.to_owned(), service.to_owned())) else {
            return Answer::Unknown;
        };
        let own = format!("{service}.{namespace}.svc.{ZONE}");
        if let Some(external) = &name.external {
            let alias = below.is_empty().then(|| Answer::Found(vec![Data::Alias(external.clone())]));
            return alias.unwrap_or(Answer::Unknown);
        }
        match below {
            [] => match kind {
                Kind::Address => Answer::Found(name.addresses().map(Data::Address).collect()),
                Kind::Service => Answer::Found(name.ports_at(&own, |_| true)),
                _ => Answer::Found(Vec::new()),
            },
            // Labels come from the right: `_http._tcp.web` is [`_tcp`, `_http`] here.
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                let wanted = |one: &NamedPort| one.name == port[1..] && one.protocol.word() == &protocol[1..];
                let found = name.ports_at(&own, wanted);
                match (found.is_empty(), kind) {
                    (true, _) => Answer::Unknown,
                    (false, Kind::Service) => Answer::Found(found),
                    (false, _) => Answer::Found(Vec::new()),
                }
            }
            [host] => {
                let found: Vec<Data> = name
                    .endpoints
                    .iter()
                    .filter(|endpoint| endpoint.host == **host)
                    .map(|endpoint| Data::Address(endpoint.address))
                    .collect();
                match (found.is_empty(), kind) {
                    (true, _) => Answer::Unknown,
                    (false, Kind::Address) => Answer::Found(found),
                    (false, _) => Answer::Found(Vec::new()),
                }
            }
            _ => Answer::Unknown,
        }
    }

    /// The name of an address. Those that are not ours are asked for elsewhere.
    fn pointer(&self, reversed: &str, kind: Kind) -> Answer {
        let straight = reversed.split('.').rev().collect::<Vec<_>>().join(".");
        let Ok(address) = straight.parse::<Ipv4Addr>() else { return Answer::Elsewhere };
        let mut names = Vec::new();
        for ((namespace, service), name) in &self.names {
            let own = format!("{service}.{namespace}.svc.{ZONE}");
            if name.address == Some(address) {
                names.push(own);
            } else {
                let pods = name.endpoints.iter().filter(|endpoint| endpoint.address == address);
                names.extend(pods.map(|endpoint| format!("{}.{own}", endpoint.host)));
            }
        }
        match (names.is_empty(), kind) {
            (true, _) => Answer::Elsewhere,
            (false, Kind::Pointer) => Answer::Found(names.into_iter().map(Data::Pointer).collect()),
            (false, _) => Answer::Found(Vec::new()),
        }
    }
}

/// `10-88-0-2` names the address itself, whether or not a pod has it.
fn pod(label: &str, kind: Kind) -> Answer {
    match label.replace('-', ".").parse() {
        Ok(address) if kind == Kind::Address => Answer::Found(vec![Data::Address(address)]),
        Ok(_) => Answer::Found(Vec::new()),
        Err(_) => Answer::Unknown,
    }
}

impl Name {
    fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.address.into_iter().chain(self.endpoints.iter().map(|endpoint| endpoint.address))
    }

    /// The ports that pass: at the service's own name if it has an address, else at each of its pods.
    fn ports_at(&self, own: &str, pass: impl Fn(&NamedPort) -> bool) -> Vec<Data> {
        let named = |one: &&NamedPort| !one.name.is_empty() && pass(one);
        if let Some(address) = self.address {
            let ports = self.ports.iter().filter(named);
            return ports
                .map(|one| Data::Service { port: one.port, host: own.to_owned(), address })
                .collect();
        }
        let all = self.endpoints.iter().flat_map(|endpoint| {
            let ports = endpoint.ports.iter().filter(named);
            ports.map(|one| Data::Service {
                port: one.port,
                host: format!("{}.{own}", endpoint.host),
                address: endpoint.address,
            })
        });
        all.collect()
    }
}
