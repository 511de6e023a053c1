//! Typed access to one kind, and the handle everything else is made from.

use std::{fmt::Debug, marker::PhantomData, sync::Arc};

use bytes::Bytes;
use claw_schemas::{ApiError, status::Reason};
use k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    endpoint::Endpoint,
    error::ConfigError,
    http_transport::HttpTransport,
    request::{
        DeleteOptions, ListOptions, PatchKind, Request, ResourceRef, Response, Verb, View, WatchOptions,
        WriteOptions,
    },
    transport::{Transport, WatchStream},
};

/// What a type needs to be an API object.
pub trait Object:
    Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Lower-case plural of the kind.
    const PLURAL: &'static str;
}

/// Plurals come from the trait in k8s-openapi that says them.
impl<K> Object for K
where
    K: Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    const PLURAL: &'static str = K::URL_PATH_SEGMENT;
}

/// A handle to an API server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    field_manager: Arc<str>,
}

impl Client {
    /// Over a transport; `field_manager` names the writer in `managedFields` and events.
    pub fn new(transport: Arc<dyn Transport>, field_manager: &str) -> Self {
        Self { transport, field_manager: field_manager.into() }
    }

    /// Over HTTP: REST as every Kubernetes client speaks it. `field_manager` names the writer in `managedFields` and events.
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// The endpoint's address, certificates or token cannot be used.
    pub fn connect(endpoint: &Endpoint, field_manager: &str) -> Result<Self, ConfigError> {
        Ok(Self::new(Arc::new(HttpTransport::new(endpoint)?), field_manager))
    }

    /// Objects of a kind in all namespaces, or of a cluster-scoped kind.
    pub fn all<K: Object>(&self) -> Api<K> {
        Api {
            client: self.clone(),
            resource: ResourceRef::collection(K::GROUP, K::VERSION, K::PLURAL),
            kind: PhantomData,
        }
    }

    /// Objects of a kind in one namespace.
    pub fn namespaced<K: Object>(&self, namespace: &str) -> Api<K> {
        let mut api = self.all();
        api.resource.namespace = Some(namespace.to_owned());
        api
    }

    /// The transport itself, for dynamic access.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Options for a write in this client's name.
    pub fn write_options(&self) -> WriteOptions {
        WriteOptions { field_manager: Some(self.field_manager.to_string()), ..WriteOptions::default() }
    }

    /// Sends a request for plain objects.
    ///
    /// # Errors
    /// What the server refused, or that it could not be reached.
    pub async fn call(&self, resource: ResourceRef, verb: Verb) -> Result<Response, ApiError> {
        self.transport.call(Request { resource, verb, view: View::Object }).await
    }
}

/// The objects of one kind, as Rust values.
#[derive(Clone)]
pub struct Api<K> {
    client: Client,
    resource: ResourceRef,
    kind: PhantomData<fn() -> K>,
}

/// A list with the revision it was read at.
#[derive(Clone, Debug)]
pub struct ObjectList<K> {
    /// The objects.
    pub items: Vec<K>,
    /// Revision of the whole list.
    pub resource_version: String,
    /// Token for the next page, empty on the last.
    pub continue_token: String,
}

#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct WireList<K> {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta,
    items: Vec<K>,
}

impl<K: Object> Api<K> {
    /// Reads one object.
    ///
    /// # Errors
    /// `NotFound` above all.
    pub async fn get(&self, name: &str) -> Result<K, ApiError> {
        self.object(self.resource.clone().named(name), Verb::Get).await
    }

    /// Reads one object, or `None` when there is none.
    ///
    /// # Errors
    /// Anything but `NotFound`.
    pub async fn find(&self, name: &str) -> Result<Option<K>, ApiError> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.reason == Reason::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the collection.
    ///
    /// # Errors
    /// `Expired` when a continued list is too old, and whatever the transport says.
    pub async fn list(&self, options: ListOptions) -> Result<ObjectList<K>, ApiError> {
        let response = self.client.call(self.resource.clone(), Verb::List(options)).await?;
        let list: WireList<K> = decode(&response.body)?;
        Ok(ObjectList {
            items: list.items,
            resource_version: list.metadata.resource_version.unwrap_or_default(),
            continue_token: list.metadata.continue_.unwrap_or_default(),
        })
    }

    /// Adds an object.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`.
    pub async fn create(&self, object: &K) -> Result<K, ApiError> {
        let verb = Verb::Create { body: encode(object)?, options: self.client.write_options() };
        self.object(self.resource.clone(), verb).await
    }

    /// Adds an object, for callers whom the stored form does not interest: the answer is not parsed.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn add(&self, object: &K) -> Result<(), ApiError> {
        let verb = Verb::Create { body: encode(object)?, options: self.client.write_options() };
        self.client.call(self.resource.clone(), verb).await.map(drop)
    }

    /// Replaces an object; its `resourceVersion`, when set, must be the current one.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote meanwhile.
    pub async fn update(&self, object: &K) -> Result<K, ApiError> {
        let verb = Verb::Update { body: encode(object)?, options: self.client.write_options() };
        self.object(self.resource.clone().named(name_of(object)?), verb).await
    }

    /// Replaces only the status.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote meanwhile.
    pub async fn update_status(&self, object: &K) -> Result<K, ApiError> {
        let verb = Verb::Update { body: encode(object)?, options: self.client.write_options() };
        self.object(self.resource.clone().named(name_of(object)?).sub("status"), verb).await
    }

    /// Applies a patch; `subresource` is usually `None` or `Some("status")`.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Conflict` when the patch carries a stale `resourceVersion`.
    pub async fn patch(
        &self,
        name: &str,
        subresource: Option<&str>,
        kind: PatchKind,
        patch: &serde_json::Value,
    ) -> Result<K, ApiError> {
        let mut resource = self.resource.clone().named(name);
        resource.subresource = subresource.map(str::to_owned);
        let verb =
            Verb::Patch { kind, body: encode(patch)?, options: self.client.write_options(), force: false };
        self.object(resource, verb).await
    }

    /// Applies a configuration on the server's side: the object is made if it is not there, and this client owns the
    /// fields that `config` names. With `force` it takes those that others own.
    ///
    /// # Errors
    /// `Conflict`, with a cause for each field that somebody else owns.
    pub async fn apply(&self, name: &str, config: &serde_json::Value, force: bool) -> Result<K, ApiError> {
        let (body, options) = (encode(config)?, self.client.write_options());
        let verb = Verb::Patch { kind: PatchKind::Apply, body, options, force };
        self.object(self.resource.clone().named(name), verb).await
    }

    /// Removes an object.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when a precondition does not hold.
    pub async fn delete(&self, name: &str, options: DeleteOptions) -> Result<(), ApiError> {
        self.client.call(self.resource.clone().named(name), Verb::Delete(options)).await.map(drop)
    }

    /// Creates a subresource document (`binding`, `eviction`, `token`) of an object, and gives the server's answer.
    ///
    /// # Errors
    /// What the subresource refuses.
    pub async fn create_subresource<B: Serialize + Sync>(
        &self,
        name: &str,
        subresource: &str,
        body: &B,
    ) -> Result<Response, ApiError> {
        let verb = Verb::Create { body: encode(body)?, options: self.client.write_options() };
        self.client.call(self.resource.clone().named(name).sub(subresource), verb).await
    }

    /// Watches the collection as raw events; see the reflector for a cache that keeps itself right.
    ///
    /// # Errors
    /// Whatever the transport says; an expired revision comes as an event instead.
    pub async fn watch(&self, options: WatchOptions) -> Result<WatchStream, ApiError> {
        self.client.transport.watch(self.resource.clone(), options, View::Object).await
    }

    /// What this handle names.
    pub fn resource(&self) -> &ResourceRef {
        &self.resource
    }

    /// The client behind it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn object(&self, resource: ResourceRef, verb: Verb) -> Result<K, ApiError> {
        decode(&self.client.call(resource, verb).await?.body)
    }
}

fn name_of<K: Object>(object: &K) -> Result<&str, ApiError> {
    object.metadata().name.as_deref().ok_or_else(|| ApiError::bad_request("metadata.name is required"))
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| ApiError::bad_request(format!("the object does not serialise: {error}")))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::internal(format!("the server's answer does not parse: {error}")))
}
