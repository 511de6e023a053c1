//! What the kernel is to do with packets to services and host ports, as text for `nft -f`.
//!
//! Pure. One table an agent, named after its bridge. A service port is a chain that chooses among its endpoints, each of
//! which is a chain that rewrites the destination; maps lead from addresses to the former. Names follow from what
//! they stand for, so that what did not change keeps its name, and with it who came to which endpoint before.
//!
//! Must never know: how rules are loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use sha2::{Digest as _, Sha256};

use crate::{
    ids::hex,
    services::{Protocol, Route, Services},
};

/// Addresses of services, whichever they are: see the API server's allocation.
pub(super) const SERVICE_RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);

/// The mark of a packet whose sender must not see that it talks to itself. Kubernetes' bit.
const HAIRPIN: &str = "0x4000";

/// Clients that an endpoint remembers at most.
const CLIENTS_MAX: u32 = 65_535;

/// A port of the machine that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostPort {
    pub protocol: Protocol,
    /// Of the machine; `None` means all of them.
    pub address: Option<Ipv4Addr>,
    pub port: u16,
    pub to: (Ipv4Addr, u16),
}

/// Where the rules are for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Of bridge and table.
    pub name: &'a str,
    /// Address of the bridge; pods have the rest of its /24.
    pub gateway: Ipv4Addr,
}

/// A table as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Affinity sets and the chains of services and endpoints, by name.
    pub names: BTreeSet<Named>,
    declarations: String,
    rules: String,
}

/// Something in a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    Chain(String),
    Set(String),
}

/// The table for these services and ports.
pub(super) fn rules(place: Place<'_>, services: &Services, host_ports: &[HostPort]) -> Rules {
    let mut table = Table {
        place,
        rules: Rules::default(),
        routes: BTreeMap::new(),
        external: Vec::new(),
        node_ports: BTreeMap::new(),
        host_ports: BTreeSet::new(),
    };
    table.skeleton();
    for route in &services.routes {
        table.route(route);
    }
    for port in host_ports {
        table.host_port(port);
    }
    table.finish()
}

impl Rules {
    /// The input that makes a table say this, given what else it has. Loaded as a whole, or not at all.
    pub(super) fn transaction(&self, table: &str, present: &BTreeSet<Named>) -> String {
        let mut text = format!("add table ip {table}\nflush table ip {table}\n");
        text.push_str(&self.declarations);
        for map in ["map routes", "map host-ports", "map host-ports-at", "map node-ports", "set refused"] {
            let (what, name) = map.split_once(' ').unwrap_or_default();
            let _ = writeln!(text, "flush {what} ip {table} {name}");
        }
        // Rules that named them are gone by now.
        for stale in present.difference(&self.names) {
            let _ = match stale {
                Named::Chain(name) => writeln!(text, "delete chain ip {table} {name}"),
                Named::Set(name) => writeln!(text, "delete set ip {table} {name}"),
            };
        }
        text.push_str(&self.rules);
        text
    }
}

struct Table<'a> {
    place: Place<'a>,
    rules: Rules,
    /// Destination → chain, or none that answers.
    routes: BTreeMap<Destination, Option<String>>,
    /// What addresses of others are to lead to, where nobody has them.
    external: Vec<(Destination, Option<String>)>,
    /// Port of every node → chain.
    node_ports: BTreeMap<(Protocol, u16), String>,
    /// Ports of the machine that are taken.
    host_ports: BTreeSet<(Option<Ipv4Addr>, Protocol, u16)>,
}

type Destination = (Ipv4Addr, Protocol, u16);

impl Table<'_> {
    fn declare(&mut self, line: &str) {
        let _ = writeln!(self.rules.declarations, "add {line}");
    }

    fn rule(&mut self, chain: &str, rule: &str) {
        let _ = writeln!(self.rules.rules, "add rule ip {} {chain} {rule}", self.place.name);
    }

    fn chain(&mut self, name: &str) {
        if self.rules.names.insert(Named::Chain(name.to_owned())) {
            self.declare(&format!("chain ip {} {name}", self.place.name));
        }
    }

    /// What does not depend on services.
    fn skeleton(&mut self) {
        let (table, gateway) = (self.place.name, self.place.gateway);
        let destination = "type ipv4_addr . inet_proto . inet_service";
        self.declare(&format!("map ip {table} routes {{ {destination} : verdict ; }}"));
        self.declare(&format!("map ip {table} host-ports {{ type inet_proto . inet_service : verdict ; }}"));
        self.declare(&format!("map ip {table} host-ports-at {{ {destination} : verdict ; }}"));
        self.declare(&format!("map ip {table} node-ports {{ type inet_proto . inet_service : verdict ; }}"));
        self.declare(&format!("set ip {table} refused {{ {destination} ; }}"));
        for (chain, hook) in [
            ("from-outside", "type nat hook prerouting priority dstnat"),
            ("from-here", "type nat hook output priority -100"),
            ("leaving", "type nat hook postrouting priority srcnat"),
            ("refuse-forward", "type filter hook forward priority filter"),
            ("refuse-output", "type filter hook output priority filter"),
        ] {
            self.declare(&format!("chain ip {table} {chain} {{ {hook} ; policy accept ; }}"));
        }
        let (range, bits) = SERVICE_RANGE;
        // Pods of another agent of this machine are led by that one's table: it may be of another cluster, whose services
        // have the same addresses.
        self.rule(
            "from-outside",
            &format!("iifname \"claw*\" iifname != \"{table}\" ip daddr {range}/{bits} return"),
        );
        let to = "ip daddr . meta l4proto . th dport";
        for chain in ["from-outside", "from-here"] {
            self.rule(chain, &format!("{to} vmap @routes"));
            // Not by the loopback address: the kernel does not send its packets to other interfaces. Nor by the bridge's:
            // what pods ask there is answered by the agent, whichever ports they take.
            let here = format!("ip daddr != {{ 127.0.0.0/8, {gateway} }} fib daddr type local");
            self.rule(chain, &format!("{here} {to} vmap @host-ports-at"));
            self.rule(chain, &format!("{here} meta l4proto . th dport vmap @host-ports"));
            self.rule(chain, &format!("{here} meta l4proto . th dport vmap @node-ports"));
        }
        self.rule(
            "leaving",
            &format!("meta mark & {HAIRPIN} == {HAIRPIN} meta mark set mark & 0xffffbfff masquerade"),
        );
        let pods = Ipv4Addr::from_bits(gateway.to_bits() & 0xffff_ff00);
        self.rule("leaving", &format!("ip saddr {pods}/24 oifname != \"claw*\" masquerade"));
        for (chain, whom) in [
            ("refuse-forward", format!("iifname \"{table}\" ip daddr {range}/{bits}")),
            ("refuse-output", format!("{to} @refused")),
        ] {
            self.rule(chain, &format!("{whom} meta l4proto tcp reject with tcp reset"));
            self.rule(chain, &format!("{whom} reject"));
        }
    }

    fn route(&mut self, route: &Route) {
        let (namespace, name) = &route.service;
        // What comes from outside alone may come to other endpoints.
        let from = if route.address.is_none() { " from outside" } else { "" };
        let who = format!("{namespace}/{name} {} {}{from}", route.protocol.word(), route.port);
        let chain = (!route.backends.is_empty()).then(|| format!("service-{}", short(&who)));
        let own = route.address.map(|address| ((address, route.protocol, route.port), chain.clone()));
        self.routes.extend(own);
        let external = route.external.iter().filter(|address| is_foreign(**address, self.place.gateway));
        let external = external.map(|address| ((*address, route.protocol, route.port), chain.clone()));
        self.external.extend(external);
        let Some(chain) = chain else { return };
        self.node_ports.extend(route.node_port.map(|port| ((route.protocol, port), chain.clone())));
        self.chain(&chain);
        let backends: Vec<(String, u32)> = route
            .backends
            .iter()
            .map(|(backend, weight)| (self.endpoint(&who, route, *backend), *weight))
            .collect();
        let total: u32 = backends.iter().map(|(_, weight)| weight).sum();
        if let [(only, _)] = &backends[..] {
            self.rule(&chain, &format!("goto {only}"));
            return;
        }
        let mut from = 0;
        let choices: Vec<String> = backends
            .iter()
            .map(|(endpoint, weight)| {
                let last = from + weight - 1;
                let range = if from == last { from.to_string() } else { format!("{from}-{last}") };
                from += weight;
                format!("{range} : goto {endpoint}")
            })
            .collect();
        self.rule(&chain, &format!("numgen random mod {total} vmap {{ {} }}", choices.join(", ")));
    }

    /// The chain of one endpoint of a service; with affinity, the service's chain sends those who came before straight there.
    fn endpoint(&mut self, who: &str, route: &Route, (address, port): (Ipv4Addr, u16)) -> String {
        let table = self.place.name;
        let id = short(&format!("{who} {address} {port} {:?}", route.affinity_s));
        let chain = format!("endpoint-{id}");
        self.chain(&chain);
        if address != self.place.gateway {
            self.rule(&chain, &format!("ip saddr {address} meta mark set mark or {HAIRPIN}"));
        }
        if let Some(seconds) = route.affinity_s {
            let set = format!("clients-{id}");
            self.declare(&format!(
                "set ip {table} {set} {{ type ipv4_addr ; size {CLIENTS_MAX} ; flags dynamic,timeout ; timeout {seconds}s ; }}"
            ));
            self.rules.names.insert(Named::Set(set.clone()));
            self.rule(&format!("service-{}", short(who)), &format!("ip saddr @{set} goto {chain}"));
            self.rule(&chain, &format!("update @{set} {{ ip saddr }}"));
        }
        self.rule(&chain, &format!("meta l4proto {} dnat to {address}:{port}", route.protocol.word()));
        chain
    }

    /// Of those who want one port the first has it: the kernel would take none of the rules.
    fn host_port(&mut self, port: &HostPort) {
        if !self.host_ports.insert((port.address, port.protocol, port.port)) {
            return;
        }
        let chain = format!("port-{}", short(&format!("{port:?}")));
        self.chain(&chain);
        let (address, number) = port.to;
        self.rule(&chain, &format!("ip saddr {address} meta mark set mark or {HAIRPIN}"));
        self.rule(&chain, &format!("meta l4proto {} dnat to {address}:{number}", port.protocol.word()));
        let (table, protocol, from) = (self.place.name, port.protocol.word(), port.port);
        let element = match port.address {
            Some(at) => format!("host-ports-at {{ {at} . {protocol} . {from} : goto {chain} }}"),
            None => format!("host-ports {{ {protocol} . {from} : goto {chain} }}"),
        };
        let _ = writeln!(self.rules.rules, "add element ip {table} {element}");
    }

    fn finish(mut self) -> Rules {
        let table = self.place.name;
        for (to, chain) in std::mem::take(&mut self.external) {
            self.routes.entry(to).or_insert(chain);
        }
        for ((protocol, port), chain) in &self.node_ports {
            let _ = writeln!(
                self.rules.rules,
                "add element ip {table} node-ports {{ {} . {port} : goto {chain} }}",
                protocol.word()
            );
        }
        for ((address, protocol, port), chain) in &self.routes {
            let to = format!("{address} . {} . {port}", protocol.word());
            let _ = match chain {
                Some(chain) => {
                    writeln!(self.rules.rules, "add element ip {table} routes {{ {to} : goto {chain} }}")
                }
                None => writeln!(self.rules.rules, "add element ip {table} refused {{ {to} }}"),
            };
        }
        self.rules
    }
}

/// Whether an address may be led elsewhere: those of services and pods are not for others to give away.
fn is_foreign(address: Ipv4Addr, gateway: Ipv4Addr) -> bool {
    let within = |(range, bits): (Ipv4Addr, u8)| {
        let shift = 32 - u32::from(bits);
        address.to_bits() >> shift == range.to_bits() >> shift
    };
    !within(SERVICE_RANGE) && !within((gateway, 24))
}

/// Names in rules have at most 128 letters, and not any letter.
fn short(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place<'static> {
        Place { name: "claw7", gateway: Ipv4Addr::new(10, 88, 7, 1) }
    }

    fn route(backends: &[(u8, u32)], affinity_s: Option<u32>) -> Route {
        Route {
            service: ("default".to_owned(), "web".to_owned()),
            port_name: String::new(),
            address: Some(Ipv4Addr::new(10, 96, 0, 9)),
            external: BTreeSet::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            affinity_s,
            backends: backends
                .iter()
                .map(|(host, weight)| ((Ipv4Addr::new(10, 88, 7, *host), 8080), *weight))
                .collect(),
        }
    }

    fn of(routes: Vec<Route>) -> Rules {
        rules(place(), &Services { routes, ..Services::default() }, &[])
    }

    #[test]
    fn who_comes_from_another_agents_pods_is_left_to_its_rules_before_all_others() {
        let text = of(vec![route(&[(2, 1)], None)]).transaction("claw7", &BTreeSet::new());
        let rule = "iifname \"claw*\" iifname != \"claw7\" ip daddr 10.96.0.0/16 return";
        let of_chain: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("add rule ip claw7 from-outside ")).collect();
        assert_eq!(of_chain[0], rule);
        assert!(of_chain[1].contains("vmap @routes"), "{of_chain:?}");
    }

    #[test]
    fn endpoints_are_chosen_by_their_weights() {
        let text = of(vec![route(&[(2, 1), (3, 3)], None)]).transaction("claw7", &BTreeSet::new());
        assert!(text.contains("numgen random mod 4 vmap { 0 : goto endpoint-"), "{text}");
        assert!(text.contains(", 1-3 : goto endpoint-"), "{text}");
        assert!(text.contains("meta l4proto tcp dnat to 10.88.7.3:8080"), "{text}");
        assert!(
            text.contains("add element ip claw7 routes { 10.96.0.9 . tcp . 80 : goto service-"),
            "{text}"
        );
    }

    #[test]
    fn a_port_of_the_node_leads_where_the_service_does_or_to_what_is_on_the_node() {
        let inside = Route { node_port: Some(30_080), ..route(&[(2, 1), (3, 1)], None) };
        let text = of(vec![inside.clone()]).transaction("claw7", &BTreeSet::new());
        let chain = |before: &str| text.split(before).nth(1).unwrap().split(' ').next().unwrap().to_owned();
        assert_eq!(chain("node-ports { tcp . 30080 : goto "), chain("routes { 10.96.0.9 . tcp . 80 : goto "));
        let outside = Route { address: None, node_port: Some(30_080), ..route(&[(3, 1)], None) };
        let text =
            of(vec![Route { node_port: None, ..inside }, outside]).transaction("claw7", &BTreeSet::new());
        let chain = |before: &str| text.split(before).nth(1).unwrap().split(' ').next().unwrap().to_owned();
        assert_ne!(chain("node-ports { tcp . 30080 : goto "), chain("routes { 10.96.0.9 . tcp . 80 : goto "));
        assert_eq!(text.matches("dnat to 10.88.7.3:8080").count(), 2, "{text}");
    }

    #[test]
    fn a_service_without_endpoints_refuses() {
        let text = of(vec![route(&[], None)]).transaction("claw7", &BTreeSet::new());
        assert!(text.contains("add element ip claw7 refused { 10.96.0.9 . tcp . 80 }"), "{text}");
        assert!(!text.contains("service-"), "{text}");
    }

    #[test]
    fn what_goes_is_deleted_and_what_stays_keeps_who_came_to_it() {
        let before = of(vec![route(&[(2, 1), (3, 1)], Some(60))]);
        let after = of(vec![route(&[(3, 1)], Some(60))]);
        let text = after.transaction("claw7", &before.names);
        assert_eq!(text.matches("delete chain").count(), 1, "{text}");
        assert_eq!(text.matches("delete set").count(), 1, "{text}");
        assert!(before.names.is_superset(&after.names));
        // Loaded twice it is the same.
        assert!(!after.transaction("claw7", &after.names).contains("delete"));
    }

    #[test]
    fn an_address_that_is_taken_leads_to_nobody_else() {
        let mut thief = route(&[(3, 1)], None);
        thief.service = ("zzz".to_owned(), "thief".to_owned());
        thief.address = Some(Ipv4Addr::new(10, 96, 0, 10));
        let (pod, own) = (Ipv4Addr::new(10, 88, 7, 2), Ipv4Addr::new(192, 0, 2, 1));
        thief.external = [Ipv4Addr::new(10, 96, 0, 9), Ipv4Addr::new(10, 96, 0, 1), pod, own].into();
        for victim in [route(&[(2, 1)], None), route(&[], None)] {
            let text = of(vec![victim, thief.clone()]).transaction("claw7", &BTreeSet::new());
            assert_eq!(text.matches("{ 10.96.0.9 . tcp . 80").count(), 1, "{text}");
            let led: Vec<_> = text.lines().filter(|line| line.contains(" routes { ")).collect();
            assert!(led.iter().any(|line| line.contains("192.0.2.1 . tcp . 80")), "{text}");
            assert!(!text.contains("10.96.0.1 .") && !text.contains("routes { 10.88"), "{text}");
        }
    }

    #[test]
    fn of_two_who_want_a_port_of_the_machine_the_first_has_it() {
        let port = |host: u8, address: Option<Ipv4Addr>| HostPort {
            protocol: Protocol::Tcp,
            address,
            port: 8080,
            to: (Ipv4Addr::new(10, 88, 7, host), 80),
        };
        let at = Some(Ipv4Addr::new(192, 0, 2, 1));
        let ports = [port(2, None), port(3, None), port(3, at), port(2, at)];
        let rules = rules(place(), &Services::default(), &ports);
        let text = rules.transaction("claw7", &BTreeSet::new());
        assert_eq!(text.matches("add element ip claw7 host-ports { ").count(), 1, "{text}");
        assert_eq!(text.matches("add element ip claw7 host-ports-at { ").count(), 1, "{text}");
        assert!(text.contains("dnat to 10.88.7.2:80") && text.contains("dnat to 10.88.7.3:80"), "{text}");
    }

    #[test]
    fn what_pods_ask_of_the_bridge_is_nobodys_port() {
        let text = of(Vec::new()).transaction("claw7", &BTreeSet::new());
        let ports: Vec<_> =
            text.lines().filter(|line| line.contains("-ports") && line.contains(" vmap @")).collect();
        assert_eq!(ports.len(), 6, "{text}");
        assert!(ports.iter().all(|rule| rule.contains("!= { 127.0.0.0/8, 10.88.7.1 }")), "{text}");
    }
}
