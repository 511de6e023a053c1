//! Requests by what they asked for.
//!
//! A request costs one look into a map under a read lock, without making a string, and then a few additions: everything
//! that its answer can become (the codes, the durations) lies together in one [`Series`].

use std::{hash::Hash, sync::Arc, time::Instant};

use claw_client::ResourceRef;
use http::Method;
use indexmap::{Equivalent, IndexMap};
use parking_lot::RwLock;

use super::{Counter, DURATIONS_NS, Gauge, Histogram, Text};

/// Series there may be: a hundred kinds with all verbs and scopes fit. Each takes 400 bytes.
const SERIES_MAX: usize = 4096;

/// Codes that are counted one by one; others are counted together as `other`.
const CODES: [u16; 21] =
    [200, 201, 202, 304, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 501, 503, 504, 507];

/// Methods of gRPC that are counted one by one.
const GRPC_METHODS: [&str; 14] = [
    "/clawbernetes.v1.Objects/Get",
    "/clawbernetes.v1.Objects/List",
    "/clawbernetes.v1.Objects/Watch",
    "/clawbernetes.v1.Objects/Create",
    "/clawbernetes.v1.Objects/Update",
    "/clawbernetes.v1.Objects/Patch",
    "/clawbernetes.v1.Objects/Delete",
    "/clawbernetes.v1.Objects/DeleteCollection",
    "/clawbernetes.v1.Objects/Batch",
    "/clawbernetes.v1.NodeLink/Join",
    "/clawbernetes.v1.NodeLink/Renew",
    "/clawbernetes.v1.NodeLink/Session",
    "/clawbernetes.v1.NodeLink/Stream",
    "/grpc.health.v1.Health/Check",
];

/// Names of gRPC's codes, by number.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What a series is of.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

/// The same, as a request brings it. Fields in the same order: it is looked up by the same hash.
#[derive(Hash)]
struct Asked<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
}

impl Equivalent<Labels> for Asked<'_> {
    fn equivalent(&self, labels: &Labels) -> bool {
        self.verb == labels.verb
            && self.group == labels.group
            && self.version == labels.version
            && self.resource == labels.resource
            && self.subresource == labels.subresource
            && self.scope == labels.scope
    }
}

impl<'a> Asked<'a> {
    /// Of something that is no object, or no kind that is served.
    fn nothing(verb: &'static str) -> Self {
        Self { verb, group: "", version: "", resource: "", subresource: "", scope: "" }
    }

    fn of(verb: &'static str, resource: &'a ResourceRef) -> Self {
        Self {
            verb,
            group: &resource.group,
            version: &resource.version,
            resource: &resource.plural,
            subresource: resource.subresource.as_deref().unwrap_or_default(),
            scope: match (&resource.name, &resource.namespace) {
                (Some(_), _) => "resource",
                (None, Some(_)) => "namespace",
                (None, None) => "cluster",
            },
        }
    }

    fn owned(&self) -> Labels {
        Labels {
            verb: self.verb,
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            resource: self.resource.to_owned(),
            subresource: self.subresource.to_owned(),
            scope: self.scope,
        }
    }
}

/// The figures of requests with the same labels.
#[derive(Debug)]
pub struct Series {
    is_watch: bool,
    /// By [`CODES`], and last the others.
    codes: [Counter; CODES.len() + 1],
    durations: Histogram,
}

impl Series {
    fn new(verb: &str) -> Self {
        Self {
            is_watch: verb == "WATCH",
            codes: Default::default(),
            durations: Histogram::seconds(DURATIONS_NS),
        }
    }

    /// Counts an answer to a request that came then. How long a watch lives says nothing about the server.
    pub fn answered(&self, code: u16, then: Instant) {
        self.codes[CODES.binary_search(&code).unwrap_or(CODES.len())].inc();
        if !self.is_watch {
            self.durations.observe_since(then);
        }
    }
}

/// All requests.
#[derive(Debug, Default)]
pub struct Requests {
    series: RwLock<IndexMap<Labels, Arc<Series>>>,
    /// By method and code; last what is not known.
    grpc: [[Counter; GRPC_CODES.len() + 1]; GRPC_METHODS.len() + 1],
    reading: Gauge,
    writing: Gauge,
}

impl Requests {
    /// The series of requests for objects. `is_known` says whether they are of a kind that is served; it is asked only when
    /// the series is not there yet.
    pub fn on(
        &self,
        verb: &'static str,
        resource: &ResourceRef,
        is_known: impl FnOnce() -> bool,
    ) -> Arc<Series> {
        let asked = Asked::of(verb, resource);
        if let Some(series) = self.series.read().get(&asked) {
            return series.clone();
        }
        if is_known() { self.make(&asked) } else { self.elsewhere(verb) }
    }

    /// The series of requests for anything else.
    pub fn elsewhere(&self, verb: &'static str) -> Arc<Series> {
        let asked = Asked::nothing(verb);
        if let Some(series) = self.series.read().get(&asked) {
            return series.clone();
        }
        self.make(&asked)
    }

    fn make(&self, asked: &Asked<'_>) -> Arc<Series> {
        let mut series = self.series.write();
        // Those of nothing are a dozen, and always have room.
        let labels =
            if series.len() < SERIES_MAX { asked.owned() } else { Asked::nothing(asked.verb).owned() };
        series.entry(labels).or_insert_with(|| Arc::new(Series::new(asked.verb))).clone()
    }

    /// Counts a call by gRPC, when its answer begins.
    pub fn grpc_answered(&self, path: &str, code: usize) {
        let method = GRPC_METHODS.iter().position(|known| *known == path).unwrap_or(GRPC_METHODS.len());
        self.grpc[method][code.min(GRPC_CODES.len())].inc();
    }

    /// Requests under way: those that read, or those that write.
    pub fn under_way(&self, method: &Method) -> &Gauge {
        if matches!(*method, Method::GET | Method::HEAD) { &self.reading } else { &self.writing }
    }

    pub(super) fn write(&self, text: &mut Text) {
        let series = self.series.read();
        let name = "apiserver_request_total";
        text.family(name, "counter", "Requests by what they asked for and the code of the answer.");
        for (labels, series) in &*series {
            for (at, counter) in series.codes.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
                let code = CODES.get(at).map_or_else(|| "other".to_owned(), u16::to_string);
                text.sample(name, &[&labels.all()[..], &[("code", &*code)]].concat(), counter.get());
            }
        }
        let name = "apiserver_request_duration_seconds";
        text.family(name, "histogram", "Time until the answer began, watches left out.");
        for (labels, series) in series.iter().filter(|(_, series)| !series.durations.is_empty()) {
            text.histogram(name, &labels.all(), &series.durations);
        }
        let name = "apiserver_current_inflight_requests";
        text.family(name, "gauge", "Requests under way; calls by gRPC count as mutating.");
        text.sample(name, &[("request_kind", "readOnly")], self.reading.get());
        text.sample(name, &[("request_kind", "mutating")], self.writing.get());
        self.write_grpc(text);
    }

    fn write_grpc(&self, text: &mut Text) {
        let name = "grpc_server_handled_total";
        text.family(name, "counter", "Calls by gRPC and the code with which the answer began.");
        for (at, codes) in self.grpc.iter().enumerate() {
            let path = GRPC_METHODS.get(at).map_or("", |path| path.trim_start_matches('/'));
            let (service, method) = path.split_once('/').unwrap_or(("other", "other"));
            for (at, counter) in codes.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
                let code = GRPC_CODES.get(at).copied().unwrap_or("other");
                let labels = [("grpc_service", service), ("grpc_method", method), ("grpc_code", code)];
                text.sample(name, &labels, counter.get());
            }
        }
    }
}

impl Labels {
    fn all(&self) -> [(&str, &str); 6] {
        [
            ("verb", self.verb),
            ("group", &self.group),
            ("version", &self.version),
            ("resource", &self.resource),
            ("subresource", &self.subresource),
            ("scope", self.scope),
        ]
    }
}

/// The verb as the figures of Kubernetes name it.
pub fn verb_of(method: &Method, on_object: bool, is_watch: bool, is_apply: bool) -> &'static str {
    match (method.as_str(), on_object) {
        ("GET", _) if is_watch => "WATCH",
        ("GET", true) => "GET",
        ("GET", false) => "LIST",
        ("HEAD", _) => "HEAD",
        ("POST", _) => "POST",
        ("PUT", _) => "PUT",
        ("PATCH", _) if is_apply => "APPLY",
        ("PATCH", _) => "PATCH",
        ("DELETE", true) => "DELETE",
        ("DELETE", false) => "DELETECOLLECTION",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::proto::DESCRIPTOR_SET;

    use super::*;

    fn written(requests: &Requests) -> String {
        let mut text = Text::default();
        requests.write(&mut text);
        text.into_string()
    }

    #[test]
    fn what_clients_make_up_makes_no_series() {
        let requests = Requests::default();
        for at in 0..100 {
            let made_up = ResourceRef::collection("", "v1", &format!("things-{at}"));
            requests.on("LIST", &made_up, || false).answered(404, Instant::now());
        }
        requests
            .on("LIST", &ResourceRef::collection("", "v1", "pods"), || true)
            .answered(200, Instant::now());
        assert_eq!(requests.series.read().len(), 2);
        let text = written(&requests);
        assert!(text.contains(
            r#"{verb="LIST",group="",version="",resource="",subresource="",scope="",code="404"} 100"#
        ));
        assert!(text.contains(r#"resource="pods",subresource="",scope="cluster",code="200"} 1"#), "{text}");
    }

    #[test]
    fn there_is_an_end_to_series_even_if_kinds_come_and_go() {
        let requests = Requests::default();
        for at in 0..SERIES_MAX + 10 {
            let kind = ResourceRef::collection("", "v1", &format!("kind-{at}"));
            requests.on("LIST", &kind, || true).answered(200, Instant::now());
        }
        assert_eq!(requests.series.read().len(), SERIES_MAX + 1);
    }

    #[test]
    fn every_method_of_our_services_is_counted_by_its_name() {
        let files: prost_types::FileDescriptorSet = prost::Message::decode(DESCRIPTOR_SET).unwrap();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert!(GRPC_METHODS.contains(&&*path), "{path}");
                }
            }
        }
    }

    #[test]
    fn codes_are_in_order_so_that_they_are_found() {
        assert!(CODES.is_sorted());
        let requests = Requests::default();
        requests.elsewhere("GET").answered(299, Instant::now());
        requests.grpc_answered("/clawbernetes.v1.Objects/Get", 5);
        requests.grpc_answered("/made.up/Path", 99);
        let text = written(&requests);
        assert!(text.contains(r#"code="other"} 1"#));
        assert!(text.contains(
            r#"{grpc_service="clawbernetes.v1.Objects",grpc_method="Get",grpc_code="NotFound"} 1"#
        ));
        assert!(text.contains(r#"{grpc_service="other",grpc_method="other",grpc_code="other"} 1"#));
    }

    #[test]
    fn how_long_watches_live_is_not_how_long_requests_take() {
        let requests = Requests::default();
        requests
            .on("WATCH", &ResourceRef::collection("", "v1", "pods"), || true)
            .answered(200, Instant::now());
        assert!(!written(&requests).contains("apiserver_request_duration_seconds_count"));
    }
}
