//! What services mean for one node: where their addresses lead, and what their names stand for.
//!
//! Pure: from Services and EndpointSlices to routes ([`Route`]) and names ([`Name`]), and to what a pod is told ([`links`]).
//!
//! Must never know: packets, sockets, how a rule or an answer is written.

pub mod links;
mod names;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};

pub use self::names::{Answer, Data, Kind, Name, NamedEndpoint, NamedPort, ZONE};

/// The label by which a slice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Annotation of a slice: how many connections each of its endpoints gets where others get one.
const WEIGHT: &str = "clawbernetes.io/weight";

/// How long a client is remembered where the service does not say. Kubernetes' figure: three hours.
const AFFINITY_S: u32 = 10_800;

/// The service through which pods reach the API server.
pub const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// All services, as one node sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Ordered by service and port.
    pub routes: Vec<Route>,
    /// By namespace and name.
    pub names: BTreeMap<(String, String), Name>,
}

/// Where one port of a service leads. What comes from outside may be led elsewhere, by a route of its own without addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Namespace and name of the service.
    pub service: (String, String),
    /// Name of the port, empty if it has none.
    pub port_name: String,
    /// Of the service itself; none where this is for what comes from outside alone.
    pub address: Option<Ipv4Addr>,
    /// Others that are to lead to it, if nobody has them.
    pub external: BTreeSet<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
    /// The port of every node that leads there, too.
    pub node_port: Option<u16>,
    /// For how many seconds a client comes to the endpoint it came to before.
    pub affinity_s: Option<u32>,
    /// Each once, in order.
    pub backends: BTreeMap<(Ipv4Addr, u16), u32>,
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// From the API's word; no word means TCP.
    pub fn from_api(word: Option<&str>) -> Self {
        match word {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    /// As rules and names of DNS have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl Services {
    /// What `node` makes of these.
    pub fn of(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], node: &str) -> Self {
        let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let labels = slice.metadata.labels.as_ref();
            let Some(name) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else { continue };
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            by_service.entry((namespace, name)).or_default().push(slice);
        }
        let mut all = Self::default();
        for service in services {
            let (Some(namespace), Some(name), Some(spec)) =
                (&service.metadata.namespace, &service.metadata.name, &service.spec)
            else {
                continue;
            };
            let key = (namespace.clone(), name.clone());
            let slices = by_service.get(&(&**namespace, &**name)).map_or(&[][..], Vec::as_slice);
            all.names.insert(key.clone(), names::name(spec, slices));
            let Some(address) = address(spec) else { continue };
            let ports = spec.ports.iter().flatten();
            all.routes.extend(ports.flat_map(|port| routes(&key, address, spec, port, slices, node)));
        }
        all.routes.sort_by(|one, other| {
            let order = |route: &Route| (route.port, route.node_port);
            (&one.service, &one.port_name, order(one)).cmp(&(&other.service, &other.port_name, order(other)))
        });
        all
    }
}

/// The address of a service: headless ones have none, and names of others.
fn address(spec: &ServiceSpec) -> Option<Ipv4Addr> {
    let is_name = spec.type_.as_deref() == Some("ExternalName");
    spec.cluster_ip.as_deref().filter(|_| !is_name).and_then(|ip| ip.parse().ok())
}

/// The route of a port, and another for what comes from outside if that stays on the node that it comes to.
fn routes(
    key: &(String, String),
    address: Ipv4Addr,
    spec: &ServiceSpec,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    node: &str,
) -> Vec<Route> {
    let Ok(number) = u16::try_from(port.port) else { return Vec::new() };
    let port_name = port.name.clone().unwrap_or_default();
    let protocol = Protocol::from_api(port.protocol.as_deref());
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let backends = |local: bool| backends(slices, &port_name, protocol, local.then_some(node));
    let within = Route {
        service: key.clone(),
        address: Some(address),
        external: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
        protocol,
        port: number,
        node_port: node_port(spec, port),
        affinity_s: affinity_s(spec),
        backends: backends(is_local(&spec.internal_traffic_policy)),
        port_name: port_name.clone(),
    };
    let (inside, outside) =
        (is_local(&spec.internal_traffic_policy), is_local(&spec.external_traffic_policy));
    if within.node_port.is_none() || inside == outside {
        return vec![within];
    }
    let from_outside = Route { address: None, backends: backends(outside), ..within.clone() };
    vec![Route { node_port: None, external: BTreeSet::new(), ..within }, from_outside]
}

fn node_port(spec: &ServiceSpec, port: &ServicePort) -> Option<u16> {
    let is_outside = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    port.node_port
        .filter(|_| is_outside)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|one| *one != 0)
}

fn affinity_s(spec: &ServiceSpec) -> Option<u32> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        config
            .and_then(|config| config.timeout_seconds)
            .and_then(|s| u32::try_from(s).ok())
            .unwrap_or(AFFINITY_S)
    })
}

/// The endpoints of a port, on one node or on all.
fn backends(
    slices: &[&EndpointSlice],
    port_name: &str,
    protocol: Protocol,
    node: Option<&str>,
) -> BTreeMap<(Ipv4Addr, u16), u32> {
    let here = |endpoint: &Endpoint| node.is_none() || endpoint.node_name.as_deref() == node;
    let serving = |wanted: fn(&Endpoint) -> bool| -> BTreeMap<(Ipv4Addr, u16), u32> {
        let mut backends = BTreeMap::new();
        for slice in slices {
            let Some(number) = port_of(slice, port_name, protocol) else { continue };
            let endpoints = slice.endpoints.iter().flatten().filter(|one| here(one) && wanted(one));
            let addresses = endpoints.filter_map(|one| one.addresses.first()?.parse().ok());
            backends.extend(addresses.map(|address| ((address, number), weight(slice))));
        }
        backends
    };
    let ready = serving(is_ready);
    // Better one that is on its way out and still serves than none.
    if ready.is_empty() { serving(still_serves) } else { ready }
}

fn port_of(slice: &EndpointSlice, name: &str, protocol: Protocol) -> Option<u16> {
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find(|port| {
        port.name.as_deref().unwrap_or_default() == name
            && Protocol::from_api(port.protocol.as_deref()) == protocol
    });
    port.and_then(|port| u16::try_from(port.port?).ok())
}

/// Whoever does not say is ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

fn still_serves(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_some_and(|one| one.serving == Some(true) && one.terminating == Some(true))
}

fn weight(slice: &EndpointSlice) -> u32 {
    let annotation = slice.metadata.annotations.as_ref().and_then(|all| all.get(WEIGHT));
    annotation.and_then(|text| text.parse().ok()).map_or(1, |weight: u32| weight.clamp(1, 100))
}
