//! Quotas are kept as accounts: a write that changes what is used of one changes the account in the same transaction. So no
//! two writes at the same time can use the same rest, and what a status says is so at its revision.
//!
//! An account that is not about what its quota limits now is counted from what is stored, by whoever needs it first. Every
//! account is counted again now and then ([`ObjectService::keep_quotas`]), because a write that was under way when
//! its quota was made does not know of it.
//!
//! Writes that change accounts of one namespace take turns: else all but one of those that come together would be in
//! vain. Should another server write to the same store, the store decides, and the others try again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use claw_schemas::ApiError;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, sleep_until},
};

use super::{
    ObjectService,
    companions::Companions,
    encode, errors,
    kinds::Target,
    limits::{CONFLICT_RETRIES_MAX, QUOTA_COUNT_INTERVAL, QUOTA_SECOND_COUNT},
    object::text,
};
use crate::{
    quota::{
        Amounts,
        ledger::{self, Quota},
        usage::{By, Kind},
    },
    store::{Change, Event, Expect, Key, Record, StoreError, Watch, Write},
};

const PLURAL: &str = "resourcequotas";

/// The right to change the accounts of a namespace, until it is dropped.
pub(super) type Turn = OwnedMutexGuard<()>;

/// Who changes accounts now, by namespace; or something else that there must be one of, by a name that no namespace has.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub async fn take(&self, namespace: &str) -> Turn {
        let turn = {
            let mut turns = self.0.lock();
            turns.retain(|_, turn| turn.strong_count() > 0);
            turns.get(namespace).and_then(Weak::upgrade).unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(namespace.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

impl ObjectService {
    /// The changes of accounts that go with that of an object, or why a quota does not allow it.
    pub(super) async fn charge(
        &self,
        target: &Target,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Companions, ApiError> {
        let kind = Kind::of(&target.kind.descriptor);
        let concerned = self.concerned(target, &kind, old, new).await?;
        if concerned.is_empty() {
            return Ok(Companions::default());
        }
        let turn = self.turns.take(&target.namespace).await;
        let mut writes = Vec::new();
        // Read again: others had their turn meanwhile.
        for (record, mut quota) in self.concerned(target, &kind, old, new).await? {
            if !Quota(&quota).is_counted() {
                self.count(&mut quota, &target.namespace).await?;
            }
            let used = self.settle(target, &kind, Quota(&quota), (old, new))?;
            ledger::set_used(&mut quota, &used);
            writes.push(over(&record, &quota));
        }
        Ok(Companions { writes, turn: Some(turn) })
    }

    /// The quotas of which the object uses something else than the one before it.
    async fn concerned(
        &self,
        target: &Target,
        kind: &Kind,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Vec<(Record, Value)>, ApiError> {
        if target.namespace.is_empty() {
            return Ok(Vec::new());
        }
        let mut concerned = Vec::new();
        for record in self.quotas_of(&target.namespace).await? {
            let itself = target.kind.is_core(PLURAL) && is_itself(&record, old.or(new));
            let quota = encode::value_of(&record)?;
            if !itself && Quota(&quota).is_about(kind) && !Quota(&quota).difference(kind, old, new).is_empty()
            {
                concerned.push((record, quota));
            }
        }
        Ok(concerned)
    }

    async fn quotas_of(&self, namespace: &str) -> Result<Vec<Record>, ApiError> {
        let prefix = Key::collection("", PLURAL, Some(namespace));
        Ok(self.store.list(&prefix, None, 0, None).await.map_err(errors::from_store)?.items)
    }

    /// What is used of a quota once the object is there.
    fn settle(
        &self,
        target: &Target,
        kind: &Kind,
        quota: Quota<'_>,
        (old, new): (Option<&Value>, Option<&Value>),
    ) -> Result<Amounts, ApiError> {
        let difference = quota.difference(kind, old, new);
        let object = new.or(old).unwrap_or(&Value::Null);
        let said = match (old, new) {
            (None, Some(new)) => quota.require(kind, new),
            _ => Ok(()),
        };
        said.and_then(|()| quota.after(&quota.used(), &difference))
            .map_err(|refusal| target.kind.forbidden(text(object, "name"), &refusal.to_string()))
    }

    /// Counts what is used of a quota by what is stored now. Whoever changes that after the quota was read changes the
    /// quota, too, so that nobody can write what is counted here over it.
    async fn count(&self, quota: &mut Value, namespace: &str) -> Result<(), ApiError> {
        let mut used = Amounts::default();
        for kind in self.kinds_limited(Quota(quota)) {
            let prefix = Key::collection(&kind.group, &kind.plural, Some(namespace));
            let stored = self.store.list(&prefix, None, 0, None).await.map_err(errors::from_store)?.items;
            let objects = match kind.by() {
                By::Being => vec![Value::Null; stored.len()],
                By::Saying => stored.iter().map(encode::value_of).collect::<Result<_, _>>()?,
            };
            used.add_all(&Quota(quota).usage_of_all(&kind, objects.iter()));
        }
        ledger::set_used(quota, &used);
        Ok(())
    }

    fn kinds_limited(&self, quota: Quota<'_>) -> Vec<Kind> {
        let registry = self.kinds.registry();
        let namespaced = registry.stored().filter(|kind| kind.namespaced());
        // A kind of several versions is one kind.
        let places: BTreeSet<_> =
            namespaced.map(|kind| (kind.group.to_string(), kind.plural.to_string())).collect();
        let kinds = places.into_iter().map(|(group, plural)| Kind { group, plural });
        kinds.filter(|kind| quota.is_about(kind)).collect()
    }

    /// Counts what is used of all quotas: of each when it is new or limits something else, and of every one now and then.
    /// Runs until [`Self::close_watches`].
    pub async fn keep_quotas(self: Arc<Self>) {
        let closing = self.closing.clone();
        closing.run_until_cancelled(self.keep_accounts()).await;
    }

    async fn keep_accounts(&self) {
        loop {
            let seen = self.store.revision();
            let all = Key::collection("", PLURAL, None);
            self.recount_all(&all).await;
            let next = Instant::now() + QUOTA_COUNT_INTERVAL;
            match self.store.watch(&all, seen) {
                Ok(changes) => self.follow_quotas(changes, next).await,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn recount_all(&self, all: &Key) {
        match self.store.list(all, None, 0, None).await {
            Ok(page) => {
                for record in page.items {
                    self.recount(&record.key).await;
                }
            }
            Err(error) => tracing::warn!(%error, "quotas cannot be read; they are counted later"),
        }
    }

    /// Counts new quotas, and soon again, until it is time for all.
    async fn follow_quotas(&self, mut changes: Box<dyn Watch>, end: Instant) {
        let mut young: BTreeSet<Key> = BTreeSet::new();
        let mut look = end;
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) if needs_count(&change) => {
                        self.recount(&change.record.key).await;
                        young.insert(change.record.key.clone());
                        look = end.min(Instant::now() + QUOTA_SECOND_COUNT);
                    }
                    Some(_) => {}
                    None => return,
                },
                () = sleep_until(look) => {
                    for key in std::mem::take(&mut young) {
                        self.recount(&key).await;
                    }
                    if Instant::now() >= end {
                        return;
                    }
                    look = end;
                }
            }
        }
    }

    async fn recount(&self, key: &Key) {
        if let Err(error) = self.try_recount(key).await {
            tracing::warn!(?key, %error, "a quota cannot be counted; it is counted later");
        }
    }

    async fn try_recount(&self, key: &Key) -> Result<(), ApiError> {
        let (namespace, _) = key.place();
        for _ in 0..CONFLICT_RETRIES_MAX {
            let _turn = self.turns.take(namespace).await;
            let Some(record) = self.find(key).await? else { return Ok(()) };
            let old = encode::value_of(&record)?;
            let mut quota = old.clone();
            self.count(&mut quota, namespace).await?;
            if quota == old {
                return Ok(());
            }
            match self.store.commit(vec![over(&record, &quota)]).await {
                Err(StoreError::Conflict { .. }) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(errors::from_store(error)),
            }
        }
        Ok(())
    }
}

/// A write of a quota that nobody else has written since it was read.
fn over(record: &Record, quota: &Value) -> Write {
    Write {
        key: record.key.clone(),
        expect: Expect::Revision(record.revision),
        change: Change::Put(encode::draft(quota)),
    }
}

/// Whether the object that is written is that quota: it does not write to itself a second time.
fn is_itself(record: &Record, object: Option<&Value>) -> bool {
    object.is_some_and(|object| record.key.place().1 == text(object, "name"))
}

fn needs_count(change: &Event) -> bool {
    let quota = || serde_json::from_slice::<Value>(&change.record.value);
    !change.deleted && quota().is_ok_and(|quota| !Quota(&quota).is_counted())
}
