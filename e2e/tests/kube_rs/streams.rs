//! Talks with processes and connections to ports, as kube-rs makes them.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use claw_e2e::{
    Cluster, Options,
    need::{self, Need},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{client, soon};

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_talks_to_processes_and_ports() {
    if !need::all("kube_rs_talks_to_processes_and_ports", &[Need::Root]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let pods: Api<Pod> = Api::namespaced(client(&cluster).await, "default");
    let parrot = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "parrot"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "main", "image": "clawbernetes.io/toolbox:1", "args": ["parrot"], "stdin": true,
                "readinessProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 1}},
        ]},
    });
    let parrot: Pod = serde_json::from_value(parrot).unwrap();
    pods.create(&PostParams::default(), &parrot).await.unwrap();
    soon("the pod listens", await_condition(pods.clone(), "parrot", is_ready)).await.unwrap();
    executes(&pods).await;
    forwards(&pods).await;
}

fn is_ready(pod: Option<&Pod>) -> bool {
    let mut conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref()).into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn executes(pods: &Api<Pod>) {
    let params = AttachParams::default().stdin(true).stderr(true);
    let mut cat = pods.exec("parrot", ["cat"], &params).await.unwrap();
    let (mut stdin, mut stdout) = (cat.stdin().unwrap(), cat.stdout().unwrap());
    stdin.write_all(b"there and back").await.unwrap();
    // Version 5 of the protocol can say that there is nothing more to read.
    stdin.shutdown().await.unwrap();
    let mut back = String::new();
    soon("the end of the output", stdout.read_to_string(&mut back)).await.unwrap();
    assert_eq!(back, "there and back");
    let status = soon("the status", cat.take_status().unwrap()).await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"), "{status:?}");
    cat.join().await.unwrap();

    let three = pods.exec("parrot", ["sh", "-c", "echo err >&2; exit 3"], &AttachParams::default()).await;
    let mut three = three.unwrap();
    let mut said = String::new();
    soon("the errors", three.stderr().unwrap().read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "err\n");
    let status = soon("the status", three.take_status().unwrap()).await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!(causes[0].message.as_deref(), Some("3"));
}

async fn forwards(pods: &Api<Pod>) {
    let mut forwarder = pods.portforward("parrot", &[7000, 7999]).await.unwrap();
    let mut open = forwarder.take_stream(7000).unwrap();
    open.write_all(b"polly").await.unwrap();
    let mut back = [0; 5];
    soon("the echo", open.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"polly");
    let refused = soon("an error", forwarder.take_error(7999).unwrap()).await.unwrap();
    assert!(refused.contains("Connection refused"), "{refused}");
}
