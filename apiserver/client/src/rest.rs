//! Requests as REST: method, path, query, headers and body. Pure.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::request::{
    DeleteOptions, FieldValidation, IncludeObject, ListOptions, PatchKind, Propagation, Request, ResourceRef,
    Verb, View, WatchOptions, WriteOptions,
};

/// A request as it goes over HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub method: Method,
    /// Path and query, encoded.
    pub target: String,
    pub accept: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
}

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

/// A request for one answer.
pub(crate) fn call(request: Request) -> Rest {
    let Request { resource, verb, view } = request;
    let list = matches!(verb, Verb::List(_) | Verb::DeleteCollection { .. });
    let mut query = Query::default();
    let (method, content_type, body) = match verb {
        Verb::Get => (Method::GET, JSON, Bytes::new()),
        Verb::List(options) => {
            query.list(&options);
            (Method::GET, JSON, Bytes::new())
        }
        Verb::Create { body, options } => {
            query.write(&options);
            (Method::POST, json_or_yaml(&body), body)
        }
        Verb::Update { body, options } => {
            query.write(&options);
            (Method::PUT, json_or_yaml(&body), body)
        }
        Verb::Patch { kind, body, options, force } => {
            query.write(&options);
            if force {
                query.add("force", "true");
            }
            (Method::PATCH, patch_type(kind), body)
        }
        Verb::Delete(options) => (Method::DELETE, JSON, delete_body(&options)),
        Verb::DeleteCollection { list, delete } => {
            query.list(&list);
            (Method::DELETE, JSON, delete_body(&delete))
        }
    };
    query.view(view);
    Rest { method, target: query.onto(path(&resource)), accept: accept(view, list), content_type, body }
}

/// A request for a stream of watch events.
pub(crate) fn watch(resource: &ResourceRef, options: &WatchOptions, view: View) -> Rest {
    let mut query = Query::default();
    query.add("watch", "true");
    query.text("labelSelector", &options.label_selector);
    query.text("fieldSelector", &options.field_selector);
    query.text("resourceVersion", options.resource_version.as_deref().unwrap_or_default());
    if options.allow_bookmarks {
        query.add("allowWatchBookmarks", "true");
    }
    if options.send_initial_events {
        query.add("sendInitialEvents", "true");
        query.add("resourceVersionMatch", "NotOlderThan");
    }
    if let Some(seconds) = options.timeout_seconds {
        query.add("timeoutSeconds", &seconds.to_string());
    }
    query.view(view);
    get(query.onto(path(resource)), accept(view, false))
}

/// A request for raw bytes.
pub(crate) fn stream(resource: &ResourceRef, parameters: &[(String, String)]) -> Rest {
    let mut query = Query::default();
    for (name, value) in parameters {
        query.add(name, value);
    }
    get(query.onto(path(resource)), "*/*")
}

fn get(target: String, accept: &'static str) -> Rest {
    Rest { method: Method::GET, target, accept, content_type: JSON, body: Bytes::new() }
}

/// `/apis/apps/v1/namespaces/default/deployments/web/status`
pub(crate) fn path(resource: &ResourceRef) -> String {
    let mut path = if resource.group.is_empty() {
        format!("/api/{}", encode(&resource.version))
    } else {
        format!("/apis/{}/{}", encode(&resource.group), encode(&resource.version))
    };
    if let Some(namespace) = &resource.namespace {
        path.push_str("/namespaces/");
        path.push_str(&encode(namespace));
    }
    for segment in
        [Some(&resource.plural), resource.name.as_ref(), resource.subresource.as_ref()].into_iter().flatten()
    {
        path.push('/');
        path.push_str(&encode(segment));
    }
    path
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(&encode(name));
        self.0.push('=');
        self.0.push_str(&encode(value));
    }

    /// Leaves an empty value out.
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.add(name, value);
        }
    }

    fn list(&mut self, options: &ListOptions) {
        self.text("labelSelector", &options.label_selector);
        self.text("fieldSelector", &options.field_selector);
        if options.limit > 0 {
            self.add("limit", &options.limit.to_string());
        }
        self.text("continue", options.continue_token.as_deref().unwrap_or_default());
        self.text("resourceVersion", options.resource_version.as_deref().unwrap_or_default());
        self.text("resourceVersionMatch", options.resource_version_match.as_deref().unwrap_or_default());
    }

    fn write(&mut self, options: &WriteOptions) {
        self.text("fieldManager", options.field_manager.as_deref().unwrap_or_default());
        let validation = match options.field_validation {
            FieldValidation::Ignore => "Ignore",
            FieldValidation::Warn => "Warn",
            FieldValidation::Strict => "Strict",
        };
        self.add("fieldValidation", validation);
        if options.dry_run {
            self.add("dryRun", "All");
        }
    }

    fn view(&mut self, view: View) {
        match view {
            View::Table(IncludeObject::None) => self.add("includeObject", "None"),
            View::Table(IncludeObject::Object) => self.add("includeObject", "Object"),
            View::Table(IncludeObject::Metadata) | View::Object | View::Metadata => {}
        }
    }

    fn onto(self, path: String) -> String {
        path + &self.0
    }
}

fn accept(view: View, list: bool) -> &'static str {
    match view {
        View::Object => JSON,
        View::Table(_) => TABLE,
        View::Metadata if list => METADATA_LIST,
        View::Metadata => METADATA,
    }
}

/// Callers may hand either in; JSON documents of objects begin with a brace.
pub(crate) fn json_or_yaml(body: &[u8]) -> &'static str {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') | None => JSON,
        Some(_) => "application/yaml",
    }
}

/// The media type of a patch.
pub(crate) fn patch_type(kind: PatchKind) -> &'static str {
    match kind {
        PatchKind::Json => "application/json-patch+json",
        PatchKind::Merge => "application/merge-patch+json",
        PatchKind::Strategic => "application/strategic-merge-patch+json",
        PatchKind::Apply => "application/apply-patch+yaml",
    }
}

/// The name of a propagation policy in the API.
pub(crate) fn propagation_name(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Background => "Background",
        Propagation::Foreground => "Foreground",
        Propagation::Orphan => "Orphan",
    }
}

fn delete_body(options: &DeleteOptions) -> Bytes {
    let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
    if let Some(seconds) = options.grace_period_seconds {
        body["gracePeriodSeconds"] = json!(seconds);
    }
    if let Some(propagation) = options.propagation {
        body["propagationPolicy"] = json!(propagation_name(propagation));
    }
    if let Some(uid) = &options.precondition_uid {
        body["preconditions"]["uid"] = json!(uid);
    }
    if let Some(revision) = &options.precondition_resource_version {
        body["preconditions"]["resourceVersion"] = json!(revision);
    }
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> ResourceRef {
        ResourceRef::collection("", "v1", "pods")
    }

    #[test]
    fn paths_are_those_of_the_rest_api() {
        let deployments = ResourceRef::collection("apps", "v1", "deployments");
        let cases = [
            (pods(), "/api/v1/pods"),
            (pods().in_namespace("a").named("x").sub("log"), "/api/v1/namespaces/a/pods/x/log"),
            (deployments.in_namespace("b"), "/apis/apps/v1/namespaces/b/deployments"),
            (ResourceRef::collection("", "v1", "namespaces").named("c"), "/api/v1/namespaces/c"),
            (pods().in_namespace("a/../b").named("x?y"), "/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy"),
        ];
        for (resource, expected) in cases {
            assert_eq!(path(&resource), expected);
        }
    }

    #[test]
    fn a_list_says_only_what_it_wants() {
        let options = ListOptions {
            label_selector: "app in (a,b)".to_owned(),
            limit: 500,
            resource_version: Some("0".to_owned()),
            ..ListOptions::default()
        };
        let rest = call(Request { resource: pods(), verb: Verb::List(options), view: View::Metadata });
        assert_eq!(
            rest.target,
            "/api/v1/pods?labelSelector=app%20in%20%28a%2Cb%29&limit=500&resourceVersion=0"
        );
        assert!(rest.accept.contains("PartialObjectMetadataList"));
    }

    #[test]
    fn writes_name_their_manager_and_their_type() {
        let verb = Verb::Patch {
            kind: PatchKind::Strategic,
            body: Bytes::from_static(b"{}"),
            options: WriteOptions {
                field_manager: Some("tests".to_owned()),
                dry_run: true,
                ..WriteOptions::default()
            },
            force: false,
        };
        let rest = call(Request { resource: pods().in_namespace("a").named("x"), verb, view: View::Object });
        assert_eq!(rest.method, Method::PATCH);
        assert_eq!(rest.content_type, "application/strategic-merge-patch+json");
        assert_eq!(
            rest.target,
            "/api/v1/namespaces/a/pods/x?fieldManager=tests&fieldValidation=Warn&dryRun=All"
        );
        assert_eq!(json_or_yaml(b"\n kind: Pod"), "application/yaml");
        assert_eq!(json_or_yaml(b"\n {\"kind\": 1}"), JSON);
    }

    #[test]
    fn a_delete_carries_its_conditions_in_the_body() {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            propagation: Some(Propagation::Foreground),
            precondition_uid: Some("u".to_owned()),
            ..DeleteOptions::default()
        };
        let body: serde_json::Value = serde_json::from_slice(&delete_body(&options)).unwrap();
        assert_eq!(
            body,
            json!({
                "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                "propagationPolicy": "Foreground", "preconditions": {"uid": "u"},
            })
        );
    }

    #[test]
    fn a_watch_with_initial_events_also_names_the_match_that_servers_demand() {
        let options = WatchOptions {
            send_initial_events: true,
            allow_bookmarks: true,
            timeout_seconds: Some(30),
            ..WatchOptions::default()
        };
        assert_eq!(
            watch(&pods(), &options, View::Table(IncludeObject::Object)).target,
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
             &resourceVersionMatch=NotOlderThan&timeoutSeconds=30&includeObject=Object"
        );
    }
}
