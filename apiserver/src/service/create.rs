//! Adding an object.

use std::borrow::Cow;

use bytes::Bytes;
use claw_client::{
    Response,
    request::{View, WriteOptions},
};
use claw_schemas::{
    ApiError, Descriptor,
    status::{Cause, Reason},
};
use serde_json::Value;

use super::{
    ObjectService, approval,
    body::{self, Incoming},
    companions::Companions,
    encode, errors,
    hooks::{Hooks, How, Rounds},
    kinds::{Target, method_not_allowed},
    limits::{CONFLICT_RETRIES_MAX, NAME_RETRIES_MAX},
    object::{self, generate_name, metadata_mut, stamp_new, text},
    owners::{self, Claims},
    sealed::Sealed,
    unattended,
    update::wrong_uid,
    view,
};
use crate::store::{Change, Expect, StoreError, Write};

/// Kinds of which a PUT makes what is not there, by group and plural; those of upstream whose strategies let it.
const MADE_BY_UPDATE: [(&str, &str); 11] = [
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
    ("node.k8s.io", "runtimeclasses"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];

/// Whether a PUT makes what is not there.
pub(super) fn is_made_by_update(kind: &Descriptor) -> bool {
    MADE_BY_UPDATE.contains(&(&*kind.group, &*kind.plural))
}

impl ObjectService {
    /// Adds what a PUT did not find.
    pub(super) async fn create_by_update(
        &self,
        target: &Target,
        body: &[u8],
        options: &WriteOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        if let Some(who) = &target.by {
            self.authorize(who, "create", &target.resource(), "")?;
        }
        let mut incoming = body::object(&target.kind, body, options.field_validation)?;
        let uid = text(&incoming.object, "uid");
        if !uid.is_empty() {
            return Err(wrong_uid(target, uid, ""));
        }
        metadata_mut(&mut incoming.object).remove("resourceVersion");
        self.create_checked(target, incoming, options, view).await
    }

    pub(super) async fn create(
        &self,
        target: &Target,
        body: &[u8],
        options: &WriteOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        if !target.name.is_empty() {
            return Err(method_not_allowed());
        }
        let incoming = body::object(&target.kind, body, options.field_validation)?;
        self.create_checked(target, incoming, options, view).await
    }

    /// Adds an object whose fields have been checked.
    pub(super) async fn create_checked(
        &self,
        target: &Target,
        Incoming { mut object, mut warnings }: Incoming,
        options: &WriteOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        let kind = &target.kind;
        if kind.custom.as_ref().is_some_and(|custom| custom.is_terminating()) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(ApiError::new(Reason::MethodNotAllowed, why));
        }
        prepare(target, &mut object)?;
        let claims = owners::written(target, "", options, "CreateOptions")?;
        warnings.extend(unattended::warning(&kind.descriptor));
        self.admit_into_namespace(target, text(&object, "name")).await?;
        let hooks = self.hooks(target, text(&object, "name"), How::Create(options)).await?;
        let object = self.complete(target, object, claims, hooks.as_ref()).await?;
        let stored = if text(&object.object, "name").is_empty() {
            self.insert_generated(target, object, hooks.as_ref(), options.dry_run).await?
        } else {
            let name = text(&object.object, "name").to_owned();
            let stored = self.insert(target, object, hooks.as_ref(), options.dry_run).await?;
            stored.ok_or_else(|| kind.already_exists(&name))?
        };
        Ok(Response { code: 201, body: view::single(kind, view, &stored), warnings })
    }

    /// Tries names until one is free.
    async fn insert_generated(
        &self,
        target: &Target,
        object: Sealed,
        hooks: Option<&Hooks<'_>>,
        dry_run: bool,
    ) -> Result<Bytes, ApiError> {
        let mut name = String::new();
        for _ in 0..NAME_RETRIES_MAX {
            name = generate_name(text(&object.object, "generateName"))?;
            let mut named = object.clone();
            metadata_mut(&mut named.object).insert("name".to_owned(), name.as_str().into());
            if let Some(stored) = self.insert(target, named, hooks, dry_run).await? {
                return Ok(stored);
            }
        }
        Err(target.kind.already_exists(&name))
    }

    /// Fills in what was left out, and lets others change the rest. Who owns what is decided before them: what they set is
    /// nobody's.
    pub(super) async fn complete(
        &self,
        target: &Target,
        mut object: Value,
        claims: Claims,
        hooks: Option<&Hooks<'_>>,
    ) -> Result<Sealed, ApiError> {
        target.kind.fill_in(&mut object);
        let owners = owners::of_new(&target.kind, &object, claims);
        self.admit_new(target, &mut object).await?;
        let mut new = Sealed { object, owners };
        let Some(hooks) = hooks else { return Ok(new) };
        let mut rounds = Rounds::default();
        while hooks.change_sealed(&Value::Null, &mut new, &mut rounds).await? {
            target.kind.fill_in(&mut new.object);
            self.admit_new(target, &mut new.object).await?;
            if rounds.are_over() {
                break;
            }
        }
        Ok(new)
    }

    /// What its class and its namespace add to a new object.
    async fn admit_new(&self, target: &Target, object: &mut Value) -> Result<(), ApiError> {
        self.admit_priority(target, object).await?;
        self.admit_account(target, object).await?;
        self.admit_amounts(target, object).await
    }

    /// Validates and stores. `None` when the name is taken.
    pub(super) async fn insert(
        &self,
        target: &Target,
        mut new: Sealed,
        hooks: Option<&Hooks<'_>>,
        dry_run: bool,
    ) -> Result<Option<Bytes>, ApiError> {
        let (kind, object) = (&target.kind, &mut new.object);
        kind.admit(object);
        kind.stamp(None, object);
        let causes = kind.faults(None, object);
        if !causes.is_empty() {
            return Err(kind.invalid(text(object, "name"), causes));
        }
        self.check_amounts(target, object).await?;
        kind.change_as_stored(object, unattended::mark);
        self.observe_policy(target, object);
        self.guard_create(target, object)?;
        if let Some(hooks) = hooks {
            hooks.judge(&Value::Null, &new.opened()).await?;
        }
        if dry_run {
            let key = kind.key(&target.namespace, text(&new.object, "name"));
            self.companions(target, None, Some(&mut new.object)).await?;
            let taken = self.find(&key).await?.is_some();
            return Ok((!taken).then(|| encode::without_revision(&new.opened())));
        }
        self.commit_new(target, new).await
    }

    /// Commits an object with all that it takes. `None` when the name is taken.
    async fn commit_new(&self, target: &Target, mut new: Sealed) -> Result<Option<Bytes>, ApiError> {
        // What a service is given, beside what it asks for, may be another's before it is stored.
        let asked = target.kind.is_core("services").then(|| new.object.clone());
        for _ in 0..CONFLICT_RETRIES_MAX {
            let Companions { mut writes, turn: _turn } =
                self.companions(target, None, Some(&mut new.object)).await?;
            writes.extend(self.admit_into_namespace(target, text(&new.object, "name")).await?);
            let written = target.kind.written(&new).await?;
            let draft = written.draft();
            body::check_stored_size(draft.bytes.len())?;
            let _writing = target.kind.writing()?;
            let key = target.kind.key(&target.namespace, text(&new.object, "name"));
            // Last, because the answer of the store is the revision of the last write.
            writes.push(Write {
                key: key.clone(),
                expect: Expect::Absent,
                change: Change::Put(draft.clone()),
            });
            match self.commit(writes).await {
                Ok(revision) if matches!(written, Cow::Borrowed(_)) => return Ok(Some(draft.at(revision))),
                Ok(revision) => return Ok(Some(new.draft().at(revision))),
                Err(StoreError::Conflict { key: taken, .. }) if taken == key => return Ok(None),
                // Somebody else was given the same address, or used the same quota, or the namespace is about to go.
                Err(StoreError::Conflict { .. }) => {
                    if let Some(asked) = &asked {
                        new.object.clone_from(asked);
                    }
                }
                Err(error) => return Err(errors::from_store(error)),
            }
        }
        Err(target.modified())
    }
}

/// Makes a decoded object a new one of this collection.
pub(super) fn prepare(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let kind = &target.kind;
    if kind.descriptor.namespaced() && target.namespace.is_empty() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    object::place(target, object)?;
    if !matches!(text(object, "resourceVersion"), "" | "0") {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if text(object, "name").is_empty() && text(object, "generateName").is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(kind.invalid("", vec![cause]));
    }
    stamp_new(object, kind.descriptor.has_generation);
    if let Some(who) = target.by.as_ref().filter(|_| approval::is_request(kind)) {
        approval::sign(who, object);
    }
    // What an object is to be is the creator's to say, how it fares is not. Nodes register with what they found.
    if kind.has_status() && !kind.is_core("nodes") {
        kind.take_status(&Value::Null, object);
    }
    Ok(())
}
