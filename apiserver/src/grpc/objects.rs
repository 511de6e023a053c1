//! The object service over gRPC: messages to requests, answers to messages, nothing else.

use std::{pin::Pin, sync::Arc};

use claw_client::{
    Request, ResourceRef, Response, Verb, WatchEvent,
    request::{ListOptions, View, WatchOptions},
};
use claw_schemas::{ApiError, proto};
use futures::{Stream, StreamExt as _};
use tonic::{Response as Reply, Status};

use super::{
    batch,
    deadline::{self, Deadline},
    status::status,
    writes,
};
use crate::{auth::Identity, service::ObjectService};

/// What objects travel as.
pub(super) const JSON: &str = "application/json";

/// Serves `clawbernetes.v1.Objects`.
pub struct Objects {
    service: Arc<ObjectService>,
}

type Answer<T> = Result<Reply<T>, Status>;

/// What a message asks for.
pub(super) type Asked = (ResourceRef, Verb);

impl Objects {
    pub fn new(service: Arc<ObjectService>) -> Self {
        Self { service }
    }

    async fn call(&self, who: &Identity, resource: ResourceRef, verb: Verb) -> Result<Response, Status> {
        let request = Request { resource, verb, view: View::Object };
        self.service.call(who, request).await.map_err(|error| status(&error))
    }

    async fn object(&self, who: &Identity, (resource, verb): Asked) -> Answer<proto::Object> {
        let response = self.call(who, resource, verb).await?;
        let mut reply = Reply::new(json(response.body));
        for warning in response.warnings {
            // What a REST client gets as a `Warning` header. Text that no header can carry is left out.
            if let Ok(value) = warning.parse() {
                reply.metadata_mut().append("warning", value);
            }
        }
        Ok(reply)
    }
}

#[tonic::async_trait]
impl proto::objects_server::Objects for Objects {
    async fn get(&self, request: tonic::Request<proto::GetRequest>) -> Answer<proto::Object> {
        let (who, message) = opened(request)?;
        self.object(&who, (resource(message.resource)?, Verb::Get)).await
    }

    async fn list(&self, request: tonic::Request<proto::ListRequest>) -> Answer<proto::ObjectList> {
        let (who, message) = opened(request)?;
        let resource = resource(message.resource)?;
        let options = ListOptions {
            label_selector: message.label_selector,
            field_selector: message.field_selector,
            limit: u64::try_from(message.limit).map_err(|_| invalid("limit must not be negative"))?,
            continue_token: set(message.continue_token),
            resource_version: set(message.resource_version),
            resource_version_match: set(message.resource_version_match),
        };
        let response = self.call(&who, resource, Verb::List(options)).await?;
        Ok(Reply::new(proto::ObjectList { content_type: JSON.to_owned(), body: response.body }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchEvent, Status>> + Send>>;

    async fn watch(&self, request: tonic::Request<proto::WatchRequest>) -> Answer<Self::WatchStream> {
        let deadline = request.extensions().get::<Deadline>().copied();
        let (who, message) = opened(request)?;
        let resource = resource(message.resource)?;
        let timeout_seconds = u64::try_from(message.timeout_seconds)
            .map_err(|_| invalid("timeout_seconds must not be negative"))?;
        let options = WatchOptions {
            label_selector: message.label_selector,
            field_selector: message.field_selector,
            resource_version: set(message.resource_version),
            allow_bookmarks: message.allow_bookmarks,
            send_initial_events: message.send_initial_events,
            timeout_seconds: (timeout_seconds > 0).then_some(timeout_seconds),
        };
        let (events, initial) = self
            .service
            .open_watch(&who, resource, options, View::Object)
            .await
            .map_err(|error| status(&error))?;
        let events = events.map(|event| event.map(watch_event).map_err(|error| status(&error)));
        let mut reply = Reply::new(deadline::until(deadline, events.boxed()));
        reply.extensions_mut().insert(initial);
        Ok(reply)
    }

    async fn create(&self, request: tonic::Request<proto::CreateRequest>) -> Answer<proto::Object> {
        let agent = user_agent(&request);
        let (who, message) = opened(request)?;
        self.object(&who, writes::create(message, agent)?).await
    }

    async fn update(&self, request: tonic::Request<proto::UpdateRequest>) -> Answer<proto::Object> {
        let agent = user_agent(&request);
        let (who, message) = opened(request)?;
        self.object(&who, writes::update(message, agent)?).await
    }

    async fn patch(&self, request: tonic::Request<proto::PatchRequest>) -> Answer<proto::Object> {
        let agent = user_agent(&request);
        let (who, message) = opened(request)?;
        self.object(&who, writes::patch(message, agent)?).await
    }

    async fn delete(&self, request: tonic::Request<proto::DeleteRequest>) -> Answer<proto::Object> {
        let (who, message) = opened(request)?;
        self.object(&who, writes::delete(message)?).await
    }

    async fn delete_collection(
        &self,
        request: tonic::Request<proto::DeleteCollectionRequest>,
    ) -> Answer<proto::Object> {
        let (who, message) = opened(request)?;
        let list = ListOptions {
            label_selector: message.label_selector,
            field_selector: message.field_selector,
            ..ListOptions::default()
        };
        let delete = writes::delete_options(message.options.unwrap_or_default())?;
        let verb = Verb::DeleteCollection { list, delete };
        self.object(&who, (resource(message.resource)?, verb)).await
    }

    async fn batch(&self, request: tonic::Request<proto::BatchRequest>) -> Answer<proto::BatchResponse> {
        let agent = user_agent(&request);
        let (who, message) = opened(request)?;
        batch::check(&message)?;
        let answers = batch::answers(&self.service, &who, message.writes, agent).await;
        Ok(Reply::new(proto::BatchResponse { answers }))
    }
}

/// The identity that the gate put on a request, and the message.
fn opened<T>(request: tonic::Request<T>) -> Result<(Identity, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let who = extensions
        .remove::<Identity>()
        .ok_or_else(|| Status::unauthenticated("the request reached its service without an identity"))?;
    Ok((who, message))
}

pub(super) fn invalid(message: &str) -> Status {
    status(&ApiError::bad_request(message))
}

pub(super) fn set(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn resource(named: Option<proto::ResourceRef>) -> Result<ResourceRef, Status> {
    let named = named.ok_or_else(|| invalid("resource is required"))?;
    if named.version.is_empty() || named.resource.is_empty() {
        return Err(invalid("resource.version and resource.resource (the lower-case plural) are required"));
    }
    Ok(ResourceRef {
        group: named.group,
        version: named.version,
        plural: named.resource,
        namespace: set(named.namespace),
        name: set(named.name),
        subresource: set(named.subresource),
    })
}

/// The program that asks, as its gRPC library names it.
fn user_agent<T>(request: &tonic::Request<T>) -> Option<String> {
    request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok()).map(str::to_owned)
}

pub(super) fn json(body: bytes::Bytes) -> proto::Object {
    proto::Object { content_type: JSON.to_owned(), body }
}

fn watch_event(event: WatchEvent) -> proto::WatchEvent {
    use proto::watch_event::Type;

    let (kind, body) = match event {
        WatchEvent::Added(body) => (Type::Added, body),
        WatchEvent::Modified(body) => (Type::Modified, body),
        WatchEvent::Deleted(body) => (Type::Deleted, body),
        WatchEvent::Bookmark(body) => (Type::Bookmark, body),
        WatchEvent::Error(error) => (Type::Error, error.to_json().into()),
    };
    proto::WatchEvent { r#type: kind.into(), content_type: JSON.to_owned(), body }
}
