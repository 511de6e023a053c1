//! What is told about a request, and who answers what its asker may do.

use claw_client::request::{DeleteOptions, FieldValidation, Propagation};
use claw_schemas::{Descriptor, Registry, selector::FieldSelector};
use serde_json::{Value, json};

use super::{Hooks, How};
use crate::{
    admission::{Attributes, Kind, Operation, Resource},
    auth::{Action, Identity, What, service_accounts::identity_of},
    custom::cel::{About, Authorizing, Question},
    service::kinds::{Sub, Target},
};

impl Authorizing for Hooks<'_> {
    fn decide(&self, question: &Question, verb: &str) -> (bool, String) {
        let account = question.account.as_ref().map(|(namespace, name)| identity_of(namespace, name));
        let who: &Identity = account.as_ref().unwrap_or(&self.attributes.who);
        let (what, fields) = match &question.about {
            About::Path(path) => (What::Path(path), ""),
            About::Resource { group, plural, subresource, namespace, name, fields } => {
                (What::Objects { group, plural, subresource, namespace, name }, fields.as_str())
            }
            About::Nothing | About::Group(_) => return (false, String::new()),
        };
        // One that does not parse selects nothing less, as upstream.
        let fields = FieldSelector::parse(fields).unwrap_or_default();
        let action = Action { verb, what, fields: None }.selecting(&fields);
        let authorizer = self.service.authorizer();
        (authorizer.allows(who, &action), authorizer.explain(who, &action))
    }
}

/// A request by what it says of itself. `name` is what it calls the object.
pub(super) fn attributes(target: &Target, name: &str, how: How<'_>, who: &Identity) -> Attributes {
    let descriptor = &target.kind.descriptor;
    let (operation, dry_run) = match how {
        How::Create(options) => (Operation::Create, options.dry_run),
        How::Update(options) => (Operation::Update, options.dry_run),
        How::Delete(options) => (Operation::Delete, options.dry_run),
        How::Connect => (Operation::Connect, false),
    };
    let of = |group: &str, version: &str, kind: &str| Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
    };
    let kind = match target.sub {
        Some(Sub::Scale) => of("autoscaling", "v1", "Scale"),
        Some(Sub::Binding) => of("", "v1", "Binding"),
        Some(Sub::Eviction) => of("policy", "v1", "Eviction"),
        Some(Sub::Token) => of("authentication.k8s.io", "v1", "TokenRequest"),
        Some(Sub::Exec) => of("", "v1", "PodExecOptions"),
        Some(Sub::Attach) => of("", "v1", "PodAttachOptions"),
        Some(Sub::PortForward) => of("", "v1", "PodPortForwardOptions"),
        _ => kind_of(descriptor),
    };
    let namespace = if target.kind.is_namespace() { &target.name } else { &target.namespace };
    Attributes {
        operation,
        kind,
        resource: resource_of(descriptor),
        subresource: target.sub.map_or("", Sub::name),
        namespace: namespace.clone(),
        name: name.to_owned(),
        dry_run,
        options: options(how),
        who: who.clone(),
    }
}

/// The other kinds that show the objects of this one.
pub(super) fn others(registry: &Registry, own: &Descriptor) -> Vec<Resource> {
    registry.iter().filter(|other| shows_the_same(other, own)).map(|other| resource_of(other)).collect()
}

/// The options of a request in the form of the API.
fn options(how: How<'_>) -> Value {
    let mut options = match how {
        How::Create(options) | How::Update(options) => {
            let kind = if matches!(how, How::Create(_)) { "CreateOptions" } else { "UpdateOptions" };
            let validation = match options.field_validation {
                FieldValidation::Ignore => "Ignore",
                FieldValidation::Warn => "Warn",
                FieldValidation::Strict => "Strict",
            };
            let mut value = json!({"kind": kind, "fieldValidation": validation});
            if let Some(manager) = &options.field_manager {
                value["fieldManager"] = manager.as_str().into();
            }
            (value, options.dry_run)
        }
        How::Delete(options) => (delete_options(options), options.dry_run),
        How::Connect => return Value::Null,
    };
    options.0["apiVersion"] = "meta.k8s.io/v1".into();
    if options.1 {
        options.0["dryRun"] = json!(["All"]);
    }
    options.0
}

fn delete_options(options: &DeleteOptions) -> Value {
    let mut value = json!({"kind": "DeleteOptions"});
    if let Some(seconds) = options.grace_period_seconds {
        value["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = options.propagation {
        value["propagationPolicy"] = match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        }
        .into();
    }
    if let Some(uid) = &options.precondition_uid {
        value["preconditions"]["uid"] = uid.as_str().into();
    }
    if let Some(revision) = &options.precondition_resource_version {
        value["preconditions"]["resourceVersion"] = revision.as_str().into();
    }
    value
}

pub(super) fn kind_of(descriptor: &Descriptor) -> Kind {
    let Descriptor { group, version, kind, .. } = descriptor;
    Kind { group: group.to_string(), version: version.to_string(), kind: kind.to_string() }
}

fn resource_of(descriptor: &Descriptor) -> Resource {
    let Descriptor { group, version, plural, .. } = descriptor;
    Resource { group: group.to_string(), version: version.to_string(), plural: plural.to_string() }
}

/// Whether another kind shows the objects of this one.
fn shows_the_same(other: &Descriptor, own: &Descriptor) -> bool {
    let is_other = (&other.group, &other.version) != (&own.group, &own.version);
    is_other && other.plural == own.plural && other.storage_group() == own.storage_group()
}
