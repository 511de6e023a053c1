//! One cache a kind for a whole process, and the snapshots that plans read.
//!
//! The first [`Caches::of`] a kind starts its list and watch; every later one shares it. A [`World`] takes a
//! snapshot of a kind when it is first asked and keeps to it, so one plan sees one picture of each kind.
//!
//! Must never know: who reads the caches, or why.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use claw_client::{Client, Reflector, ResourceRef, Snapshot, Store, api::Object, cache::Writer};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    ages::{self, Ages},
    env::Env,
    execute::Failure,
    owner,
};

/// Index of objects without a controlling owner, under their namespace: candidates for adoption.
pub const ORPHANS: &str = "orphans";

fn orphans<K: Object>(object: &K) -> Vec<String> {
    let meta = object.metadata();
    if owner::controller_of(meta).is_some() {
        return Vec::new();
    }
    vec![meta.namespace.clone().unwrap_or_default()]
}

/// The caches of a process. Cheap to clone.
#[derive(Clone)]
pub struct Caches {
    inner: Arc<Inner>,
}

struct Inner {
    source: Option<(Client, Env, CancellationToken)>,
    kinds: Mutex<HashMap<TypeId, Arc<dyn AnyStore>>>,
    ages: Ages,
}

impl Caches {
    /// Empty; kinds are listed and watched from the first time they are asked for until `cancel`.
    pub(crate) fn new(client: Client, env: Env, cancel: CancellationToken) -> Self {
        Self::from(Some((client, env, cancel)))
    }

    /// Without a server, filled by hand: for tests of plans.
    pub fn offline() -> Self {
        Self::from(None)
    }

    fn from(source: Option<(Client, Env, CancellationToken)>) -> Self {
        Self { inner: Arc::new(Inner { source, kinds: Mutex::default(), ages: Ages::default() }) }
    }

    /// The cache of a kind.
    pub fn of<K: Object>(&self) -> Store<K> {
        let mut kinds = self.inner.kinds.lock();
        let store = kinds.entry(TypeId::of::<K>()).or_insert_with(|| Arc::new(self.open::<K>()));
        downcast(store.as_ref())
    }

    /// Puts a synced cache with these objects in the place of a kind's. For tests of plans.
    pub fn set<K: Object>(&self, objects: Vec<K>) {
        let mut writer = Writer::new().index(ORPHANS, orphans::<K>);
        writer.replace(objects, 1);
        self.inner.kinds.lock().insert(TypeId::of::<K>(), Arc::new(writer.store()));
    }

    /// What plans read.
    pub fn world(&self) -> World {
        World { caches: self.clone(), snapshots: RefCell::default(), failure: None }
    }

    /// The cache of a kind named at run time, if something asked for it.
    pub(crate) fn named(&self, resource: &ResourceRef) -> Option<Arc<dyn AnyStore>> {
        self.inner.kinds.lock().values().find(|store| store.is(resource)).cloned()
    }

    fn existing<K: Object>(&self) -> Option<Store<K>> {
        self.inner.kinds.lock().get(&TypeId::of::<K>()).map(|store| downcast(store.as_ref()))
    }

    fn open<K: Object>(&self) -> Store<K> {
        match &self.inner.source {
            None => {
                let mut writer = Writer::new().index(ORPHANS, orphans::<K>);
                writer.replace(Vec::new(), 1);
                writer.store()
            }
            Some((client, env, cancel)) => {
                let reflector = Reflector::new(&client.all::<K>()).index(ORPHANS, orphans::<K>);
                let store = reflector.store();
                env.spawn(reflector.run(cancel.clone()));
                store
            }
        }
    }
}

fn downcast<K: Object>(store: &dyn AnyStore) -> Store<K> {
    let store = store.as_any().downcast_ref::<Store<K>>();
    store.expect("kinds are filed under their own TypeId").clone()
}

/// A cache whose kind is not known at compile time.
pub(crate) trait AnyStore: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn is(&self, resource: &ResourceRef) -> bool;
    fn revision(&self) -> u64;
    /// Whether this incarnation is there and not yet being deleted.
    fn holds(&self, namespace: &str, name: &str, uid: &str) -> bool;
}

impl<K: Object> AnyStore for Store<K> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is(&self, resource: &ResourceRef) -> bool {
        resource.group == K::GROUP && resource.version == K::VERSION && resource.plural == K::PLURAL
    }

    fn revision(&self) -> u64 {
        // The snapshot's, not the announced one: it is what the next plan will read.
        self.snapshot().revision()
    }

    fn holds(&self, namespace: &str, name: &str, uid: &str) -> bool {
        let is_it = |meta: &ObjectMeta| meta.uid.as_deref() == Some(uid) && meta.deletion_timestamp.is_none();
        self.get(namespace, name).is_some_and(|object| is_it(object.metadata()))
    }
}

/// What a plan may know: snapshots of the kinds its controller declared in
/// [`watches`](crate::controller::Controller::watches), and how the last run ended.
pub struct World {
    caches: Caches,
    snapshots: RefCell<BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    failure: Option<Failure>,
}

impl World {
    /// All objects of a kind, at one revision: the same for every call on one world.
    ///
    /// # Panics
    /// When the kind was not declared in the controller's `watches`: its cache may be empty yet, and a plan would take
    /// that for the truth.
    pub fn kind<K: Object>(&self) -> Arc<Snapshot<K>> {
        let mut snapshots = self.snapshots.borrow_mut();
        let snapshot = snapshots.entry(TypeId::of::<K>()).or_insert_with(|| {
            let store = self.caches.existing::<K>();
            let store = store.or_else(|| self.caches.inner.source.is_none().then(|| self.caches.of::<K>()));
            let store = store.unwrap_or_else(|| {
                panic!("{} is read by a plan but not declared in watches(): add reads::<{0}>()", K::KIND)
            });
            // Its own kinds a controller waits for; this one it shares with others by accident.
            assert!(store.is_synced(), "{} is read by a plan whose controller does not declare it", K::KIND);
            store.snapshot()
        });
        let snapshot = Arc::clone(snapshot).downcast::<Snapshot<K>>();
        snapshot.unwrap_or_else(|_| unreachable!("snapshots are filed under their own TypeId"))
    }

    /// How long ago a time stamp of some object was; `now` is the plan's. What passes is measured, so that setting the clock on
    /// the wall moves no deadline: `now` alone is for time stamps to be written. One that is yet to come is of age zero.
    /// In a world that is offline it is the difference of the two.
    pub fn age(&self, stamp: Timestamp, now: Timestamp) -> Duration {
        match &self.caches.inner.source {
            Some((_, env, _)) => self.caches.inner.ages.age(stamp, now, env.uptime()),
            None => ages::between(stamp, now),
        }
    }

    /// What the last run for this object failed at, if it failed: for conditions such as `ReplicaFailure`.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The same world after such a failure.
    #[must_use]
    pub fn after_failure(mut self, failure: Option<Failure>) -> Self {
        self.failure = failure;
        self
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};

    use super::*;

    fn named(name: &str) -> ConfigMap {
        let metadata =
            ObjectMeta { name: Some(name.into()), namespace: Some("a".into()), ..Default::default() };
        ConfigMap { metadata, ..Default::default() }
    }

    #[test]
    fn a_world_keeps_to_the_picture_it_first_saw() {
        let caches = Caches::offline();
        caches.set(vec![named("x")]);
        let world = caches.world();
        assert_eq!(world.kind::<ConfigMap>().len(), 1);
        caches.set(vec![named("x"), named("y")]);
        assert_eq!(world.kind::<ConfigMap>().len(), 1, "one plan, one picture");
        assert_eq!(caches.world().kind::<ConfigMap>().len(), 2);
        assert!(world.kind::<Pod>().is_empty());
    }

    #[test]
    fn objects_without_a_controller_are_found_by_namespace() {
        let caches = Caches::offline();
        let mut owned = named("owned");
        owned.metadata.owner_references = Some(vec![owner::reference_to(&named("owner"))]);
        caches.set(vec![named("free"), owned]);
        let snapshot = caches.world().kind::<ConfigMap>();
        let free: Vec<_> = snapshot.indexed(ORPHANS, "a").map(|o| o.metadata.name.clone()).collect();
        assert_eq!(free, [Some("free".to_owned())]);
    }
}
