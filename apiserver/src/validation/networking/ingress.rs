//! How requests from outside get in.

use serde_json::Value;

use crate::validation::{
    each,
    faults::{Faults, Path},
    fits, immutable, is_empty, len, named, names, one_of, text,
};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
/// What a path may not hold, and what it may not end with.
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];
/// Longest name of a controller, in bytes.
const CONTROLLER_BYTES_MAX: usize = 250;

pub(in crate::validation) fn ingress(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    let annotation = &new["metadata"]["annotations"][CLASS_ANNOTATION];
    if old.is_none() && !annotation.is_null() && !is_empty(&spec["ingressClassName"]) {
        let meta = &Path::Root.field("metadata");
        let annotations = &meta.field("annotations");
        let why = "can not be set when the class field is also set";
        faults.invalid(&annotations.field(CLASS_ANNOTATION), annotation, why);
    }
    if len(&spec["rules"]) == 0 && spec["defaultBackend"].is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        faults.invalid(path, &spec["rules"], why);
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], &path.field("defaultBackend"), faults);
    }
    each(&spec["rules"], &path.field("rules"), |one, path| rule(one, path, faults));
    each(&spec["tls"], &path.field("tls"), |tls, path| {
        each(&tls["hosts"], &path.field("hosts"), |name, path| host(name, path, faults));
    });
    fits(names::dns_subdomain, &spec["ingressClassName"], &path.field("ingressClassName"), faults);
}

fn host(name: &Value, path: &Path<'_>, faults: &mut Faults) {
    let wild = text(name).contains('*');
    fits(if wild { names::wildcard_subdomain } else { names::dns_subdomain }, name, path, faults);
}

fn rule(rule: &Value, path: &Path<'_>, faults: &mut Faults) {
    let name = &rule["host"];
    if text(name).parse::<std::net::IpAddr>().is_ok() {
        faults.invalid(&path.field("host"), name, "must be a DNS name, not an IP address");
    } else {
        host(name, &path.field("host"), faults);
    }
    if rule["http"].is_null() {
        return;
    }
    let http = &path.field("http");
    let paths = &http.field("paths");
    if len(&rule["http"]["paths"]) == 0 {
        faults.required(paths, "");
    }
    each(&rule["http"]["paths"], paths, |one, path| {
        http_path(one, path, faults);
        backend(&one["backend"], &path.field("backend"), faults);
    });
}

fn http_path(one: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (kind, at) = (&one["pathType"], &path.field("path"));
    if is_empty(kind) {
        faults.required(&path.field("pathType"), "pathType must be specified");
        return;
    }
    one_of(kind, &PATH_TYPES, &path.field("pathType"), faults);
    let value = text(&one["path"]);
    if kind == "ImplementationSpecific" {
        if !value.is_empty() && !value.starts_with('/') {
            faults.invalid(at, &one["path"], "must be an absolute path");
        }
        return;
    }
    if !value.starts_with('/') {
        faults.invalid(at, &one["path"], "must be an absolute path");
    }
    for bad in BAD_PARTS.into_iter().filter(|bad| value.contains(bad)) {
        faults.invalid(at, &one["path"], format_args!("must not contain '{bad}'"));
    }
    for bad in BAD_ENDS.into_iter().filter(|bad| value.ends_with(bad)) {
        faults.invalid(at, &one["path"], format_args!("cannot end with '{bad}'"));
    }
}

fn backend(backend: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (false, false) => faults.invalid_text(path, "", "cannot set both resource and service backends"),
        (true, true) => faults.required(path, "resource or service backend is required"),
        (true, false) => {
            for field in ["kind", "name"].into_iter().filter(|field| is_empty(&resource[*field])) {
                let path = &path.field("resource");
                faults.required(&path.field(field), "");
            }
        }
        (false, true) => {
            let path = &path.field("service");
            named(names::dns_label_1035, &service["name"], &path.field("name"), faults);
            port(&service["port"], &path.field("port"), faults);
        }
    }
}

fn port(port: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (name, number) = (&port["name"], port["number"].as_i64().unwrap_or(0));
    match (is_empty(name), number == 0) {
        (true, true) => faults.required(path, "port name or number is required"),
        (false, false) => faults.invalid_text(path, "", "cannot set both port name & port number"),
        (false, true) => fits(names::port, name, &path.field("name"), faults),
        (true, false) => {
            if let Err(why) = names::port_number(number) {
                faults.invalid(&path.field("number"), &port["number"], why);
            }
        }
    }
}

pub(in crate::validation) fn class(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    let controller = &spec["controller"];
    if text(controller).len() > CONTROLLER_BYTES_MAX {
        faults.too_long(&path.field("controller"), CONTROLLER_BYTES_MAX);
    }
    named(names::domain_path, controller, &path.field("controller"), faults);
    if !spec["parameters"].is_null() {
        parameters(&spec["parameters"], &path.field("parameters"), faults);
    }
    if let Some(old) = old {
        immutable(&old["spec"], spec, "controller", path, faults);
    }
}

fn parameters(parameters: &Value, path: &Path<'_>, faults: &mut Faults) {
    for field in ["kind", "name"] {
        named(names::path_segment, &parameters[field], &path.field(field), faults);
    }
    fits(names::dns_subdomain, &parameters["apiGroup"], &path.field("apiGroup"), faults);
    one_of(&parameters["scope"], &["Cluster", "Namespace"], &path.field("scope"), faults);
    let (namespace, at) = (&parameters["namespace"], &path.field("namespace"));
    match text(&parameters["scope"]) {
        "Namespace" if is_empty(namespace) => {
            faults.required(at, "`parameters.scope` is set to 'Namespace'");
        }
        "Cluster" if !is_empty(namespace) => {
            faults.forbidden(at, "`parameters.scope` is set to 'Cluster'");
        }
        _ => fits(names::dns_label, namespace, at, faults),
    }
}
