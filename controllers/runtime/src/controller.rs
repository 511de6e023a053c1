//! The trait a controller implements, and how it declares what it looks at.
//!
//! Must never know: how plans are scheduled or carried out.

use std::{
    any::TypeId,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use claw_client::{Delta, ObjectKey, Store, api::Object};
use jiff::Timestamp;
use k8s_openapi::ClusterResourceScope;
use tracing::error;

use crate::{
    action::Plan,
    caches::{Caches, World},
    owner,
    queue::Queue,
    readiness::Need,
};

/// Makes one kind of object true.
///
/// ```
/// use std::sync::Arc;
/// use claw_runtime::{Action, Controller, Plan, Watches, World};
/// use jiff::Timestamp;
/// use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
///
/// /// Every namespace gets a config map that names it.
/// struct Greeter;
///
/// impl Controller for Greeter {
///     type Object = Namespace;
///
///     fn name(&self) -> &'static str {
///         "greeter"
///     }
///
///     fn watches(&self, watches: &mut Watches<Namespace>) {
///         watches.owned::<ConfigMap>();
///     }
///
///     fn plan(&self, namespace: &Arc<Namespace>, world: &World, _now: Timestamp) -> Plan {
///         let name = namespace.metadata.name.as_deref().unwrap_or_default();
///         if world.kind::<ConfigMap>().get(name, "greeting").is_some() {
///             return Plan::nothing();
///         }
///         let mut greeting = ConfigMap::default();
///         greeting.metadata.name = Some("greeting".into());
///         greeting.metadata.namespace = Some(name.into());
///         greeting.metadata.owner_references = Some(vec![claw_runtime::owner::reference_to(&**namespace)]);
///         Plan::nothing().then(Action::create(&greeting))
///     }
/// }
/// ```
pub trait Controller: Send + Sync + 'static {
    /// The kind it makes true.
    type Object: Object;

    /// Names it in logs: `deployment`.
    fn name(&self) -> &'static str;

    /// Declares every other kind that [`Self::plan`] reads, and whose changes lead to a new plan.
    fn watches(&self, _watches: &mut Watches<Self::Object>) {}

    /// Decides what to do about one object, from nothing but its arguments: no clock, no I/O, no randomness, no
    /// memory. Called again and again with whatever is true by then; must not care why. An object under deletion
    /// comes here too, for as long as finalizers hold it. One that is gone does not.
    fn plan(&self, object: &Arc<Self::Object>, world: &World, now: Timestamp) -> Plan;
}

/// Declares what else a controller looks at.
pub struct Watches<O> {
    caches: Caches,
    queue: Arc<Queue<ObjectKey>>,
    primary: Store<O>,
    needs: BTreeMap<TypeId, Need>,
}

impl<O: Object> Watches<O> {
    pub(crate) fn new(caches: Caches, queue: Arc<Queue<ObjectKey>>) -> Self {
        let primary = caches.of::<O>();
        Self { caches, queue, primary, needs: BTreeMap::new() }
    }

    /// Everything that was declared: what has to be known before the first plan.
    pub(crate) fn into_needs(self) -> Vec<Need> {
        self.needs.into_values().collect()
    }

    /// The plan reads this kind; its changes trigger nothing. The cache is for use in [`Self::mapped`].
    pub fn reads<K: Object>(&mut self) -> Store<K> {
        let store = self.caches.of::<K>();
        self.needs.entry(TypeId::of::<K>()).or_insert_with(|| Need::of(&store));
        store
    }

    /// The plan reads this kind; a change plans the `O` that controls the object, before or after the change.
    pub fn owned<K: Object>(&mut self) {
        self.on_change::<K>(|object, _| {
            let meta = object.metadata();
            let owner = owner::controller_of(meta);
            let owner = owner.filter(|owner| owner.kind == O::KIND && owner.api_version == O::API_VERSION);
            let namespace =
                if is_cluster_scoped::<O>() { None } else { meta.namespace.clone() }.unwrap_or_default();
            owner.map(|owner| ObjectKey::new(namespace, owner.name.clone())).into_iter().collect()
        });
    }

    /// The plan reads this kind; a change plans the keys that `keys` names for the object as it is and as it was.
    /// `keys` runs on the watch's own task: it must be quick, and may read caches. If it panics, that one trigger is lost
    /// until the next [`RESYNC`](crate::driver::RESYNC).
    pub fn mapped<K: Object>(
        &mut self,
        keys: impl Fn(&Arc<K>, &Store<O>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) {
        self.on_change::<K>(keys);
    }

    /// Plans every object as its cache changes.
    pub(crate) fn primary(&mut self) {
        self.on_change::<O>(|object, _| vec![ObjectKey::of(object.metadata())]);
    }

    fn on_change<K: Object>(
        &mut self,
        keys: impl Fn(&Arc<K>, &Store<O>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) {
        let (queue, primary) = (Arc::clone(&self.queue), self.primary.clone());
        self.reads::<K>().subscribe(move |delta| {
            // A panic would end the cache, and with it every controller that reads the kind.
            let add = |object: &Arc<K>| match catch_unwind(AssertUnwindSafe(|| keys(object, &primary))) {
                Ok(keys) => keys.into_iter().for_each(|key| queue.add(key)),
                Err(_) => {
                    let (kind, key) = (K::KIND, ObjectKey::of(object.metadata()));
                    error!(kind, %key, "a mapping panicked; what it would have planned waits for the next resync");
                }
            };
            match delta {
                Delta::Applied { new, old } => {
                    add(new);
                    old.iter().for_each(add);
                }
                Delta::Deleted { last } => add(last),
                Delta::Synced => {}
            }
        });
    }
}

/// Whether objects of the kind live outside of namespaces, though what they own may live in one.
fn is_cluster_scoped<O: Object>() -> bool {
    TypeId::of::<O::Scope>() == TypeId::of::<ClusterResourceScope>()
}
