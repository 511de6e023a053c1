//! A server on a real port of this machine, and short ways to ask it.

use claw_apiserver::{Config, Server, StoreKind};
use claw_e2e::{
    binary::workspace,
    http::{Answer, Credentials, Events, Http},
    wait::{SOON, check, until_async},
};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const DATASETS: &str = "/apis/data.example.com/v1/namespaces/default/datasets";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What kubectl accepts when it wants to print a table.
pub const TABLE: &str = "accept: application/json;as=Table;v=v1;g=meta.k8s.io,\
                         application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

/// A watch that begins with what exists and says where that ends.
pub const WATCH_LIST: &str =
    "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// Kinds of patches, as media types.
pub const JSON: &str = "application/json-patch+json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

pub struct Rig {
    pub server: Server,
    /// As administrator.
    pub http: Http,
    pub folder: TempDir,
}

impl Rig {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = Config { store: StoreKind::Memory, ..Config::new(folder.path(), listen) };
        let server = Server::start(config).await.unwrap();
        let credentials = Credentials::read(&server.kubeconfig_path());
        Self { http: Http::to(server.url(), &credentials), server, folder }
    }

    /// Sends `METHOD PATH` with headers (`name: value`) and a body.
    pub async fn send(&self, request: &str, headers: &[&str], body: &str) -> Answer {
        send(&self.http, request, headers, body).await
    }

    /// Reads what must be there.
    pub async fn get(&self, path: &str) -> Value {
        self.send(&format!("GET {path}"), &[], "").await.expect(200)
    }

    /// Makes what must be accepted.
    pub async fn post(&self, path: &str, object: &Value) -> Value {
        self.send(&format!("POST {path}"), &[], &object.to_string()).await.expect(201)
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send(&format!("PUT {path}"), &[], &object.to_string()).await
    }

    /// `media` is the kind of the patch.
    pub async fn patch(&self, path: &str, media: &str, patch: &Value) -> Answer {
        self.send(&format!("PATCH {path}"), &[&format!("content-type: {media}")], &patch.to_string()).await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.send(&format!("DELETE {path}"), &["content-type: application/json"], &options.to_string()).await
    }

    /// A map in the default namespace.
    pub async fn map(&self, name: &str) -> Value {
        self.post(MAPS, &map(name)).await
    }

    pub async fn maps(&self, names: &[&str]) {
        for name in names {
            self.map(name).await;
        }
    }

    /// `path` carries the parameters of the watch.
    pub async fn watch(&self, path: &str) -> Watched {
        Watched(self.http.watch(path).await.unwrap())
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Watched {
        Watched(self.http.watch_as(path, &[split(accept)]).await.unwrap())
    }

    /// Drops the history that watches and pages could go on from; what was seen before is too old then.
    pub async fn forget_history(&self) {
        self.post("/api/v1/namespaces/kube-system/configmaps", &json!({"metadata": {"generateName": "x-"}}))
            .await;
        let store = self.server.service().store();
        store.compact(store.revision()).await.unwrap();
    }

    /// Serves the kind of the example, `datasets`.
    pub async fn define_datasets(&self) {
        let definition =
            std::fs::read_to_string(workspace().join("examples/custom-kind/definition.yaml")).unwrap();
        self.send(&format!("POST {DEFINITIONS}"), &["content-type: application/yaml"], &definition)
            .await
            .expect(201);
        until_async("the kind is served", SOON, || async {
            let answer = self.send(&format!("GET {DATASETS}"), &[], "").await;
            check(answer.code == 200, answer.text())
        })
        .await;
    }

    /// Every resource that can be listed: its collection in all namespaces, and its kind.
    pub async fn listable(&self) -> Vec<(String, String)> {
        self.that_can("list").await
    }

    /// The same of those that can be watched.
    pub async fn watchable(&self) -> Vec<(String, String)> {
        self.that_can("watch").await
    }

    async fn that_can(&self, verb: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for root in ["/api", "/apis"] {
            let told = self.send(&format!("GET {root}"), &[AGGREGATED], "").await.expect(200);
            for group in array(&told["items"]) {
                for version in array(&group["versions"]) {
                    found.extend(that_can(verb, root, group, version));
                }
            }
        }
        found
    }
}

/// What kubectl accepts of discovery.
pub const AGGREGATED: &str = "accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                              application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                              application/json";

fn that_can(verb: &str, root: &str, group: &Value, version: &Value) -> Vec<(String, String)> {
    let group = group["metadata"]["name"].as_str().map_or(String::new(), |name| format!("/{name}"));
    let path = format!("{root}{group}/{}", version["version"].as_str().unwrap());
    let resources = array(&version["resources"]).iter();
    resources
        .filter(|resource| array(&resource["verbs"]).contains(&json!(verb)))
        .map(|resource| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (format!("{path}/{}", text(&resource["resource"])), text(&resource["responseKind"]["kind"]))
        })
        .collect()
}

/// Sends `METHOD PATH` with headers (`name: value`) and a body.
pub async fn send(http: &Http, request: &str, headers: &[&str], body: &str) -> Answer {
    let (method, path) = request.split_once(' ').unwrap();
    let headers: Vec<_> = headers.iter().map(|line| split(line)).collect();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    http.ask(method, path, &headers, body.to_owned()).await.unwrap()
}

fn split(header: &str) -> (&str, &str) {
    header.split_once(": ").unwrap()
}

/// An open watch.
pub struct Watched(Events);

impl Watched {
    /// The next event, or `None` at a clean end.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(SOON, self.0.next()).await.expect("an event, or the end, in time").unwrap()
    }

    /// The types and names of the next events.
    pub async fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        for _ in 0..count {
            let Some(event) = self.next().await else { break };
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
            taken.push(format!("{} {name}", event["type"].as_str().unwrap()));
        }
        taken
    }
}

pub fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

pub fn dataset(name: &str) -> Value {
    json!({
        "apiVersion": "data.example.com/v1", "kind": "Dataset",
        "metadata": {"name": name}, "spec": {"source": "https://example.com/books"},
    })
}

pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]},
            },
        },
    })
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn names(list: &Value) -> Vec<&str> {
    array(&list["items"]).iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// The revision of an object or a list.
#[track_caller]
pub fn revision(of: &Value) -> u64 {
    of["metadata"]["resourceVersion"].as_str().unwrap_or_else(|| panic!("no revision: {of}")).parse().unwrap()
}

/// The `Status` that an error must be.
#[track_caller]
pub fn status(answer: &Answer, reason: &str, code: u16) -> Value {
    let status = answer.expect(code);
    let said =
        ["kind", "apiVersion", "status", "reason"].map(|field| status[field].as_str().unwrap_or_default());
    assert_eq!(said, ["Status", "v1", "Failure", reason], "{status}");
    assert_eq!(status["code"], code, "{status}");
    assert!(status["metadata"].is_object(), "{status}");
    assert!(!status["message"].as_str().unwrap_or_default().is_empty(), "{status}");
    assert_eq!(answer.headers["content-type"], "application/json");
    status
}
