//! Services, and the addresses behind them.

use std::{collections::HashSet, net::IpAddr};

use serde_json::{Value, json};

use super::{
    each,
    faults::{Faults, Path},
    fits, immutable, is_empty, is_set, len, meta, named, names, one_of, optional_one_of, port, port_number,
    required_one_of, text,
};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// Longest time that a client sticks to a server, in seconds: a day.
const AFFINITY_S_MAX: i64 = 86_400;
/// Endpoints of one slice, addresses of one endpoint.
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;

pub(super) fn service(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    kind(spec, path, faults);
    ports(spec, path, faults);
    meta::labels(&spec["selector"], &path.field("selector"), faults);
    affinity(spec, path, faults);
    addresses(spec, path, faults);
    families(spec, path, faults);
    balancer(spec, path, faults);
    traffic(spec, path, faults);
    if let Some(old) = old {
        same_address(&old["spec"], spec, path, faults);
    }
}

fn is(spec: &Value, kind: &str) -> bool {
    spec["type"] == kind
}

/// A service without an address of its own: its name stands for its pods.
fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None"
}

fn kind(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    required_one_of(&spec["type"], &kinds, &path.field("type"), faults);
    let ips = &path.field("clusterIPs");
    match text(&spec["type"]) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let why = format_args!("may not be set to 'None' for {kind} services");
            faults.invalid(&ips.item(0), &spec["clusterIPs"][0], why);
        }
        "ExternalName" => {
            if is_set(&spec["clusterIP"]) || is_set(&spec["clusterIPs"]) {
                faults.forbidden(ips, "may not be set for ExternalName services");
            }
            let name = text(&spec["externalName"]);
            named_host(name.strip_suffix('.').unwrap_or(name), &path.field("externalName"), faults);
        }
        _ => {}
    }
}

fn named_host(name: &str, path: &Path<'_>, faults: &mut Faults) {
    if name.is_empty() {
        faults.required(path, "");
    } else if let Err(why) = names::dns_subdomain(name) {
        faults.invalid_text(path, name, why);
    }
}

fn ports(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (ports, path) = (&spec["ports"], &path.field("ports"));
    if len(ports) == 0 && !is_headless(spec) && !is(spec, "ExternalName") {
        faults.required(path, "");
    }
    let (mut names_seen, mut ports_seen, mut nodes_seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    each(ports, path, |one, path| {
        name(&one["name"], len(ports) > 1, &path.field("name"), faults);
        if !is_empty(&one["name"]) && !names_seen.insert(text(&one["name"])) {
            faults.duplicate(&path.field("name"), &one["name"]);
        }
        port_number(&one["port"], &path.field("port"), faults);
        required_one_of(&one["protocol"], &PROTOCOLS, &path.field("protocol"), faults);
        port(&one["targetPort"], &path.field("targetPort"), faults);
        fits(names::qualified, &one["appProtocol"], &path.field("appProtocol"), faults);
        let protocol = text(&one["protocol"]);
        if !ports_seen.insert((protocol, one["port"].as_i64())) {
            faults.duplicate(path, &json!({"protocol": protocol, "port": one["port"]}));
        }
        let node = one["nodePort"].as_i64().unwrap_or(0);
        if node == 0 {
            return;
        }
        port_number(&one["nodePort"], &path.field("nodePort"), faults);
        if is(spec, "ClusterIP") {
            faults.forbidden(&path.field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        } else if !nodes_seen.insert((protocol, node)) {
            faults.duplicate(&path.field("nodePort"), &one["nodePort"]);
        }
    });
}

fn name(name: &Value, required: bool, path: &Path<'_>, faults: &mut Faults) {
    if required && is_empty(name) {
        faults.required(path, "");
    } else {
        fits(names::dns_label, name, path, faults);
    }
}

fn affinity(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let affinity = &spec["sessionAffinity"];
    required_one_of(affinity, &["ClientIP", "None"], &path.field("sessionAffinity"), faults);
    let (config, path) = (&spec["sessionAffinityConfig"], &path.field("sessionAffinityConfig"));
    if affinity == "None" && !config.is_null() {
        faults.forbidden(path, "must not be set when session affinity is None");
    }
    let timeout = &config["clientIP"]["timeoutSeconds"];
    if timeout.as_i64().is_some_and(|seconds| !(1..=AFFINITY_S_MAX).contains(&seconds)) {
        let why = format_args!("must be greater than 0 and less than {AFFINITY_S_MAX}");
        let client = &path.field("clientIP");
        faults.invalid(&client.field("timeoutSeconds"), timeout, why);
    }
}

fn addresses(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(&spec["externalIPs"], &path.field("externalIPs"), |ip, path| routable(ip, path, faults));
    let (ip, ips) = (&spec["clusterIP"], &path.field("clusterIPs"));
    if is_set(ip) && spec["clusterIPs"][0] != *ip {
        faults.invalid(ips, &spec["clusterIPs"], "first value must match `clusterIP`");
    }
    if len(&spec["clusterIPs"]) > 1 {
        let why = "may only hold one value on a cluster with one family of addresses";
        faults.invalid(ips, &spec["clusterIPs"], why);
    }
    each(&spec["clusterIPs"], ips, |ip, path| {
        if ip != "None" {
            fits(names::ip, ip, path, faults);
        }
    });
}

/// An address that packets from elsewhere can arrive at.
fn routable(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    let Ok(ip) = text(value).parse::<IpAddr>() else {
        named(names::ip, value, path, faults);
        return;
    };
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        faults.invalid(path, value, format_args!("may not be unspecified ({ip})"));
    } else if ip.is_loopback() {
        faults.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if link_local {
        faults.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
}

fn families(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (policy, policy_path) = (&spec["ipFamilyPolicy"], &path.field("ipFamilyPolicy"));
    optional_one_of(policy, &["PreferDualStack", "RequireDualStack", "SingleStack"], policy_path, faults);
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        faults.invalid(policy_path, policy, why);
    }
    each(&spec["ipFamilies"], &path.field("ipFamilies"), |family, path| {
        one_of(family, &["IPv4", "IPv6"], path, faults);
        if family == "IPv6" {
            faults.invalid(path, family, "not configured on this cluster");
        }
    });
}

fn balancer(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let balanced = is(spec, "LoadBalancer");
    for field in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !balanced && is_set(&spec[field]) {
            faults.forbidden(&path.field(field), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    each(&spec["loadBalancerSourceRanges"], &path.field("loadBalancerSourceRanges"), |range, path| {
        named(names::cidr, range, path, faults);
    });
    fits(names::qualified, &spec["loadBalancerClass"], &path.field("loadBalancerClass"), faults);
}

fn traffic(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (external, external_path) = (&spec["externalTrafficPolicy"], &path.field("externalTrafficPolicy"));
    let from_outside = is(spec, "LoadBalancer") || is(spec, "NodePort") || is_set(&spec["externalIPs"]);
    if is_set(external) && !from_outside {
        let why = "may only be set for externally-accessible services";
        faults.invalid(external_path, external, why);
    } else {
        optional_one_of(external, &["Cluster", "Local"], external_path, faults);
    }
    let health = &spec["healthCheckNodePort"];
    let checked = is(spec, "LoadBalancer") && external == "Local";
    if health.as_i64().is_some_and(|port| port != 0) && !checked {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        faults.invalid(&path.field("healthCheckNodePort"), health, why);
    }
    let internal = &path.field("internalTrafficPolicy");
    optional_one_of(&spec["internalTrafficPolicy"], &["Cluster", "Local"], internal, faults);
    let near = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    optional_one_of(&spec["trafficDistribution"], &near, &path.field("trafficDistribution"), faults);
}

/// The address of a service stays as long as it has one.
fn same_address(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is(old, "ExternalName") || is(new, "ExternalName") {
        return;
    }
    let (had, has) = (&old["clusterIPs"][0], &new["clusterIPs"][0]);
    if is_set(had) && had != has {
        let ips = &path.field("clusterIPs");
        faults.invalid(&ips.item(0), &new["clusterIPs"], "may not change once set");
    }
}

pub(super) fn endpoints(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    each(&new["subsets"], &Path::Root.field("subsets"), |subset, path| {
        if len(&subset["addresses"]) == 0 && len(&subset["notReadyAddresses"]) == 0 {
            faults.required(path, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            each(&subset[list], &path.field(list), |address, path| {
                routable(&address["ip"], &path.field("ip"), faults);
                fits(names::dns_label, &address["hostname"], &path.field("hostname"), faults);
                fits(names::dns_subdomain, &address["nodeName"], &path.field("nodeName"), faults);
            });
        }
        let several = len(&subset["ports"]) > 1;
        each(&subset["ports"], &path.field("ports"), |one, path| {
            name(&one["name"], several, &path.field("name"), faults);
            port_number(&one["port"], &path.field("port"), faults);
            required_one_of(&one["protocol"], &PROTOCOLS, &path.field("protocol"), faults);
            fits(names::qualified, &one["appProtocol"], &path.field("appProtocol"), faults);
        });
    });
}

pub(super) fn endpoint_slice(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    required_one_of(&new["addressType"], &kinds, &Path::Root.field("addressType"), faults);
    let endpoints = &Path::Root.field("endpoints");
    if len(&new["endpoints"]) > ENDPOINTS_MAX {
        faults.too_many(endpoints, len(&new["endpoints"]), ENDPOINTS_MAX);
        return;
    }
    each(&new["endpoints"], endpoints, |one, path| endpoint(one, &new["addressType"], path, faults));
    let mut seen = HashSet::new();
    each(&new["ports"], &Path::Root.field("ports"), |one, path| {
        fits(names::dns_label, &one["name"], &path.field("name"), faults);
        if !seen.insert(text(&one["name"])) {
            faults.duplicate(&path.field("name"), &one["name"]);
        }
        required_one_of(&one["protocol"], &PROTOCOLS, &path.field("protocol"), faults);
        if !one["port"].is_null() {
            port_number(&one["port"], &path.field("port"), faults);
        }
        fits(names::qualified, &one["appProtocol"], &path.field("appProtocol"), faults);
    });
    if let Some(old) = old {
        immutable(old, new, "addressType", &Path::Root, faults);
    }
}

fn endpoint(endpoint: &Value, kind: &Value, path: &Path<'_>, faults: &mut Faults) {
    let addresses = &path.field("addresses");
    match len(&endpoint["addresses"]) {
        0 => faults.required(addresses, "must contain at least 1 address"),
        count if count > ADDRESSES_MAX => faults.too_many(addresses, count, ADDRESSES_MAX),
        _ => {}
    }
    each(&endpoint["addresses"], addresses, |address, path| {
        let ip = text(address).parse::<IpAddr>().ok();
        match text(kind) {
            "IPv4" if !ip.is_some_and(|ip| ip.is_ipv4()) => {
                faults.invalid(path, address, "must be a valid IPv4 address");
            }
            "IPv6" if !ip.is_some_and(|ip| ip.is_ipv6()) => {
                faults.invalid(path, address, "must be a valid IPv6 address");
            }
            "FQDN" => named_host(text(address), path, faults),
            "IPv4" | "IPv6" => routable(address, path, faults),
            _ => {}
        }
    });
    fits(names::dns_subdomain, &endpoint["nodeName"], &path.field("nodeName"), faults);
    fits(names::dns_label, &endpoint["hostname"], &path.field("hostname"), faults);
}
