//! What is told about a request to those who have a say in it.

use serde_json::{Map, Value, json};

use crate::auth::Identity;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// Opening a connection into it.
    Connect,
}

impl Operation {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// The type of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// The type of an object as paths have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub operation: Operation,
    pub kind: Kind,
    pub resource: Resource,
    /// Empty for the object itself.
    pub subresource: &'static str,
    /// Of a namespace, its own name.
    pub namespace: String,
    /// Empty while the server is to choose one.
    pub name: String,
    pub dry_run: bool,
    pub options: Value,
    pub who: Identity,
}

impl Attributes {
    /// Whether it is about a namespace.
    pub fn is_namespace(&self) -> bool {
        self.resource.group.is_empty() && self.resource.plural == "namespaces"
    }

    /// The request as an `AdmissionRequest` without its objects, for somebody who knows the kind as another version.
    pub fn request(&self, kind: &Kind, resource: &Resource) -> Value {
        let named = |kind: &Kind| json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let placed = |resource: &Resource| json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
        let mut request = Map::new();
        let mut put = |field: &str, value: Value| {
            let is_empty = value.as_str().is_some_and(str::is_empty);
            if !is_empty {
                request.insert(field.to_owned(), value);
            }
        };
        put("kind", named(kind));
        put("resource", placed(resource));
        put("subResource", self.subresource.into());
        put("requestKind", named(&self.kind));
        put("requestResource", placed(&self.resource));
        put("requestSubResource", self.subresource.into());
        put("name", self.name.as_str().into());
        put("namespace", self.namespace.as_str().into());
        put("operation", self.operation.name().into());
        put("userInfo", self.user());
        put("dryRun", self.dry_run.into());
        put("options", self.options.clone());
        request.into()
    }

    fn user(&self) -> Value {
        let who = &self.who;
        let mut user = json!({"username": who.user, "groups": who.groups});
        if !who.uid.is_empty() {
            user["uid"] = who.uid.as_str().into();
        }
        if !who.extra.is_empty() {
            user["extra"] = json!(who.extra);
        }
        user
    }
}
