//! Looks at devices, and policies about which are looked at: what both say in the same way, and what each says alone.

use claw_graph::qualification::{Level, RATES};
use claw_schemas::{api::CHECK_NAME_BYTES_MAX, gpu, quantity::Quantity};
use serde_json::Value;

use super::{
    at_least, between, device, each,
    faults::{Faults, Path},
    fits, immutable, is_empty, meta, named, names, one_of, text,
};

/// The longest that a look may take, a day.
const TIMEOUT_SECONDS_MAX: i64 = 86_400;
/// A name of a policy, a hash and a number make a check's name.
const POLICY_NAME_BYTES_MAX: usize = 40;
/// What may change of a check while it is there.
const CHANGEABLE: &str = "ttlSecondsAfterFinished";
/// What becomes of devices that are not fit.
const EFFECTS: [&str; 3] = ["NoSchedule", "NoExecute", "None"];

pub(super) fn check(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    at_least(0, &spec[CHANGEABLE], &path.field(CHANGEABLE), faults);
    if let Some(old) = old {
        for field in ["device", "level", "minimums", "timeoutSeconds"] {
            immutable(&old["spec"], spec, field, path, faults);
        }
        return;
    }
    short_name(new, CHECK_NAME_BYTES_MAX, faults);
    let (of, place) = (&spec["device"], &path.field("device"));
    one_of(&of["driver"], &[gpu::DRIVER], &place.field("driver"), faults);
    named(names::dns_subdomain, &of["pool"], &place.field("pool"), faults);
    named(names::dns_label, &of["name"], &place.field("name"), faults);
    look(spec, path, faults);
}

pub(super) fn policy(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    short_name(new, POLICY_NAME_BYTES_MAX, faults);
    fits(names::dns_subdomain, &spec["deviceClassName"], &path.field("deviceClassName"), faults);
    let (selectors, place) = (&spec["selectors"], &path.field("selectors"));
    device::few(selectors, place, faults);
    each(selectors, place, |selector, path| match is_empty(selector) {
        true => faults.required(path, ""),
        false => device::expression(selector, path, faults),
    });
    meta::labels(&spec["nodeSelector"], &path.field("nodeSelector"), faults);
    one_of(&spec["effect"], &EFFECTS, &path.field("effect"), faults);
    for field in ["recheckAfterSeconds", "maxParallel", "maxParallelPerNode"] {
        at_least(1, &spec[field], &path.field(field), faults);
    }
    look(spec, path, faults);
}

/// How a device is looked at.
fn look(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    one_of(&spec["level"], &Level::ALL.map(Level::name), &path.field("level"), faults);
    between("timeoutSeconds", (1, TIMEOUT_SECONDS_MAX), spec, path, faults);
    let path = &path.field("minimums");
    for (name, amount) in spec["minimums"].as_object().into_iter().flatten() {
        let path = &path.key(name);
        if !RATES.contains(&name.as_str()) {
            faults.unsupported(path, &Value::from(name.as_str()), &RATES);
        }
        match text(amount).parse::<Quantity>() {
            Err(why) => faults.invalid(path, amount, why),
            Ok(least) if least <= Quantity::default() => {
                faults.invalid(path, amount, "must be greater than zero");
            }
            Ok(_) => {}
        }
    }
}

fn short_name(object: &Value, bytes_max: usize, faults: &mut Faults) {
    let name = &object["metadata"]["name"];
    if text(name).len() > bytes_max {
        let why = format_args!("must be no more than {bytes_max} characters");
        faults.invalid(&Path::Root.field("metadata").field("name"), name, why);
    }
}
