//! The whole object service over gRPC: every way to write, batches, deadlines, readers who stop, and who may not.

use std::time::Duration;

use bytes::Bytes;
use claw_e2e::{
    Cluster, Options,
    http::{Credentials, Http},
};
use claw_schemas::proto::{
    BatchRequest, CreateRequest, DeleteRequest, GetRequest, Object, PatchRequest, ResourceRef, UpdateRequest,
    WatchEvent, WatchRequest, Write, WriteAnswer, WriteOptions, objects_client::ObjectsClient,
    watch_event::Type, write, write_answer::Answer,
};
use serde_json::{Value, json};
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A cluster, and its object service as the administrator sees it.
struct Stage {
    cluster: Cluster,
    objects: ObjectsClient<Channel>,
}

impl Stage {
    async fn set() -> Self {
        let cluster = Cluster::start(Options::server());
        let objects = connect(&cluster, true).await;
        Self { cluster, objects }
    }

    async fn patch(&mut self, request: PatchRequest) -> Result<Value, Status> {
        Ok(parsed(self.objects.patch(request).await?.get_ref()))
    }

    async fn get(&mut self, resource: ResourceRef) -> Result<Value, Status> {
        let request = GetRequest { resource: Some(resource), ..GetRequest::default() };
        Ok(parsed(self.objects.get(request).await?.get_ref()))
    }

    async fn batch(&mut self, writes: Vec<write::Write>) -> Result<Vec<WriteAnswer>, Status> {
        let writes = writes.into_iter().map(|write| Write { write: Some(write) }).collect();
        Ok(self.objects.batch(BatchRequest { writes }).await?.into_inner().answers)
    }
}

async fn connect(cluster: &Cluster, as_admin: bool) -> ObjectsClient<Channel> {
    let credentials = Credentials::of(cluster);
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&credentials.ca));
    if as_admin {
        tls = tls.identity(Identity::from_pem(&credentials.certificate, &credentials.key));
    }
    let endpoint =
        Endpoint::from_shared(cluster.url().to_owned()).expect("a URL").tls_config(tls).expect("TLS");
    ObjectsClient::new(endpoint.connect().await.expect("connects"))
}

fn map(name: &str) -> ResourceRef {
    resource("", "configmaps", name)
}

fn resource(group: &str, plural: &str, name: &str) -> ResourceRef {
    ResourceRef {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: plural.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        subresource: String::new(),
    }
}

fn body(object: &Value) -> Option<Object> {
    Some(Object { content_type: "application/json".to_owned(), body: Bytes::from(object.to_string()) })
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

fn create(name: &str, value: &str) -> CreateRequest {
    let object = body(&config_map(name, value));
    CreateRequest { resource: Some(map("")), object, options: None }
}

fn patch(resource: ResourceRef, kind: &str, patch: &Value) -> PatchRequest {
    let patch = Bytes::from(patch.to_string());
    PatchRequest { resource: Some(resource), patch_type: kind.to_owned(), patch, ..PatchRequest::default() }
}

fn apply(manager: &str, value: &str) -> PatchRequest {
    let options = WriteOptions { field_manager: manager.to_owned(), ..WriteOptions::default() };
    PatchRequest { options: Some(options), ..patch(map("applied"), APPLY, &config_map("applied", value)) }
}

fn parsed(object: &Object) -> Value {
    assert_eq!(object.content_type, "application/json");
    serde_json::from_slice(&object.body).expect("JSON")
}

/// The Kubernetes Status that travels beside a code.
fn stated(refused: &Status) -> Value {
    let status = refused.metadata().get_bin("clawbernetes-status-bin").expect("the Status travels along");
    serde_json::from_slice(&status.to_bytes().expect("base64")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_apply_conflict_and_force_over_grpc() {
    let mut stage = Stage::set().await;
    let made = stage.patch(apply("one", "1")).await.expect("apply creates");
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "one", "{made}");
    let refused = stage.patch(apply("two", "2")).await.expect_err("the field is another's");
    assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
    let cause = &stated(&refused)["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldManagerConflict"), &json!(".data.k")));
    let forced = PatchRequest { force: true, ..apply("two", "2") };
    let taken = stage.patch(forced).await.expect("force takes it");
    assert_eq!(taken["data"]["k"], "2");
    let nobody = stage.patch(apply("", "3")).await.expect_err("apply needs a manager");
    assert_eq!(nobody.code(), Code::InvalidArgument, "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_patch_works_on_objects_and_their_subresources_over_grpc() {
    let mut stage = Stage::set().await;
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}}});
    let sets = resource("apps", "replicasets", "");
    let request = CreateRequest { resource: Some(sets), object: body(&set), options: None };
    stage.objects.create(request).await.expect("creates");
    let web = || resource("apps", "replicasets", "web");
    let replace = json!([{"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "add", "path": "/metadata/labels", "value": {"by": "json"}}]);
    let patched =
        stage.patch(patch(web(), "application/json-patch+json", &replace)).await.expect("JSON patch");
    assert_eq!(patched["metadata"]["labels"], json!({"by": "json"}));
    let add = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b"}]}}}});
    let strategic = "application/strategic-merge-patch+json";
    let patched = stage.patch(patch(web(), strategic, &add)).await.expect("strategic merge patch");
    let containers = patched["spec"]["template"]["spec"]["containers"].as_array().expect("a list");
    assert_eq!(containers.len(), 2, "containers merge by name");
    let merge = json!({"metadata": {"labels": {"by": null}}});
    let patched = stage.patch(patch(web(), MERGE, &merge)).await.expect("merge patch");
    assert_eq!(patched["metadata"]["labels"]["by"], Value::Null);

    let scale = ResourceRef { subresource: "scale".to_owned(), ..web() };
    let scaled = stage.patch(patch(scale.clone(), MERGE, &json!({"spec": {"replicas": 3}}))).await;
    assert_eq!(scaled.expect("scales")["kind"], "Scale");
    assert_eq!(stage.get(scale).await.expect("reads the scale")["spec"]["replicas"], 3);
    let status = ResourceRef { subresource: "status".to_owned(), ..web() };
    let report = json!({"spec": {"replicas": 9}, "status": {"replicas": 1}});
    let reported = stage.patch(patch(status, MERGE, &report)).await.expect("reports");
    assert_eq!((&reported["status"]["replicas"], &reported["spec"]["replicas"]), (&json!(1), &json!(3)));

    let other = stage.patch(patch(web(), "text/plain", &json!({}))).await.expect_err("no patch type");
    assert_eq!(other.code(), Code::InvalidArgument, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_write_nothing_and_unknown_fields_warn_or_are_refused_over_grpc() {
    let mut stage = Stage::set().await;
    let mut object = config_map("odd", "1");
    object["dataa"] = json!({});
    let asked = |validation: &str, dry_run| CreateRequest {
        resource: Some(map("")),
        object: body(&object),
        options: Some(WriteOptions {
            field_validation: validation.to_owned(),
            dry_run,
            ..WriteOptions::default()
        }),
    };
    let refused = stage.objects.create(asked("Strict", false)).await.expect_err("strict refuses");
    assert!(refused.message().contains("unknown field \"dataa\""), "{refused:?}");
    let warned = stage.objects.create(asked("Warn", true)).await.expect("a dry run answers");
    let warning = warned.metadata().get("warning").expect("a warning").to_str().expect("ASCII");
    assert!(warning.contains("unknown field \"dataa\""), "{warning}");
    let missing = stage.get(map("odd")).await.expect_err("a dry run writes nothing");
    assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
    let ignored = stage.objects.create(asked("Ignore", false)).await.expect("ignored");
    assert!(ignored.metadata().get("warning").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_write_by_itself_in_order() {
    let mut stage = Stage::set().await;
    let update =
        UpdateRequest { resource: Some(map("a")), object: body(&config_map("a", "2")), options: None };
    let answers = stage
        .batch(vec![
            write::Write::Create(create("a", "1")),
            write::Write::Create(create("a", "again")),
            write::Write::Update(update),
            write::Write::Patch(patch(map("a"), MERGE, &json!({"data": {"more": "3"}}))),
            write::Write::Delete(DeleteRequest { resource: Some(map("none")), ..DeleteRequest::default() }),
            write::Write::Create(create("b", "1")),
        ])
        .await
        .expect("a batch as such does not fail");
    let told: Vec<_> = answers
        .iter()
        .map(|answer| match answer.answer.as_ref().expect("every write has an answer") {
            Answer::Object(object) => parsed(object)["data"].to_string(),
            Answer::Error(status) => parsed(status)["reason"].to_string(),
        })
        .collect();
    let expected = [
        r#"{"k":"1"}"#,
        r#""AlreadyExists""#,
        r#"{"k":"2"}"#,
        r#"{"k":"2","more":"3"}"#,
        r#""NotFound""#,
        r#"{"k":"1"}"#,
    ];
    assert_eq!(told, expected);
    assert_eq!(stage.get(map("a")).await.expect("there")["data"], json!({"k": "2", "more": "3"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_bounded_in_number_in_bytes_and_in_what_it_answers() {
    let mut stage = Stage::set().await;
    let many = vec![write::Write::Create(create("x", "1")); 257];
    let refused = stage.batch(many).await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let huge = "x".repeat(1_000_000);
    let bytes = (0..5).map(|i| write::Write::Create(create(&format!("huge-{i}"), &huge))).collect();
    let refused = stage.batch(bytes).await.expect_err("too large");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    for name in ["x", "huge-0"] {
        assert_eq!(stage.get(map(name)).await.expect_err("nothing was done").code(), Code::NotFound);
    }
    stage.objects.create(create("large", &huge)).await.expect("one fits");
    stage.objects = stage.objects.clone().max_decoding_message_size(usize::MAX);
    let touch = |i| write::Write::Patch(patch(map("large"), MERGE, &json!({"data": {"n": i}})));
    let answers = stage.batch((0..20).map(|i| touch(i.to_string())).collect()).await.expect("answers");
    let is_done = |answer: &WriteAnswer| matches!(answer.answer, Some(Answer::Object(_)));
    let done = answers.iter().take_while(|answer| is_done(answer)).count();
    assert!((1..20).contains(&done) && !answers[done..].iter().any(is_done), "{done} of {}", answers.len());
    let Some(Answer::Error(last)) = &answers[19].answer else { panic!("the last was tried") };
    assert_eq!(parsed(last)["reason"], "TooManyRequests");
    let large = stage.get(map("large")).await.expect("there");
    assert_eq!(large["data"]["n"], (done - 1).to_string(), "what was not tried was not done");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_ends_what_outlives_the_deadline_of_its_client() {
    let mut stage = Stage::set().await;
    let mut request = Request::new(WatchRequest { resource: Some(map("")), ..WatchRequest::default() });
    request.set_timeout(Duration::from_secs(1));
    let mut watch = stage.objects.watch(request).await.expect("watches").into_inner();
    // The client library gives up on answers that do not begin; a stream that has begun only the server ends.
    let over = loop {
        match watch.message().await {
            Ok(event) => assert!(event.is_some(), "the watch ended as if nothing were wrong"),
            Err(over) => break over,
        }
    };
    assert_eq!(over.code(), Code::DeadlineExceeded, "{over:?}");
    assert_eq!(stated(&over)["reason"], "Timeout");
    let mut odd = Request::new(GetRequest { resource: Some(map("x")), ..GetRequest::default() });
    odd.metadata_mut().insert("grpc-timeout", "soon".parse().expect("ASCII"));
    let refused = stage.objects.get(odd).await.expect_err("no such time");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_stops_is_not_waited_for_with_all_that_happens() {
    let mut stage = Stage::set().await;
    let made = parsed(stage.objects.create(create("busy", "0")).await.expect("creates").get_ref());
    let revision = made["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let request =
        WatchRequest { resource: Some(map("")), resource_version: revision, ..WatchRequest::default() };
    let mut watch = stage.objects.watch(request).await.expect("watches").into_inner();
    // More than the 24 MiB of events that the server keeps for all watches together.
    let filler = "x".repeat(1_000_000);
    let writes = 40;
    for n in 0..writes {
        let change = json!({"data": {"k": filler, "n": n.to_string()}});
        stage.patch(patch(map("busy"), MERGE, &change)).await.expect("patches");
    }
    let (mut seen, mut reached) = (0, String::new());
    while let Some(event) = watch.message().await.expect("the server ends it cleanly") {
        let object: Value = serde_json::from_slice(&event.body).expect("JSON");
        reached = object["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
        seen += 1;
    }
    assert!(seen < writes, "everything was kept for one who did not read");
    // Going on from there is no longer possible, and is told so.
    let request =
        WatchRequest { resource: Some(map("")), resource_version: reached, ..WatchRequest::default() };
    let mut watch = stage.objects.watch(request).await.expect("watches").into_inner();
    let last: WatchEvent = watch.message().await.expect("no failure").expect("an event");
    assert_eq!(last.r#type(), Type::Error);
    let status: Value = serde_json::from_slice(&last.body).expect("JSON");
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_is_refused_over_grpc_with_the_rule_that_is_missing_and_in_batches_too() {
    let mut stage = Stage::set().await;
    let http = Http::admin(&stage.cluster);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}});
    http.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect("an account");
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token =
        http.post("/api/v1/namespaces/default/serviceaccounts/reader/token", &ask).await.expect("a token");
    let token = format!("Bearer {}", token["status"]["token"].as_str().expect("a token"));
    let mut reader = connect(&stage.cluster, false).await;
    let mut request = Request::new(create("denied", "1"));
    request.metadata_mut().insert("authorization", token.parse().expect("ASCII"));
    let refused = reader.create(request).await.expect_err("nobody said it may");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    for word in ["system:serviceaccount:default:reader", "create", "configmaps"] {
        assert!(refused.message().contains(word), "{refused:?}");
    }
    let writes = vec![Write { write: Some(write::Write::Create(create("denied", "1"))) }];
    let mut batch = Request::new(BatchRequest { writes });
    batch.metadata_mut().insert("authorization", token.parse().expect("ASCII"));
    let answers = reader.batch(batch).await.expect("each write is refused by itself").into_inner().answers;
    let Some(Answer::Error(status)) = &answers[0].answer else { panic!("it was done: {answers:?}") };
    assert_eq!(parsed(status)["reason"], "Forbidden");
    assert_eq!(stage.get(map("denied")).await.expect_err("not there").code(), Code::NotFound);
}
