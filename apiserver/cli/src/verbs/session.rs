//! The API as verbs use it: plain JSON values, addressed by kind and name.
//!
//! Must never know: how anything is printed, warnings aside, which go to stderr as they come.

use std::{sync::Arc, time::Duration};

use claw_client::{
    DynamicObject, HttpTransport, Reflector, Request, ResourceRef, Store, Transport, Verb,
    request::{DeleteOptions, FieldValidation, ListOptions, PatchKind, View, WriteOptions},
};
use claw_schemas::{ApiError, Descriptor, Registry, status::Reason};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::discovery::Resource;

/// Who writes, in `metadata.managedFields`.
pub const FIELD_MANAGER: &str = "clawbernetes";
/// Items per page of a list, as kubectl asks for.
pub const PAGE_ITEMS: u64 = 500;

/// How long a verb that follows an object bears with a server that is away: longer than a restart, or than it takes another
/// to take over.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// A server, and the namespace to work in.
pub struct Session {
    pub transport: Arc<dyn Transport>,
    /// The same, for what is no object.
    pub http: Arc<HttpTransport>,
    /// The kinds by the names that people type.
    pub registry: Registry,
    /// The kinds in every version, as manifests name them.
    pub versions: Registry,
    /// What the server tells of its kinds, if it was asked.
    pub resources: Vec<Resource>,
    /// `-n`, or the context's, or "default".
    pub namespace: String,
    /// Whether `-n` was given.
    pub namespace_given: bool,
}

/// How to write.
#[derive(Clone, Debug)]
pub struct Write {
    pub dry_run: bool,
    pub validation: FieldValidation,
    /// Who writes.
    pub manager: String,
}

impl Default for Write {
    fn default() -> Self {
        let (dry_run, validation) = Default::default();
        Self { dry_run, validation, manager: FIELD_MANAGER.to_owned() }
    }
}

impl Session {
    /// The objects of a kind in a namespace; `None` is all namespaces.
    pub fn collection(kind: &Descriptor, namespace: Option<&str>) -> ResourceRef {
        let resource = ResourceRef::collection(&kind.group, &kind.version, &kind.plural);
        match namespace.filter(|_| kind.namespaced()) {
            Some(namespace) => resource.in_namespace(namespace),
            None => resource,
        }
    }

    /// One object, in the namespace we work in.
    pub fn object(&self, kind: &Descriptor, name: &str) -> ResourceRef {
        Self::collection(kind, Some(&self.namespace)).named(name)
    }

    /// The kind that a verb of ours is about.
    pub fn kind(&self, api_version: &str, kind: &str) -> anyhow::Result<Arc<Descriptor>> {
        self.versions.kind(api_version, kind).cloned().ok_or_else(|| {
            anyhow::anyhow!(
                "no matches for kind \"{kind}\" in version \"{api_version}\"; see `clawbernetes api-resources`"
            )
        })
    }

    pub async fn ask(&self, resource: ResourceRef, verb: Verb, view: View) -> Result<Value, ApiError> {
        let response = self.transport.call(Request { resource, verb, view }).await?;
        for warning in &response.warnings {
            eprintln!("Warning: {warning}");
        }
        serde_json::from_slice(&response.body)
            .map_err(|error| ApiError::internal(format!("the server's answer does not parse: {error}")))
    }

    pub async fn get(&self, resource: &ResourceRef) -> Result<Value, ApiError> {
        self.ask(resource.clone(), Verb::Get, View::Object).await
    }

    /// The object, or `None` when there is none.
    pub async fn find(&self, resource: &ResourceRef) -> Result<Option<Value>, ApiError> {
        match self.get(resource).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.reason == Reason::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object of a collection, page by page.
    pub async fn list(
        &self,
        kind: &Descriptor,
        resource: &ResourceRef,
        selectors: &ListOptions,
    ) -> Result<Vec<Value>, ApiError> {
        Ok(self.snapshot(kind, resource, selectors).await?.0)
    }

    /// The same, with the revision after which a watch goes on.
    pub async fn snapshot(
        &self,
        kind: &Descriptor,
        resource: &ResourceRef,
        selectors: &ListOptions,
    ) -> Result<(Vec<Value>, String), ApiError> {
        let mut options = ListOptions { limit: PAGE_ITEMS, ..selectors.clone() };
        let mut items = Vec::new();
        let revision = loop {
            let mut page = self.ask(resource.clone(), Verb::List(options.clone()), View::Object).await?;
            if let Value::Array(list) = page["items"].take() {
                items.extend(list);
            }
            match text(&page, "/metadata/continue") {
                "" => break text(&page, "/metadata/resourceVersion").to_owned(),
                token => options.continue_token = Some(token.to_owned()),
            }
        };
        // Items of a list say neither; on their own they must.
        for item in &mut items {
            item["apiVersion"] = json!(kind.api_version());
            item["kind"] = json!(kind.kind);
        }
        Ok((items, revision))
    }

    pub async fn create(
        &self,
        resource: ResourceRef,
        object: &Value,
        write: &Write,
    ) -> Result<Value, ApiError> {
        let verb = Verb::Create { body: object.to_string().into(), options: write.options() };
        self.ask(resource, verb, View::Object).await
    }

    pub async fn patch(
        &self,
        resource: ResourceRef,
        kind: PatchKind,
        patch: &Value,
        write: &Write,
    ) -> Result<Value, ApiError> {
        let verb =
            Verb::Patch { kind, body: patch.to_string().into(), options: write.options(), force: false };
        self.ask(resource, verb, View::Object).await
    }

    /// Applies on the server's side.
    pub async fn apply(
        &self,
        resource: ResourceRef,
        config: &Value,
        write: &Write,
        force: bool,
    ) -> Result<Value, ApiError> {
        let (body, options) = (config.to_string().into(), write.options());
        self.ask(resource, Verb::Patch { kind: PatchKind::Apply, body, options, force }, View::Object).await
    }

    pub async fn delete(&self, resource: ResourceRef, options: DeleteOptions) -> Result<Value, ApiError> {
        self.ask(resource, Verb::Delete(options), View::Object).await
    }

    /// Follows one object by list and watch for as long as the answer is kept.
    pub fn observe(&self, resource: &ResourceRef) -> Observed {
        let mut collection = resource.clone();
        let name = collection.name.take().unwrap_or_default();
        let reflector = Reflector::<DynamicObject>::of(Arc::clone(&self.transport), collection)
            .fields(format!("metadata.name={name}"));
        let store = reflector.store();
        let changes = watch::Sender::new(());
        let receiver = changes.subscribe();
        store.subscribe(move |_| {
            changes.send_replace(());
        });
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone().cancelled_owned();
        let running = reflector.run(cancel.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                // First, or a verb that is done would tell of the connection that ends with it.
                () = cancelled => {}
                () = running => {}
            }
        });
        Observed { store, changes: receiver, _stop: cancel.drop_guard() }
    }
}

/// One object as it changes; the level counts, steps between may be missed.
pub struct Observed {
    store: Store<DynamicObject>,
    changes: watch::Receiver<()>,
    _stop: tokio_util::sync::DropGuard,
}

impl Observed {
    /// The object as it is once known, or `None` when there is none. Fails when the server is away for long, or does not
    /// let us follow the object.
    pub async fn now(&mut self) -> anyhow::Result<Option<Value>> {
        unless_stuck(&self.store, self.store.synced()).await??;
        self.changes.borrow_and_update();
        Ok(self.store.list().first().map(|object| serde_json::to_value(&**object).unwrap_or(Value::Null)))
    }

    /// Waits for a change; fails as [`Self::now`] does.
    pub async fn changed(&mut self) -> anyhow::Result<()> {
        Ok(unless_stuck(&self.store, self.changes.changed()).await??)
    }
}

async fn unless_stuck<T>(store: &Store<DynamicObject>, wait: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        done = wait => Ok(done),
        error = store.stuck(GIVE_UP_AFTER) => Err(given_up(error)),
    }
}

fn given_up(error: ApiError) -> anyhow::Error {
    if error.is_retryable() {
        let tried = format!("gave up after {} s", GIVE_UP_AFTER.as_secs());
        return anyhow::Error::new(error).context(tried);
    }
    error.into()
}

impl Write {
    /// The same in another name.
    #[must_use]
    pub fn by(self, manager: &str) -> Self {
        Self { manager: manager.to_owned(), ..self }
    }

    fn options(&self) -> WriteOptions {
        WriteOptions {
            field_manager: Some(self.manager.clone()),
            field_validation: self.validation,
            dry_run: self.dry_run,
            ..WriteOptions::default()
        }
    }
}

/// Whether a verb failed because an object does not exist.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ApiError>().is_some_and(|error| error.reason == Reason::NotFound)
}

/// `deployment.apps/web`, or `pod/web` in the core group.
pub fn short_name(kind: &Descriptor, name: &str) -> String {
    if kind.group.is_empty() {
        format!("{}/{name}", kind.singular)
    } else {
        format!("{}.{}/{name}", kind.singular, kind.group)
    }
}

/// Text at a path such as `/metadata/name`; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// An integer at a path; 0 when there is none.
pub fn integer(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use claw_client::Endpoint;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_gone_is_given_up_and_named() {
        // Bound and dropped: nobody listens on this port now.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = Endpoint::new(format!("http://127.0.0.1:{port}"));
        let http = Arc::new(HttpTransport::new(&endpoint).unwrap());
        let session = Session {
            transport: http.clone(),
            http,
            registry: Registry::builtin(),
            versions: Registry::builtin(),
            resources: Vec::new(),
            namespace: "default".to_owned(),
            namespace_given: false,
        };
        let pod = ResourceRef::collection("", "v1", "pods").in_namespace("default").named("x");
        // An hour of the paused clock: without an end of its own this would go on for ever.
        let told = tokio::time::timeout(Duration::from_secs(3600), session.observe(&pod).now()).await;
        let told = format!("{:#}", told.expect("it gives up").unwrap_err());
        assert!(
            told.starts_with("gave up after 30 s: cannot reach the server at http://127.0.0.1:"),
            "{told}"
        );
    }

    #[test]
    fn what_time_does_not_mend_is_told_as_it_is() {
        let error = given_up(ApiError::new(Reason::Forbidden, "pods is forbidden"));
        assert_eq!(format!("{error:#}"), "pods is forbidden");
    }
}
