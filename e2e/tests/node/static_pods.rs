//! Pods that a folder on the machine says: they run with and without a server, people see them by their mirrors, and a
//! mirror decides nothing.

use std::{fs, path::PathBuf};

use claw_e2e::{
    Cluster, Options, host,
    http::Http,
    need::{self, Need},
    wait,
};
use http::Method;
use serde_json::Value;

const PATH: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(flavor = "multi_thread")]
async fn static_pods_start_and_all_pods_go_on_while_the_server_is_away() {
    let story = "static_pods_start_and_all_pods_go_on_while_the_server_is_away";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut story = Story::start().await;
    story.cluster.kubectl().ok_with(&["apply", "-f", "-"], &pod("ordinary"));
    let ordinary = wait::until("an ordinary pod runs", wait::LATER, || story.runs("ordinary"));

    story.cluster.kill();
    story.says("early", "early");
    let early = wait::until("a static pod starts without a server", wait::LATER, || story.runs("early"));
    // The agent, too, starts without one, and finds what runs.
    story.cluster.node("worker").stop();
    story.says("late", "late");
    story.cluster.node("worker").start();
    let late =
        wait::until("another starts with an agent that met no server", wait::LATER, || story.runs("late"));
    assert_eq!((story.runs("ordinary"), story.runs("early")), (Ok(ordinary), Ok(early)), "they go on");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(ordinary), nix::sys::signal::Signal::SIGKILL)
        .expect("root may");
    wait::until("an ordinary pod is started again without a server", wait::LATER, || {
        let now = story.runs("ordinary")?;
        wait::check(now != ordinary, "it is the same process").map(|()| now)
    });

    story.cluster.restart();
    for (name, pid) in [("early-worker", early), ("late-worker", late)] {
        let mirror = story.ready(name).await;
        assert!(mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string(), "{mirror}");
        assert_eq!(mirror["status"]["containerStatuses"][0]["restartCount"], 0, "{mirror}");
        assert_eq!(story.runs(name.trim_end_matches("-worker")), Ok(pid), "it is the same process");
    }
    assert!(story.cluster.kubectl().ok(&["logs", "early-worker"]).starts_with("early 1\n"));
    let said = story.cluster.kubectl().ok(&["exec", "late-worker", "--", "/toolbox", "echo", "here"]);
    assert_eq!(said, "here\n");
    story.says_no_more(&["early", "late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_decides_and_not_the_mirror() {
    let story = "the_file_decides_and_not_the_mirror";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let story = Story::start().await;
    story.says("web", "one");
    let first = story.ready("web-worker").await;
    // It is told as started a moment before it is what it is to be.
    let pid = wait::until("it runs", wait::SOON, || story.runs("one"));

    // Without waiting: kubectl may find the next mirror already, and would wait for its end.
    story.cluster.kubectl().ok(&["delete", "pod", "web-worker", "--wait=false"]);
    let again = story.is_not("web-worker", &first).await;
    assert_eq!(story.runs("one"), Ok(pid), "nothing happened to the pod");
    let status = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(status(&again), status(&first));
    // At once, without asking the node.
    let path = format!("{PATH}/web-worker?gracePeriodSeconds=0");
    let http = Http::admin(&story.cluster);
    http.ask(Method::DELETE, &path, &[], "").await.expect("answers").expect(200);
    let again = story.is_not("web-worker", &again).await;
    assert_eq!(story.runs("one"), Ok(pid), "nothing happened to the pod");

    // Half a file changes nothing; a new one is another pod, after the end of the one before.
    fs::write(story.file("web"), "kind: Pod\nmeta").expect("writable");
    story.says("other", "other");
    story.ready("other-worker").await;
    assert_eq!(story.runs("one"), Ok(pid), "half a file was not followed");
    story.says("web", "two");
    story.is_not("web-worker", &again).await;
    wait::until("the new one runs", wait::LATER, || story.runs("two"));
    assert!(story.runs("one").is_err(), "the old one is gone");

    fs::remove_file(story.file("web")).expect("it is there");
    wait::until("the pod is gone", wait::LATER, || wait::check(story.runs("two").is_err(), "it runs"));
    wait::until_async("its mirror is gone", wait::LATER, || async {
        let list = http.get(PATH).await.map_err(|error| error.to_string())?;
        wait::check(list["items"].as_array().is_some_and(|pods| pods.len() == 1), list)
    })
    .await;
    story.says_no_more(&["other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_what_it_runs_and_chooses_nothing_else() {
    let mut cluster = Cluster::start(Options::up(0));
    cluster.join_node("worker", &["--hollow"]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let identity = fs::read(cluster.scratch().join("worker/identity/identity.json")).expect("it has joined");
    let identity: Value = serde_json::from_slice(&identity).expect("a record");
    let text = |field: &str| identity[field].as_str().expect("text").as_bytes().to_vec();
    let credentials = claw_e2e::http::Credentials {
        ca: text("ca_bundle_pem"),
        certificate: text("certificate_chain_pem"),
        key: text("key_pem"),
    };
    let node = Http::to(cluster.url(), &credentials);
    let pod = |annotated: bool, node: &str| {
        let mut pod: Value = serde_yaml::from_str(&pod("mine")).expect("it parses");
        pod["spec"]["nodeName"] = node.into();
        if annotated {
            pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "0123".into();
        }
        pod.to_string()
    };
    for (annotated, name, code) in [(false, "worker", 403), (true, "other", 403), (true, "worker", 201)] {
        let answer = node.ask(Method::POST, PATH, &[], pod(annotated, name)).await.expect("answers");
        assert_eq!(answer.code, code, "{annotated} {name}: {}", answer.text());
    }
}

struct Story {
    cluster: Cluster,
    folder: PathBuf,
}

impl Story {
    async fn start() -> Self {
        let mut cluster = Cluster::start(Options::up(0));
        let folder = cluster.scratch().join("manifests");
        fs::create_dir(&folder).expect("the scratch folder is writable");
        cluster.join_node("worker", &["--static-pods", &folder.to_string_lossy()]);
        let http = Http::admin(&cluster);
        cluster.node("worker").becomes(&http, "True").await;
        Self { cluster, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }

    /// Has a file say a pod that says `word`; whole at once.
    fn says(&self, name: &str, word: &str) {
        let next = self.folder.join(".next");
        fs::write(&next, saying(name, word)).expect("writable");
        fs::rename(next, self.file(name)).expect("writable");
    }

    /// Takes the files away and waits until the agent has followed, for a machine that is clean in the end.
    fn says_no_more(&self, names: &[&str]) {
        names.iter().for_each(|name| fs::remove_file(self.file(name)).expect("it is there"));
        let pods = self.cluster.scratch().join("worker/node/pods");
        wait::until("the static pods are gone", wait::LATER, || {
            let left = names.iter().find(|name| self.runs(name).is_ok());
            let kept = fs::read_dir(&pods).into_iter().flatten().flatten().filter(is_static).count();
            wait::check(left.is_none() && kept == 0, format!("{left:?} runs, {kept} are kept"))
        });
    }

    /// The process of the container that says `word`.
    fn runs(&self, word: &str) -> Result<i32, String> {
        let all = host::processes(self.cluster.scratch());
        let found =
            all.iter().find(|(_, line)| line.starts_with("/toolbox") && line.contains(&format!(" {word} ")));
        found.map(|(pid, _)| *pid).ok_or_else(|| format!("{all:?}"))
    }

    async fn ready(&self, name: &str) -> Value {
        self.becomes(name, |_| true).await
    }

    /// Another object of the same name.
    async fn is_not(&self, name: &str, before: &Value) -> Value {
        self.becomes(name, |pod| pod["metadata"]["uid"] != before["metadata"]["uid"]).await
    }

    async fn becomes(&self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let http = Http::admin(&self.cluster);
        let (path, holds) = (format!("{PATH}/{name}"), &holds);
        wait::until_async(&format!("{name} is ready"), wait::LATER, || async {
            let pod = http.get(&path).await.map_err(|error| error.to_string())?;
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
            if ready && holds(&pod) { Ok(pod) } else { Err(pod.to_string()) }
        })
        .await
    }
}

/// A folder of a static pod: its uid is a bare hash.
fn is_static(entry: &fs::DirEntry) -> bool {
    !entry.file_name().to_string_lossy().contains('-')
}

fn pod(name: &str) -> String {
    saying(name, name)
}

fn saying(name: &str, word: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n    \
         - name: main\n      image: clawbernetes.io/toolbox:1\n      \
         args: [lines, --text, {word}, --count, \"100000\", --interval-ms, \"50\"]\n"
    )
}
