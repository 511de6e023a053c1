//! What pods took of a machine, it has back when they are gone: no mount, control group, interface, rule,
//! process, file or descriptor is there that was not there before. The agent has a network and mounts of its own, so that
//! what others do on the machine meanwhile is not counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use claw_e2e::{
    Cluster, Options, host,
    http::Http,
    kubectl::Outcome,
    need::{self, Need},
    netns::DialOut,
    wait,
};
use futures::{StreamExt as _, stream};
use http::Method;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/namespaces/default/pods";

/// Of `make test`.
const PODS: usize = 60;

/// Where there is time for it: `make chaos`, which sets `CHAOS_KILLS`.
const MANY_PODS: usize = 200;

/// Requests at a time.
const AT_ONCE: usize = 8;

/// Connections come and go; what each pod leaves would be hundreds.
const DESCRIPTORS_MORE: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_start_run_and_go_and_leave_nothing() {
    let story = "many_pods_start_run_and_go_and_leave_nothing";
    if !need::all(story, &[Need::Root, Need::Kubectl, Need::Networks]) {
        return;
    }
    let pods = if env::var_os("CHAOS_KILLS").is_some() { MANY_PODS } else { PODS };
    let network = DialOut::new();
    let empty = interfaces(&network);
    let mut options = Options::up(0);
    options.listen = format!("{}:0", network.host);
    let mut cluster = Cluster::start(options);
    cluster.join_node_from("worker", network.prefix(), &["--max-pods", "250"]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let service = http.post("/api/v1/namespaces/default/services", &service()).await.expect("a service");
    http.post("/api/v1/namespaces/default/configmaps", &config()).await.expect("a config map");
    let machine = Machine {
        agent: cluster.node("worker").pid().as_raw(),
        folder: cluster.scratch().to_owned(),
        network: &network,
    };

    // The first pod brings the bridge and the image, which stay.
    let first = start(&http, 1).await;
    delete(&http).await;
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    let before = wait::until("the machine is at rest after the first pod", wait::LATER, || {
        let left = machine.left(&first);
        wait::check(left.is_at_rest(address), format!("{left:#?}")).map(|()| left)
    });
    let descriptors = machine.descriptors();

    let uids = start(&http, pods).await;
    wait::until("all is there", wait::LATER, || machine.left(&uids).is_more_than(&before, pods));
    delete(&http).await;
    wait::until("all is as it was", wait::LATER, || machine.left(&uids).is_as(&before));
    wait::until("the agent has let go of its descriptors", wait::LATER, || {
        let now = machine.descriptors();
        let told = format!("the agent had {descriptors} descriptors, and has {now}");
        wait::check(now <= descriptors + DESCRIPTORS_MORE, told)
    });

    // Without pods the agent takes back the rest when it ends.
    cluster.node("worker").stop();
    assert_eq!(interfaces(&network), empty, "no interface stays");
    assert_eq!(inside(&network, &["nft", "list", "tables", "ip"]), "", "no rules stay");
    cluster.node("worker").start();
}

/// Everything that a pod could leave, by what it is.
#[derive(Debug, PartialEq, Eq)]
struct Left(BTreeMap<&'static str, BTreeSet<String>>);

impl Left {
    /// Whether no pod is here, and the rules say so: the service of that address is refused, the API server's leads to the server,
    /// and no port of the machine leads anywhere. Rules follow pods, later than all else does.
    fn is_at_rest(&self, service: &str) -> bool {
        let elements: Vec<&str> =
            self.0["rules"].iter().filter_map(|line| line.trim().strip_prefix("elements = ")).collect();
        let refused = format!("{{ {service} . tcp . 80 }}");
        let leads =
            |to: &&str| to.starts_with("{ 10.96.0.1 . tcp . 443 : goto service-") && to.ends_with(" }");
        self.0["groups"].is_empty()
            && !self.0["files"].iter().any(|file| file.contains("/pods/"))
            && elements.len() == 2
            && elements.contains(&refused.as_str())
            && elements.iter().any(leads)
    }

    fn is_as(&self, before: &Self) -> Result<(), String> {
        let more =
            self.0.iter().map(|(what, all)| (what, all.difference(&before.0[what]).collect::<Vec<_>>()));
        let more: BTreeMap<_, _> = more.filter(|(_, more)| !more.is_empty()).collect();
        wait::check(more.is_empty(), format!("{more:#?}"))
    }

    /// A comparison that finds nothing must have been able to find something.
    fn is_more_than(&self, before: &Self, pods: usize) -> Result<(), String> {
        let grown = self.0.iter().map(|(what, all)| (what, all.difference(&before.0[what]).count()));
        let few: Vec<_> = grown.filter(|(_, more)| *more < pods).collect();
        wait::check(few.is_empty(), format!("{pods} pods, but only {few:?} more"))
    }
}

/// The machine of one agent.
struct Machine<'a> {
    agent: i32,
    folder: PathBuf,
    network: &'a DialOut,
}

impl Machine<'_> {
    fn left(&self, uids: &[String]) -> Left {
        let lines = |text: String| text.lines().map(str::to_owned).collect();
        let processes = host::processes(&self.folder).into_iter().map(|(pid, line)| format!("{pid} {line}"));
        let mut files = BTreeSet::new();
        files_below(&self.folder.join("worker/node"), &mut files);
        Left(BTreeMap::from([
            ("mounts", self.mounts()),
            ("groups", groups(uids)),
            ("interfaces", interfaces(self.network)),
            ("rules", lines(inside(self.network, &["nft", "list", "ruleset"]))),
            ("processes", processes.collect()),
            ("files", files),
        ]))
    }

    /// Of the agent's own mount namespace, pinned namespaces of pods among them.
    fn mounts(&self) -> BTreeSet<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.agent)).expect("the agent runs");
        // Without the first two columns, which are numbers.
        table.lines().filter_map(|line| line.splitn(3, ' ').nth(2).map(str::to_owned)).collect()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.agent)).expect("the agent runs").count()
    }
}

/// Control groups of these pods, in all hierarchies.
fn groups(uids: &[String]) -> BTreeSet<String> {
    let roots = fs::read_dir("/sys/fs/cgroup").expect("there are control groups").flatten();
    let roots: Vec<PathBuf> =
        roots.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]).collect();
    let all =
        uids.iter().flat_map(|uid| roots.iter().map(move |root| root.join(format!("clawbernetes/pod{uid}"))));
    let all = all.filter(|path| path.exists());
    all.map(|path| path.display().to_string()).collect()
}

/// Paths; what images hold is the image's.
fn files_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !path.ends_with("images") {
            files_below(&path, found);
        }
        found.insert(path.display().to_string());
    }
}

/// Their names: what else is said of a bridge depends on who is on it.
fn interfaces(network: &DialOut) -> BTreeSet<String> {
    let listed = inside(network, &["ip", "-brief", "link"]);
    listed.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

fn inside(network: &DialOut, command: &[&str]) -> String {
    let words = network.prefix();
    let outcome = Outcome::of(Command::new(&words[0]).args(&words[1..]).args(command), "");
    outcome.success().unwrap_or_else(|text| panic!("{text}"))
}

/// Starts pods and waits until all are ready; gives their uids.
async fn start(http: &Http, count: usize) -> Vec<String> {
    let created = stream::iter(0..count).map(|number| async move {
        let created = http.post(PATH, &pod(number)).await.expect("a pod");
        created["metadata"]["uid"].as_str().expect("a uid").to_owned()
    });
    let uids = created.buffer_unordered(AT_ONCE).collect().await;
    wait::until_async("all pods are ready", wait::LATER, || async {
        let list = http.get(PATH).await.map_err(|error| error.to_string())?;
        let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        wait::check(ready == count, format!("{ready} of {count}"))
    })
    .await;
    uids
}

async fn delete(http: &Http) {
    http.ask(Method::DELETE, PATH, &[], "").await.expect("answers").expect(200);
    wait::until_async("all pods are gone", wait::LATER, || async {
        let list = http.get(PATH).await.map_err(|error| error.to_string())?;
        let left = list["items"].as_array().map_or(0, Vec::len);
        wait::check(left == 0, format!("{left} pods"))
    })
    .await;
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// One that uses what a machine has to give back.
fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{number}"), "labels": {"app": "many"}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "initContainers": [{"name": "before", "image": "clawbernetes.io/toolbox:1", "args": ["true"]}],
            "containers": [{
                "name": "main",
                "image": "clawbernetes.io/toolbox:1",
                "args": ["serve"],
                "ports": [{"containerPort": 8080, "hostPort": 20_000 + number}],
                "volumeMounts": [
                    {"name": "memory", "mountPath": "/memory"},
                    {"name": "config", "mountPath": "/config"},
                    {"name": "config", "mountPath": "/part", "subPath": "key"},
                ],
            }],
            "volumes": [
                {"name": "memory", "emptyDir": {"medium": "Memory"}},
                {"name": "config", "configMap": {"name": "many"}},
            ],
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "many"},
        "spec": {"selector": {"app": "many"}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

fn config() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "many"}, "data": {"key": "value"}})
}
