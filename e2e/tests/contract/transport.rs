//! Connections, credentials, and the headers around requests.

use claw_e2e::http::{Credentials, Http, tls};
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;

use crate::server::{DEPLOYMENTS, MAPS, Rig, deployment, send, status};

#[tokio::test(flavor = "multi_thread")]
async fn https_is_http_2_or_http_1_1_as_the_client_proposes() {
    let rig = Rig::start().await;
    let credentials = Credentials::read(&rig.server.kubeconfig_path());
    let config = || {
        HttpsConnectorBuilder::new().with_tls_config(tls(&credentials.ca, Some(&credentials))).https_only()
    };
    for (connector, expected) in [
        (config().enable_http2().build(), Version::HTTP_2),
        (config().enable_http1().build(), Version::HTTP_11),
    ] {
        let client: Client<_, Full<bytes::Bytes>> =
            Client::builder(TokioExecutor::new()).http2_only(expected == Version::HTTP_2).build(connector);
        let request = Request::get(format!("{}{MAPS}", rig.server.url())).body(Full::default()).unwrap();
        let answer = client.request(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, expected));
        assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_unknown_is_told_401_and_who_may_not_403_in_a_status() {
    let rig = Rig::start().await;
    let stranger = Http::stranger(rig.server.url(), &Credentials::read(&rig.server.kubeconfig_path()).ca);
    let list = format!("GET {MAPS}");
    status(&send(&stranger, &list, &[], "").await, "Unauthorized", 401);
    status(&send(&stranger, &list, &["authorization: Bearer wrong"], "").await, "Unauthorized", 401);

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    rig.post(accounts, &json!({"metadata": {"name": "bot"}})).await;
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = rig.post(&format!("{accounts}/bot/token"), &asked).await;
    let bearer = format!("authorization: Bearer {}", token["status"]["token"].as_str().unwrap());
    let told = status(&send(&stranger, &list, &[&bearer], "").await, "Forbidden", 403);
    let words = "configmaps is forbidden: User \"system:serviceaccount:default:bot\" cannot list resource \"configmaps\"";
    assert!(told["message"].as_str().unwrap().starts_with(words), "{told}");
    assert_eq!(told["details"]["kind"], "configmaps");

    let admin = std::fs::read_to_string(rig.folder.path().join("admin.token")).unwrap();
    let bearer = format!("authorization: Bearer {}", admin.trim());
    send(&stranger, &list, &[&bearer], "").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_says_about_itself_is_tolerated_and_warnings_come_as_headers() {
    let rig = Rig::start().await;
    let mut object = deployment("web");
    object["spec"]["wat"] = json!(1);
    let headers = [
        "kubectl-command: kubectl create",
        "kubectl-session: 00000000-0000-0000-0000-000000000000",
        "accept-encoding: gzip",
        "user-agent: kubectl/v1.36.2 (linux/amd64) kubernetes/abcdef0",
        "content-type: application/json",
    ];
    let made = rig.send(&format!("POST {DEPLOYMENTS}?timeout=32s"), &headers, &object.to_string()).await;
    made.expect(201);
    assert_eq!(made.headers["warning"], r#"299 - "unknown field \"spec.wat\"""#);
    rig.send("GET /apis?timeout=32s", &headers[..4], "").await.expect(200);
}
