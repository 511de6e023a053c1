//! Garbage collection: objects go when their owners are gone, before them, or are set free, as was asked.
//!
//! Watches the metadata of every kind (Events excepted), those that users define among them. A case is an object's uid; deciding it is pure
//! (`decide.rs`), this file finds the facts out and carries the decision out. Before anything is deleted, the object
//! and the owners that seem to be missing are read from the server itself: a watch that lags must not cost data.
//!
//! Must never know: what any kind is for.

mod decide;
mod graph;

use std::{pin::pin, sync::Arc, time::Duration};

use claw_client::{
    ApiError, Delta, PartialObject, Reflector, Request, ResourceRef, Store, Verb,
    request::{DeleteOptions, PatchKind, View},
};
use claw_runtime::{Action, Runtime, action::Step, execute::Failure, queue::Queue, readiness::Need};
use claw_schemas::{Registry, status::Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::{Mutex, RwLock};
use serde_json::json;
use tokio::{select, sync::Notify};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::any_kind::{AnyKind, Definition};

use decide::{Decision, OwnerState, decide, unblocked};
use graph::{Deletion, FOREGROUND, Graph, KindIndex, Node, ORPHAN};

/// Its name among the controllers.
const CONTROLLER: &str = "garbage";
const NAME_OF_DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// How long the collector waits until it knows all kinds. One whose objects cannot be listed must not keep the garbage of
/// all others. Kubernetes' figure.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(30);

/// How soon an owner is looked at again whose dependents are not all known.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Cases worked on at the same time; each waits for one or two requests. Kubernetes' figure.
const WORKERS: usize = 20;

/// Runs the collector until the runtime is cancelled.
pub async fn run(runtime: Runtime, registry: Arc<Registry>) {
    let collector = Collector::new(runtime, registry);
    let definitions = collector.definitions();
    let Runtime { env, readiness, cancel, .. } = &collector.runtime;
    let defined = vec![Need::new(NAME_OF_DEFINITIONS, &definitions.store)];
    if !readiness.all(env, CONTROLLER, defined).await {
        return;
    }
    let mut known = pin!(readiness.all(env, CONTROLLER, collector.watch_all(&definitions)));
    let whole = select! {
        biased;
        whole = &mut known => Some(whole),
        () = env.sleep(FIRST_LOOK_LIMIT) => None,
    };
    if whole == Some(false) {
        return;
    }
    let rest = async {
        if whole.is_none() {
            let kinds = collector.unknown().join(", ");
            warn!(
                kinds,
                "garbage is collected without knowing all kinds; nobody is orphaned before they are known"
            );
            known.await;
        }
    };
    let work = collector.queue.work(cancel, WORKERS, |uid| collector.process(uid));
    tokio::join!(work, collector.follow(&definitions), rest);
}

/// The definitions of kinds, and a bell for their changes.
struct Definitions {
    store: Store<Definition>,
    changed: Arc<Notify>,
}

/// A kind whose objects are watched. Its place in the list is its [`KindIndex`], so that it stays there for ever.
struct Followed {
    kind: AnyKind,
    /// Of the definition; empty for a built-in kind.
    definition: String,
    /// Ends the watch, when the kind goes.
    cancel: CancellationToken,
    /// Once it is watched.
    store: Option<Store<PartialObject>>,
}

impl Followed {
    fn is_unknown(&self) -> bool {
        !self.cancel.is_cancelled() && !self.store.as_ref().is_some_and(Store::is_synced)
    }
}

struct Collector {
    runtime: Runtime,
    registry: Arc<Registry>,
    kinds: RwLock<Vec<Followed>>,
    graph: Arc<Mutex<Graph>>,
    queue: Arc<Queue<String>>,
}

/// Why a case could not be closed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Read(#[from] ApiError),
    #[error(transparent)]
    Write(#[from] Failure),
}

impl Error {
    fn is_stale(&self) -> bool {
        match self {
            Self::Read(_) => false,
            Self::Write(failure) => failure.is_stale(),
        }
    }
}

impl Collector {
    fn new(runtime: Runtime, registry: Arc<Registry>) -> Self {
        // Events own nothing, are owned by nothing, and come by the thousand.
        let kinds = AnyKind::all(&registry).into_iter().filter(|kind| kind.kind != "Event");
        let (definition, cancel) = (String::new(), runtime.cancel.clone());
        let kinds = kinds.map(|kind| {
            let (definition, cancel) = (definition.clone(), cancel.clone());
            Followed { kind, definition, cancel, store: None }
        });
        let kinds = RwLock::new(kinds.collect());
        let queue = Arc::new(Queue::counted(runtime.env.clone(), runtime.figures.of("garbage")));
        Self { runtime, registry, kinds, graph: Arc::default(), queue }
    }

    fn definitions(&self) -> Definitions {
        let reflector = Reflector::of(Arc::clone(self.runtime.client.transport()), Definition::resource());
        let (store, changed) = (reflector.store(), Arc::new(Notify::new()));
        let bell = Arc::clone(&changed);
        store.subscribe(move |_| bell.notify_one());
        self.runtime.env.spawn(reflector.run(self.runtime.cancel.clone()));
        Definitions { store, changed }
    }

    /// Follows every kind. Returns what there is to wait for.
    fn watch_all(&self, definitions: &Definitions) -> Vec<Need> {
        let builtin = self.kinds.read().len();
        let mut needs: Vec<Need> = (0..builtin).map(|kind| self.watch(kind)).collect();
        needs.extend(self.adopt(&definitions.store));
        needs
    }

    /// The kinds whose objects are not known yet.
    fn unknown(&self) -> Vec<String> {
        let kinds = self.kinds.read();
        kinds
            .iter()
            .filter(|followed| followed.is_unknown())
            .map(|followed| followed.kind.qualified())
            .collect()
    }

    /// Follows kinds as they come and go.
    async fn follow(&self, definitions: &Definitions) {
        let cancel = &self.runtime.cancel;
        while cancel.run_until_cancelled(definitions.changed.notified()).await.is_some() {
            self.adopt(&definitions.store);
        }
    }

    /// Watches the kinds that are defined now, and no others.
    fn adopt(&self, definitions: &Store<Definition>) -> Vec<Need> {
        let defined: Vec<(String, AnyKind)> = definitions
            .list()
            .iter()
            .filter_map(|definition| Some((definition.uid().to_owned(), definition.kind()?)))
            .collect();
        let is = |followed: &Followed, (uid, kind): &(String, AnyKind)| {
            followed.definition == *uid && followed.kind == *kind && !followed.cancel.is_cancelled()
        };
        let (new, gone) = {
            let mut kinds = self.kinds.write();
            let mut gone: Vec<KindIndex> = Vec::new();
            for (index, followed) in kinds.iter().enumerate() {
                let is_custom = !followed.definition.is_empty() && !followed.cancel.is_cancelled();
                if is_custom && !defined.iter().any(|one| is(followed, one)) {
                    followed.cancel.cancel();
                    gone.push(index);
                }
            }
            let first = kinds.len();
            for one in defined {
                if !kinds.iter().any(|followed| is(followed, &one)) {
                    let cancel = self.runtime.cancel.child_token();
                    kinds.push(Followed { kind: one.1, definition: one.0, cancel, store: None });
                }
            }
            (first..kinds.len(), gone)
        };
        gone.into_iter().for_each(|kind| self.forget(kind));
        new.map(|kind| self.watch(kind)).collect()
    }

    /// Forgets the objects of a kind whose watch was ended, which need not have told what became of them.
    fn forget(&self, kind: KindIndex) {
        let look = self.graph.lock().remove_kind(kind);
        look.into_iter().for_each(|uid| self.queue.add(uid));
    }

    fn watch(&self, kind: KindIndex) -> Need {
        let (resource, name, cancel) = {
            let followed = &self.kinds.read()[kind];
            (followed.kind.resource(), followed.kind.qualified(), followed.cancel.clone())
        };
        let reflector = Reflector::metadata(&self.runtime.client, resource);
        let reflector = reflector.keep_only(|object| {
            let meta = &object.metadata;
            meta.deletion_timestamp.is_some()
                || meta.owner_references.as_ref().is_some_and(|all| !all.is_empty())
        });
        let store = reflector.store();
        let (graph, queue, ended) = (Arc::clone(&self.graph), Arc::clone(&self.queue), cancel.clone());
        store.subscribe(move |delta| {
            let mut graph = graph.lock();
            // Looked at under the lock: what comes after the kind was forgotten would stay for ever.
            if ended.is_cancelled() {
                return;
            }
            let look = match delta {
                Delta::Applied { new, old } => {
                    let mut look = replaced(&mut graph, old.as_deref(), new);
                    look.extend(graph.apply(uid_of(&new.metadata), Node::of(kind, &new.metadata)));
                    look
                }
                Delta::Deleted { last } => graph.remove(uid_of(&last.metadata)),
                // Deletions of owners that are not kept may have been missed before this list.
                Delta::Synced => graph.doubt(),
            };
            drop(graph);
            look.into_iter().for_each(|uid| queue.add(uid));
        });
        self.kinds.write()[kind].store = Some(store.clone());
        self.runtime.env.spawn(reflector.run(cancel));
        Need::new(name, &store)
    }

    async fn process(&self, uid: String) {
        match self.look_at(&uid).await {
            Ok(()) => self.queue.forget(&uid),
            Err(error) => {
                let delay = self.queue.retry(uid.clone());
                if error.is_stale() {
                    debug!(uid, %error, ?delay, "a case is looked at again");
                } else {
                    warn!(uid, %error, ?delay, "a case of garbage collection failed; trying again");
                }
            }
        }
    }

    async fn look_at(&self, uid: &str) -> Result<(), Error> {
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.node(uid) else { return Ok(()) };
            if node.deletion == Deletion::No && has_all_owners(&graph, node) {
                return Ok(());
            }
            (node.clone(), graph.dependents(uid))
        };
        match node.deletion {
            Deletion::Orphan => self.set_free(uid, &node, dependents).await,
            Deletion::Foreground => self.delete_below(uid, &node, &dependents).await,
            Deletion::Plain => Ok(()),
            Deletion::No => self.collect(uid, &node, dependents).await,
        }
    }

    /// Takes the owner out of its dependents' references, then lets it go. A dependent that is not known would be deleted
    /// later, against what was asked.
    async fn set_free(&self, uid: &str, node: &Node, dependents: Vec<(String, Node)>) -> Result<(), Error> {
        if self.kinds.read().iter().any(Followed::is_unknown) {
            self.queue.add_after(uid.to_owned(), LOOK_AGAIN);
            return Ok(());
        }
        for (dependent_uid, dependent) in dependents {
            let Some(meta) = self.read(&dependent, &dependent_uid).await? else { continue };
            let others: Vec<&OwnerReference> =
                meta.owner_references.iter().flatten().filter(|owner| owner.uid != uid).collect();
            if others.len() < meta.owner_references.as_ref().map_or(0, Vec::len) {
                self.rewrite_owners(&dependent, &meta, &json!(others)).await?;
            }
        }
        self.remove_finalizer(uid, node, ORPHAN).await
    }

    /// Sees to it that dependents go, then lets the owner go.
    async fn delete_below(&self, uid: &str, node: &Node, dependents: &[(String, Node)]) -> Result<(), Error> {
        let blocking: Vec<_> = dependents.iter().filter(|(_, dependent)| dependent.blocks(uid)).collect();
        if blocking.is_empty() {
            return self.remove_finalizer(uid, node, FOREGROUND).await;
        }
        for (dependent, _) in blocking.iter().filter(|(_, dependent)| dependent.deletion == Deletion::No) {
            self.queue.add(dependent.clone());
        }
        Ok(())
    }

    /// Decides about an object some of whose owners are unknown, missing or waiting.
    async fn collect(&self, uid: &str, node: &Node, dependents: Vec<(String, Node)>) -> Result<(), Error> {
        let states = self.states_of(&node.owners, node).await?;
        if states.iter().all(|state| *state == OwnerState::Present) {
            return Ok(());
        }
        // Now it matters: what the watch said last is not good enough to delete on.
        let Some(meta) = self.read(node, uid).await? else { return Ok(()) };
        let states = self.states_of(meta.owner_references.as_deref().unwrap_or_default(), node).await?;
        let dependents: Vec<Node> = dependents.into_iter().map(|(_, dependent)| dependent).collect();
        match decide(&meta, &states, &dependents) {
            Decision::Keep => Ok(()),
            Decision::Rewrite(owners) => self.rewrite_owners(node, &meta, &json!(owners)).await,
            Decision::Delete { propagation, unblock } => {
                if unblock {
                    let owners = unblocked(meta.owner_references.as_deref().unwrap_or_default());
                    self.rewrite_owners(node, &meta, &json!(owners)).await?;
                }
                let options = DeleteOptions {
                    propagation: Some(propagation),
                    precondition_uid: meta.uid.clone(),
                    // What was decided on is what is deleted: an adoption in between is a reason to think again.
                    precondition_resource_version: if unblock { None } else { meta.resource_version.clone() },
                    ..DeleteOptions::default()
                };
                debug!(kind = %self.kinds.read()[node.kind].kind.kind, name = node.name, ?propagation, "collected");
                self.write(node, Step::Delete(options)).await
            }
        }
    }

    async fn states_of(&self, owners: &[OwnerReference], node: &Node) -> Result<Vec<OwnerState>, ApiError> {
        let mut states = Vec::with_capacity(owners.len());
        for owner in owners {
            states.push(self.state_of(owner, node).await?);
        }
        Ok(states)
    }

    /// What is known of an owner, from the graph or, when that does not have it, from the server.
    async fn state_of(&self, owner: &OwnerReference, dependent: &Node) -> Result<OwnerState, ApiError> {
        {
            let graph = self.graph.lock();
            match graph.deletion(&owner.uid) {
                Deletion::Foreground => return Ok(OwnerState::Waiting),
                _ if graph.contains(&owner.uid) => return Ok(OwnerState::Present),
                _ => {}
            }
        }
        let kind = match self.kind_of(owner) {
            OwnerKind::Known(kind) => kind,
            OwnerKind::Gone => return Ok(OwnerState::Absent),
            OwnerKind::Unknown => {
                warn!(
                    api_version = owner.api_version,
                    kind = owner.kind,
                    dependent = dependent.name,
                    "an owner is of a kind this server does not know; its dependent is kept"
                );
                return Ok(OwnerState::Present);
            }
        };
        let mut resource = kind.resource().named(&owner.name);
        if kind.namespaced {
            let Some(namespace) = &dependent.namespace else {
                warn!(
                    owner = owner.name,
                    dependent = dependent.name,
                    "a cluster-scoped object names a namespaced owner, which cannot be found; it is kept"
                );
                return Ok(OwnerState::Present);
            };
            resource = resource.in_namespace(namespace);
        }
        let ticket = self.graph.lock().begin_check(&owner.uid);
        let found = self.get(resource).await?;
        let same = found.as_ref().is_some_and(|meta| meta.uid.as_deref() == Some(&owner.uid));
        self.graph.lock().end_check(&owner.uid, ticket, same);
        Ok(match found {
            Some(meta) if same && Deletion::of(&meta) == Deletion::Foreground => OwnerState::Waiting,
            _ if same => OwnerState::Present,
            _ => OwnerState::Absent,
        })
    }

    /// The kind that an owner reference names.
    fn kind_of(&self, owner: &OwnerReference) -> OwnerKind {
        if let Some(kind) = self.registry.kind(&owner.api_version, &owner.kind) {
            return OwnerKind::Known(AnyKind::from(&**kind));
        }
        let kinds = self.kinds.read();
        let mut named = kinds.iter().filter(|followed| followed.kind.is(&owner.api_version, &owner.kind));
        match named.clone().find(|followed| !followed.cancel.is_cancelled()) {
            Some(followed) => OwnerKind::Known(followed.kind.clone()),
            None if named.next().is_some() => OwnerKind::Gone,
            None => OwnerKind::Unknown,
        }
    }

    async fn rewrite_owners(
        &self,
        node: &Node,
        meta: &ObjectMeta,
        owners: &serde_json::Value,
    ) -> Result<(), Error> {
        let patch = json!({"metadata": {
            "ownerReferences": owners,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }});
        self.write(node, Step::Patch(PatchKind::Merge, patch)).await
    }

    async fn remove_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(meta) = self.read(node, uid).await? else { return Ok(()) };
        let all = meta.finalizers.unwrap_or_default();
        let kept: Vec<&String> = all.iter().filter(|name| *name != finalizer).collect();
        if kept.len() == all.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "finalizers": kept,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }});
        self.write(node, Step::Patch(PatchKind::Merge, patch)).await
    }

    async fn write(&self, node: &Node, step: Step) -> Result<(), Error> {
        Ok(self.runtime.execute(&[Action::new(self.target(node), step)]).await?)
    }

    /// The metadata of an object as the server has it; `None` when this incarnation is gone.
    async fn read(&self, node: &Node, uid: &str) -> Result<Option<ObjectMeta>, ApiError> {
        let meta = self.get(self.target(node)).await?;
        Ok(meta.filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    async fn get(&self, resource: ResourceRef) -> Result<Option<ObjectMeta>, ApiError> {
        let request = Request { resource, verb: Verb::Get, view: View::Metadata };
        let response = match self.runtime.client.transport().call(request).await {
            Ok(response) => response,
            Err(error) if error.reason == Reason::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let object: PartialObject = serde_json::from_slice(&response.body)
            .map_err(|error| ApiError::internal(format!("the server's answer does not parse: {error}")))?;
        Ok(Some(object.metadata))
    }

    fn target(&self, node: &Node) -> ResourceRef {
        let mut target = self.kinds.read()[node.kind].kind.resource().named(&node.name);
        target.namespace.clone_from(&node.namespace);
        target
    }
}

/// What is known of the kind of an owner.
enum OwnerKind {
    Known(AnyKind),
    /// It was defined once, and its objects went with it.
    Gone,
    Unknown,
}

fn uid_of(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// A name that now belongs to another object: the earlier one is gone, though no event said so.
fn replaced(graph: &mut Graph, old: Option<&PartialObject>, new: &PartialObject) -> Vec<String> {
    match old {
        Some(old) if old.metadata.uid != new.metadata.uid => graph.remove(uid_of(&old.metadata)),
        _ => Vec::new(),
    }
}

/// Whether every owner is there and none waits for its dependents: the usual case, decided without a request.
fn has_all_owners(graph: &Graph, node: &Node) -> bool {
    let fine = |uid: &str| graph.contains(uid) && graph.deletion(uid) != Deletion::Foreground;
    node.owners.iter().all(|owner| fine(&owner.uid))
}
