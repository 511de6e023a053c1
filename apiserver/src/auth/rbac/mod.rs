//! Role-based access: who was given which rules, by the objects of `rbac.authorization.k8s.io`.
//!
//! Every decision is made on all roles and bindings that are committed by then: before it looks, it takes what the
//! store has published since. So a permission ends with the write that takes it away, not some time after.
//!
//! | module | owns |
//! |---|---|
//! | `rules` | what a rule allows, what a rule contains (pure) |
//! | `index` | roles and bindings by subject, aggregation (pure) |
//! | `bootstrap` | the roles that every cluster has |
//! | `escalation` | that nobody gives away more than they have |

pub mod bootstrap;
pub mod escalation;
mod index;
mod rules;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::select_all;
use k8s_openapi::api::rbac::v1::PolicyRule;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

pub use self::index::{GROUP, SERVICE_ACCOUNT_PREFIX};
use self::index::{Grant, Index, Kind, PLURALS};
use super::{Action, Identity};
use crate::store::{Event, Key, Revision, Store, StoreError, Watch};

/// Pause before everything is listed again, so that a store in trouble is not asked in a tight loop.
const RELIST_DELAY: Duration = Duration::from_millis(100);

/// Watches of the four kinds.
type Feed = Vec<(Kind, Box<dyn Watch>)>;

/// Roles and bindings of one store.
pub struct Rbac {
    store: Arc<dyn Store>,
    index: RwLock<Index>,
    /// Held while changes are applied, so that they are in order.
    feed: Mutex<Feed>,
    /// The store's revision up to which `index` certainly knows everything.
    known: AtomicU64,
}

impl Rbac {
    /// Knows all roles and bindings when this returns.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let (index, feed) = read(&*store).await?;
        let (index, feed) = (RwLock::new(index), Mutex::new(feed));
        Ok(Self { store, index, feed, known: AtomicU64::new(0) })
    }

    /// Keeps the index from falling so far behind, while nobody asks, that the store forgets what it misses.
    pub async fn follow(&self, stop: CancellationToken) {
        while let Some(()) = stop.run_until_cancelled(self.follow_once()).await {}
    }

    /// Whether a rule allows it.
    pub fn allows(&self, who: &Identity, action: &Action<'_>) -> bool {
        self.find(who, action, |_| ()).is_some()
    }

    /// Why a rule allows it, or what rule is missing and how it is given.
    pub fn explain(&self, who: &Identity, action: &Action<'_>) -> String {
        let granted = |grant: &Grant<'_>| {
            let (kind, place) = match grant.namespace {
                "" => ("ClusterRoleBinding", grant.binding.to_owned()),
                namespace => ("RoleBinding", format!("{}/{namespace}", grant.binding)),
            };
            let Grant { role, subject, .. } = grant;
            format!("RBAC: allowed by {kind} \"{place}\" of {} \"{}\" to {subject}", role.kind, role.name)
        };
        self.find(who, action, granted)
            .unwrap_or_else(|| escalation::advice(who, action, &self.dangling(who, action)))
    }

    /// All rules that hold for somebody in a namespace, or, without one, everywhere.
    pub fn rules(&self, who: &Identity, namespace: &str) -> Vec<Arc<[PolicyRule]>> {
        let mut all = Vec::new();
        self.current(|index| {
            index.each_grant(who, namespace, |grant| {
                all.extend(grant.rules.cloned());
                ControlFlow::<()>::Continue(())
            });
        });
        all
    }

    /// The rules of a Role, or of a ClusterRole where there is no namespace.
    pub fn role(&self, namespace: Option<&str>, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.current(|index| index.role(namespace, name).cloned())
    }

    /// The first grant that allows a deed.
    fn find<T>(
        &self,
        who: &Identity,
        action: &Action<'_>,
        mut found: impl FnMut(&Grant<'_>) -> T,
    ) -> Option<T> {
        self.current(|index| {
            index.each_grant(who, action.namespace(), |grant| {
                match grant.rules.is_some_and(|all| all.iter().any(|rule| rules::allows(rule, action))) {
                    true => ControlFlow::Break(found(grant)),
                    false => ControlFlow::Continue(()),
                }
            })
        })
    }

    /// Roles that are bound and do not exist.
    fn dangling(&self, who: &Identity, action: &Action<'_>) -> Vec<String> {
        let mut names = Vec::new();
        self.current(|index| {
            index.each_grant(who, action.namespace(), |grant| {
                if grant.rules.is_none() {
                    let kind = grant.role.kind.to_lowercase();
                    names.push(format!("{kind}.{GROUP} \"{}\" not found", grant.role.name));
                }
                ControlFlow::<()>::Continue(())
            });
        });
        names
    }

    /// A look at an index that knows everything committed so far.
    fn current<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        let revision = self.store.revision();
        if self.known.load(Ordering::Acquire) < revision {
            self.catch_up(revision);
        }
        look(&self.index.read())
    }

    fn catch_up(&self, revision: Revision) {
        let mut feed = self.feed.lock();
        let news = drain(&mut feed);
        if !news.is_empty() {
            // All at once: nobody sees a state that never was.
            let mut index = self.index.write();
            news.iter().for_each(|(kind, event)| apply(&mut index, *kind, event));
        }
        self.known.fetch_max(revision, Ordering::Release);
    }

    /// Waits for a change and applies it. Where the store ends a watch, or the feed itself may have missed
    /// something, everything is read again.
    async fn follow_once(&self) {
        let mut bells = match watches(&*self.store, self.store.revision()) {
            Ok(bells) => bells,
            Err(StoreError::Closed) => std::future::pending().await,
            Err(_) => return tokio::time::sleep(RELIST_DELAY).await,
        };
        self.relist().await;
        loop {
            let rung = select_all(bells.iter_mut().map(|(_, bell)| bell.next())).await.0;
            if rung.is_none() {
                return tokio::time::sleep(RELIST_DELAY).await;
            }
            self.current(|_| ());
        }
    }

    async fn relist(&self) {
        match read(&*self.store).await {
            Ok((mut index, mut watches)) => {
                let mut feed = self.feed.lock();
                drain(&mut watches).iter().for_each(|(kind, event)| apply(&mut index, *kind, event));
                *self.index.write() = index;
                *feed = watches;
            }
            Err(error) => tracing::warn!(%error, "cannot list roles and bindings, will try again"),
        }
    }
}

/// Everything there is, and watches of what comes after.
async fn read(store: &dyn Store) -> Result<(Index, Feed), StoreError> {
    // Watched from before the lists: a change that comes twice does no harm, each is the whole object.
    let feed = watches(store, store.revision())?;
    let mut index = Index::default();
    for (plural, kind) in PLURALS {
        for record in store.list(&Key::collection(GROUP, plural, None), None, 0, None).await?.items {
            let (namespace, name) = record.key.place();
            index.put(kind, namespace, name, &record.value);
        }
    }
    Ok((index, feed))
}

fn watches(store: &dyn Store, after: Revision) -> Result<Feed, StoreError> {
    let watch = |(plural, kind)| Ok((kind, store.watch(&Key::collection(GROUP, plural, None), after)?));
    PLURALS.into_iter().map(watch).collect()
}

fn drain(feed: &mut Feed) -> Vec<(Kind, Arc<Event>)> {
    let mut news = Vec::new();
    for (kind, watch) in feed {
        while let Some(event) = watch.try_next() {
            news.push((*kind, event));
        }
    }
    news
}

fn apply(index: &mut Index, kind: Kind, event: &Event) {
    let (namespace, name) = event.record.key.place();
    if event.deleted {
        index.remove(kind, namespace, name);
    } else {
        index.put(kind, namespace, name, &event.record.value);
    }
}

#[cfg(test)]
mod tests;
