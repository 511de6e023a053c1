//! REST paths: what `/api/...` and `/apis/...` name.

use claw_client::ResourceRef;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Version(String, String),
    /// Everything below.
    Resource(ResourceRef),
}

/// Parses a path. `None` when it has no meaning in this API.
pub(super) fn parse(path: &str) -> Option<Path> {
    let mut parts = path.strip_prefix('/')?.trim_end_matches('/').split('/');
    let root = parts.next()?;
    let parts: Vec<String> = parts.map(decode).collect::<Option<_>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (root, parts.as_slice()) {
        ("api", []) => Some(Path::CoreVersions),
        ("api", [version]) => Some(Path::Version(String::new(), (*version).to_owned())),
        ("api", [version, rest @ ..]) => resource("", version, rest),
        ("apis", []) => Some(Path::Groups),
        ("apis", [group]) => Some(Path::Group((*group).to_owned())),
        ("apis", [group, version]) => Some(Path::Version((*group).to_owned(), (*version).to_owned())),
        ("apis", [group, version, rest @ ..]) => resource(group, version, rest),
        _ => None,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Path> {
    if rest.iter().any(|part| part.is_empty()) {
        return None;
    }
    let (namespace, rest) = match rest {
        // These two are documents of the namespace itself, not collections in it.
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        _ => (None, rest),
    };
    let mut rest = rest.iter().map(|part| (*part).to_owned());
    let (plural, name, subresource) = (rest.next()?, rest.next(), rest.next());
    if rest.next().is_some() {
        return None;
    }
    let (group, version) = (group.to_owned(), version.to_owned());
    Some(Path::Resource(ResourceRef { group, version, plural, namespace, name, subresource }))
}

/// A part of a path. `None` when it is not text, or would be a path of its own.
fn decode(text: &str) -> Option<String> {
    percent_decoded(text).filter(|text| !text.contains('/'))
}

/// Percent-decoding. `None` when the result is not text.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourceRef {
        match parse(path) {
            Some(Path::Resource(resource)) => resource,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        let pods = ResourceRef::collection("", "v1", "pods");
        let deployments = ResourceRef::collection("apps", "v1", "deployments");
        let namespaces = ResourceRef::collection("", "v1", "namespaces");
        for (path, expected) in [
            ("/api/v1/pods", pods.clone()),
            ("/api/v1/namespaces/a/pods/", pods.clone().in_namespace("a")),
            ("/api/v1/namespaces/a/pods/x", pods.clone().in_namespace("a").named("x")),
            ("/api/v1/namespaces/a/pods/x/log", pods.in_namespace("a").named("x").sub("log")),
            (
                "/apis/apps/v1/namespaces/a/deployments/web/scale",
                deployments.in_namespace("a").named("web").sub("scale"),
            ),
            ("/api/v1/namespaces", namespaces.clone()),
            ("/api/v1/namespaces/a", namespaces.clone().named("a")),
            ("/api/v1/namespaces/a/finalize", namespaces.clone().named("a").sub("finalize")),
            ("/api/v1/namespaces/a/status", namespaces.named("a").sub("status")),
            ("/api/v1/nodes/n%2d1", ResourceRef::collection("", "v1", "nodes").named("n-1")),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
    }

    #[test]
    fn discovery_has_its_own_paths() {
        assert_eq!(parse("/api"), Some(Path::CoreVersions));
        assert_eq!(parse("/apis/"), Some(Path::Groups));
        assert_eq!(parse("/apis/apps"), Some(Path::Group("apps".into())));
        assert_eq!(parse("/apis/apps/v1"), Some(Path::Version("apps".into(), "v1".into())));
        assert_eq!(parse("/api/v1"), Some(Path::Version(String::new(), "v1".into())));
    }

    #[test]
    fn nonsense_names_nothing() {
        for path in [
            "",
            "/",
            "/nope",
            "/api/v1/pods//x",
            "/api/v1/namespaces/a/pods/x/y/z",
            "/api/v1/pods/%zz",
            "/api/v1/nodes/%+1",
            "/api/v1/nodes/%6",
            "/api/v1/nodes/%ff",
            "/api/v1/nodes/a%2fb",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
