//! Discovery documents: which groups, versions and resources there are, in the forms that clients ask for.
//!
//! Source of the shapes: `meta/v1` (`APIGroupList`, `APIResourceList`) and `apidiscovery.k8s.io` `v2` and `v2beta1`.
//!
//! Must never know: HTTP. Who serves a document chooses its headers; [`Aggregated::media_type`] has the text for them.

use std::cmp::Reverse;

use serde_json::{Value, json};

use crate::{
    kinds, metrics,
    registry::{Descriptor, Registry, Subresource},
};

/// What can be done with a collection and its objects.
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Namespaces are deleted one at a time, so that nobody empties a cluster with one request.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
/// What is never stored can only be created.
const REVIEW_VERBS: &[&str] = &["create"];
/// What is measured can only be read.
const MEASURED_VERBS: &[&str] = &["get", "list"];

/// Versions of the aggregated form, which tells everything in two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    /// kubectl 1.30 and later.
    V2,
    /// kubectl 1.26 and later.
    V2Beta1,
}

impl Aggregated {
    /// `v2`, as in `application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`.
    pub const fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The media type of the document, which the answer must carry whole.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// The verbs of a kind's main resource.
pub fn verbs(kind: &Descriptor) -> &'static [&'static str] {
    if kind.group.is_empty() && kind.plural == "namespaces" {
        NAMESPACE_VERBS
    } else if kind.group == metrics::GROUP {
        MEASURED_VERBS
    } else if kinds::reviews().iter().any(|review| (&review.group, &review.kind) == (&kind.group, &kind.kind))
    {
        REVIEW_VERBS
    } else {
        VERBS
    }
}

/// `/api`: the versions of the core group. `address` is where the server is reached (`host:port`).
pub fn core_versions(registry: &Registry, address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": versions(registry, ""),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`: every named group.
pub fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = group_names(registry).iter().filter_map(|name| entry(registry, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`, or `None` when there is no such group.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let mut group = entry(registry, name).filter(|_| !name.is_empty())?;
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

/// `/api/v1` and `/apis/GROUP/VERSION`, or `None` when there is no such version.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<_> = kinds_of(registry, group, version).collect();
    let first = kinds.first()?;
    let resources: Vec<Value> = kinds
        .iter()
        .flat_map(|kind| {
            std::iter::once(resource(kind)).chain(kind.subresources.iter().map(|sub| subresource(kind, sub)))
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

/// `/api` in the aggregated form: the core group with all its resources.
pub fn aggregated_core(registry: &Registry, form: Aggregated) -> Value {
    aggregated(registry, form, &[String::new()])
}

/// `/apis` in the aggregated form: the named groups with all their resources.
pub fn aggregated_groups(registry: &Registry, form: Aggregated) -> Value {
    aggregated(registry, form, &group_names(registry))
}

/// Named groups, sorted.
fn group_names(registry: &Registry) -> Vec<String> {
    let mut names: Vec<String> =
        all(registry).map(|kind| kind.group.to_string()).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Versions of a group, preferred first.
fn versions(registry: &Registry, group: &str) -> Vec<String> {
    let mut versions: Vec<String> =
        all(registry).filter(|kind| kind.group == group).map(|kind| kind.version.to_string()).collect();
    versions.dedup();
    versions.sort_by_cached_key(|version| Reverse(priority(version)));
    versions
}

/// Order of versions by the rules of Kubernetes: stable before beta before alpha, then the greater number.
fn priority(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    if let Some((major, minor)) = rest.split_once("beta") {
        (2, number(major), number(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (1, number(major), number(minor))
    } else {
        (3, number(rest), 0)
    }
}

/// What is stored, what is measured, and what is only asked.
fn all(registry: &Registry) -> impl Iterator<Item = &Descriptor> {
    registry.iter().chain(kinds::measured()).map(AsRef::as_ref).chain(kinds::reviews())
}

fn kinds_of<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Descriptor> {
    all(registry).filter(move |kind| kind.group == group && kind.version == version)
}

fn entry(registry: &Registry, name: &str) -> Option<Value> {
    let versions: Vec<Value> = versions(registry, name)
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

fn resource(kind: &Descriptor) -> Value {
    let mut resource = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced(),
        "kind": kind.kind,
        "verbs": verbs(kind),
    });
    add_names(&mut resource, kind);
    resource
}

fn subresource(kind: &Descriptor, sub: &Subresource) -> Value {
    let mut resource = json!({
        "name": format!("{}/{}", kind.plural, sub.name),
        "singularName": "",
        "namespaced": kind.namespaced(),
        "kind": kind.kind,
        "verbs": sub.verbs,
    });
    if let Some((group, version, carried)) = sub.carries {
        resource["kind"] = carried.into();
        if (group, version) != (&*kind.group, &*kind.version) {
            resource["group"] = group.into();
            resource["version"] = version.into();
        }
    }
    resource
}

fn add_names(resource: &mut Value, kind: &Descriptor) {
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
}

fn aggregated(registry: &Registry, form: Aggregated, groups: &[String]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = versions(registry, group)
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        kinds_of(registry, group, version).map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", form.version()),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &Descriptor) -> Value {
    let own = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": own,
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    add_names(&mut resource, kind);
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            let carried = sub.carries.map_or_else(
                || own.clone(),
                |(group, version, kind)| json!({"group": group, "version": version, "kind": kind}),
            );
            json!({"subresource": sub.name, "responseKind": carried, "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_kubernetes_does() {
        let mut versions = ["v1beta1", "v2", "v1", "v1alpha3", "v10", "v2beta2"];
        versions.sort_by_key(|version| Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta2", "v1beta1", "v1alpha3"]);
    }

    #[test]
    fn both_forms_of_discovery_name_the_same_resources() {
        let registry = Registry::builtin();
        let mut plain: Vec<String> = Vec::new();
        for group in std::iter::once(String::new()).chain(group_names(&registry)) {
            let version = versions(&registry, &group).remove(0);
            let list = resources(&registry, &group, &version).unwrap();
            plain.extend(list["resources"].as_array().unwrap().iter().map(|r| r["name"].to_string()));
        }
        let mut whole: Vec<String> = Vec::new();
        for document in
            [aggregated_core(&registry, Aggregated::V2), aggregated_groups(&registry, Aggregated::V2)]
        {
            for group in document["items"].as_array().unwrap() {
                for resource in group["versions"][0]["resources"].as_array().unwrap() {
                    let name = resource["resource"].as_str().unwrap();
                    whole.push(json!(name).to_string());
                    for sub in resource["subresources"].as_array().into_iter().flatten() {
                        whole.push(
                            json!(format!("{name}/{}", sub["subresource"].as_str().unwrap())).to_string(),
                        );
                    }
                }
            }
        }
        assert!(!plain.is_empty());
        assert_eq!(plain, whole);
    }

    #[test]
    fn a_subresource_of_another_group_says_so() {
        let list = resources(&Registry::builtin(), "apps", "v1").unwrap();
        let scale =
            list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
    }

    #[test]
    fn unknown_groups_and_versions_are_not_served() {
        let registry = Registry::builtin();
        assert_eq!(group(&registry, "extensions"), None);
        assert_eq!(group(&registry, ""), None);
        assert_eq!(resources(&registry, "apps", "v1beta1"), None);
    }
}
