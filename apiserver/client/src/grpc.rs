//! The same API over gRPC: [`GrpcTransport`] for objects, [`GrpcNodeLink`] for node agents.
//!
//! Both run over one HTTP/2 connection, made when needed and made again when lost. The protocol
//! carries plain objects only: Tables, metadata views and logs are served over HTTP.
//!
//! Must never know: what the objects mean.

use async_trait::async_trait;
use bytes::Bytes;
use claw_schemas::{
    ApiError,
    proto::{
        self, AgentMessage, JoinRequest, JoinResponse, RenewRequest, StreamFrame,
        node_link_client::NodeLinkClient, objects_client::ObjectsClient, watch_event,
    },
    status::Reason,
};
use futures::{StreamExt as _, TryStreamExt as _};
use http::Uri;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    credentials::Credentials,
    endpoint::Endpoint,
    error::ConfigError,
    failure,
    node::{NodeLink, ServerMessages, StreamFrames},
    request::{
        DeleteOptions, FieldValidation, Request, ResourceRef, Response, Verb, View, WatchOptions,
        WriteOptions,
    },
    rest,
    tls::{Connections, Http, Pool},
    transport::{ByteStream, Transport, WatchEvent, WatchStream},
};

/// The trailer that carries the Kubernetes `Status` of a failed call, as JSON.
pub const STATUS_TRAILER: &str = "clawbernetes-status-bin";
/// Largest message taken, as for answers over HTTP.
const MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;

type Channel = Pool<tonic::body::Body>;

/// What both clients need of an endpoint.
struct Link {
    connections: Connections<tonic::body::Body>,
    origin: Uri,
    origin_text: String,
    credentials: Credentials,
    timeout: std::time::Duration,
}

impl Link {
    fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let base = endpoint.base()?;
        if !base.path.is_empty() {
            return Err(ConfigError::field(
                "server",
                format!("gRPC has no place for the path \"{}\"; use an address without one", base.path),
            ));
        }
        let origin = base
            .origin
            .parse()
            .map_err(|error| ConfigError::field("server", format!("\"{}\": {error}", base.origin)))?;
        Ok(Self {
            connections: Connections::new(endpoint, Http::Two)?,
            origin,
            origin_text: base.origin,
            credentials: Credentials::new(endpoint)?,
            timeout: endpoint.request_timeout,
        })
    }

    fn objects(&self) -> ObjectsClient<Channel> {
        ObjectsClient::with_origin(self.connections.pool(), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn nodes(&self) -> NodeLinkClient<Channel> {
        NodeLinkClient::with_origin(self.connections.pool(), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A message with our credentials.
    fn request<T>(&self, message: T) -> Result<tonic::Request<T>, ApiError> {
        let mut request = tonic::Request::new(message);
        if let Some(value) = self.credentials.header()? {
            let text = value.to_str().unwrap_or_default();
            let value = MetadataValue::try_from(text)
                .map_err(|_| ApiError::bad_request("the token holds characters that gRPC may not carry"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }

    fn error(&self, status: &Status) -> ApiError {
        // A source is there when the call did not get through.
        if status.code() == Code::Unauthenticated || std::error::Error::source(status).is_some() {
            self.connections.doubt();
            self.credentials.doubt();
        }
        api_error(&self.origin_text, status)
    }

    /// The same for a call with one answer. The server learns how long that is waited for.
    fn brief<T>(&self, message: T) -> Result<tonic::Request<T>, ApiError> {
        let mut request = self.request(message)?;
        request.set_timeout(self.timeout);
        Ok(request)
    }

    /// One answer, in time.
    async fn answer<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, ApiError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(failure::timed_out(&self.origin_text, self.timeout.as_secs())),
        }
    }
}

/// An API server across a network, over gRPC.
pub struct GrpcTransport {
    link: Link,
}

impl GrpcTransport {
    /// Prepares to speak to a server; nothing is sent before the first request.
    ///
    /// # Errors
    /// Names the field of the endpoint that cannot be used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        Ok(Self { link: Link::new(endpoint)? })
    }

    async fn object(
        &self,
        code: u16,
        call: impl Future<Output = Result<tonic::Response<proto::Object>, Status>>,
    ) -> Result<Response, ApiError> {
        let (object, warnings) = self.link.answer(warned(call)).await?;
        Ok(Response { code, body: object.body, warnings })
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        plain_objects_only(request.view)?;
        let link = &self.link;
        let mut client = link.objects();
        let resource = Some(reference(&request.resource));
        match request.verb {
            Verb::Get => {
                let message = proto::GetRequest { resource, resource_version: String::new() };
                self.object(200, client.get(link.brief(message)?)).await
            }
            Verb::List(options) => {
                let message = proto::ListRequest {
                    resource,
                    label_selector: options.label_selector,
                    field_selector: options.field_selector,
                    limit: i64::try_from(options.limit).unwrap_or(i64::MAX),
                    continue_token: options.continue_token.unwrap_or_default(),
                    resource_version: options.resource_version.unwrap_or_default(),
                    resource_version_match: options.resource_version_match.unwrap_or_default(),
                };
                let list = link.answer(client.list(link.brief(message)?)).await?.into_inner();
                Ok(Response { code: 200, body: list.body, warnings: Vec::new() })
            }
            Verb::Create { body, options } => {
                let message =
                    proto::CreateRequest { resource, object: carry(body), options: written(&options) };
                self.object(201, client.create(link.brief(message)?)).await
            }
            Verb::Update { body, options } => {
                let message =
                    proto::UpdateRequest { resource, object: carry(body), options: written(&options) };
                self.object(200, client.update(link.brief(message)?)).await
            }
            Verb::Patch { kind, body, options, force } => {
                let message = proto::PatchRequest {
                    resource,
                    patch_type: rest::patch_type(kind).to_owned(),
                    patch: body,
                    options: written(&options),
                    force,
                };
                self.object(200, client.patch(link.brief(message)?)).await
            }
            Verb::Delete(options) => {
                let message = deletion(resource, options);
                self.object(200, client.delete(link.brief(message)?)).await
            }
            Verb::DeleteCollection { list, delete } => {
                let message = proto::DeleteCollectionRequest {
                    resource,
                    label_selector: list.label_selector,
                    field_selector: list.field_selector,
                    options: Some(deletion(None, delete)),
                };
                self.object(200, client.delete_collection(link.brief(message)?)).await
            }
        }
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        plain_objects_only(view)?;
        let message = proto::WatchRequest {
            resource: Some(reference(&resource)),
            label_selector: options.label_selector,
            field_selector: options.field_selector,
            resource_version: options.resource_version.unwrap_or_default(),
            allow_bookmarks: options.allow_bookmarks,
            send_initial_events: options.send_initial_events,
            timeout_seconds: options.timeout_seconds.map_or(0, |s| i64::try_from(s).unwrap_or(i64::MAX)),
        };
        let mut client = self.link.objects();
        let events = self.link.answer(client.watch(self.link.request(message)?)).await?.into_inner();
        let origin = self.link.origin_text.clone();
        let events = events.map(move |event| match event {
            Ok(event) => watch_event(event),
            Err(status) => Err(api_error(&origin, &status)),
        });
        Ok(events.boxed())
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        _query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        Err(ApiError::new(
            Reason::MethodNotAllowed,
            format!("{} streams are not part of the gRPC protocol; use HTTP", resource.plural),
        ))
    }
}

/// A node agent's link to its server.
pub struct GrpcNodeLink {
    link: Link,
}

impl GrpcNodeLink {
    /// Prepares to speak to a server; nothing is sent before the first call.
    ///
    /// # Errors
    /// Names the field of the endpoint that cannot be used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        Ok(Self { link: Link::new(endpoint)? })
    }

    /// Trades the endpoint's token for a certificate, answered with the cluster's authorities.
    /// `request_der` is a PKCS#10 certificate request.
    ///
    /// # Errors
    /// `Unauthorized` when the token is wrong, used up or expired.
    pub async fn join(&self, node_name: &str, request_der: Vec<u8>) -> Result<JoinResponse, ApiError> {
        let message =
            JoinRequest { node_name: node_name.to_owned(), certificate_request: request_der.into() };
        Ok(self.link.answer(self.link.nodes().join(self.link.brief(message)?)).await?.into_inner())
    }

    /// Trades the endpoint's certificate for a younger one.
    ///
    /// # Errors
    /// `Unauthorized` when the old one no longer counts.
    pub async fn renew(&self, request_der: Vec<u8>) -> Result<JoinResponse, ApiError> {
        let message = RenewRequest { certificate_request: request_der.into() };
        Ok(self.link.answer(self.link.nodes().renew(self.link.brief(message)?)).await?.into_inner())
    }
}

#[async_trait]
impl NodeLink for GrpcNodeLink {
    async fn session(&self, outgoing: mpsc::Receiver<AgentMessage>) -> Result<ServerMessages, ApiError> {
        let request = self.link.request(ReceiverStream::new(outgoing))?;
        let messages = self.link.answer(self.link.nodes().session(request)).await?.into_inner();
        let origin = self.link.origin_text.clone();
        Ok(messages.map_err(move |status| api_error(&origin, &status)).boxed())
    }

    async fn stream(&self, outgoing: mpsc::Receiver<StreamFrame>) -> Result<StreamFrames, ApiError> {
        let request = self.link.request(ReceiverStream::new(outgoing))?;
        let frames = self.link.answer(self.link.nodes().stream(request)).await?.into_inner();
        let origin = self.link.origin_text.clone();
        Ok(frames.map_err(move |status| api_error(&origin, &status)).boxed())
    }
}

/// An answer with what the server warned of.
async fn warned<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<(T, Vec<String>), Status> {
    let (metadata, answer, _) = call.await?.into_parts();
    let warnings = metadata.get_all("warning").iter();
    let warnings = warnings.filter_map(|text| text.to_str().ok()).map(str::to_owned).collect();
    Ok((answer, warnings))
}

fn plain_objects_only(view: View) -> Result<(), ApiError> {
    match view {
        View::Object => Ok(()),
        View::Table(_) | View::Metadata => Err(ApiError::new(
            Reason::NotAcceptable,
            "the gRPC protocol carries plain objects only; use HTTP for Tables and metadata views",
        )),
    }
}

fn reference(resource: &ResourceRef) -> proto::ResourceRef {
    proto::ResourceRef {
        group: resource.group.clone(),
        version: resource.version.clone(),
        resource: resource.plural.clone(),
        namespace: resource.namespace.clone().unwrap_or_default(),
        name: resource.name.clone().unwrap_or_default(),
        subresource: resource.subresource.clone().unwrap_or_default(),
    }
}

fn carry(body: Bytes) -> Option<proto::Object> {
    let content_type = rest::json_or_yaml(&body).to_owned();
    Some(proto::Object { content_type, body })
}

fn written(options: &WriteOptions) -> Option<proto::WriteOptions> {
    let field_validation = match options.field_validation {
        FieldValidation::Ignore => "Ignore",
        FieldValidation::Warn => "Warn",
        FieldValidation::Strict => "Strict",
    };
    Some(proto::WriteOptions {
        field_manager: options.field_manager.clone().unwrap_or_default(),
        field_validation: field_validation.to_owned(),
        dry_run: options.dry_run,
    })
}

fn deletion(resource: Option<proto::ResourceRef>, options: DeleteOptions) -> proto::DeleteRequest {
    proto::DeleteRequest {
        resource,
        grace_period_seconds: options.grace_period_seconds,
        propagation_policy: options.propagation.map(rest::propagation_name).unwrap_or_default().to_owned(),
        precondition_uid: options.precondition_uid.unwrap_or_default(),
        precondition_resource_version: options.precondition_resource_version.unwrap_or_default(),
        dry_run: options.dry_run,
    }
}

fn watch_event(event: proto::WatchEvent) -> Result<WatchEvent, ApiError> {
    let kind = event.r#type();
    let body = event.body;
    Ok(match kind {
        watch_event::Type::Added => WatchEvent::Added(body),
        watch_event::Type::Modified => WatchEvent::Modified(body),
        watch_event::Type::Deleted => WatchEvent::Deleted(body),
        watch_event::Type::Bookmark => WatchEvent::Bookmark(body),
        watch_event::Type::Error => {
            WatchEvent::Error(serde_json::from_slice(&body).map_err(|error| {
                ApiError::internal(format!("a watch's ERROR event does not parse: {error}"))
            })?)
        }
        watch_event::Type::Unspecified => {
            return Err(ApiError::internal("a watch event has no type"));
        }
    })
}

/// The `Status` in the trailer, or what the code says when the call never reached the service.
fn api_error(origin: &str, status: &Status) -> ApiError {
    let trailer = status.metadata().get_bin(STATUS_TRAILER).and_then(|value| value.to_bytes().ok());
    if let Some(error) = trailer.and_then(|json| serde_json::from_slice(&json).ok()) {
        return error;
    }
    if let Some(source) = std::error::Error::source(status) {
        return failure::unreachable(origin, source, is_connect(source));
    }
    let reason = match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition => Reason::BadRequest,
        Code::Unauthenticated => Reason::Unauthorized,
        Code::PermissionDenied => Reason::Forbidden,
        Code::NotFound => Reason::NotFound,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::Aborted => Reason::Conflict,
        Code::OutOfRange => Reason::Expired,
        Code::ResourceExhausted => Reason::TooManyRequests,
        Code::Unimplemented => Reason::MethodNotAllowed,
        Code::DeadlineExceeded => Reason::Timeout,
        Code::Unavailable | Code::Cancelled | Code::Unknown => Reason::ServiceUnavailable,
        Code::Ok | Code::Internal | Code::DataLoss => Reason::InternalError,
    };
    ApiError::new(reason, format!("{origin}: {}", status.message()))
}

fn is_connect(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(client) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return client.is_connect();
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailers_status_wins_over_the_code() {
        let sent = ApiError::conflict("apps", "deployments", "web", "the object has been modified");
        let mut status = Status::aborted("short");
        status.metadata_mut().insert_bin(STATUS_TRAILER, MetadataValue::from_bytes(&sent.to_json()));
        assert_eq!(api_error("https://a", &status), sent);
    }

    #[test]
    fn a_code_alone_still_gives_a_reason() {
        let error = api_error("https://a", &Status::unauthenticated("no such token"));
        assert_eq!(error.reason, Reason::Unauthorized);
        assert!(error.message.contains("no such token"));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_what_to_check() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint = Endpoint::new(format!("http://127.0.0.1:{port}"));
        let transport = GrpcTransport::new(&endpoint).unwrap();
        let request = Request {
            resource: ResourceRef::collection("", "v1", "pods"),
            verb: Verb::Get,
            view: View::Object,
        };
        let error = transport.call(request).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(error.message.contains("is it running"), "{error}");
    }

    #[test]
    fn tables_are_refused_before_anything_is_sent() {
        let error = plain_objects_only(View::Metadata).unwrap_err();
        assert_eq!(error.reason, Reason::NotAcceptable);
    }
}
