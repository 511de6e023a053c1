//! Kernel jobs: graphs, where they run, and how often they are tried.
//!
//! What is wrong with a graph is found by building it, one fault at a time; everything else is said together.

use claw_graph::{
    DType,
    document::Fault,
    order::{Backend, Order},
};
use claw_schemas::api::KernelJobSpec;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{
    at_least, between, conditions, config, device, each,
    faults::{Faults, Path},
    fits, immutable, is_empty, len, meta, named, names, one_of, required_one_of, resources, scheduling, text,
    volume,
};

/// `NAME-100`, the name of the last pod that there may be, is a host name, too, and NAME is the value of a label.
const NAME_BYTES_MAX: usize = 59;
/// Numbers that may be given, both ends among them.
const NUMBERS: [(&str, i64, i64); 4] = [
    ("runs", 1, 1_000_000),
    ("warmups", 0, 10_000),
    ("backoffLimit", 0, 100),
    ("runTimeoutSeconds", 1, i32::MAX as i64),
];
/// What may change while a job is there.
const CHANGEABLE: [&str; 3] = ["suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds"];
/// Seconds that a pod can be given.
const ACTIVE_SECONDS_MAX: i64 = i32::MAX as i64;

pub(super) fn judge(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    between("activeDeadlineSeconds", (1, ACTIVE_SECONDS_MAX), spec, path, faults);
    at_least(0, &spec["ttlSecondsAfterFinished"], &path.field("ttlSecondsAfterFinished"), faults);
    match old {
        Some(old) => update(&old["spec"], spec, path, faults),
        None => create(new, path, faults),
    }
}

/// What a controller may say of a job, or of another object of our group.
pub(super) fn status(status: &Value, faults: &mut Faults) {
    conditions(&status["conditions"], &Path::Root.field("status").field("conditions"), faults);
}

fn update(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    let fields =
        |spec: &Value| spec.as_object().into_iter().flat_map(|spec| spec.keys().cloned()).collect::<Vec<_>>();
    let mut all = [fields(old), fields(new)].concat();
    all.sort_unstable();
    all.dedup();
    for field in all.iter().filter(|field| !CHANGEABLE.contains(&field.as_str())) {
        immutable(old, new, field, path, faults);
    }
}

fn create(job: &Value, path: &Path<'_>, faults: &mut Faults) {
    let spec = &job["spec"];
    if text(&job["metadata"]["name"]).len() > NAME_BYTES_MAX {
        let why = format_args!("must be no more than {NAME_BYTES_MAX} characters");
        faults.invalid(&Path::Root.field("metadata").field("name"), &job["metadata"]["name"], why);
    }
    for (field, least, most) in NUMBERS {
        between(field, (least, most), spec, path, faults);
    }
    volume::all(&spec["volumes"], &path.field("volumes"), faults);
    resource_list(&spec["resources"], &path.field("resources"), faults);
    meta::labels(&spec["nodeSelector"], &path.field("nodeSelector"), faults);
    scheduling::tolerations(&spec["tolerations"], &path.field("tolerations"), faults);
    let class = &path.field("priorityClassName");
    fits(names::dns_subdomain, &spec["priorityClassName"], class, faults);
    devices(&spec["device"], &path.field("device"), faults);
    each(&spec["inputs"], &path.field("inputs"), |one, path| input(one, path, faults));
    each(&spec["operations"], &path.field("operations"), |operation, path| {
        for field in ["name", "op"].into_iter().filter(|field| is_empty(&operation[*field])) {
            faults.required(&path.field(field), "");
        }
    });
    each(&spec["outputs"], &path.field("outputs"), |output, path| {
        if is_empty(&output["value"]) {
            faults.required(&path.field("value"), "");
        }
    });
    graph(spec, faults);
}

/// As a container's, but for claims: which there are is not the job's to say.
fn resource_list(resources: &Value, path: &Path<'_>, faults: &mut Faults) {
    resources::requirements(resources, path, faults);
    if len(&resources["claims"]) > 0 {
        faults.forbidden(&path.field("claims"), "ask for a device by `device.class`");
    }
}

fn input(input: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(&input["name"]) {
        faults.required(&path.field("name"), "");
    }
    required_one_of(&input["dtype"], &DType::ALL.map(DType::name), &path.field("dtype"), faults);
    let (of, path) = (&input["configMap"], &path.field("configMap"));
    if of.is_object() {
        named(names::dns_subdomain, &of["name"], &path.field("name"), faults);
        named(names::config_key, &of["key"], &path.field("key"), faults);
    }
}

/// A device is asked for as in a claim.
fn devices(device: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(&device["backends"], &path.field("backends"), |backend, path| {
        one_of(backend, &Backend::ALL.map(Backend::name), path, faults);
    });
    fits(names::dns_subdomain, &device["class"], &path.field("class"), faults);
    let (selectors, path) = (&device["selectors"], &path.field("selectors"));
    if is_empty(&device["class"]) && len(selectors) > 0 {
        faults.forbidden(path, "may only be given with a class");
    }
    device::few(selectors, path, faults);
    each(selectors, path, |selector, path| match is_empty(selector) {
        true => faults.required(path, ""),
        false => device::expression(selector, path, faults),
    });
}

/// The first thing that is wrong with the graph, unless it was said already.
fn graph(spec: &Value, faults: &mut Faults) {
    let built = KernelJobSpec::deserialize(spec)
        .map_err(|error| Fault { path: String::new(), why: error.to_string() });
    let fault = match built.and_then(|spec| spec.order()) {
        Ok(order) => return transportable(&order, faults),
        Err(fault) => fault.below("spec"),
    };
    if faults.has(&fault.path) {
        return;
    }
    let found = fault.path.split('.').skip(1).fold(spec, |value, step| below(value, step));
    match shown(found) {
        Value::Null => faults.required(&Path::Root.field(&fault.path), &fault.why),
        value => faults.invalid(&Path::Root.field(&fault.path), &value, &fault.why),
    }
}

/// Workers are told in a `ConfigMap` what to do.
fn transportable(order: &Order, faults: &mut Faults) {
    let bytes = serde_json::to_vec(order).map_or(usize::MAX, |text| text.len());
    if bytes > config::DATA_BYTES_MAX {
        faults.too_long(&Path::Root.field("spec"), config::DATA_BYTES_MAX);
    }
}

/// What stands below a value at `name` or `name[index]`.
fn below<'v>(value: &'v Value, step: &str) -> &'v Value {
    let (name, index) = step.split_once('[').unwrap_or((step, ""));
    let index = index.trim_end_matches(']').parse::<usize>();
    index.map_or(&value[name], |index| &value[name][index])
}

/// A value as a message quotes it: of what has a name the name, of a list how long it is, of an empty one nothing.
fn shown(value: &Value) -> Value {
    match value {
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::Array(items) => json!(items.len()),
        Value::Object(fields) => fields.get("name").cloned().unwrap_or_else(|| value.clone()),
        other => other.clone(),
    }
}
