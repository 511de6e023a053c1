//! Removing objects: preconditions, propagation to dependents, grace periods of pods, finalizers.
//!
//! A deletion is decided by a pure function ([`plan`]) of the object, the options and the time.

use bytes::Bytes;
use claw_client::{
    Response,
    request::{DeleteOptions, ListOptions, Propagation, View},
};
use claw_schemas::{ApiError, schema::time_text, status::Reason};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    ObjectService, body,
    companions::Companions,
    encode, errors, evictions,
    hooks::{How, Rounds},
    kinds::{Target, method_not_allowed},
    limits::CONFLICT_RETRIES_MAX,
    list::ok,
    object::{bump_generation, finalizers, is_deleting, metadata_mut, set_finalizers, text},
    sealed::Sealed,
    update::{is_finished, wrong_uid},
    view,
};
use crate::{
    custom,
    store::{Change, Expect, Record, StoreError, Write},
};

/// Finalizers by which a deletion tells the garbage collector what to do with dependents.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How long a pod may take to stop when nobody says.
const POD_GRACE_DEFAULT_S: i64 = 30;

/// What a deletion comes to.
#[derive(Debug, PartialEq)]
enum Plan {
    /// The object goes now.
    Remove,
    /// The object stays for a while, in this form.
    Mark(Value),
    /// It is already being deleted just so.
    Nothing,
}

/// Why an object is deleted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Why {
    /// Somebody wants it gone.
    Asked,
    /// Somebody wants it somewhere else, if those who rely on it can bear that.
    Evicted,
}

impl ObjectService {
    pub(super) async fn delete(
        &self,
        target: &Target,
        options: &DeleteOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        self.delete_because(target, options, view, Why::Asked).await
    }

    pub(super) async fn delete_because(
        &self,
        target: &Target,
        options: &DeleteOptions,
        view: View,
        why: Why,
    ) -> Result<Response, ApiError> {
        body::require_name(target)?;
        self.admit_delete(target)?;
        self.admit_release(target).await?;
        for _ in 0..CONFLICT_RETRIES_MAX {
            let record = self.record(target).await?;
            let shown = target.shown(&record).await?;
            let sealed = Sealed::of(&shown)?;
            let old = &sealed.object;
            check_preconditions(target, &record, old, options)?;
            if why == Why::Asked {
                self.ask_to_delete(target, &sealed, options).await?;
            }
            let disruption = match why {
                Why::Asked => Vec::new(),
                Why::Evicted => self.disruption(target, old).await?,
            };
            let plan = plan(target, old, options, Timestamp::now());
            // Kubernetes answers the pod itself where it answers a Status for most kinds.
            let answer_object = plan != Plan::Remove || target.kind.is_pod();
            let done = match plan {
                Plan::Nothing => Some(shown.value.clone()),
                Plan::Remove if options.dry_run => Some(shown.value.clone()),
                Plan::Remove => {
                    let Companions { mut writes, turn: _turn } =
                        self.companions(target, Some(old), None).await?;
                    writes.extend(disruption);
                    self.remove(&record, writes).await?
                }
                Plan::Mark(mut object) => {
                    if why == Why::Evicted {
                        evictions::tell(&mut object, Timestamp::now());
                    }
                    let new = Sealed { object, owners: sealed.owners.clone() };
                    if options.dry_run {
                        Some(new.draft().at(record.revision))
                    } else {
                        self.commit_over(target, &record, (&new, false), disruption).await?
                    }
                }
            };
            let Some(stored) = done else {
                tokio::task::yield_now().await;
                continue;
            };
            let body = if answer_object {
                view::single(&target.kind, view, &stored)
            } else {
                success(target, text(old, "uid"))
            };
            return Ok(ok(body));
        }
        Err(target.modified())
    }

    /// Asks those who have a say in a deletion. An eviction is a request of its own, about which they were asked.
    async fn ask_to_delete(
        &self,
        target: &Target,
        old: &Sealed,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        let Some(hooks) = self.hooks(target, &target.name, How::Delete(options)).await? else {
            return Ok(());
        };
        let old = old.opened();
        hooks.change(&old, &mut Value::Null, &mut Rounds::default()).await?;
        hooks.judge(&old, &Value::Null).await
    }

    /// Frees the key of a record that must not have changed, beside other writes; `None` when it has.
    async fn remove(&self, record: &Record, mut writes: Vec<Write>) -> Result<Option<Bytes>, ApiError> {
        let draft = encode::draft_of(&record.value);
        let (expect, change) = (Expect::Revision(record.revision), Change::Delete(draft.clone()));
        // Last, because the answer of the store is the revision of the last write.
        writes.push(Write { key: record.key.clone(), expect, change });
        match self.commit(writes).await {
            Ok(revision) => Ok(Some(draft.at(revision))),
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(errors::from_store(error)),
        }
    }

    /// Deletes what is listed, and answers with the list.
    pub(super) async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        if !target.name.is_empty() || target.kind.is_namespace() {
            return Err(method_not_allowed());
        }
        // Those that a list with the same options would show, and no more.
        let (items, meta) = self.listed(target, list).await?;
        for record in &items {
            let (namespace, name) = record.key.place();
            let one = Target { namespace: namespace.to_owned(), name: name.to_owned(), ..target.clone() };
            match self.delete(&one, options, View::Object).await {
                Err(error) if error.reason != Reason::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(ok(view::list(&target.kind, view, &items, &meta).await))
    }
}

/// `Status` of a request that has nothing else to say.
pub(super) fn success(target: &Target, uid: &str) -> Bytes {
    let descriptor = &target.kind.descriptor;
    let mut details = json!({"kind": descriptor.plural});
    for (field, value) in [("name", target.name.as_str()), ("group", &descriptor.group), ("uid", uid)] {
        if !value.is_empty() {
            details[field] = value.into();
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
        .to_string()
        .into()
}

fn check_preconditions(
    target: &Target,
    record: &Record,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    if let Some(uid) = options.precondition_uid.as_deref()
        && uid != text(old, "uid")
    {
        return Err(wrong_uid(target, uid, text(old, "uid")));
    }
    if let Some(revision) = options.precondition_resource_version.as_deref()
        && errors::parse_revision(revision)? != record.revision
    {
        let found = record.revision;
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {found}"
        );
        return Err(target.kind.conflict(&target.name, &why));
    }
    Ok(())
}

/// Decides what a deletion does to an object.
fn plan(target: &Target, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut new = old.clone();
    set_finalizers(&mut new, finalizers_after(old, options.propagation));
    mark(target, old, &mut new, options, now);
    if target.kind.is_namespace() {
        new["status"]["phase"] = "Terminating".into();
    }
    if target.kind.is_definition() && !is_deleting(old) {
        custom::terminate(&mut new, now);
    }
    if is_finished(target, &new) {
        Plan::Remove
    } else if new == *old {
        Plan::Nothing
    } else {
        Plan::Mark(new)
    }
}

/// Sets the time by which the object is to be gone.
fn mark(target: &Target, old: &Value, new: &mut Value, options: &DeleteOptions, now: Timestamp) {
    let set = |new: &mut Value, time: Timestamp, grace_s: i64| {
        let metadata = metadata_mut(new);
        metadata.insert("deletionTimestamp".to_owned(), time_text(time).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), grace_s.into());
    };
    let after = |time: Timestamp, seconds: i64| {
        time.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
    };
    if !is_deleting(old) {
        let grace_s = grace_s(target, old, options);
        set(new, after(now, grace_s), grace_s);
        if target.kind.descriptor.has_generation {
            bump_generation(new);
        }
        return;
    }
    // A deletion under way can be hastened, never put off.
    let current_s = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if let Some(wanted_s) = options.grace_period_seconds.map(|wanted| wanted.max(0))
        && wanted_s < current_s
    {
        let end: Timestamp = text(old, "deletionTimestamp").parse().unwrap_or(now);
        set(new, after(end, wanted_s - current_s), wanted_s);
    }
}

/// Seconds that an object may take to stop. Only pods have something to stop, and only on a node.
fn grace_s(target: &Target, pod: &Value, options: &DeleteOptions) -> i64 {
    let unbound = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !target.kind.is_pod() || unbound || over {
        return 0;
    }
    match options.grace_period_seconds.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()) {
        // Only a request can ask for no time at all; a negative figure is the least that still lets the node act.
        Some(seconds) if seconds < 0 => 1,
        Some(seconds) => seconds,
        None => POD_GRACE_DEFAULT_S,
    }
}

/// The finalizers once the wish about dependents is among them.
fn finalizers_after(old: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let current = finalizers(old);
    let wish = match propagation {
        None => return current.into_iter().map(str::to_owned).collect(),
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Orphan) => Some(ORPHAN),
    };
    let others = current.into_iter().filter(|name| ![FOREGROUND, ORPHAN].contains(name));
    others.chain(wish).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use claw_client::ResourceRef;
    use claw_schemas::Registry;

    use super::*;
    use crate::service::kinds::Kinds;

    fn target(group: &str, plural: &str) -> Target {
        let namespace = if plural == "namespaces" { None } else { Some("ns".to_owned()) };
        let resource = ResourceRef { namespace, ..ResourceRef::collection(group, "v1", plural) }.named("x");
        Kinds::new(Registry::builtin()).resolve(resource).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn graceful(seconds: Option<i64>) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() }
    }

    fn pod(node: &str, phase: &str) -> Value {
        json!({
            "metadata": {"name": "x"},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 20},
            "status": {"phase": phase},
        })
    }

    fn grace_of(plan: &Plan) -> Option<i64> {
        match plan {
            Plan::Mark(new) => new["metadata"]["deletionGracePeriodSeconds"].as_i64(),
            _ => None,
        }
    }

    #[test]
    fn a_pod_gets_time_to_stop_only_where_something_runs() {
        let target = target("", "pods");
        for (node, phase, asked, expected) in [
            ("n1", "Running", None, Some(20)),
            ("n1", "Running", Some(5), Some(5)),
            ("n1", "Running", Some(-1), Some(1)),
            ("n1", "Running", Some(0), None),
            ("n1", "Succeeded", None, None),
            ("", "Pending", None, None),
        ] {
            let plan = plan(&target, &pod(node, phase), &graceful(asked), now());
            assert_eq!(grace_of(&plan), expected, "{node} {phase} {asked:?}");
            assert_eq!(plan == Plan::Remove, expected.is_none());
        }
    }

    #[test]
    fn a_deletion_can_be_hastened_but_not_put_off() {
        let target = target("", "pods");
        let Plan::Mark(marked) = plan(&target, &pod("n1", "Running"), &graceful(None), now()) else {
            panic!()
        };
        assert_eq!(text(&marked, "deletionTimestamp"), "2026-01-01T00:00:20Z");
        assert_eq!(plan(&target, &marked, &graceful(Some(60)), now()), Plan::Nothing);
        assert_eq!(plan(&target, &marked, &graceful(None), now()), Plan::Nothing);
        let Plan::Mark(sooner) = plan(&target, &marked, &graceful(Some(5)), now()) else { panic!() };
        assert_eq!(text(&sooner, "deletionTimestamp"), "2026-01-01T00:00:05Z");
        assert_eq!(plan(&target, &marked, &graceful(Some(0)), now()), Plan::Remove);
    }

    #[test]
    fn finalizers_hold_a_deleted_object() {
        let target = target("", "configmaps");
        let held = json!({"metadata": {"name": "x", "finalizers": ["a.example/b"]}});
        let Plan::Mark(marked) = plan(&target, &held, &DeleteOptions::default(), now()) else { panic!() };
        assert!(is_deleting(&marked));
        assert_eq!(plan(&target, &marked, &DeleteOptions::default(), now()), Plan::Nothing);
        let free = json!({"metadata": {"name": "x"}});
        assert_eq!(plan(&target, &free, &DeleteOptions::default(), now()), Plan::Remove);
    }

    #[test]
    fn a_propagation_policy_becomes_a_finalizer() {
        let object = |names: &[&str]| json!({"metadata": {"finalizers": names}});
        for (held, policy, expected) in [
            (&["a/b"][..], None, &["a/b"][..]),
            (&[ORPHAN], None, &[ORPHAN]),
            (&[ORPHAN, "a/b"], Some(Propagation::Background), &["a/b"]),
            (&[ORPHAN], Some(Propagation::Foreground), &[FOREGROUND]),
            (&["a/b"], Some(Propagation::Orphan), &["a/b", ORPHAN]),
        ] {
            assert_eq!(finalizers_after(&object(held), policy), expected);
        }
    }

    #[test]
    fn a_namespace_terminates_until_its_spec_is_finalized() {
        let target = target("", "namespaces");
        let namespace = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let Plan::Mark(marked) = plan(&target, &namespace, &DeleteOptions::default(), now()) else {
            panic!()
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        let drained = json!({"metadata": {"name": "x"}, "spec": {}});
        assert_eq!(plan(&target, &drained, &DeleteOptions::default(), now()), Plan::Remove);
    }
}
