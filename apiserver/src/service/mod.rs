//! The object service: every rule about reading and writing objects, whatever wire a request came by.
//!
//! One pipeline, one module a stage: authorize → resolve ([`kinds`]) → decode ([`body`]) → default → admit ([`admit`],
//! [`hooks`]) → validate → ask who may refuse ([`hooks`]) → commit ([`create`], [`update`], [`apply`], [`delete`]) → respond ([`view`]). Objects move as bytes: decoded once on
//! write, serialised once, then spliced into lists and watches ([`encode`]).
//!
//! Must never know: HTTP, gRPC, TLS, how the store keeps its bytes.

mod access;
mod accounts;
mod addresses;
mod admit;
mod apply;
mod approval;
mod body;
mod bootstrap;
mod companions;
mod create;
mod decode;
mod definitions;
mod delete;
mod documents;
mod encode;
mod errors;
mod evictions;
mod existing;
mod facts;
mod form;
mod guard;
mod health;
mod hooks;
mod itself;
mod kinds;
pub mod limits;
mod list;
mod logs;
mod memo;
mod node_ports;
mod object;
mod owners;
mod paging;
mod pods;
mod policies;
mod priorities;
mod quotas;
mod ranges;
mod reach;
mod reviews;
mod scale;
mod sealed;
mod select;
mod tokens;
mod twins;
mod unattended;
mod update;
mod usage;
mod versions;
mod view;
mod watch;
mod watches;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use claw_client::{
    Request, Response, Verb,
    request::{PatchKind, View},
    trace::SPANS,
};
use claw_schemas::{ApiError, Registry};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, trace_span};

pub(crate) use self::addresses::SERVER_ADDRESS;
pub(crate) use self::guard::may_label;
use self::{
    apply::Asked,
    definitions::Definitions,
    kinds::{Kinds, Sub, Target, method_not_allowed},
    memo::Memo,
    update::Part,
    watches::Watches,
};
pub use self::{
    existing::Initial,
    health::Check,
    pods::{decode_delete_options, propagation},
    reach::Reached,
};
use crate::{
    admission,
    auth::{Authorizer, Identity, service_accounts::ServiceAccounts},
    metrics::Metrics,
    nodes::NodeStreams,
    store::{Revision, Store, StoreError, Write},
};

/// Objects of every kind, over one store. Share it in an `Arc`.
pub struct ObjectService {
    store: Arc<dyn Store>,
    kinds: Kinds,
    definitions: Definitions,
    authorizer: Arc<dyn Authorizer>,
    node_streams: OnceLock<Arc<dyn NodeStreams>>,
    service_accounts: OnceLock<Arc<ServiceAccounts>>,
    memo: Arc<Memo>,
    watches: Arc<Watches>,
    turns: quotas::Turns,
    admission: admission::Compiled,
    metrics: Arc<Metrics>,
    ready: AtomicBool,
    closing: CancellationToken,
}

impl ObjectService {
    /// A service over a store. It is not ready before [`Self::set_ready`].
    pub fn new(store: Arc<dyn Store>, registry: Registry, authorizer: Arc<dyn Authorizer>) -> Self {
        Self {
            store,
            kinds: Kinds::new(registry),
            definitions: Definitions::default(),
            authorizer,
            node_streams: OnceLock::new(),
            service_accounts: OnceLock::new(),
            memo: Arc::new(Memo::new()),
            watches: Arc::default(),
            turns: quotas::Turns::default(),
            admission: admission::Compiled::default(),
            metrics: Arc::default(),
            ready: AtomicBool::new(false),
            closing: CancellationToken::new(),
        }
    }

    /// Says how to reach into nodes, for logs. The first call counts: the hub that serves the streams is itself a
    /// user of this service, so it can only be built after it.
    pub fn set_node_streams(&self, streams: Arc<dyn NodeStreams>) {
        let _ = self.node_streams.set(streams);
    }

    /// Says who signs and reviews tokens of service accounts. The first call counts. Without it there are none.
    pub fn set_service_accounts(&self, accounts: Arc<ServiceAccounts>) {
        let _ = self.service_accounts.set(accounts);
    }

    /// Commits what a request writes.
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let span = trace_span!(target: SPANS, "commit", writes = writes.len());
        self.store.commit(writes).instrument(span).await
    }

    /// Answers one request.
    ///
    /// # Errors
    /// What is wrong with the request, as a Kubernetes `Status`.
    pub async fn call(&self, who: &Identity, request: Request) -> Result<Response, ApiError> {
        let Request { resource, verb, view } = request;
        let fields = match &verb {
            Verb::List(options) => options.field_selector.as_str(),
            _ => "",
        };
        self.authorize(who, name_of(&verb), &resource, fields)?;
        if reviews::is_review(&resource) {
            return self.review(who, &resource, verb).await;
        }
        if usage::is_measured(&resource) {
            return self.measure(Request { resource, verb, view }).await;
        }
        let mut target = self.kinds.resolve(resource)?.asked_by(who);
        if !matches!(verb, Verb::Get | Verb::List(_)) {
            target = target.heard();
        }
        let mut answer = match target.sub {
            None => self.call_main(&target, verb, view).await,
            Some(sub) => self.call_sub(&target, sub, verb, view).await,
        };
        match &mut answer {
            Ok(response) => response.warnings.extend(target.warnings()),
            Err(error) => error.warnings.extend(target.warnings()),
        }
        answer
    }

    async fn call_main(&self, target: &Target, verb: Verb, view: View) -> Result<Response, ApiError> {
        match verb {
            Verb::Get if target.name.is_empty() => Err(method_not_allowed()),
            Verb::Get => self.get(target, view).await,
            Verb::List(_) if !target.name.is_empty() => Err(method_not_allowed()),
            Verb::List(options) => self.list(target, &options, view).await,
            Verb::Create { body, options } => self.create(target, &body, &options, view).await,
            Verb::Update { body, options } => self.replace(target, Part::Main, &body, &options, view).await,
            Verb::Patch { kind: PatchKind::Apply, body, options, force } => {
                let (body, options) = (&body[..], &options);
                self.apply(target, Asked { part: Part::Main, body, options, force, view }).await
            }
            Verb::Patch { force: true, .. } => Err(force_without_apply()),
            Verb::Patch { kind, body, options, force: _ } => {
                self.patch(target, Part::Main, (kind, &body), &options, view).await
            }
            Verb::Delete(options) => self.delete(target, &options, view).await,
            Verb::DeleteCollection { list, delete } => {
                self.delete_collection(target, &list, &delete, view).await
            }
        }
    }

    async fn call_sub(
        &self,
        target: &Target,
        sub: Sub,
        verb: Verb,
        view: View,
    ) -> Result<Response, ApiError> {
        match (sub, verb) {
            (Sub::Status | Sub::Approval | Sub::EphemeralContainers, Verb::Get) => {
                self.get(target, view).await
            }
            (Sub::Status, Verb::Update { body, options }) => {
                self.replace(target, Part::Status, &body, &options, view).await
            }
            (Sub::Status, Verb::Patch { kind: PatchKind::Apply, body, options, force }) => {
                let (body, options) = (&body[..], &options);
                self.apply(target, Asked { part: Part::Status, body, options, force, view }).await
            }
            (Sub::Scale, Verb::Patch { kind: PatchKind::Apply, body, options, force }) => {
                self.apply_scale(target, &body, &options, force).await
            }
            (Sub::EphemeralContainers, Verb::Update { body, options }) => {
                self.replace(target, Part::EphemeralContainers, &body, &options, view).await
            }
            (Sub::EphemeralContainers, Verb::Patch { kind: PatchKind::Apply, body, options, force }) => {
                let (body, options) = (&body[..], &options);
                let part = Part::EphemeralContainers;
                self.apply(target, Asked { part, body, options, force, view }).await
            }
            (Sub::Status | Sub::Scale | Sub::EphemeralContainers, Verb::Patch { force: true, .. }) => {
                Err(force_without_apply())
            }
            (Sub::EphemeralContainers, Verb::Patch { kind, body, options, force: _ }) => {
                self.patch(target, Part::EphemeralContainers, (kind, &body), &options, view).await
            }
            (Sub::Status, Verb::Patch { kind, body, options, force: _ }) => {
                self.patch(target, Part::Status, (kind, &body), &options, view).await
            }
            (Sub::Approval, Verb::Update { body, options }) => {
                self.replace(target, Part::Approval, &body, &options, view).await
            }
            (Sub::Approval, Verb::Patch { kind, body, options, force: _ }) => {
                self.patch(target, Part::Approval, (kind, &body), &options, view).await
            }
            (Sub::Scale, Verb::Get) => self.get_scale(target).await,
            (Sub::Scale, Verb::Update { body, options }) => self.replace_scale(target, &body, &options).await,
            (Sub::Scale, Verb::Patch { kind, body, options, force: _ }) => {
                self.patch_scale(target, (kind, &body), &options).await
            }
            (Sub::Binding, Verb::Create { body, options }) => self.bind(target, &body, &options).await,
            (Sub::Eviction, Verb::Create { body, options }) => self.evict(target, &body, &options).await,
            (Sub::Token, Verb::Create { body, options }) => self.issue_token(target, &body, &options).await,
            (Sub::Finalize, Verb::Update { body, options }) => {
                self.replace(target, Part::Finalizers, &body, &options, view).await
            }
            _ => Err(method_not_allowed()),
        }
    }

    /// The store, for parts of the server that keep an index of their own (the node hub).
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The kinds served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.kinds.registry()
    }

    /// Figures about this server, for all of its parts to add to.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether new requests should come here.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Says whether new requests should come here: from when it has started until it is to stop.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Ends all watches cleanly, and refuses new ones: the first step of a shutdown.
    pub fn close_watches(&self) {
        self.closing.cancel();
    }
}

/// 422 for taking fields from others by a write that takes them anyway.
pub fn force_without_apply() -> ApiError {
    errors::bad_option("PatchOptions", "force", "may not be specified for non-apply patch")
}

/// The verb as authorization knows it.
fn name_of(verb: &Verb) -> &'static str {
    match verb {
        Verb::Get => "get",
        Verb::List(_) => "list",
        Verb::Create { .. } => "create",
        Verb::Update { .. } => "update",
        Verb::Patch { .. } => "patch",
        Verb::Delete(_) => "delete",
        Verb::DeleteCollection { .. } => "deletecollection",
    }
}
