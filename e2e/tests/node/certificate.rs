//! A node renews its certificate by itself, and what runs on it does not notice.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use claw_apiserver::pki::Facts;
use claw_e2e::{
    Cluster, Options, host,
    http::Http,
    need::{self, Need},
    wait,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

/// Long enough that the tenth that is left at the latest moment holds a slow machine's tries.
const LIFE: Duration = Duration::from_secs(180);

/// Twice a life.
const RENEWED_LIMIT: Duration = Duration::from_secs(360);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_renews_its_certificate_and_what_runs_does_not_notice() {
    let story = "a_node_renews_its_certificate_and_what_runs_does_not_notice";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let life = LIFE.as_secs().to_string();
    let mut cluster = Cluster::start(Options::up(0).with(&["--node-certificate-life", &life]));
    cluster.join_node("worker", &[]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let (first, agent) = (certificate(&cluster), cluster.node("worker").pid());
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &pod("before"));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/before", "--timeout=600s"]);
    let process = container(&cluster, "before");

    let second = wait::until("it has another certificate", RENEWED_LIMIT, || {
        let now = certificate(&cluster);
        wait::check(now != first, "it is the first").map(|()| now)
    });
    assert!(end_of(&second) - LIFE < end_of(&first), "it was given before the end of the first");
    let has_ended = || end_of(&first) < SystemTime::now();
    wait::until("the first has expired", RENEWED_LIMIT, || wait::check(has_ended(), "it is good"));
    cluster.node("worker").becomes(&http, "True").await;
    // The server hears of a new pod, and the agent of it, by the new one.
    kubectl.ok_with(&["apply", "-f", "-"], &pod("after"));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/after", "--timeout=600s"]);
    assert_eq!(cluster.node("worker").pid(), agent, "by itself");
    assert_eq!(container(&cluster, "before"), process, "it is the same process");
    let lines = kubectl.ok(&["logs", "before"]);
    for (number, line) in (1..).zip(lines.lines()) {
        assert_eq!(line, format!("before {number}"), "every line is there, once");
    }
    let pod = http.get("/api/v1/namespaces/default/pods/before").await.expect("reads");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{pod}");
}

/// What the agent keeps.
fn certificate(cluster: &Cluster) -> CertificateDer<'static> {
    let path = cluster.scratch().join("worker/identity/identity.json");
    let record: Value = serde_json::from_slice(&fs::read(path).expect("it has joined")).expect("a record");
    let pem = record["certificate_chain_pem"].as_str().expect("text");
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

fn end_of(certificate: &CertificateDer<'_>) -> SystemTime {
    Facts::read(certificate).expect("it parses").not_after
}

/// It is told as started a moment before it is what it is to be.
fn container(cluster: &Cluster, word: &str) -> i32 {
    wait::until(&format!("{word} runs"), wait::SOON, || {
        let all = host::processes(cluster.scratch());
        let found = all.iter().find(|(_, line)| line.starts_with("/toolbox") && line.contains(word));
        found.map(|(pid, _)| *pid).ok_or_else(|| format!("{all:?}"))
    })
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n    \
         - name: main\n      image: clawbernetes.io/toolbox:1\n      \
         args: [lines, --text, {name}, --count, \"100000\", --interval-ms, \"100\"]\n"
    )
}
