//! gRPC: messages to the object service and to the hub of nodes, sound and damaged. Each call gets a status that is not the
//! server's fault.

use std::{cell::OnceCell, collections::BTreeSet, time::Duration};

use axum::{Router, body::Body};
use claw_apiserver::{
    auth::{BOOTSTRAP_USER_PREFIX, BOOTSTRAPPERS, Identity, JoinTokens},
    grpc,
    nodes::{Hub, HubConfig, Join},
    pki::{LEAF_LIFE, Pki},
};
use claw_schemas::proto::{self, agent_message::Message as Said};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use prost::Message;
use tower::ServiceExt as _;

use crate::{json, tape::Tape, world};

/// Status codes that say that the server is at fault: unknown, internal, lost data.
const SERVERS_FAULT: [&str; 3] = ["2", "13", "15"];

struct Served {
    router: Router,
    _hub: std::sync::Arc<Hub>,
    _folder: tempfile::TempDir,
}

thread_local! {
    static SERVED: OnceCell<Served> = const { OnceCell::new() };
}

impl Served {
    fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), &BTreeSet::from(["localhost".to_owned()])).unwrap();
        world::within(|world| {
            world.runtime.block_on(async {
                let config = HubConfig { node_grace: Duration::from_secs(3600) };
                let hub = Hub::start(world.service.clone(), config).await.unwrap();
                let tokens = JoinTokens::new(world.service.clone());
                let join = Join::new(hub.clone(), tokens, pki.authority().clone(), LEAF_LIFE);
                let (router, _) = grpc::routes(world.service.clone(), hub.clone(), join).await.unwrap();
                Self { router, _hub: hub, _folder: folder }
            })
        })
    }
}

/// One call: its path, who makes it, and its messages.
struct Call {
    method: &'static str,
    who: Identity,
    messages: Vec<Vec<u8>>,
}

/// One call, some of whose bytes may be others.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let mut call = call(&mut tape);
    let mut harmed = false;
    for message in call.messages.iter_mut().filter(|message| !message.is_empty()) {
        for _ in 0..tape.below(3) {
            let at = tape.below(message.len());
            message[at] = tape.byte();
            harmed = true;
        }
    }
    let (method, status, said) = answer(call);
    // tonic calls bytes that are no message an internal error.
    let is_told = harmed && said.contains("decode");
    assert!(!SERVERS_FAULT.contains(&&*status) || is_told, "{method}: {status} {said}");
}

fn answer(call: Call) -> (&'static str, String, String) {
    let Call { method, who, messages } = call;
    let framed = messages.iter().flat_map(|message| {
        let length = u32::try_from(message.len()).expect("messages are small").to_be_bytes();
        [&[0], &length[..], message].concat()
    });
    let mut request = Request::post(format!("/clawbernetes.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(framed.collect::<Vec<u8>>()))
        .expect("the parts are sound");
    request.extensions_mut().insert(who);
    let router = SERVED.with(|served| served.get_or_init(Served::begin).router.clone());
    let headers = world::within(|world| {
        world.runtime.block_on(async {
            let response = router.oneshot(request).await.expect("an answer, whatever it is");
            let head = response.headers().clone();
            // A watch does not end by itself.
            if head.contains_key("grpc-status") || method.ends_with("Watch") {
                return head;
            }
            let body = response.into_body().collect().await.expect("the answer is whole");
            body.trailers().cloned().unwrap_or(head)
        })
    });
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    (method, text(&headers, "grpc-status"), text(&headers, "grpc-message"))
}

fn call(tape: &mut Tape<'_>) -> Call {
    let resource = resource(tape);
    let admin = Identity::loopback("fuzz");
    let one = |method, message: Vec<u8>| Call { method, who: admin.clone(), messages: vec![message] };
    match tape.below(10) {
        0 => one("Objects/Get", proto::GetRequest { resource, ..Default::default() }.encode_to_vec()),
        1 => one("Objects/List", list(tape, resource).encode_to_vec()),
        2 => one("Objects/Create", create(tape, resource).encode_to_vec()),
        3 => {
            let proto::CreateRequest { resource, object, options } = create(tape, resource);
            one("Objects/Update", proto::UpdateRequest { resource, object, options }.encode_to_vec())
        }
        4 => one("Objects/Patch", patch(tape, resource).encode_to_vec()),
        5 => one("Objects/Batch", batch(tape, resource).encode_to_vec()),
        6 => one("Objects/Delete", delete(tape, resource).encode_to_vec()),
        7 => {
            let watch = proto::WatchRequest {
                resource,
                resource_version: tape.text(&["0", "x"]),
                ..Default::default()
            };
            one("Objects/Watch", watch.encode_to_vec())
        }
        8 => Call {
            method: "NodeLink/Join",
            who: Identity::of(&format!("{BOOTSTRAP_USER_PREFIX}abcdef"), &[BOOTSTRAPPERS]),
            messages: vec![
                proto::JoinRequest {
                    node_name: tape.text(&["n1", "N", "a..b"]),
                    certificate_request: tape.take(40).to_vec().into(),
                }
                .encode_to_vec(),
            ],
        },
        _ => Call { method: "NodeLink/Session", who: Identity::of_node("n1"), messages: session(tape) },
    }
}

fn resource(tape: &mut Tape<'_>) -> Option<proto::ResourceRef> {
    let (group, resource) =
        tape.pick(&[("apps", "deployments"), ("", "configmaps"), ("example.com", "things"), ("", "x")]);
    (tape.below(16) != 15).then(|| proto::ResourceRef {
        group: group.to_owned(),
        version: tape.text(&["v1", "v1", "v1", ""]),
        resource: resource.to_owned(),
        namespace: tape.text(&["default", "default", ""]),
        name: tape.text(&["", "web", "a/b"]),
        subresource: tape.text(&["", "", "status", "scale"]),
    })
}

fn options(tape: &mut Tape<'_>) -> Option<proto::WriteOptions> {
    Some(proto::WriteOptions {
        field_manager: tape.text(&["m", ""]),
        field_validation: tape.text(&["", "Strict", "Ignore"]),
        dry_run: true,
    })
}

fn body(tape: &mut Tape<'_>) -> Vec<u8> {
    let mut object = world::deployment();
    json::damage(tape, &mut object);
    object.to_string().into_bytes()
}

fn create(tape: &mut Tape<'_>, resource: Option<proto::ResourceRef>) -> proto::CreateRequest {
    let content_type = tape.text(&["application/json", "", "application/yaml"]);
    let object = Some(proto::Object { content_type, body: body(tape).into() });
    proto::CreateRequest { resource, object, options: options(tape) }
}

fn list(tape: &mut Tape<'_>, resource: Option<proto::ResourceRef>) -> proto::ListRequest {
    proto::ListRequest {
        resource,
        label_selector: tape.text(&["", "app=web", "a in (b"]),
        field_selector: tape.text(&["", "metadata.name=web", "x"]),
        limit: tape.number(),
        continue_token: tape.text(&["", "eyJ2IjoxfQ"]),
        resource_version: tape.text(&["", "0", "1", "99999999"]),
        resource_version_match: tape.text(&["", "Exact", "NotOlderThan"]),
    }
}

fn patch(tape: &mut Tape<'_>, resource: Option<proto::ResourceRef>) -> proto::PatchRequest {
    let types = [
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let patch_type = tape.text(&types);
    proto::PatchRequest {
        resource,
        patch_type,
        patch: body(tape).into(),
        options: options(tape),
        force: tape.flag(),
    }
}

fn delete(tape: &mut Tape<'_>, resource: Option<proto::ResourceRef>) -> proto::DeleteRequest {
    proto::DeleteRequest {
        resource,
        grace_period_seconds: tape.flag().then(|| tape.number()),
        propagation_policy: tape.text(&["", "Orphan", "x"]),
        precondition_uid: tape.text(&["", "u"]),
        precondition_resource_version: tape.text(&["", "1"]),
        dry_run: true,
    }
}

fn batch(tape: &mut Tape<'_>, resource: Option<proto::ResourceRef>) -> proto::BatchRequest {
    use proto::write::Write;
    let mut writes = Vec::new();
    while tape.more(writes.len(), 4) {
        let write = match tape.below(4) {
            0 => Some(Write::Create(create(tape, resource.clone()))),
            1 => Some(Write::Patch(patch(tape, resource.clone()))),
            2 => Some(Write::Delete(delete(tape, resource.clone()))),
            _ => None,
        };
        writes.push(proto::Write { write });
    }
    proto::BatchRequest { writes }
}

/// What an agent says, which may be anything after its hello.
fn session(tape: &mut Tape<'_>) -> Vec<Vec<u8>> {
    let mut node = serde_json::json!({"metadata": {"name": "n1", "labels": {"a": "b"}}, "status": {"capacity": {"cpu": "1"}}});
    json::damage(tape, &mut node);
    let hello = proto::Hello {
        node_name: tape.text(&["n1", "n1", "n2"]),
        instance_id: tape.text(&["i", ""]),
        node: node.to_string().into_bytes().into(),
        ..Default::default()
    };
    let mut said = vec![Some(Said::Hello(hello))];
    while tape.more(said.len(), 5) {
        let mut status = serde_json::json!({
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "ready": true, "restartCount": 1, "image": "a", "imageID": ""}],
        });
        json::damage(tape, &mut status);
        let status = status.to_string().into_bytes();
        said.push(match tape.below(6) {
            0 => Some(Said::Heartbeat(proto::Heartbeat { sequence: 1 })),
            1 => Some(Said::PodStatus(proto::PodStatus {
                namespace: "default".to_owned(),
                name: tape.text(&["p", ""]),
                uid: "u".to_owned(),
                status: status.into(),
                sequence: 1,
            })),
            2 => Some(Said::NodeStatus(proto::NodeStatus { status: status.into(), sequence: 2 })),
            3 => Some(Said::Event(proto::EventReport { event: status.into() })),
            4 => Some(Said::StreamRefused(proto::StreamRefused {
                code: tape.below(600) as i32,
                ..Default::default()
            })),
            _ => None,
        });
    }
    said.into_iter().map(|message| proto::AgentMessage { message }.encode_to_vec()).collect()
}
