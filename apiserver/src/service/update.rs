//! Changing an object: replacement and patch, of the whole or of its status.
//!
//! All changes go through [`ObjectService::change`]: read, make the new object, settle what the change may not touch,
//! validate, commit on the condition that nobody wrote in between, and start again if somebody did.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;
use claw_client::{
    Response,
    request::{FieldValidation, PatchKind, View, WriteOptions},
};
use claw_schemas::{
    ApiError, Descriptor,
    schema::Schema,
    status::{Cause, Reason},
};
use serde_json::Value;

use super::{
    ObjectService, approval,
    body::{self, Incoming},
    companions::Companions,
    create::is_made_by_update,
    errors,
    hooks::{Hooks, How, Rounds},
    kinds::Target,
    limits::CONFLICT_RETRIES_MAX,
    object::{self, bump_generation, check_name, finalizers, is_deleting, text},
    owners::{self, Claims},
    sealed::Sealed,
    view,
};
use crate::{
    patch,
    store::{Change, Expect, Record, StoreError, Write},
    validation,
};

/// Which part of an object a change may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything but the status, where the kind has a status endpoint.
    Main,
    /// Only the status.
    Status,
    /// Only the decisions about a certificate signing request.
    Approval,
    /// Only `spec.ephemeralContainers`, of a pod.
    EphemeralContainers,
    /// Only `spec.finalizers`, of a namespace.
    Finalizers,
    /// The server's own change, made by code that knows what it may touch.
    Internal,
}

impl Part {
    /// The name of its path, as managers carry it.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Main | Self::Internal => "",
            Self::Status => "status",
            Self::Approval => "approval",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Finalizers => "finalize",
        }
    }
}

/// What became of a change.
pub(super) struct Changed {
    pub stored: Bytes,
    pub warnings: Vec<String>,
}

/// The new object, who owns its fields, and what its maker has to warn about.
pub(super) struct Proposal {
    pub object: Value,
    pub claims: Claims,
    pub warnings: Vec<String>,
}

/// Whether a replacement must say what it replaces. Leases are what elections stand on: nobody takes one unseen.
fn must_name_revision(kind: &Descriptor) -> bool {
    !kind.builtin || (kind.group == "coordination.k8s.io" && kind.plural == "leases")
}

impl ObjectService {
    pub(super) async fn replace(
        &self,
        target: &Target,
        part: Part,
        body: &[u8],
        options: &WriteOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        body::require_name(target)?;
        let Incoming { mut object, warnings } = body::object(&target.kind, body, options.field_validation)?;
        check_name(target, &object)?;
        object::place(target, &mut object)?;
        let claims = owners::written(target, part.subresource(), options, "UpdateOptions")?;
        // With a revision there is no second try, so no copy has to be kept for one.
        let conditional = named_revision(&object).is_some();
        let mut sent = Some(object);
        let make = |_: &Sealed| {
            if !conditional && must_name_revision(&target.kind.descriptor) {
                let why = "must be specified for an update";
                let cause = Cause::invalid("metadata.resourceVersion", "0x0", why);
                return Err(target.kind.invalid(&target.name, vec![cause]));
            }
            let object = if conditional { sent.take() } else { sent.clone() };
            let object = object.ok_or_else(|| target.modified())?;
            Ok(Proposal { object, claims: claims.clone(), warnings: Vec::new() })
        };
        match self.change(target, part, options, make).await {
            Err(error)
                if error.reason == Reason::NotFound
                    && part == Part::Main
                    && is_made_by_update(&target.kind.descriptor) =>
            {
                self.create_by_update(target, body, options, view).await
            }
            changed => {
                let body = view::single(&target.kind, view, &changed?.stored);
                Ok(Response { code: 200, body, warnings })
            }
        }
    }

    pub(super) async fn patch(
        &self,
        target: &Target,
        part: Part,
        patch: (PatchKind, &[u8]),
        options: &WriteOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        body::require_name(target)?;
        super::decode::check_size(patch.1)?;
        patch::accept(patch.0, schema_of(target))?;
        let claims = owners::written(target, part.subresource(), options, "PatchOptions")?;
        let make = |old: &Sealed| {
            let Incoming { object, warnings } = patched(target, old, patch, options.field_validation)?;
            Ok(Proposal { object, claims: claims.clone(), warnings })
        };
        let changed = self.change(target, part, options, make).await?;
        let body = view::single(&target.kind, view, &changed.stored);
        Ok(Response { code: 200, body, warnings: changed.warnings })
    }

    /// Reads, makes, settles and commits until it succeeds or fails for another reason than a lost race. A proposal
    /// that names a `resourceVersion` gets no second try: the one it named is gone for good.
    pub(super) async fn change(
        &self,
        target: &Target,
        part: Part,
        options: &WriteOptions,
        mut make: impl FnMut(&Sealed) -> Result<Proposal, ApiError>,
    ) -> Result<Changed, ApiError> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let record = self.record(target).await?;
            let old = Sealed::of(&target.shown(&record).await?)?;
            let Proposal { object: mut new, claims, warnings } =
                self.decided((target, part), &old, make(&old)?).await?;
            check_preconditions(target, &record, &old.object, &new)?;
            let sent = owners::take(&mut new);
            settle(target, part, &old.object, &mut new);
            let owners = self.owners_of((target, part), &old, &new, sent, claims).await?;
            let mut new = Sealed { object: new, owners };
            let hooks = self.hooks_of_change(target, part, options).await?;
            if let Some(hooks) = &hooks {
                changed_by(hooks, target, part, &old, &mut new).await?;
            }
            if part == Part::Main {
                self.observe_policy(target, &mut new.object);
            }
            judge(target, part, &old.object, &new.object)?;
            self.guard_update(target, part, &old.object, &new.object)?;
            if let Some(hooks) = &hooks {
                hooks.judge(&old.opened(), &new.opened()).await?;
            }
            let stays = !is_finished(target, &new.object);
            let Companions { writes, turn: _turn } =
                self.companions(target, Some(&old.object), stays.then_some(&mut new.object)).await?;
            if options.dry_run {
                return Ok(Changed { stored: new.draft().at(record.revision), warnings });
            }
            match self.commit_change(target, &record, (&old, &new), writes).await? {
                Some(stored) => return Ok(Changed { stored, warnings }),
                None => tokio::task::yield_now().await,
            }
        }
        Err(target.modified())
    }

    /// Those who have a say in a change, unless it is the server's own.
    async fn hooks_of_change<'s>(
        &'s self,
        target: &'s Target,
        part: Part,
        options: &WriteOptions,
    ) -> Result<Option<Hooks<'s>>, ApiError> {
        match part {
            Part::Internal => Ok(None),
            _ => self.hooks(target, &target.name, How::Update(options)).await,
        }
    }

    /// `None` when somebody else wrote in between.
    async fn commit_change(
        &self,
        target: &Target,
        record: &Record,
        (old, new): (&Sealed, &Sealed),
        companions: Vec<Write>,
    ) -> Result<Option<Bytes>, ApiError> {
        let gone = is_finished(target, &new.object);
        // `old` still says its revision, and so does `new` (see `settle`).
        if !gone && old == new {
            if target.kind.is_stored(record) {
                return Ok(Some(record.value.clone()));
            }
            // Bytes of an older schema or storage version are brought up to date even by a write that changes nothing.
            if *target.kind.written(new).await? == Sealed::of(record)? {
                return Ok(Some(new.draft().at(record.revision)));
            }
        }
        self.commit_over(target, record, (new, gone), companions).await
    }

    /// Commits an object in the place of a record that must not have changed, or as its last state, and what goes with
    /// it. Gives the object back as it is served.
    pub(super) async fn commit_over(
        &self,
        target: &Target,
        record: &Record,
        (new, gone): (&Sealed, bool),
        companions: Vec<Write>,
    ) -> Result<Option<Bytes>, ApiError> {
        let written = target.kind.written(new).await?;
        let draft = written.draft();
        body::check_stored_size(draft.bytes.len())?;
        let change = if gone { Change::Delete(draft.clone()) } else { Change::Put(draft.clone()) };
        // Whoever is written by the rules of a kind that was replaced meanwhile starts again by the new ones.
        let _writing = target.kind.writing()?;
        let write = Write { key: record.key.clone(), expect: Expect::Revision(record.revision), change };
        let mut writes = companions;
        writes.push(write);
        match self.commit(writes).await {
            Ok(revision) if matches!(written, Cow::Borrowed(_)) => Ok(Some(draft.at(revision))),
            Ok(revision) => Ok(Some(new.draft().at(revision))),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(errors::from_store(error)),
        }
    }
}

/// What strategic patches need to know about a kind; user kinds have no such thing.
fn schema_of(target: &Target) -> Option<&Schema> {
    let descriptor = &target.kind.descriptor;
    descriptor.builtin.then(|| descriptor.compiled())
}

/// The object after a patch, checked like one that was sent whole.
fn patched(
    target: &Target,
    old: &Sealed,
    (kind, patch): (PatchKind, &[u8]),
    validation: FieldValidation,
) -> Result<Incoming, ApiError> {
    let old = match may_see_owners(kind, patch) {
        true => Cow::Owned(old.opened()),
        false => Cow::Borrowed(&old.object),
    };
    let object = patch::apply(kind, &old, patch, schema_of(target))?;
    if !object.is_object() {
        return Err(ApiError::bad_request("the patch leaves no object"));
    }
    let mut patched = body::check_fields(&target.kind, object, &[], validation)?;
    check_name(target, &patched.object)?;
    object::place(target, &mut patched.object)?;
    Ok(patched)
}

/// Whether owners make a difference to a patch. A merge changes what it names, and in JSON a name is spelt out or has a
/// backslash in it; a JSON patch may also copy or test what is around them.
fn may_see_owners(kind: PatchKind, patch: &[u8]) -> bool {
    let has = |word: &str| memchr::memmem::find(patch, word.as_bytes()).is_some();
    kind == PatchKind::Json || has(owners::FIELD) || has("\\")
}

/// A change may name the incarnation and the revision that it is meant for.
fn check_preconditions(target: &Target, record: &Record, old: &Value, new: &Value) -> Result<(), ApiError> {
    let (wanted, found) = (text(new, "uid"), text(old, "uid"));
    if !wanted.is_empty() && wanted != found {
        return Err(wrong_uid(target, wanted, found));
    }
    match named_revision(new) {
        None => Ok(()),
        Some(revision) if errors::parse_revision(revision)? == record.revision => Ok(()),
        Some(_) => Err(target.modified()),
    }
}

/// The revision that an object is meant to replace. Zero names none.
fn named_revision(object: &Value) -> Option<&str> {
    Some(text(object, "resourceVersion")).filter(|revision| !matches!(*revision, "" | "0"))
}

/// 409 for a precondition on the uid.
pub(super) fn wrong_uid(target: &Target, wanted: &str, found: &str) -> ApiError {
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
    target.kind.conflict(&target.name, &why)
}

/// Lets others change the object, and puts it in order after them. Who owns what was decided before: what they set is
/// nobody's.
async fn changed_by(
    hooks: &Hooks<'_>,
    target: &Target,
    part: Part,
    old: &Sealed,
    new: &mut Sealed,
) -> Result<(), ApiError> {
    let (shown, mut rounds) = (old.opened(), Rounds::default());
    while hooks.change_sealed(&shown, new, &mut rounds).await? {
        settle(target, part, &old.object, &mut new.object);
        if rounds.are_over() {
            break;
        }
    }
    Ok(())
}

/// Undoes what this change may not touch, fills in defaults, counts the generation.
fn settle(target: &Target, part: Part, old: &Value, new: &mut Value) {
    let kind = &target.kind;
    match part {
        Part::Main => {
            if kind.has_status() {
                kind.take_status(old, new);
            }
            object::keep_system_fields(old, new);
            kind.inherit(old, new);
            kind.fill_in(new);
            kind.admit(new);
            kind.stamp(Some(old), new);
        }
        Part::Status => {
            let sent = std::mem::replace(new, object::without(old, "status"));
            kind.give_status(sent, new);
            if approval::is_request(kind) {
                approval::keep_decisions(old, new);
            }
        }
        Part::Approval => *new = approval::approved(old, new),
        Part::EphemeralContainers => {
            keep_but(old, new, "ephemeralContainers");
            kind.fill_in(new);
        }
        Part::Finalizers => keep_but(old, new, "finalizers"),
        Part::Internal => {}
    }
    new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    if matches!(part, Part::Main | Part::EphemeralContainers)
        && kind.descriptor.has_generation
        && kind.is_wish(old, new)
    {
        bump_generation(new);
    }
}

/// Keeps all of an object but one field of its spec.
fn keep_but(old: &Value, new: &mut Value, field: &str) {
    let sent = new["spec"][field].take();
    new.clone_from(old);
    if let Some(spec) = new["spec"].as_object_mut() {
        spec.remove(field);
        if !sent.is_null() {
            spec.insert(field.to_owned(), sent);
        }
    }
}

/// Validates.
fn judge(target: &Target, part: Part, old: &Value, new: &Value) -> Result<(), ApiError> {
    let kind = &target.kind;
    let mut causes = match part {
        Part::Main | Part::Status | Part::Approval => kind.faults(Some(old), new),
        Part::EphemeralContainers => validation::ephemeral_containers(old, new),
        Part::Finalizers | Part::Internal => Vec::new(),
    };
    causes.extend(new_finalizers_while_deleting(old, new));
    if causes.is_empty() { Ok(()) } else { Err(kind.invalid(&target.name, causes)) }
}

fn new_finalizers_while_deleting(old: &Value, new: &Value) -> Option<Cause> {
    if !is_deleting(old) {
        return None;
    }
    let known: HashSet<&str> = finalizers(old).into_iter().collect();
    let added: Vec<&str> = finalizers(new).into_iter().filter(|name| !known.contains(name)).collect();
    (!added.is_empty()).then(|| Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!(
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
        ),
        field: "metadata.finalizers".to_owned(),
    })
}

/// Whether nothing holds a deleted object any more.
pub(super) fn is_finished(target: &Target, object: &Value) -> bool {
    is_deleting(object)
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && finalizers(object).is_empty()
        && (!target.kind.is_namespace() || object::texts(&object["spec"]["finalizers"]).is_empty())
}
