//! The object service over gRPC: messages to requests, answers to messages, nothing else.

use std::{pin::Pin, sync::Arc};

use claw_client::{
    Request, ResourceRef, Response, Verb, WatchEvent,
    request::{
        DeleteOptions, FieldValidation, ListOptions, PatchKind, Propagation, View, WatchOptions, WriteOptions,
    },
};
use claw_schemas::{ApiError, proto};
use futures::{Stream, StreamExt as _};
use tonic::{Response as Reply, Status};

use super::status::status;
use crate::{auth::Identity, service::ObjectService};

/// What objects travel as.
const JSON: &str = "application/json";

/// Serves `clawbernetes.v1.Objects`.
pub struct Objects {
    service: Arc<ObjectService>,
}

type Answer<T> = Result<Reply<T>, Status>;

impl Objects {
    pub fn new(service: Arc<ObjectService>) -> Self {
        Self { service }
    }

    async fn call(&self, who: &Identity, resource: ResourceRef, verb: Verb) -> Result<Response, Status> {
        let request = Request { resource, verb, view: View::Object };
        self.service.call(who, request).await.map_err(|error| status(&error))
    }

    async fn object(&self, who: &Identity, resource: ResourceRef, verb: Verb) -> Answer<proto::Object> {
        let response = self.call(who, resource, verb).await?;
        let warnings = response.warnings;
        let mut reply = Reply::new(proto::Object { content_type: JSON.to_owned(), body: response.body });
        for warning in warnings {
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
        self.object(&who, resource(message.resource)?, Verb::Get).await
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
        let events = self
            .service
            .watch(&who, resource, options, View::Object)
            .await
            .map_err(|error| status(&error))?;
        let events = events.map(|event| event.map(watch_event).map_err(|error| status(&error)));
        Ok(Reply::new(Box::pin(events)))
    }

    async fn create(&self, request: tonic::Request<proto::CreateRequest>) -> Answer<proto::Object> {
        let agent = user_agent(&request);
        let (who, message) = opened(request)?;
        let options = write_options(message.options, agent)?;
        let verb = Verb::Create { body: body(message.object)?, options };
        self.object(&who, resource(message.resource)?, verb).await
    }

    async fn update(&self, request: tonic::Request<proto::UpdateRequest>) -> Answer<proto::Object> {
        let agent = user_agent(&request);
        let (who, message) = opened(request)?;
        let options = write_options(message.options, agent)?;
        let verb = Verb::Update { body: body(message.object)?, options };
        self.object(&who, resource(message.resource)?, verb).await
    }

    async fn patch(&self, request: tonic::Request<proto::PatchRequest>) -> Answer<proto::Object> {
        let agent = user_agent(&request);
        let (who, message) = opened(request)?;
        let kind = match message.patch_type.as_str() {
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" => PatchKind::Strategic,
            "application/apply-patch+yaml" => PatchKind::Apply,
            other => {
                return Err(invalid(&format!(
                    "patch_type \"{other}\" is not one of application/json-patch+json, \
                     application/merge-patch+json, application/strategic-merge-patch+json, \
                     application/apply-patch+yaml"
                )));
            }
        };
        let options = write_options(message.options, agent)?;
        let verb = Verb::Patch { kind, body: message.patch, options, force: message.force };
        self.object(&who, resource(message.resource)?, verb).await
    }

    async fn delete(&self, request: tonic::Request<proto::DeleteRequest>) -> Answer<proto::Object> {
        let (who, mut message) = opened(request)?;
        let resource = resource(message.resource.take())?;
        self.object(&who, resource, Verb::Delete(delete_options(message)?)).await
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
        let delete = delete_options(message.options.unwrap_or_default())?;
        self.object(&who, resource(message.resource)?, Verb::DeleteCollection { list, delete }).await
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

fn invalid(message: &str) -> Status {
    status(&ApiError::bad_request(message))
}

fn set(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn resource(named: Option<proto::ResourceRef>) -> Result<ResourceRef, Status> {
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

fn body(object: Option<proto::Object>) -> Result<bytes::Bytes, Status> {
    let object = object.ok_or_else(|| invalid("object is required"))?;
    match object.content_type.as_str() {
        "" | JSON | "application/yaml" => Ok(object.body),
        other => Err(status(&ApiError::new(
            claw_schemas::status::Reason::UnsupportedMediaType,
            format!("content_type \"{other}\" is not supported; send {JSON} or application/yaml"),
        ))),
    }
}

/// The program that asks, as its gRPC library names it.
fn user_agent<T>(request: &tonic::Request<T>) -> Option<String> {
    request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok()).map(str::to_owned)
}

fn write_options(
    options: Option<proto::WriteOptions>,
    user_agent: Option<String>,
) -> Result<WriteOptions, Status> {
    let options = options.unwrap_or_default();
    let field_validation = match options.field_validation.as_str() {
        "" => FieldValidation::default(),
        "Ignore" => FieldValidation::Ignore,
        "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        other => {
            return Err(invalid(&format!("field_validation \"{other}\" is not one of Ignore, Warn, Strict")));
        }
    };
    Ok(WriteOptions {
        field_manager: set(options.field_manager),
        user_agent,
        field_validation,
        dry_run: options.dry_run,
    })
}

fn delete_options(message: proto::DeleteRequest) -> Result<DeleteOptions, Status> {
    let propagation = match message.propagation_policy.as_str() {
        "" => None,
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            return Err(invalid(&format!(
                "propagation_policy \"{other}\" is not one of Background, Foreground, Orphan"
            )));
        }
    };
    Ok(DeleteOptions {
        grace_period_seconds: message.grace_period_seconds,
        propagation,
        precondition_uid: set(message.precondition_uid),
        precondition_resource_version: set(message.precondition_resource_version),
        dry_run: message.dry_run,
    })
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
