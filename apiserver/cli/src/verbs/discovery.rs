//! The kinds that a server has, as it tells them: those of ours, and those that users defined.
//!
//! Source of the form: `apidiscovery.k8s.io/v2`, which tells everything in two requests.

use std::sync::Arc;

use claw_client::HttpTransport;
use claw_schemas::{
    ApiError, Descriptor, Registry, Scope,
    registry::{Cells, MakeCells, SchemaSource, Subresource},
    schema::Compiled,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// What a server has.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Every version of every kind.
    pub all: Registry,
    /// Each kind in the version that the server prefers.
    pub preferred: Registry,
    /// The latter as they were told, in the server's order.
    pub resources: Vec<Resource>,
}

/// A kind, as a list of kinds shows it.
#[derive(Clone, Debug)]
pub struct Resource {
    pub kind: Arc<Descriptor>,
    pub verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Named,
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Told {
    resource: String,
    response_kind: ResponseKind,
    scope: String,
    singular_resource: String,
    verbs: Vec<String>,
    short_names: Vec<String>,
    categories: Vec<String>,
    subresources: Vec<Below>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseKind {
    kind: String,
}

#[derive(Deserialize)]
struct Below {
    subresource: String,
}

impl Discovered {
    /// Asks a server.
    pub async fn ask(http: &HttpTransport) -> Result<Self, ApiError> {
        let (core, groups) = tokio::join!(http.get_raw_as("/api", ACCEPT), http.get_raw_as("/apis", ACCEPT));
        let mut found = Self::default();
        for body in [core?.body, groups?.body] {
            let groups: Groups = serde_json::from_slice(&body)
                .map_err(|error| ApiError::internal(format!("the server's kinds do not parse: {error}")))?;
            if groups.kind != "APIGroupDiscoveryList" {
                let why = "the server does not tell its kinds as servers since Kubernetes 1.26 do";
                return Err(ApiError::internal(why));
            }
            found.add(groups);
        }
        Ok(found)
    }

    fn add(&mut self, groups: Groups) {
        let builtin = Registry::builtin();
        for Group { metadata: Named { name: group }, versions } in groups.items {
            // A kind may be missing from the version that is preferred in its group.
            for Version { version, resources } in versions {
                for told in resources {
                    let kind = match builtin.resource(&group, &version, &told.resource) {
                        Some(known) => Arc::clone(known),
                        None => Arc::new(descriptor(&group, &version, &told)),
                    };
                    let is_first = !self
                        .preferred
                        .iter()
                        .any(|known| known.group == group && known.plural == kind.plural);
                    self.all.insert(Arc::clone(&kind));
                    if is_first {
                        self.preferred.insert(Arc::clone(&kind));
                        self.resources.push(Resource { kind, verbs: told.verbs });
                    }
                }
            }
        }
    }
}

/// A kind of which we know no more than its names.
fn descriptor(group: &str, version: &str, told: &Told) -> Descriptor {
    let owned = |names: &[String]| names.iter().map(|name| name.clone().into()).collect();
    let below = told.subresources.iter();
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    Descriptor {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: told.response_kind.kind.clone().into(),
        plural: told.resource.clone().into(),
        singular: told.singular_resource.clone().into(),
        short_names: owned(&told.short_names),
        categories: owned(&told.categories),
        scope: if told.scope == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
        subresources: below
            .map(|below| Subresource { name: below.subresource.clone().into(), carries: None, verbs: &[] })
            .collect(),
        selectable_fields: Vec::new(),
        columns: Vec::new(),
        cells: Cells::Custom(Arc::new(NoCells)),
        cells_read: Vec::new(),
        schema: SchemaSource::Custom(Arc::new(anything)),
        compiled: Compiled::default(),
        has_generation: false,
        builtin: false,
        stored_as: None,
    }
}

/// Rows come from the server.
struct NoCells;

impl MakeCells for NoCells {
    fn cells(&self, _: &Value, _: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::discovery::{Aggregated, aggregated_core, aggregated_groups};

    use super::*;

    fn found(documents: &[Value]) -> Discovered {
        let mut found = Discovered::default();
        for document in documents {
            found.add(serde_json::from_value(document.clone()).unwrap());
        }
        found
    }

    #[test]
    fn what_our_own_server_tells_is_what_we_know() {
        let registry = Registry::builtin();
        let found = found(&[
            aggregated_core(&registry, Aggregated::V2),
            aggregated_groups(&registry, Aggregated::V2),
        ]);
        for kind in registry.iter() {
            let found = found.all.resource(&kind.group, &kind.version, &kind.plural);
            assert!(found.is_some_and(|found| found.builtin), "{}", kind.qualified_plural());
        }
        for name in ["pods", "deploy", "Event", "hpa", "crd"] {
            let (theirs, ours) = (found.preferred.named(name).unwrap(), registry.named(name).unwrap());
            assert_eq!(theirs.api_version(), ours.api_version(), "{name}");
        }
    }

    #[test]
    fn a_kind_of_somebody_is_found_by_all_its_names_in_the_version_preferred() {
        let told = |names: Value| {
            json!({"resource": "sweeps", "responseKind": {"kind": "Sweep"}, "scope": "Namespaced", "singularResource": "sweep",
                "verbs": ["get"], "shortNames": names, "categories": ["all"], "subresources": [{"subresource": "scale"}]})
        };
        let versions = json!([
            {"version": "v2", "resources": [told(json!(["sw"]))]},
            {"version": "v1alpha1", "resources": [told(json!(["sw"]))]},
        ]);
        let found = found(&[json!({"kind": "APIGroupDiscoveryList",
            "items": [{"metadata": {"name": "a.example.com"}, "versions": versions}]})]);
        for name in ["sweeps", "sweep", "sw", "Sweep", "sweeps.a.example.com"] {
            assert_eq!(found.preferred.named(name).unwrap().version, "v2", "{name}");
        }
        let old = found.all.kind("a.example.com/v1alpha1", "Sweep").unwrap();
        assert!(old.namespaced() && old.subresource("scale").is_some() && !old.builtin);
        assert_eq!(found.resources.len(), 1);
    }
}
