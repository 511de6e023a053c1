//! Namespaces under deletion: everything in them is deleted, then they are let go.
//!
//! Writes the conditions `NamespaceDeletionContentFailure`, `NamespaceContentRemaining` and
//! `NamespaceFinalizersRemaining`, which tell what a deletion waits for.
//!
//! Must never know: what any kind is for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_client::{
    ApiError, Delta, PartialObject, Request, ResourceRef, Store, Verb,
    request::{DeleteOptions, ListOptions, View},
};
use claw_runtime::{
    Runtime,
    conditions::{self, Condition as _, FALSE, TRUE},
    queue::Queue,
};
use claw_schemas::Registry;
use jiff::Timestamp;
use k8s_openapi::{
    Metadata as _,
    api::core::v1::{Namespace, NamespaceCondition},
    apimachinery::pkg::apis::meta::v1::ListMeta,
};
use serde::Deserialize;
use tracing::{info, warn};

use crate::any_kind::{AnyKind, Definition};

/// The finalizer in `spec.finalizers` that this controller answers for.
const FINALIZER: &str = "kubernetes";

/// How often a namespace that is not empty yet is looked at. Pods take seconds to stop; an empty look costs one small
/// list a kind.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Namespaces emptied at the same time.
const WORKERS: usize = 4;

/// Objects of one kind that are looked at for the reasons why they remain; more are only counted.
const SAMPLE: u64 = 500;

/// Runs the controller until the runtime is cancelled.
pub async fn run(runtime: Runtime, registry: Arc<Registry>) {
    let queue = Arc::new(Queue::counted(runtime.env.clone(), runtime.figures.of("namespace")));
    let store = runtime.caches.of::<Namespace>();
    let triggers = Arc::clone(&queue);
    store.subscribe(move |delta| {
        if let Delta::Applied { new, .. } = delta
            && new.metadata.deletion_timestamp.is_some()
        {
            triggers.add(new.metadata.name.clone().unwrap_or_default());
        }
    });
    let cancel = runtime.cancel.clone();
    let drain = Drain { runtime, store, queue: Arc::clone(&queue), kinds: namespaced(&registry) };
    queue.work(&cancel, WORKERS, |name| drain.process(name)).await;
}

/// The built-in kinds to empty. Pods go first: nothing may run on while what it relies on is taken away.
fn namespaced(registry: &Registry) -> Vec<AnyKind> {
    let mut kinds = AnyKind::all(registry);
    kinds.retain(|kind| kind.namespaced);
    kinds.sort_by_key(|kind| kind.kind != "Pod");
    kinds
}

struct Drain {
    runtime: Runtime,
    store: Store<Namespace>,
    queue: Arc<Queue<String>>,
    kinds: Vec<AnyKind>,
}

/// What is left in a namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remaining {
    /// `pods.` → how many.
    objects: BTreeMap<String, u64>,
    /// Finalizer → how many objects it holds.
    finalizers: BTreeMap<String, u64>,
    /// What could not be deleted or counted.
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<PartialObject>,
}

impl Drain {
    async fn process(&self, name: String) {
        if !self.store.get("", &name).is_some_and(|namespace| waits_for_us(&namespace)) {
            return;
        }
        match self.drain(&name).await {
            Ok(true) => self.queue.forget(&name),
            Ok(false) => self.queue.add_after(name, LOOK_AGAIN),
            Err(error) => {
                let delay = self.queue.retry(name.clone());
                warn!(namespace = name, %error, ?delay, "cannot finish a namespace; trying again");
            }
        }
    }

    /// One round. True when there is nothing left to do, mostly because the namespace was empty and has been let go.
    async fn drain(&self, name: &str) -> Result<bool, ApiError> {
        if !self.runtime.leadership.is_held() {
            return Ok(false);
        }
        // The cache may still show one that is gone, and everything in its successor would be deleted.
        let namespace = self.runtime.client.all::<Namespace>().find(name).await?;
        let Some(namespace) = namespace.filter(waits_for_us) else { return Ok(true) };
        let mut remaining = Remaining::default();
        for kind in self.kinds.iter().chain(&self.defined().await?) {
            if let Err(error) = self.empty(kind, name, &mut remaining).await {
                remaining.errors.push(format!("{}.{}: {error}", kind.plural, kind.group));
            }
        }
        if remaining == Remaining::default() {
            self.finalize(&namespace, name).await?;
            info!(namespace = name, "empty; let go");
            return Ok(true);
        }
        self.report(&namespace, &remaining).await?;
        Ok(false)
    }

    /// The kinds that users define, as they are now: a namespace is not empty before all of them are.
    async fn defined(&self) -> Result<Vec<AnyKind>, ApiError> {
        #[derive(Deserialize)]
        struct Definitions {
            items: Vec<Definition>,
        }
        let list = Verb::List(ListOptions::default());
        let body = self.runtime.client.call(Definition::resource(), list).await?.body;
        let list: Definitions = serde_json::from_slice(&body).map_err(unreadable)?;
        let kinds = list.items.iter().filter_map(Definition::kind);
        Ok(kinds.filter(|kind| kind.namespaced).collect())
    }

    /// Deletes all objects of a kind, and counts those that are still there.
    async fn empty(
        &self,
        kind: &AnyKind,
        namespace: &str,
        remaining: &mut Remaining,
    ) -> Result<(), ApiError> {
        let page = self.list(kind, namespace).await?;
        if page.items.is_empty() {
            return Ok(());
        }
        if page.items.iter().any(|item| item.metadata.deletion_timestamp.is_none()) {
            let delete =
                Verb::DeleteCollection { list: ListOptions::default(), delete: DeleteOptions::default() };
            self.call(kind, namespace, delete).await?;
        }
        let page = self.list(kind, namespace).await?;
        let more =
            page.metadata.remaining_item_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        let count = page.items.len() as u64 + more;
        if count > 0 {
            remaining.objects.insert(format!("{}.{}", kind.plural, kind.group), count);
        }
        for finalizer in page.items.iter().flat_map(|item| item.metadata.finalizers.iter().flatten()) {
            *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        Ok(())
    }

    async fn list(&self, kind: &AnyKind, namespace: &str) -> Result<Page, ApiError> {
        let list = Verb::List(ListOptions { limit: SAMPLE, ..ListOptions::default() });
        let body = self.call(kind, namespace, list).await?;
        serde_json::from_slice(&body).map_err(unreadable)
    }

    async fn call(&self, kind: &AnyKind, namespace: &str, verb: Verb) -> Result<bytes::Bytes, ApiError> {
        let resource = kind.resource().in_namespace(namespace);
        let request = Request { resource, verb, view: View::Metadata };
        Ok(self.runtime.client.transport().call(request).await?.body)
    }

    /// Lets the namespace go.
    async fn finalize(&self, namespace: &Namespace, name: &str) -> Result<(), ApiError> {
        let mut namespace = namespace.clone();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        // Whatever was written to it meanwhile, conditions above all, is no reason to keep it.
        namespace.metadata_mut().resource_version = None;
        let body = serde_json::to_vec(&namespace).map_err(|error| ApiError::internal(error.to_string()))?;
        let verb = Verb::Update { body: body.into(), options: self.runtime.client.write_options() };
        let resource = ResourceRef::collection("", "v1", "namespaces").named(name).sub("finalize");
        self.runtime.client.call(resource, verb).await.map(drop)
    }

    /// Says in the status what the deletion waits for, if that changed.
    async fn report(&self, namespace: &Namespace, remaining: &Remaining) -> Result<(), ApiError> {
        let mut namespace = namespace.clone();
        let status = namespace.status.get_or_insert_default();
        let mut all = status.conditions.clone().unwrap_or_default();
        let mut changed = false;
        for condition in conditions_of(remaining) {
            changed |= conditions::set(&mut all, condition, None, self.now());
        }
        if !changed {
            return Ok(());
        }
        status.conditions = Some(all);
        match self.runtime.client.all::<Namespace>().update_status(&namespace).await {
            // Somebody else wrote; the next round reports.
            Err(error) if error.reason == claw_schemas::status::Reason::Conflict => Ok(()),
            other => other.map(drop),
        }
    }

    fn now(&self) -> Timestamp {
        self.runtime.env.now()
    }
}

/// Whether it is being deleted, and cannot go before it is found empty here.
fn waits_for_us(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER))
}

fn unreadable(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("the server's list does not parse: {error}"))
}

/// What is left, in Kubernetes' words.
fn conditions_of(remaining: &Remaining) -> Vec<NamespaceCondition> {
    let build = |kind: &str, bad: bool, why: (&str, String), fine: (&str, &str)| match bad {
        true => NamespaceCondition::build(kind, TRUE, why.0, &why.1),
        false => NamespaceCondition::build(kind, FALSE, fine.0, fine.1),
    };
    let counted = |counts: &BTreeMap<String, u64>, verb: &str| {
        let parts: Vec<_> =
            counts.iter().map(|(what, count)| format!("{what} {verb} {count} resource instances")).collect();
        parts.join(", ")
    };
    let (objects, finalizers) = (&remaining.objects, &remaining.finalizers);
    vec![
        build(
            "NamespaceDeletionContentFailure",
            !remaining.errors.is_empty(),
            (
                "ContentDeletionFailed",
                format!("Failed to delete all resource types, {}", remaining.errors.join(", ")),
            ),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        build(
            "NamespaceContentRemaining",
            !objects.is_empty(),
            ("SomeResourcesRemain", format!("Some resources are remaining: {}", counted(objects, "has"))),
            ("ContentRemoved", "All content successfully removed"),
        ),
        build(
            "NamespaceFinalizersRemaining",
            !finalizers.is_empty(),
            (
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted(finalizers, "in")
                ),
            ),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conditions_tell_what_a_deletion_waits_for() {
        let remaining = Remaining {
            objects: [("pods.".to_owned(), 2)].into(),
            finalizers: [("example.com/hold".to_owned(), 1)].into(),
            errors: Vec::new(),
        };
        let all = conditions_of(&remaining);
        let message = |kind: &str| conditions::find(&all, kind).map(|c| (c.status(), c.message().to_owned()));
        let has = |status, text: &str| Some((status, text.to_owned()));
        assert_eq!(
            message("NamespaceContentRemaining"),
            has(TRUE, "Some resources are remaining: pods. has 2 resource instances")
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            has(
                TRUE,
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
            )
        );
        assert_eq!(message("NamespaceDeletionContentFailure").map(|found| found.0), Some(FALSE));
    }

    #[test]
    fn pods_go_first() {
        let kinds = namespaced(&Registry::builtin());
        assert_eq!(kinds[0].kind, "Pod");
        assert!(kinds.len() > 1);
    }
}
