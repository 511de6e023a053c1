//! Keeps the served kinds in step with the definitions that are stored.
//!
//! One task looks at all definitions whenever one of them changes, and does what follows: serves the kinds that are
//! defined now, writes what each definition's status should say, and empties kinds that are to go. It acts on what is
//! stored and not on what happened, so that a restart in between loses nothing. A kind is served before a status says so.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use claw_client::{
    ResourceRef,
    request::{DeleteOptions, View, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use futures::future;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::{
    ObjectService, errors,
    form::Form,
    kinds::{Served, Term},
    object::{finalizers, set_finalizers},
    owners::Claims,
    sealed::Sealed,
    update::{Part, Proposal},
};
use crate::{
    custom::{self, CLEANUP_FINALIZER, Converter, Definition, Planned, Version},
    store::{Key, Revision},
};

/// How often a kind that is to go is looked at while finalizers hold its objects, and how soon something that failed is
/// tried again. One look is one short list.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Objects deleted at a time when their kind goes: as many as share one sync of the disk.
const DELETED_AT_ONCE: usize = 64;

/// Objects of a kind that is to go that are looked at in one round.
const EMPTIED_PAGE: usize = 1000;

/// What is made of the definitions now, by their names.
#[derive(Default)]
pub(super) struct Definitions {
    made: Mutex<HashMap<String, Made>>,
    /// Whether the last look at them went well.
    followed: AtomicBool,
}

/// The kinds made of one definition.
struct Made {
    of: Origin,
    kinds: Vec<Arc<Served>>,
    /// Versions that are not served.
    unserved: Vec<Arc<Served>>,
    term: Term,
}

/// What kinds are made of: as long as it is the same, they stay as they are.
#[derive(Clone, PartialEq)]
struct Origin {
    rules: Rules,
    /// Objects written after this revision have the form that these rules give them.
    current_since: Revision,
}

/// What an open watch relies on: when it changes, the watch ends, and the client starts again by the new rules.
#[derive(Clone, PartialEq)]
struct Rules {
    uid: String,
    generation: i64,
    is_deleting: bool,
    names: Value,
}

impl ObjectService {
    /// Serves the kinds that are defined.
    ///
    /// # Errors
    /// When the definitions cannot be read.
    pub async fn serve_definitions(&self) -> Result<(), ApiError> {
        self.follow_once().await.map(|_| ())
    }

    /// Serves the kinds that are defined from now on, until [`Self::close_watches`].
    pub async fn follow_definitions(self: Arc<Self>) {
        let prefix = definitions_prefix();
        while !self.closing.is_cancelled() {
            let seen = self.store.revision();
            let again = self.follow_once().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the definitions of custom kinds could not be followed; trying again");
                true
            });
            let mut changes = self.store.watch(&prefix, seen).ok();
            let change = async {
                let told = match changes.as_mut() {
                    Some(changes) => changes.next().await.is_some(),
                    None => false,
                };
                if !told {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            let pause = async {
                if again {
                    tokio::time::sleep(LOOK_AGAIN).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = change => {}
                () = pause => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    /// Whether the kinds that are served are those that are defined, as far as one look tells.
    pub(super) fn follows_definitions(&self) -> bool {
        self.definitions.followed.load(Ordering::Relaxed)
    }

    async fn follow_once(&self) -> Result<bool, ApiError> {
        let looked = self.look_at_definitions().await;
        self.definitions.followed.store(looked.is_ok(), Ordering::Relaxed);
        looked
    }

    /// Does what follows from the definitions as they are now. True when something is left to do that no change of a
    /// definition will call for.
    async fn look_at_definitions(&self) -> Result<bool, ApiError> {
        let page = self.store.list(&definitions_prefix(), None, 0, None).await.map_err(errors::from_store)?;
        // Without owners, as whoever changes them will see them.
        let objects = page.items.iter().map(|record| Ok(Sealed::of(record)?.object));
        let objects = objects.collect::<Result<Vec<Value>, ApiError>>()?;
        let revisions: HashMap<String, Revision> =
            page.items.iter().map(|record| (record.key.place().1.to_owned(), record.revision)).collect();
        let plans = custom::plan(objects, self.kinds.builtin(), Timestamp::now());
        // Writers by old rules are done before a status says from which revision on there are only new ones.
        for term in self.serve(&plans, &revisions) {
            term.end().await;
        }
        let mut again = false;
        for planned in &plans {
            again |= self.settle_definition(planned).await.unwrap_or_else(|error| {
                // One that cannot be brought forward must not hold up the others, nor the start of the server.
                let definition = planned.definition().name();
                tracing::warn!(definition, %error, "a definition could not be brought forward; trying again");
                true
            });
        }
        Ok(again)
    }

    /// Puts the kinds of all definitions in service, and takes out those that are not defined any more. Gives the terms that
    /// are to end: only now, so that whoever is told finds the new kinds.
    fn serve(&self, plans: &[Planned], revisions: &HashMap<String, Revision>) -> Vec<Term> {
        let mut made = self.definitions.made.lock();
        let (mut old, mut outdated) = (std::mem::take(&mut *made), Vec::new());
        for planned in plans {
            let definition = planned.definition();
            let Some(names) = &planned.names else { continue };
            let rules = Rules {
                uid: definition.uid().to_owned(),
                generation: definition.generation(),
                is_deleting: definition.is_deleting(),
                names: names.clone(),
            };
            // The status that tells of a generation is written once its rules are in service.
            let observed =
                definition.is_observed().then(|| revisions.get(definition.name()).copied()).flatten();
            let of = Origin { rules, current_since: observed.unwrap_or(Revision::MAX) };
            let new = match old.remove(definition.name()) {
                Some(same) if same.of == of => same,
                Some(before) if before.of.rules == of.rules => Made::new(definition, names, of, before.term),
                before => {
                    outdated.extend(before);
                    Made::new(definition, names, of, Term::default())
                }
            };
            made.insert(definition.name().to_owned(), new);
        }
        self.kinds.set_custom(
            made.values().flat_map(|made| made.kinds.iter().cloned()).collect(),
            made.values().flat_map(|made| made.unserved.iter().cloned()).collect(),
        );
        outdated.into_iter().chain(old.into_values()).map(|made| made.term).collect()
    }

    /// Brings one definition forward. True when it must be looked at again.
    async fn settle_definition(&self, planned: &Planned) -> Result<bool, ApiError> {
        let definition = planned.definition();
        if definition.is_deleting() && finalizers(definition.0).contains(&CLEANUP_FINALIZER) {
            if self.empty(definition).await? {
                self.write_definition(definition, |object| {
                    let rest = finalizers(object).into_iter().filter(|name| *name != CLEANUP_FINALIZER);
                    let rest = rest.map(str::to_owned).collect();
                    set_finalizers(object, rest);
                })
                .await?;
                return Ok(false);
            }
            return Ok(true);
        }
        if definition.0["status"] != planned.status {
            self.write_definition(definition, |object| object["status"] = planned.status.clone()).await?;
        }
        Ok(false)
    }

    /// Changes a definition, provided that it is still the one that was looked at.
    async fn write_definition(
        &self,
        definition: Definition<'_>,
        change: impl Fn(&mut Value),
    ) -> Result<(), ApiError> {
        let resource =
            ResourceRef::collection(custom::GROUP, "v1", custom::DEFINITIONS).named(definition.name());
        let target = self.kinds.resolve(resource)?;
        let make = |old: &Sealed| {
            let mut object = old.object.clone();
            // Of another revision than the plan is of, the next look will plan again.
            if object == *definition.0 {
                change(&mut object);
            }
            Ok(Proposal { object, claims: Claims::Kept, warnings: Vec::new() })
        };
        match self.change(&target, Part::Internal, &WriteOptions::default(), make).await {
            Err(error) if error.reason != Reason::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes objects of a kind that is to go. True when none is left.
    async fn empty(&self, definition: Definition<'_>) -> Result<bool, ApiError> {
        let prefix = Key::collection(definition.group(), definition.plural(), None);
        let page = self.store.list(&prefix, None, EMPTIED_PAGE, None).await.map_err(errors::from_store)?;
        if page.items.is_empty() {
            return Ok(true);
        }
        let version = definition.versions().find(|version| version["served"] == true);
        let version = version.and_then(|version| version["name"].as_str()).unwrap_or_default();
        let collection = ResourceRef::collection(definition.group(), version, definition.plural());
        let targets = page.items.iter().map(|record| {
            let (namespace, name) = record.key.place();
            let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
            self.kinds.resolve(ResourceRef { namespace, ..collection.clone() }.named(name))
        });
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let options = DeleteOptions::default();
        for some in targets.chunks(DELETED_AT_ONCE) {
            let deletions = some.iter().map(|target| self.delete(target, &options, View::Object));
            let outcomes = future::join_all(deletions).await;
            let failed =
                outcomes.into_iter().filter_map(Result::err).find(|error| error.reason != Reason::NotFound);
            if let Some(error) = failed {
                tracing::warn!(definition = definition.name(), %error, "an object of a kind that is to go stays");
            }
        }
        let left = self.store.list(&prefix, None, 1, None).await.map_err(errors::from_store)?;
        Ok(left.items.is_empty())
    }
}

fn definitions_prefix() -> Key {
    Key::collection(custom::GROUP, custom::DEFINITIONS, None)
}

impl Made {
    fn new(definition: Definition<'_>, names: &Value, of: Origin, term: Term) -> Self {
        let versions: HashMap<String, Arc<Version>> = definition
            .versions()
            .map(|version| Arc::new(Version::new(definition, version)))
            .map(|version| (version.api_version().to_owned(), version))
            .collect();
        let storage = format!("{}/{}", definition.group(), definition.storage_version());
        let (versions, converter) = (Arc::new(versions), Arc::new(Converter::of(definition)));
        let kind_of = |version: &Value| {
            let descriptor = custom::descriptor(definition, names, version);
            let mut kind = Served::new(Arc::new(descriptor));
            let form = CustomForm {
                served: kind.api_version.clone(),
                storage: storage.clone(),
                versions: versions.clone(),
                converter: converter.clone(),
                current_since: of.current_since,
            };
            kind.custom = versions.get(&kind.api_version).cloned();
            kind.form = Some(Arc::new(form));
            kind.term = Some(term.clone());
            Arc::new(kind)
        };
        let (served, unserved): (Vec<_>, Vec<_>) =
            definition.versions().partition(|version| version["served"] == true);
        let kinds = served.into_iter().map(kind_of).collect();
        let unserved = unserved.into_iter().map(kind_of).collect();
        Self { kinds, unserved, of, term }
    }
}

/// How the objects of one version of a custom kind differ from what is stored.
struct CustomForm {
    /// The `apiVersion` that is served.
    served: String,
    /// The `apiVersion` that objects are stored in now. Older ones may be stored in others.
    storage: String,
    /// By `apiVersion`.
    versions: Arc<HashMap<String, Arc<Version>>>,
    converter: Arc<Converter>,
    current_since: Revision,
}

impl CustomForm {
    async fn renewed(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, ApiError> {
        let mut objects = self.converter.convert(objects, to).await?;
        if let Some(version) = self.versions.get(to) {
            objects.iter_mut().for_each(|object| version.renew(object));
        }
        Ok(objects)
    }
}

#[async_trait]
impl Form for CustomForm {
    fn is_stored(&self, written: Revision) -> bool {
        self.is_written() && written > self.current_since
    }

    async fn served(&self, stored: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        self.renewed(stored, &self.served).await
    }

    fn is_written(&self) -> bool {
        self.served == self.storage
    }

    async fn stored(&self, served: Value) -> Result<Value, ApiError> {
        let mut stored = self.renewed(vec![served], &self.storage).await?;
        stored.pop().ok_or_else(|| ApiError::internal("a conversion lost the object"))
    }

    async fn converted(&self, served: &Value, api_version: &str) -> Result<Option<Value>, ApiError> {
        Ok(self.converter.convert(vec![served.clone()], api_version).await?.pop())
    }
}
