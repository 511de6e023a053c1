//! Traces of a whole cluster, as a collector receives them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use claw_e2e::{Cluster, Options, http::Http, wait};
use http::Method;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value},
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// Spans are sent every five seconds, and a machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// What a client calls its own span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A span as it was received.
#[derive(Clone, Debug)]
struct Span {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, String>,
}

impl Span {
    fn is(&self, attribute: &str, value: &str) -> bool {
        self.attributes.get(attribute).is_some_and(|found| found == value)
    }
}

/// A collector, in this process.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Listens; where it does.
    async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it listens");
        let collector = Self::default();
        let serving = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn find(&self, is_it: impl Fn(&Span) -> bool) -> Option<Span> {
        self.0.lock().expect("no panic").iter().find(|span| is_it(span)).cloned()
    }

    async fn until(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        wait::until_async(what, LIMIT, async || {
            self.find(&is_it).ok_or_else(|| {
                let spans = self.0.lock().expect("no panic");
                let names: BTreeSet<&str> = spans.iter().map(|span| &*span.name).collect();
                format!("{names:?}")
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = self.0.lock().expect("no panic");
        for of_resource in request.into_inner().resource_spans {
            let resource = texts(of_resource.resource.unwrap_or_default().attributes);
            let service = resource.get("service.name").cloned().unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                received.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: texts(span.attributes),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| {
        let value = match attribute.value?.value? {
            any_value::Value::StringValue(text) => text,
            any_value::Value::IntValue(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        Some((attribute.key, value))
    };
    attributes.into_iter().filter_map(text).collect()
}

fn up(collector: &str) -> Cluster {
    Cluster::start(Options::up(1).with(&["--hollow", "--otlp-endpoint", collector]))
}

fn map(name: &str) -> String {
    json!({"metadata": {"name": name}}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_requests_below_their_clients_and_what_follows_from_them() {
    let (collector, address) = Collector::start().await;
    let cluster = tokio::task::block_in_place(|| up(&format!("http://{address}")));
    let http = Http::admin(&cluster);

    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [("traceparent", &*parent), ("content-type", "application/json"), ("audit-id", "traced-1")];
    http.ask(Method::POST, MAPS, &headers, map("traced")).await.expect("an answer").expect(201);
    let request = collector.until("the request", |span| span.name == "POST configmaps").await;
    assert_eq!((&*request.trace, &*request.parent, &*request.service), (TRACE, SPAN, "clawbernetes"));
    for (attribute, value) in [
        ("k8s.verb", "POST"),
        ("k8s.resource", "configmaps"),
        ("k8s.namespace", "default"),
        ("http.response.status_code", "201"),
        ("audit_id", "traced-1"),
    ] {
        assert!(request.is(attribute, value), "{attribute} is not {value}: {request:?}");
    }
    let below = |span: &Span| span.name == "commit" && span.parent == request.id && span.trace == TRACE;
    collector.until("what it waited for on the disk", below).await;

    // Somebody who is no administrator waits for a turn.
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = wait::until_async("a token", LIMIT, async || {
        let answer = http.post(path, &json!({"spec": {}})).await.map_err(|error| error.to_string())?;
        answer["status"]["token"].as_str().map(str::to_owned).ok_or("none yet".to_owned())
    })
    .await;
    let stranger = Http::bearer(&cluster, &token);
    let refused = stranger.ask(Method::GET, MAPS, &[("audit-id", "traced-2")], "").await.expect("an answer");
    assert_eq!(refused.code, 403);
    let request = collector.until("the refusal", |span| span.is("audit_id", "traced-2")).await;
    assert!(request.parent.is_empty() && request.is("http.response.status_code", "403"), "{request:?}");
    assert!(request.is("enduser.id", "system:serviceaccount:default:default"), "{request:?}");
    collector.until("its turn", |span| span.name == "queue" && span.parent == request.id).await;

    let web = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        }},
    });
    http.post("/apis/apps/v1/namespaces/default/deployments", &web).await.expect("a sound deployment");
    let is_run = |span: &Span| span.name == "reconcile deployment" && span.is("controller", "deployment");
    collector.until("the controller's run", |span| is_run(span) && span.parent.is_empty()).await;
    let start = collector.until("the start of a container", |span| span.name == "start container").await;
    assert!(start.is("container", "main") && start.is("image", "x"), "{start:?}");
    assert!(start.attributes["k8s.pod"].starts_with("default/web-"), "{start:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_hands_its_last_spans_over() {
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    let mut cluster = tokio::task::block_in_place(|| up(&endpoint));
    let http = Http::admin(&cluster);
    let headers = [("content-type", "application/json"), ("audit-id", "the-last")];
    http.ask(Method::POST, MAPS, &headers, map("last")).await.expect("an answer").expect(201);
    assert_eq!(tokio::task::block_in_place(|| cluster.stop()), 0);
    assert!(collector.find(|span| span.is("audit_id", "the-last")).is_some(), "it was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_said_once_and_hinders_nobody() {
    // Taken, so that nobody else gets it, and not listened on.
    let taken = tokio::net::TcpSocket::new_v4().expect("a socket");
    taken.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let port = taken.local_addr().expect("it is bound").port();
    let mut cluster = tokio::task::block_in_place(|| up(&format!("http://127.0.0.1:{port}")));
    let http = Http::admin(&cluster);
    let told = |cluster: &Cluster| cluster.log().matches("traces are lost").count();
    http.post(MAPS, &json!({"metadata": {"name": "one"}})).await.expect("it is stored");
    wait::until_async("the loss is told", LIMIT, async || {
        wait::check(told(&cluster) > 0, cluster.log_tail())
    })
    .await;
    // What is made of this is tried to be sent at the end at the latest.
    http.post(MAPS, &json!({"metadata": {"name": "two"}})).await.expect("it is stored");
    assert_eq!(tokio::task::block_in_place(|| cluster.stop()), 0);
    assert_eq!(told(&cluster), 1, "{}", cluster.log_tail());
}
