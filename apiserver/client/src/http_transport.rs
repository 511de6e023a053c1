//! The REST API over HTTP/1.1 or HTTP/2.
//!
//! Must never know: what the objects mean.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use claw_schemas::ApiError;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyDataStream, BodyExt as _, Full, Limited};
use hyper::{body::Incoming, upgrade::Upgraded};

use crate::{
    credentials::Credentials,
    endpoint::{Base, Endpoint},
    error::ConfigError,
    failure::{self, with_causes},
    request::{Request, ResourceRef, Response, View, WatchOptions},
    rest::{self, Rest},
    tls::{Connections, Http, Pool},
    transport::{ByteStream, Transport, WatchStream},
    watch_lines::Lines,
};

/// Largest answer taken into memory: 30,000 objects of 16 KiB in one unpaged list.
const BODY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// An API server across a network.
pub struct HttpTransport {
    connections: Connections<Full<Bytes>>,
    base: Base,
    credentials: Credentials,
    user_agent: HeaderValue,
    timeout: Duration,
}

impl HttpTransport {
    /// Prepares to speak to a server; nothing is sent before the first request.
    ///
    /// # Errors
    /// Names the field of the endpoint that cannot be used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        Ok(Self {
            connections: Connections::new(endpoint, Http::Any)?,
            base: endpoint.base()?,
            credentials: Credentials::new(endpoint)?,
            user_agent: HeaderValue::from_str(&endpoint.user_agent)
                .map_err(|_| ConfigError::field("user agent", "holds characters that no header may"))?,
            timeout: endpoint.request_timeout,
        })
    }

    /// Where the server is.
    pub fn server(&self) -> String {
        format!("{}{}", self.base.origin, self.base.path)
    }

    /// Reads a document that is no object: `/version`, `/healthz`, `/openapi/v3`.
    ///
    /// # Errors
    /// What the server refused, or that it could not be reached.
    pub async fn get_raw(&self, path: &str) -> Result<Response, ApiError> {
        self.ask(raw(path)).await
    }

    /// The same in a form that is asked for: a media type, as in the header `Accept`.
    ///
    /// # Errors
    /// What the server refused, or that it could not be reached.
    pub async fn get_raw_as(&self, path: &str, accept: &'static str) -> Result<Response, ApiError> {
        self.ask(Rest { accept, ..raw(path) }).await
    }

    /// The same, as it arrives: for what is too large to hold.
    ///
    /// # Errors
    /// What the server refused, or that it could not be reached.
    pub async fn stream_raw(&self, path: &str) -> Result<ByteStream, ApiError> {
        self.open(raw(path)).await
    }

    async fn ask(&self, rest: Rest) -> Result<Response, ApiError> {
        let whole = async {
            let response = self.send(rest).await?;
            let (code, warnings) = (response.status().as_u16(), warnings(response.headers()));
            Ok(Response { code, body: self.collect(response.into_body()).await?, warnings })
        };
        self.in_time(whole).await
    }

    /// Sends a request and waits for the head of a successful answer.
    async fn send(&self, rest: Rest) -> Result<http::Response<Incoming>, ApiError> {
        self.send_over(&self.connections.pool(), self.prepare(rest)?).await
    }

    /// Sends a request that makes something else of its connection. Gives the headers of the answer, and the connection.
    pub(crate) async fn upgrade(
        &self,
        rest: Rest,
        headers: HeaderMap,
    ) -> Result<(HeaderMap, Upgraded), ApiError> {
        let pool =
            self.connections.upgradable().map_err(|error| ApiError::bad_request(with_causes(&error)))?;
        let mut request = self.prepare(rest)?;
        request.headers_mut().extend(headers);
        let upgraded = async {
            let response = self.send_over(&pool, request).await?;
            let headers = response.headers().clone();
            let upgraded = hyper::upgrade::on(response).await;
            upgraded
                .map(|connection| (headers, connection))
                .map_err(|error| failure::unreachable(&self.base.origin, &error, false))
        };
        self.in_time(upgraded).await
    }

    async fn send_over(
        &self,
        pool: &Pool<Full<Bytes>>,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, ApiError> {
        let response = pool.request(request).await.map_err(|error| {
            self.connections.doubt();
            failure::unreachable(&self.base.origin, &error, error.is_connect())
        })?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.connections.doubt();
            self.credentials.doubt();
        }
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        // A body that cannot be read must not hide the code.
        let body = self.collect(response.into_body()).await.unwrap_or_default();
        Err(failure::refused(status.as_u16(), retry_after, &body))
    }

    fn prepare(&self, rest: Rest) -> Result<http::Request<Full<Bytes>>, ApiError> {
        let mut request = http::Request::builder()
            .method(rest.method)
            .uri(format!("{}{}{}", self.base.origin, self.base.path, rest.target))
            .header(header::ACCEPT, rest.accept)
            .header(header::USER_AGENT, &self.user_agent);
        if !rest.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, rest.content_type);
        }
        if let Some(value) = self.credentials.header()? {
            request = request.header(header::AUTHORIZATION, value);
        }
        request
            .body(Full::new(rest.body))
            .map_err(|error| ApiError::bad_request(format!("the request cannot be sent over HTTP: {error}")))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, ApiError> {
        let whole = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let whole = whole.map_err(|error| failure::unreachable(&self.base.origin, &*error, false))?;
        Ok(whole.to_bytes())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(failure::timed_out(&self.base.origin, self.timeout.as_secs())),
        }
    }

    /// The bytes of an answer as they arrive.
    async fn open(&self, rest: Rest) -> Result<ByteStream, ApiError> {
        let response = self.in_time(self.send(rest)).await?;
        let origin = self.base.origin.clone();
        let chunks = BodyDataStream::new(response.into_body())
            .map_err(move |error| failure::unreachable(&origin, &error, false));
        Ok(chunks.boxed())
    }
}

fn raw(path: &str) -> Rest {
    Rest {
        method: Method::GET,
        target: path.to_owned(),
        accept: "application/json, */*",
        content_type: "application/json",
        body: Bytes::new(),
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        self.ask(rest::call(request)).await
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        let chunks = self.open(rest::watch(&resource, &options, view)).await?;
        let events = stream::try_unfold((Lines::default(), chunks), |(mut lines, mut chunks)| async {
            loop {
                if let Some(event) = lines.next_event()? {
                    return Ok(Some((event, (lines, chunks))));
                }
                match chunks.next().await {
                    Some(chunk) => lines.push(&chunk?),
                    None => return lines.finish().map(|()| None),
                }
            }
        });
        Ok(events.boxed())
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.open(rest::stream(&resource, &query)).await
    }
}

/// `Warning: 299 - "text"` headers, as their texts.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok());
    texts
        .filter_map(|value| {
            let (_, quoted) = value.split_once('"')?;
            Some(quoted.strip_suffix('"').unwrap_or(quoted).replace("\\\"", "\"").replace("\\\\", "\\"))
        })
        .collect()
}

fn retry_after(headers: &HeaderMap) -> Option<u32> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn warnings_lose_their_wrapping() {
        let mut headers = HeaderMap::new();
        headers.append(header::WARNING, HeaderValue::from_static(r#"299 - "unknown field \"spec.x\"""#));
        headers.append(header::WARNING, HeaderValue::from_static(r#"299 - "second""#));
        headers.append(header::WARNING, HeaderValue::from_static("nonsense"));
        assert_eq!(warnings(&headers), ["unknown field \"spec.x\"", "second"]);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_what_to_check() {
        // Taken, so that nobody else gets it, and not listened on.
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = taken.local_addr().unwrap().port();
        let endpoint = Endpoint::new(format!("http://127.0.0.1:{port}"));
        let error = HttpTransport::new(&endpoint).unwrap().get_raw("/version").await.unwrap_err();
        assert!(error.is_retryable());
        assert!(error.message.contains(&format!("127.0.0.1:{port}")), "{error}");
        assert!(error.message.contains("is it running"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(format!("http://{}", listener.local_addr().unwrap()))
            .request_timeout(Duration::from_millis(50));
        let error = HttpTransport::new(&endpoint).unwrap().get_raw("/version").await.unwrap_err();
        assert_eq!(error.reason, claw_schemas::status::Reason::Timeout);
    }

    /// Answers the one connection it takes with these bytes, whatever is asked, and closes it.
    async fn answering(bytes: &'static [u8]) -> HttpTransport {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = connection.read(&mut request).await.unwrap();
            connection.write_all(bytes).await.unwrap();
        });
        HttpTransport::new(&endpoint).unwrap()
    }

    async fn watched(bytes: &'static [u8]) -> Vec<Result<crate::WatchEvent, ApiError>> {
        let pods = ResourceRef::collection("", "v1", "pods");
        let watch = answering(bytes).await.watch(pods, WatchOptions::default(), View::Object).await;
        watch.unwrap().collect().await
    }

    #[tokio::test]
    async fn a_watch_cut_within_an_event_gives_the_events_before_and_an_error_worth_a_retry() {
        let events = watched(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"type\":\"ADDED\",\"object\":{}}\n{\"type\":\"MODI",
        )
        .await;
        assert!(matches!(events[0], Ok(crate::WatchEvent::Added(_))));
        assert!(matches!(&events[1], Err(error) if error.is_retryable()), "{events:?}");
        assert_eq!(events.len(), 2);
    }

    #[tokio::test]
    async fn a_watch_cut_within_a_chunk_is_an_error_too() {
        let events =
            watched(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{\"type\":\"ADDED\"").await;
        assert!(matches!(events.as_slice(), [Err(error)] if error.is_retryable()), "{events:?}");
    }

    #[tokio::test]
    async fn what_is_no_http_is_an_error_that_names_the_server() {
        let error = answering(b"SSH-2.0-OpenSSH_9.2\r\n").await.get_raw("/version").await.unwrap_err();
        assert!(error.message.contains("http://127.0.0.1:"), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_code_even_without_a_body() {
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 4\r\nContent-Length: 0\r\n\r\n";
        let error = answering(answer).await.get_raw("/version").await.unwrap_err();
        assert_eq!((error.code, error.details.retry_after_seconds), (429, 4));
    }
}
