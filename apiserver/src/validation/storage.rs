//! Persistent volumes, claims on them, and the classes they come from.

use claw_schemas::quantity::Quantity;
use serde_json::Value;

use super::{
    faults::{Faults, Path},
    fits, immutable, is_empty, is_set, len, names, one_of, optional_one_of, text,
    workload::{label_selector, without},
};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// Fields of a volume that say where its bytes are.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

pub(super) fn volume(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    access_modes(spec, "", path, faults);
    capacity(&spec["capacity"], &path.field("capacity"), faults);
    let (policy, policy_path) =
        (&spec["persistentVolumeReclaimPolicy"], &path.field("persistentVolumeReclaimPolicy"));
    optional_one_of(policy, &["Delete", "Recycle", "Retain"], policy_path, faults);
    optional_one_of(&spec["volumeMode"], &VOLUME_MODES, &path.field("volumeMode"), faults);
    fits(names::dns_subdomain, &spec["storageClassName"], &path.field("storageClassName"), faults);
    source(spec, path, faults);
    if policy == "Recycle" && spec["hostPath"]["path"] == "/" {
        faults.forbidden(policy_path, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let Some(old) = old.map(|old| &old["spec"]) else { return };
    if SOURCES.iter().any(|source| old[*source] != spec[*source]) {
        let why = "spec.persistentvolumesource is immutable after creation";
        faults.forbidden(&path.field("persistentvolumesource"), why);
    }
    immutable(old, spec, "volumeMode", path, faults);
    if !old["nodeAffinity"].is_null() {
        immutable(old, spec, "nodeAffinity", path, faults);
    }
}

fn access_modes(spec: &Value, why: &str, path: &Path<'_>, faults: &mut Faults) {
    let (modes, path) = (&spec["accessModes"], &path.field("accessModes"));
    if len(modes) == 0 {
        faults.required(path, why);
    }
    let mut alone = false;
    for mode in modes.as_array().into_iter().flatten() {
        one_of(mode, &ACCESS_MODES, path, faults);
        alone |= mode == "ReadWriteOncePod";
    }
    if alone && len(modes) > 1 {
        faults.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn capacity(capacity: &Value, path: &Path<'_>, faults: &mut Faults) {
    let entries = capacity.as_object().map_or(0, serde_json::Map::len);
    if entries == 0 {
        faults.required(path, "");
    } else if entries > 1 || capacity["storage"].is_null() {
        faults.unsupported(path, capacity, &["storage"]);
    }
    positive(&capacity["storage"], &path.key("storage"), faults);
}

fn positive(amount: &Value, path: &Path<'_>, faults: &mut Faults) {
    if quantity(amount).is_some_and(|amount| amount <= Quantity::default()) {
        faults.invalid(path, amount, "must be greater than zero");
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

fn source(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut given = SOURCES.iter().filter(|source| !spec[**source].is_null());
    let Some(first) = given.next() else {
        faults.required(path, "must specify a volume type");
        return;
    };
    for more in given {
        faults.forbidden(&path.field(more), "may not specify more than 1 volume type");
    }
    let (source, at) = (&spec[*first], &path.field(first));
    let demanded: &[&str] = match *first {
        "hostPath" | "local" => &["path"],
        "nfs" => &["server", "path"],
        "csi" => &["driver", "volumeHandle"],
        _ => &[],
    };
    for field in demanded.iter().filter(|field| is_empty(&source[**field])) {
        faults.required(&at.field(field), "");
    }
    if text(&source["path"]).split('/').any(|part| part == "..") {
        faults.invalid(&at.field("path"), &source["path"], "must not contain '..'");
    }
    if *first == "local" && spec["nodeAffinity"]["required"].is_null() {
        faults.required(&path.field("nodeAffinity"), "Local volume requires node affinity");
    }
}

pub(super) fn claim(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let path = &Path::Root.field("spec");
    claim_spec(&new["spec"], path, faults);
    if let Some(old) = old {
        claim_update(old, new, path, faults);
    }
}

fn claim_spec(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    access_modes(spec, "at least 1 access mode is required", path, faults);
    label_selector(&spec["selector"], &path.field("selector"), faults);
    let (wanted, resources) = (&spec["resources"]["requests"]["storage"], &path.field("resources"));
    if wanted.is_null() {
        faults.required(&resources.key("storage"), "");
    }
    let requests = &resources.field("requests");
    positive(wanted, &requests.key("storage"), faults);
    for field in ["storageClassName", "volumeAttributesClassName"] {
        fits(names::dns_subdomain, &spec[field], &path.field(field), faults);
    }
    optional_one_of(&spec["volumeMode"], &VOLUME_MODES, &path.field("volumeMode"), faults);
    let (source, source_path) = (&spec["dataSource"], &path.field("dataSource"));
    for field in ["kind", "name"].into_iter().filter(|field| !source.is_null() && !is_set(&source[*field])) {
        faults.required(&source_path.field(field), "");
    }
}

/// A claim can be bound once, and grow when it is.
fn claim_update(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (old_spec, new_spec) = (&old["spec"], &new["spec"]);
    let mut free = vec!["resources"];
    if is_empty(&old_spec["volumeName"]) {
        free.push("volumeName");
    }
    if old_spec["storageClassName"].is_null() {
        free.push("storageClassName");
    }
    if old["status"]["phase"] == "Bound" {
        free.push("volumeAttributesClassName");
    }
    let resized = old_spec["resources"] != new_spec["resources"];
    if without(old_spec, &free) != without(new_spec, &free) || (resized && old["status"]["phase"] != "Bound")
    {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        faults.forbidden(path, why);
    }
    let size = |spec: &Value| quantity(&spec["resources"]["requests"]["storage"]);
    if size(new_spec) < size(old_spec) && size(new_spec) < quantity(&old["status"]["capacity"]["storage"]) {
        let (resources, why) = (&path.field("resources"), "field can not be less than status.capacity");
        let requests = &resources.field("requests");
        faults.forbidden(&requests.field("storage"), why);
    }
}

pub(super) fn class(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let root = &Path::Root;
    let provisioner = &new["provisioner"];
    if is_empty(provisioner) {
        faults.required(&root.field("provisioner"), "");
    } else if let Err(why) = names::qualified(&text(provisioner).to_lowercase()) {
        faults.invalid(&root.field("provisioner"), provisioner, why);
    }
    if new["parameters"].as_object().is_some_and(|parameters| parameters.contains_key("")) {
        faults.invalid_text(&root.field("parameters"), "", "field can not be empty.");
    }
    one_of(&new["reclaimPolicy"], &["Delete", "Retain"], &root.field("reclaimPolicy"), faults);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(&new["volumeBindingMode"], &modes, &root.field("volumeBindingMode"), faults);
    let Some(old) = old else { return };
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if old[field] != new[field] {
            faults.forbidden(&root.field(field), format_args!("updates to {field} are forbidden."));
        }
    }
    immutable(old, new, "volumeBindingMode", root, faults);
}
