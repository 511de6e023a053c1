//! Content negotiation: what a client accepts, and what it sent.

use claw_client::request::{IncludeObject, PatchKind, View};
use claw_schemas::{ApiError, discovery::Aggregated, protobuf, status::Reason};
use http::{HeaderMap, header};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    media: &'a str,
    group: &'a str,
    version: &'a str,
    shape: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Self { media: parts.next().unwrap_or_default(), group: "", version: "", shape: "" };
        for part in parts {
            match part.split_once('=') {
                Some(("g", group)) => clause.group = group,
                Some(("v", version)) => clause.version = version,
                Some(("as", shape)) => clause.shape = shape,
                _ => {}
            }
        }
        clause
    }

    fn format(&self) -> Option<Format> {
        match self.media {
            "application/json" | "application/*" | "*/*" => Some(Format::Json),
            "application/yaml" => Some(Format::Yaml),
            _ => None,
        }
    }

    fn view(&self) -> Option<View> {
        match (self.shape, self.group, self.version) {
            ("", ..) => Some(View::Object),
            ("Table", "meta.k8s.io", "v1") => Some(View::Table(IncludeObject::default())),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Some(View::Metadata)
            }
            _ => None,
        }
    }
}

fn header(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The clauses of all `Accept` lines, in order. No line accepts everything, as an empty one does.
fn clauses(headers: &HeaderMap) -> impl Iterator<Item = Clause<'_>> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut clauses =
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|clause| !clause.is_empty());
    let first = clauses.next().unwrap_or("*/*");
    std::iter::once(first).chain(clauses).map(Clause::parse)
}

/// The first clause that can be served.
pub(super) fn negotiate(headers: &HeaderMap) -> Result<(Format, View), ApiError> {
    clauses(headers).find_map(|clause| Some((clause.format()?, clause.view()?))).ok_or_else(|| {
        ApiError::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json, application/yaml \
             (application/json also with as=Table or as=PartialObjectMetadata;g=meta.k8s.io;v=v1)",
        )
    })
}

/// The aggregated form of discovery that a client prefers over the plain one.
pub(super) fn discovery(headers: &HeaderMap) -> Option<Aggregated> {
    let known = |clause: Clause<'_>| match (clause.format()?, clause.shape, clause.group, clause.version) {
        (Format::Json, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Some(Aggregated::V2)),
        (Format::Json, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
            Some(Some(Aggregated::V2Beta1))
        }
        (Format::Json, "", ..) => Some(None),
        _ => None,
    };
    clauses(headers).find_map(known).flatten()
}

/// Whether a client reads the protobuf form of OpenAPI v2.
pub(super) fn openapi_protobuf(headers: &HeaderMap) -> bool {
    let known = |clause: Clause<'_>| match clause.media {
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
        | "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" => Some(true),
        _ => clause.format().map(|_| false),
    };
    clauses(headers).find_map(known).unwrap_or(false)
}

/// The program that asks.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    Some(header(headers, header::USER_AGENT).to_owned()).filter(|agent| !agent.is_empty())
}

/// Whether a client unpacks gzip.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    header(headers, header::ACCEPT_ENCODING)
        .split(',')
        .map(|clause| clause.split(';').map(str::trim).collect::<Vec<_>>())
        .any(|clause| clause[0] == "gzip" && !clause[1..].contains(&"q=0"))
}

fn content_type(headers: &HeaderMap) -> &str {
    header(headers, header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
}

/// Whether a body is in the protobuf form.
pub(super) fn is_protobuf(headers: &HeaderMap) -> bool {
    content_type(headers) == protobuf::MEDIA_TYPE
}

/// Refuses a body that is neither JSON nor YAML nor protobuf. A missing type means JSON.
pub(super) fn check_body(headers: &HeaderMap) -> Result<(), ApiError> {
    match content_type(headers) {
        protobuf::MEDIA_TYPE => Ok(()),
        "" | "application/json" | "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(()),
        other => Err(unsupported_media(
            other,
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Whether a patch is an apply.
pub(super) fn is_apply(headers: &HeaderMap) -> bool {
    content_type(headers) == "application/apply-patch+yaml"
}

/// The kind of a patch.
pub(super) fn patch_kind(headers: &HeaderMap) -> Result<PatchKind, ApiError> {
    match content_type(headers) {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        other => Err(unsupported_media(
            other,
            "application/json-patch+json, application/merge-patch+json, \
             application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

fn unsupported_media(found: &str, accepted: &str) -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format ({found:?}) - accepted media types include: {accepted}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn accept(value: &str) -> HeaderMap {
        headers(header::ACCEPT, value)
    }

    #[test]
    fn the_first_clause_that_can_be_served_is() {
        let table = View::Table(IncludeObject::Metadata);
        for (text, expected) in [
            ("", (Format::Json, View::Object)),
            ("application/json, */*", (Format::Json, View::Object)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", (Format::Json, table)),
            ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", (Format::Json, View::Object)),
            ("application/vnd.kubernetes.protobuf,application/json", (Format::Json, View::Object)),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                (Format::Json, View::Metadata),
            ),
            ("application/yaml", (Format::Yaml, View::Object)),
        ] {
            assert_eq!(negotiate(&accept(text)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_accepted_may_come_on_several_lines() {
        let mut lines = accept("text/html");
        lines.append(header::ACCEPT, "application/yaml, application/json".parse().unwrap());
        assert_eq!(negotiate(&lines), Ok((Format::Yaml, View::Object)));
    }

    #[test]
    fn nothing_acceptable_is_406() {
        for text in [
            "application/vnd.kubernetes.protobuf",
            "text/html",
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
        ] {
            assert_eq!(negotiate(&accept(text)).unwrap_err().reason, Reason::NotAcceptable, "{text}");
        }
    }

    #[test]
    fn kubectl_is_given_aggregated_discovery() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(&accept(kubectl)), Some(Aggregated::V2));
        assert_eq!(discovery(&accept("application/json, */*")), None);
    }

    #[test]
    fn content_types_decide_how_a_body_is_read() {
        let sent = |value: &str| headers(header::CONTENT_TYPE, value);
        assert!(check_body(&HeaderMap::new()).is_ok());
        assert!(check_body(&sent("application/json; charset=utf-8")).is_ok());
        assert!(check_body(&sent("application/vnd.kubernetes.protobuf")).is_ok());
        assert!(check_body(&sent("text/plain")).is_err());
        assert_eq!(patch_kind(&sent("application/merge-patch+json")), Ok(PatchKind::Merge));
        assert_eq!(patch_kind(&sent("application/json")).unwrap_err().code, 415);
    }

    #[test]
    fn gzip_is_used_only_when_asked_for() {
        let accepts = |value: &str| gzip(&headers(header::ACCEPT_ENCODING, value));
        assert!(accepts("gzip") && accepts("br, gzip;q=0.5"));
        assert!(!accepts("br") && !accepts("gzip;q=0"));
    }
}
