//! Asks those who have a say in a write: policies and webhooks that may change the object, then policies and webhooks that may
//! only refuse it.
//!
//! What is configured is looked up for each write, in one look into a range of the store that is empty in most clusters,
//! so that a configuration counts from the write that makes it to the one that takes it away. What the server writes for
//! itself is nobody else's business. Nothing is held while somebody is asked.

mod forms;
mod mutations;
mod policies;
mod request;
mod webhooks;

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use claw_client::{
    request::{DeleteOptions, WriteOptions},
    trace::SPANS,
};
use claw_schemas::{ApiError, selector::LabelSelector};
use futures::future::join_all;
use serde_json::Value;
use tokio::sync::OnceCell;
use tracing::{Instrument as _, trace_span};

use super::{ObjectService, encode, errors, kinds::Target, object::text, owners, sealed::Sealed};
use crate::{
    admission::{Attributes, Configuration, GROUP, Matching, Resource, is_exempt, selects},
    store::Key,
};

/// Where everything of the group is stored.
static CONFIGURED: LazyLock<Key> = LazyLock::new(|| Key::from_text(&format!("{GROUP}/")));

static NOTHING: Value = Value::Null;

/// How a write was asked for.
#[derive(Clone, Copy)]
pub(super) enum How<'o> {
    Create(&'o WriteOptions),
    Update(&'o WriteOptions),
    Delete(&'o DeleteOptions),
    Connect,
}

/// Those who have a say in one write.
pub(super) struct Hooks<'s> {
    service: &'s ObjectService,
    target: &'s Target,
    attributes: Attributes,
    /// The other kinds that show the same objects.
    others: Vec<Resource>,
    configuration: Arc<Configuration>,
    namespace: OnceCell<Value>,
}

/// What somebody is asked about: the request and its objects as they want to see them.
struct Asked {
    resource: Resource,
    request: Value,
    old: Value,
    new: Value,
}

/// Who may change an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// The names of a policy, of its binding, and of a parameter.
    Policy(String, String, String),
    /// Its place among all.
    Webhook(usize),
}

impl Who {
    fn policy(policy: &str, binding: &str, params: &Value) -> Self {
        let params = format!("{}/{}", text(params, "namespace"), text(params, "name"));
        Self::Policy(policy.to_owned(), binding.to_owned(), params)
    }
}

/// Who is to be asked a second time, because others changed what they had seen. There is no third time.
#[derive(Default)]
pub(super) struct Rounds {
    done: u8,
    /// Asked since the last change, of those that want to be asked again.
    asked: Vec<Who>,
    again: BTreeSet<Who>,
    /// The object as the first round left it.
    left: Value,
}

impl Rounds {
    pub const fn are_over(&self) -> bool {
        self.done > 1
    }

    fn wants(&self, who: &Who) -> bool {
        self.done == 0 || self.again.contains(who)
    }

    fn was_asked(&mut self, who: Who, has_changed: bool, is_reinvoked: bool) {
        if has_changed {
            self.again.extend(self.asked.drain(..));
        }
        if is_reinvoked {
            self.asked.push(who);
        }
    }
}

impl ObjectService {
    /// Those who may have a say in a write; `None` when there are none. `name` is what the request calls the object.
    pub(super) async fn hooks<'s>(
        &'s self,
        target: &'s Target,
        name: &str,
        how: How<'_>,
    ) -> Result<Option<Hooks<'s>>, ApiError> {
        let descriptor = &target.kind.descriptor;
        let Some(who) = target.by.as_ref().filter(|_| !is_exempt(&descriptor.group, &descriptor.plural))
        else {
            return Ok(None);
        };
        let configured = self.store.list(&CONFIGURED, None, 0, None).await.map_err(errors::from_store)?.items;
        if configured.is_empty() {
            return Ok(None);
        }
        let configuration = self.admission.of(&configured);
        let others = request::others(&self.registry(), descriptor);
        let attributes = request::attributes(target, name, how, who);
        let namespace = OnceCell::new();
        Ok(Some(Hooks { service: self, target, attributes, others, configuration, namespace }))
    }

    /// Asks about a document that is no object of a kind: a binding, an eviction, a request for a token.
    pub(super) async fn ask_about(
        &self,
        target: &Target,
        document: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        self.ask_how(target, document, How::Create(options)).await
    }

    /// Asks whether a connection may be opened, and how.
    pub(super) async fn ask_to_connect(&self, target: &Target, options: &mut Value) -> Result<(), ApiError> {
        self.ask_how(target, options, How::Connect).await
    }

    async fn ask_how(&self, target: &Target, document: &mut Value, how: How<'_>) -> Result<(), ApiError> {
        let Some(hooks) = self.hooks(target, &target.name, how).await? else { return Ok(()) };
        let mut rounds = Rounds::default();
        while hooks.change(&NOTHING, document, &mut rounds).await? && !rounds.are_over() {}
        hooks.judge(&NOTHING, document).await
    }
}

impl Hooks<'_> {
    /// Lets policies and then webhooks change an object, one after the other. True if one did: then the object is to be
    /// brought into form and shown once more, to those whom the changes after them concern.
    pub async fn change(&self, old: &Value, new: &mut Value, rounds: &mut Rounds) -> Result<bool, ApiError> {
        let is_second = rounds.done > 0;
        if is_second && rounds.left != *new {
            rounds.again.extend(rounds.asked.drain(..));
        }
        let mut changed = self.mutate(old, new, rounds).await?;
        for (index, webhook) in self.configuration.mutating.iter().enumerate() {
            let who = Who::Webhook(index);
            if !rounds.wants(&who) {
                continue;
            }
            let Some(asked) = self.asked(webhook, old, new, true).await? else { continue };
            let has_changed = self.changes(webhook, asked, new).await?;
            changed |= has_changed;
            rounds.was_asked(who, has_changed, webhook.is_reinvoked);
        }
        if changed && !is_second {
            rounds.left = new.clone();
        }
        rounds.done += 1;
        Ok(changed)
    }

    /// The same for an object that is to be stored. It is shown with its owners, and they stay what they are.
    pub async fn change_sealed(
        &self,
        old: &Value,
        new: &mut Sealed,
        rounds: &mut Rounds,
    ) -> Result<bool, ApiError> {
        let mut shown = new.opened();
        let changed = self.change(old, &mut shown, rounds).await?;
        owners::take(&mut shown);
        new.object = shown;
        Ok(changed)
    }

    /// Asks whether the object may be stored as it is, or deleted: all at once, and tells all refusals.
    pub async fn judge(&self, old: &Value, new: &Value) -> Result<(), ApiError> {
        self.comply(old, new).instrument(trace_span!(target: SPANS, "policies")).await?;
        let mut questions = Vec::new();
        for webhook in &self.configuration.validating {
            if let Some(asked) = self.asked(webhook, old, new, false).await? {
                questions.push(async move {
                    let answer = self.ask(webhook, &asked, false).await?;
                    Ok(answer.and_then(|answer| answer.denial))
                });
            }
        }
        let answers = join_all(questions).await;
        together(
            answers
                .into_iter()
                .filter_map(Result::transpose)
                .map(|denied| denied.unwrap_or_else(|error| error)),
        )
    }

    /// What somebody is to be asked about, if it is what they want to be asked about.
    async fn concerning(
        &self,
        matching: &Matching,
        old: &Value,
        new: &Value,
        may_change: bool,
    ) -> Result<Option<Asked>, ApiError> {
        let Some(resource) = matching.resource(&self.attributes, &self.others) else { return Ok(None) };
        if !self.is_in_namespace(&matching.namespaces, new).await? {
            return Ok(None);
        }
        let asked = self.presented(resource, old, new, may_change).await?;
        Ok(matching.selects(&asked.old, &asked.new).then_some(asked))
    }

    /// A refusal that names the object as far as it has a name.
    fn forbidden(&self, new: &Value, why: &str) -> ApiError {
        let names = [&self.attributes.name, text(new, "name"), text(new, "generateName"), "Unknown"];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        self.target.kind.forbidden(name, why)
    }

    /// Whether the namespace of the request has the labels wanted. What is in none is never left out.
    async fn is_in_namespace(&self, selector: &LabelSelector, new: &Value) -> Result<bool, ApiError> {
        let attributes = &self.attributes;
        if selector.is_empty() || (attributes.namespace.is_empty() && !attributes.is_namespace()) {
            return Ok(true);
        }
        let is_written = attributes.is_namespace() && attributes.subresource.is_empty() && new.is_object();
        if is_written {
            return Ok(selects(selector, new));
        }
        Ok(selects(selector, self.namespace().await?))
    }

    /// The namespace of the request, as it is stored.
    async fn namespace(&self) -> Result<&Value, ApiError> {
        let name = &self.attributes.namespace;
        let find = || async {
            let found = self.service.find(&Key::object("", "namespaces", "", name)).await?;
            let record = found.ok_or_else(|| ApiError::not_found("", "namespaces", name))?;
            encode::value_of(&record)
        };
        self.namespace.get_or_try_init(find).await
    }
}

/// One error that tells all. What the first says decides about code and reason.
fn together(errors: impl Iterator<Item = ApiError>) -> Result<(), ApiError> {
    let mut errors: Vec<ApiError> = errors.collect();
    if errors.is_empty() {
        return Ok(());
    }
    let messages: Vec<String> = errors.iter().map(|error| error.message.clone()).collect();
    let mut first = errors.swap_remove(0);
    if messages.len() > 1 {
        first.message = format!("[{}]", messages.join(", "));
    }
    Err(first)
}
