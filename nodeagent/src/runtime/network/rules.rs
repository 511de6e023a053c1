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
    let mut table =
        Table { place, rules: Rules::default(), routes: BTreeMap::new(), refused: BTreeSet::new() };
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
        for map in ["map routes", "map host-ports", "map host-ports-at", "set refused"] {
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
    /// Destination → chain.
    routes: BTreeMap<(Ipv4Addr, Protocol, u16), String>,
    refused: BTreeSet<(Ipv4Addr, Protocol, u16)>,
}

impl Table<'_> {
    fn declare(&mut self, line: &str) {
        let _ = writeln!(self.rules.declarations, "add {line}");
    }

    fn rule(&mut self, chain: &str, rule: &str) {
        let _ = writeln!(self.rules.rules, "add rule ip {} {chain} {rule}", self.place.name);
    }

    fn chain(&mut self, name: &str) -> bool {
        let is_new = self.rules.names.insert(Named::Chain(name.to_owned()));
        if is_new {
            self.declare(&format!("chain ip {} {name}", self.place.name));
        }
        is_new
    }

    /// What does not depend on services.
    fn skeleton(&mut self) {
        let (table, gateway) = (self.place.name, self.place.gateway);
        let destination = "type ipv4_addr . inet_proto . inet_service";
        self.declare(&format!("map ip {table} routes {{ {destination} : verdict ; }}"));
        self.declare(&format!("map ip {table} host-ports {{ type inet_proto . inet_service : verdict ; }}"));
        self.declare(&format!("map ip {table} host-ports-at {{ {destination} : verdict ; }}"));
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
        let to = "ip daddr . meta l4proto . th dport";
        for chain in ["from-outside", "from-here"] {
            self.rule(chain, &format!("{to} vmap @routes"));
            // Not by the loopback address: the kernel does not send its packets to other interfaces.
            let here = "ip daddr != 127.0.0.0/8 fib daddr type local";
            self.rule(chain, &format!("{here} {to} vmap @host-ports-at"));
            self.rule(chain, &format!("{here} meta l4proto . th dport vmap @host-ports"));
        }
        self.rule(
            "leaving",
            &format!("meta mark & {HAIRPIN} == {HAIRPIN} meta mark set mark & 0xffffbfff masquerade"),
        );
        let pods = Ipv4Addr::from_bits(gateway.to_bits() & 0xffff_ff00);
        self.rule("leaving", &format!("ip saddr {pods}/24 oifname != \"claw*\" masquerade"));
        let (range, bits) = SERVICE_RANGE;
        for (chain, whom) in [
            ("refuse-forward", format!("iifname \"{table}\" ip daddr {range}/{bits}")),
            ("refuse-output", format!("{to} @refused")),
        ] {
            self.rule(chain, &format!("{whom} meta l4proto tcp reject with tcp reset"));
            self.rule(chain, &format!("{whom} reject"));
        }
    }

    fn route(&mut self, route: &Route) {
        let to = route.addresses.iter().map(|address| (*address, route.protocol, route.port));
        if route.backends.is_empty() {
            self.refused.extend(to);
            return;
        }
        let (namespace, name) = &route.service;
        let who = format!("{namespace}/{name} {} {}", route.protocol.word(), route.port);
        let chain = format!("service-{}", short(&who));
        self.routes.extend(to.map(|to| (to, chain.clone())));
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

    fn host_port(&mut self, port: &HostPort) {
        let chain = format!("port-{}", short(&format!("{port:?}")));
        if !self.chain(&chain) {
            return;
        }
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
        let destination = |(address, protocol, port): &(Ipv4Addr, Protocol, u16)| {
            format!("{address} . {} . {port}", protocol.word())
        };
        for (to, chain) in &self.routes {
            let _ = writeln!(
                self.rules.rules,
                "add element ip {table} routes {{ {} : goto {chain} }}",
                destination(to)
            );
        }
        for to in self.refused.iter().filter(|to| !self.routes.contains_key(to)) {
            let _ = writeln!(self.rules.rules, "add element ip {table} refused {{ {} }}", destination(to));
        }
        self.rules
    }
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
            addresses: [Ipv4Addr::new(10, 96, 0, 9)].into(),
            protocol: Protocol::Tcp,
            port: 80,
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
}
