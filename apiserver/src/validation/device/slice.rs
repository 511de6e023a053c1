//! Slices: the devices that a driver offers.

use std::collections::HashSet;

use serde_json::Value;

use super::taints::taint;
use crate::validation::{
    each,
    faults::{Faults, Path},
    fits, is_empty, len, named, names, not_negative, text,
};

/// Devices of one slice, and attributes and capacities of one device.
const DEVICES_MAX: usize = 128;
const ATTRIBUTES_MAX: usize = 32;
/// Longest text of an attribute, in bytes.
const TEXT_BYTES_MAX: usize = 64;
/// Taints of one device.
const TAINTS_MAX: usize = 16;
/// Longest name of a pool.
const POOL_BYTES_MAX: usize = 253;
/// The ways to say where the devices are.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
/// What an attribute can be.
const VALUES: [&str; 4] = ["bool", "int", "string", "version"];

pub(in crate::validation) fn slice(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    named(names::dns_subdomain, &spec["driver"], &path.field("driver"), faults);
    pool(&spec["pool"], &path.field("pool"), faults);
    place(spec, path, faults);
    let devices = &path.field("devices");
    if len(&spec["devices"]) > DEVICES_MAX {
        faults.too_many(devices, len(&spec["devices"]), DEVICES_MAX);
        return;
    }
    let mut seen = HashSet::new();
    each(&spec["devices"], devices, |one, path| {
        named(names::dns_label, &one["name"], &path.field("name"), faults);
        if !seen.insert(text(&one["name"])) {
            faults.duplicate(&path.field("name"), &one["name"]);
        }
        device(one, path, faults);
    });
    let Some(old) = old.map(|old| &old["spec"]) else { return };
    for field in ["driver", "nodeName"] {
        crate::validation::immutable(old, spec, field, path, faults);
    }
    crate::validation::immutable(&old["pool"], &spec["pool"], "name", &path.field("pool"), faults);
}

fn pool(pool: &Value, path: &Path<'_>, faults: &mut Faults) {
    pool_name(&pool["name"], &path.field("name"), faults);
    let count = &pool["resourceSliceCount"];
    if count.as_i64().unwrap_or(0) <= 0 {
        faults.invalid(&path.field("resourceSliceCount"), count, "must be greater than zero");
    }
    not_negative(&pool["generation"], &path.field("generation"), faults);
}

/// Subdomains with slashes between them.
pub(super) fn pool_name(name: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(name) {
        faults.required(path, "");
    } else if text(name).len() > POOL_BYTES_MAX {
        faults.too_long(path, POOL_BYTES_MAX);
    } else if let Some(why) = text(name).split('/').find_map(|part| names::dns_subdomain(part).err()) {
        faults.invalid(path, name, why);
    }
}

fn place(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let given = |field: &&str| match &spec[*field] {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    match PLACES.iter().filter(|field| given(field)).count() {
        0 => faults.required(
            path,
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        ),
        1 => fits(names::dns_subdomain, &spec["nodeName"], &path.field("nodeName"), faults),
        _ => faults.invalid(
            path,
            spec,
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        ),
    }
}

fn device(device: &Value, path: &Path<'_>, faults: &mut Faults) {
    let entries = |field: &str| device[field].as_object().map_or(0, serde_json::Map::len);
    if entries("attributes") + entries("capacity") > ATTRIBUTES_MAX {
        let count = entries("attributes") + entries("capacity");
        let why =
            format_args!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        faults.invalid(path, &count.into(), why);
    }
    let attributes = &path.field("attributes");
    for (name, attribute) in device["attributes"].as_object().into_iter().flatten() {
        let path = &attributes.key(name);
        qualified(name, path, faults);
        let given: Vec<&&str> = VALUES.iter().filter(|value| !attribute[**value].is_null()).collect();
        match given.len() {
            0 => faults.required(path, "exactly one value must be specified"),
            1 => {}
            _ => faults.invalid(path, attribute, "exactly one value must be specified"),
        }
        for field in ["string", "version"].into_iter().filter(|f| text(&attribute[*f]).len() > TEXT_BYTES_MAX)
        {
            faults.too_long(&path.field(field), TEXT_BYTES_MAX);
        }
    }
    let capacity = &path.field("capacity");
    for name in device["capacity"].as_object().into_iter().flatten().map(|(name, _)| name) {
        qualified(name, &capacity.key(name), faults);
    }
    let taints = &path.field("taints");
    if len(&device["taints"]) > TAINTS_MAX {
        faults.too_many(taints, len(&device["taints"]), TAINTS_MAX);
    }
    each(&device["taints"], taints, |one, path| taint(None, one, path, faults));
}

/// `memory`, `example.com/memory`: the name after the domain is an identifier.
fn qualified(name: &str, path: &Path<'_>, faults: &mut Faults) {
    let (domain, id) = name.split_once('/').map_or((None, name), |(domain, id)| (Some(domain), id));
    if let Some(Err(why)) = domain.map(names::dns_subdomain) {
        faults.invalid_text(path, name, why);
    }
    let sound = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !sound || id.len() > 32 {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        faults.invalid_text(path, name, why);
    }
}
