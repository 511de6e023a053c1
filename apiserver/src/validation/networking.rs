//! Who may talk to whom, and which addresses are taken.

pub(super) mod ingress;

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    immutable, is_empty, is_set, len, named, names, one_of, optional_one_of, port, text,
    workload::label_selector,
};

pub(super) fn network_policy(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    label_selector(&spec["podSelector"], &path.field("podSelector"), faults);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        each(&spec[rules], &path.field(rules), |rule, path| {
            each(&rule["ports"], &path.field("ports"), |one, path| policy_port(one, path, faults));
            each(&rule[peers], &path.field(peers), |one, path| peer(one, path, faults));
        });
    }
    let (types, path) = (&spec["policyTypes"], &path.field("policyTypes"));
    if len(types) > 2 {
        faults.invalid(path, types, "may not specify more than two policyTypes");
        return;
    }
    each(types, path, |kind, path| one_of(kind, &["Egress", "Ingress"], path, faults));
}

fn policy_port(one: &Value, path: &Path<'_>, faults: &mut Faults) {
    optional_one_of(&one["protocol"], &["SCTP", "TCP", "UDP"], &path.field("protocol"), faults);
    let (start, end) = (&one["port"], &one["endPort"]);
    if !start.is_null() {
        port(start, &path.field("port"), faults);
    }
    let Some(last) = end.as_i64() else { return };
    let path = &path.field("endPort");
    match start.as_i64() {
        None if start.is_string() => {
            faults.invalid(path, end, "may not be specified when `port` is non-numeric");
        }
        None => faults.invalid(path, end, "may not be specified when `port` is not specified"),
        Some(first) if last < first => {
            faults.invalid(path, end, "must be greater than or equal to `port`");
        }
        Some(_) => super::port_number(end, path, faults),
    }
}

fn peer(peer: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (block, selectors) = (&peer["ipBlock"], ["podSelector", "namespaceSelector"]);
    let selects = selectors.iter().any(|field| !peer[*field].is_null());
    for field in selectors {
        label_selector(&peer[field], &path.field(field), faults);
    }
    match (block.is_null(), selects) {
        (true, false) => faults.required(path, "must specify a peer"),
        (false, true) => faults.forbidden(path, "may not specify both ipBlock and another peer"),
        (false, false) => ip_block(block, &path.field("ipBlock"), faults),
        (true, true) => {}
    }
}

fn ip_block(block: &Value, path: &Path<'_>, faults: &mut Faults) {
    named(names::cidr, &block["cidr"], &path.field("cidr"), faults);
    let Some(whole) = names::network(text(&block["cidr"])) else { return };
    each(&block["except"], &path.field("except"), |except, path| match names::network(text(except)) {
        None => named(names::cidr, except, path, faults),
        Some(part) if !is_strict_part(part, whole) => {
            faults.invalid(path, except, "must be a strict subset of `cidr`");
        }
        Some(_) => {}
    });
}

/// Whether one network lies in another and is smaller.
fn is_strict_part((part, longer): (std::net::IpAddr, u8), (whole, shorter): (std::net::IpAddr, u8)) -> bool {
    use std::net::IpAddr::{V4, V6};
    let same = match (part, whole) {
        (V4(part), V4(whole)) => {
            let bits = |ip: std::net::Ipv4Addr| u64::from(ip.to_bits()) >> (32 - u32::from(shorter));
            bits(part) == bits(whole)
        }
        (V6(part), V6(whole)) => {
            let bits =
                |ip: std::net::Ipv6Addr| ip.to_bits().checked_shr(128 - u32::from(shorter)).unwrap_or(0);
            bits(part) == bits(whole)
        }
        _ => false,
    };
    same && longer > shorter
}

pub(super) fn ip_address(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    let (parent, parent_path) = (&spec["parentRef"], &path.field("parentRef"));
    if parent.is_null() {
        faults.required(parent_path, "");
        return;
    }
    for field in ["resource", "name"].into_iter().filter(|field| is_empty(&parent[*field])) {
        faults.required(&parent_path.field(field), "");
    }
    for field in
        ["group", "resource", "namespace", "name"].into_iter().filter(|field| is_set(&parent[*field]))
    {
        super::fits(names::path_segment, &parent[field], &parent_path.field(field), faults);
    }
    if let Some(old) = old {
        immutable(&old["spec"], spec, "parentRef", path, faults);
    }
}
