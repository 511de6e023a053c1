//! Kinds as they are seen by controllers that work on objects of every kind: the built-in ones and those that users
//! define.
//!
//! Must never know: what any kind is for.

use claw_client::{Cached, ResourceRef};
use claw_schemas::{Descriptor, Registry};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// How to reach the objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyKind {
    /// Empty for the core group.
    pub group: String,
    /// Every version served; all show the same objects.
    pub versions: Vec<String>,
    /// `Deployment`
    pub kind: String,
    /// `deployments`
    pub plural: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
}

impl AnyKind {
    /// The built-in kinds, each once, however many versions and groups show its objects.
    pub fn all(registry: &Registry) -> Vec<Self> {
        let twins = |kind: &Descriptor| {
            let twins = registry.iter().filter(|twin| twin.stored_as.is_some());
            let twins = twins.filter(|twin| twin.group == kind.group && twin.plural == kind.plural);
            twins.map(|twin| twin.version.to_string()).collect::<Vec<_>>()
        };
        let stored = registry.stored().map(|kind| {
            let mut own = Self::from(&**kind);
            own.versions.extend(twins(kind));
            own
        });
        stored.collect()
    }

    /// The collection of all objects.
    pub fn resource(&self) -> ResourceRef {
        let version = self.versions.first().map(String::as_str).unwrap_or_default();
        ResourceRef::collection(&self.group, version, &self.plural)
    }

    /// `deployments.apps`, or `pods` in the core group.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether an owner reference with this `apiVersion` and `kind` names the kind.
    pub fn is(&self, api_version: &str, kind: &str) -> bool {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.kind == kind && self.group == group && self.versions.iter().any(|served| served == version)
    }
}

impl From<&Descriptor> for AnyKind {
    fn from(kind: &Descriptor) -> Self {
        Self {
            group: kind.group.to_string(),
            versions: vec![kind.version.to_string()],
            kind: kind.kind.to_string(),
            plural: kind.plural.to_string(),
            namespaced: kind.namespaced(),
        }
    }
}

/// What a definition of a kind says that matters here. Its schemas, which can be large, are not kept.
#[derive(Clone, Debug, Deserialize)]
pub struct Definition {
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct Spec {
    group: String,
    scope: String,
    versions: Vec<Version>,
}

#[derive(Clone, Debug, Deserialize)]
struct Version {
    name: String,
    served: bool,
    storage: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    accepted_names: Names,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Names {
    kind: String,
    plural: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Cached for Definition {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl Definition {
    /// Where definitions are.
    pub fn resource() -> ResourceRef {
        ResourceRef::collection("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    }

    /// The uid of the definition: a kind that is defined again is another one.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The kind, while it is served. The storage version comes first: it needs no conversion.
    pub fn kind(&self) -> Option<AnyKind> {
        let established = self
            .status
            .conditions
            .iter()
            .any(|found| found.r#type == "Established" && found.status == "True");
        let mut served: Vec<&Version> = self.spec.versions.iter().filter(|version| version.served).collect();
        served.sort_by_key(|version| !version.storage);
        let names = &self.status.accepted_names;
        (established && !served.is_empty()).then(|| AnyKind {
            group: self.spec.group.clone(),
            versions: served.into_iter().map(|version| version.name.clone()).collect(),
            kind: names.kind.clone(),
            plural: names.plural.clone(),
            namespaced: self.spec.scope == "Namespaced",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_is_a_kind_once_it_is_established() {
        let definition = |established: &str| -> Definition {
            serde_json::from_value(json!({
                "metadata": {"name": "widgets.example.com", "uid": "u"},
                "spec": {"group": "example.com", "scope": "Namespaced", "versions": [
                    {"name": "v1beta1", "served": true, "storage": false},
                    {"name": "v1", "served": true, "storage": true},
                    {"name": "v0", "served": false, "storage": false},
                ]},
                "status": {"acceptedNames": {"kind": "Widget", "plural": "widgets"},
                    "conditions": [{"type": "Established", "status": established}]},
            }))
            .unwrap()
        };
        assert_eq!(definition("False").kind(), None);
        let kind = definition("True").kind().unwrap();
        assert_eq!(kind.versions, ["v1", "v1beta1"]);
        assert!(kind.is("example.com/v1beta1", "Widget"));
        assert!(!kind.is("example.com/v0", "Widget") && !kind.is("v1", "Widget"));
    }
}
