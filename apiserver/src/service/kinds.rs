//! The served kinds, and what a request's path means among them.

use std::{collections::HashMap, sync::Arc};

use claw_client::ResourceRef;
use claw_schemas::{
    ApiError, Descriptor, Registry,
    pick::Pick,
    status::{Cause, Reason},
};

use super::facts::Plan;
use crate::store::Key;

/// A kind with everything that is worked out once for it.
pub(super) struct Served {
    pub descriptor: Arc<Descriptor>,
    pub api_version: String,
    pub plan: Plan,
    /// What is read of an object for a row.
    pub row: Pick,
}

/// All served kinds, by `group/version/plural`.
pub(super) struct Kinds(HashMap<String, Arc<Served>>);

/// What a request is about: a collection, an object, or a subresource of one.
#[derive(Clone)]
pub(super) struct Target {
    pub kind: Arc<Served>,
    /// Empty for cluster-scoped kinds, and for a collection over all namespaces.
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
    pub sub: Option<Sub>,
}

/// The subresources served. Which kind has which, the registry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sub {
    Status,
    Scale,
    Binding,
    Eviction,
    Finalize,
    Log,
    Approval,
}

impl Kinds {
    pub fn new(registry: &Registry) -> Self {
        let served = |descriptor: &Arc<Descriptor>| {
            let key = format!("{}/{}/{}", descriptor.group, descriptor.version, descriptor.plural);
            let served = Served {
                api_version: descriptor.api_version(),
                plan: Plan::new(descriptor),
                row: descriptor.row(),
                descriptor: descriptor.clone(),
            };
            (key, Arc::new(served))
        };
        Self(registry.iter().map(served).collect())
    }

    /// Finds the kind of a path, and checks that the path fits its scope.
    pub fn resolve(&self, resource: ResourceRef) -> Result<Target, ApiError> {
        let key = format!("{}/{}/{}", resource.group, resource.version, resource.plural);
        let kind = self.0.get(&key).ok_or_else(no_such_path)?.clone();
        let (namespace, name) = (resource.namespace.unwrap_or_default(), resource.name.unwrap_or_default());
        let namespaced = kind.descriptor.namespaced();
        if (!namespaced && !namespace.is_empty()) || (namespaced && namespace.is_empty() && !name.is_empty())
        {
            return Err(no_such_path());
        }
        let sub = match resource.subresource.filter(|sub| !sub.is_empty()) {
            None => None,
            Some(_) if name.is_empty() => return Err(no_such_path()),
            Some(sub) => Some(kind.subresource(&sub).ok_or_else(no_such_path)?),
        };
        Ok(Target { kind, namespace, name, sub })
    }

    /// The kind of that core plural, which every registry has.
    pub fn core(&self, plural: &str) -> Option<&Arc<Served>> {
        self.0.get(&format!("/v1/{plural}"))
    }
}

impl Served {
    pub fn is_core(&self, plural: &str) -> bool {
        self.descriptor.group.is_empty() && self.descriptor.plural == plural
    }

    pub fn is_pod(&self) -> bool {
        self.is_core("pods")
    }

    pub fn is_namespace(&self) -> bool {
        self.is_core("namespaces")
    }

    pub fn has_status(&self) -> bool {
        self.descriptor.subresource("status").is_some()
    }

    fn subresource(&self, name: &str) -> Option<Sub> {
        self.descriptor.subresource(name)?;
        Some(match name {
            "status" => Sub::Status,
            "scale" => Sub::Scale,
            "binding" => Sub::Binding,
            "eviction" => Sub::Eviction,
            "finalize" => Sub::Finalize,
            "log" => Sub::Log,
            "approval" => Sub::Approval,
            _ => return None,
        })
    }

    pub fn key(&self, namespace: &str, name: &str) -> Key {
        Key::object(&self.descriptor.group, &self.descriptor.plural, namespace, name)
    }

    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.descriptor.group, &self.descriptor.plural, name)
    }

    pub fn already_exists(&self, name: &str) -> ApiError {
        ApiError::already_exists(&self.descriptor.group, &self.descriptor.plural, name)
    }

    pub fn conflict(&self, name: &str, why: &str) -> ApiError {
        ApiError::conflict(&self.descriptor.group, &self.descriptor.plural, name, why)
    }

    pub fn modified(&self, name: &str) -> ApiError {
        self.conflict(
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn invalid(&self, name: &str, causes: Vec<Cause>) -> ApiError {
        ApiError::invalid(&self.descriptor.group, &self.descriptor.kind, name, causes)
    }

    pub fn forbidden(&self, name: &str, why: &str) -> ApiError {
        let message = format!("{} \"{name}\" is forbidden: {why}", self.descriptor.qualified_plural());
        ApiError::new(Reason::Forbidden, message).about(&self.descriptor.group, &self.descriptor.plural, name)
    }
}

impl Target {
    pub fn key(&self) -> Key {
        self.kind.key(&self.namespace, &self.name)
    }

    /// The range of a collection.
    pub fn prefix(&self) -> Key {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        Key::collection(&self.kind.descriptor.group, &self.kind.descriptor.plural, namespace)
    }

    pub fn not_found(&self) -> ApiError {
        self.kind.not_found(&self.name)
    }

    pub fn modified(&self) -> ApiError {
        self.kind.modified(&self.name)
    }
}

/// Namespace and name of a key.
pub(super) fn place_of(key: &Key) -> (&str, &str) {
    let mut parts = key.as_str().rsplitn(3, '/');
    let name = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), name)
}

fn no_such_path() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// 405 for a verb that a path does not have.
pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_must_fit_the_scope_of_its_kind() {
        let kinds = Kinds::new(&Registry::builtin());
        let pods = ResourceRef::collection("", "v1", "pods");
        let nodes = ResourceRef::collection("", "v1", "nodes");
        assert!(kinds.resolve(pods.clone()).is_ok());
        assert!(kinds.resolve(pods.clone().in_namespace("a").named("x")).is_ok());
        for wrong in [
            pods.clone().named("x"),
            nodes.clone().in_namespace("a"),
            nodes.clone().named("n").sub("log"),
            pods.sub("status"),
            ResourceRef::collection("apps", "v2", "deployments"),
        ] {
            let error = kinds.resolve(wrong.clone()).err().unwrap();
            assert_eq!(error.reason, Reason::NotFound, "{wrong:?}");
        }
    }

    #[test]
    fn a_key_says_where_its_object_is() {
        let key = Key::object("apps", "deployments", "ns", "web");
        assert_eq!(place_of(&key), ("ns", "web"));
        assert_eq!(place_of(&Key::object("", "nodes", "", "n1")), ("", "n1"));
    }
}
