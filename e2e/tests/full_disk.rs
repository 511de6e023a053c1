//! A node whose disk is full: what runs goes on, no line and no exit code is lost, what cannot start says why, pods can be
//! removed, and all of it recovers when there is room.

use std::{fs, io::Write as _, path::PathBuf};

use claw_e2e::{
    Cluster, Options, host,
    http::Http,
    need::{self, Need},
    wait,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const PATH: &str = "/api/v1/namespaces/default/pods";

/// The image and some pods fit.
const DISK: &str = "size=48m,mode=0700";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_is_recovered_from() {
    let story = "a_full_disk_loses_nothing_and_is_recovered_from";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    let disk = Disk::mount(cluster.scratch().join("worker"));
    cluster.join_node("worker", &[]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let kubectl = cluster.kubectl();
    for (name, policy) in [("writer", "Always"), ("victim", "Never"), ("leaver", "Always")] {
        kubectl.ok_with(&["apply", "-f", "-"], &pod(name, policy));
    }
    kubectl.ok(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=600s"]);
    // They are told as started a moment before they are what they are to be.
    let [writer, victim] = ["writer", "victim"]
        .map(|name| wait::until(name, wait::SOON, || process(&cluster, name).ok_or("it does not run")));

    disk.fill();
    kill(Pid::from_raw(victim), Signal::SIGKILL).expect("root may");
    let end = becomes(&http, "victim", |pod| {
        let end = pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        (!end.is_null()).then_some(end)
    })
    .await;
    assert_eq!(
        (&end["exitCode"], &end["signal"], &end["reason"]),
        (&137.into(), &9.into(), &"Error".into()),
        "{end}"
    );
    kubectl.ok_with(&["apply", "-f", "-"], &pod("late", "Always"));
    wait::until("why it cannot start is told", wait::LATER, || {
        let said = kubectl.ok(&[
            "get",
            "events",
            "--field-selector=involvedObject.name=late",
            "-o",
            "jsonpath={.items[*].message}",
        ]);
        wait::check(said.contains("No space left on device"), said)
    });
    assert!(process(&cluster, "late").is_none(), "it did not start");
    kubectl.ok(&["delete", "pod", "leaver", "--timeout=600s"]);
    disk.fill();
    // The agent starts on a full disk, too.
    cluster.node("worker").kill();
    cluster.node("worker").start();
    cluster.node("worker").becomes(&http, "True").await;
    assert_eq!(process(&cluster, "writer"), Some(writer), "what runs goes on");

    // Which the server may not know yet.
    let said = || kubectl.run(&["logs", "writer"]).success().map(|text| lines(&text, "writer"));
    let before = wait::until("its log can be read", wait::LATER, said);
    disk.free();
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/late", "--timeout=600s"]);
    wait::until("the log goes on", wait::LATER, || {
        let now = said()?;
        wait::check(now > before + 20, format!("{now} lines after {before}"))
    });
    assert_eq!(process(&cluster, "writer"), Some(writer), "what runs goes on");
    kubectl.ok(&["delete", "pod", "--all", "--timeout=600s"]);
    cluster.node("worker").stop();
}

/// How many there are; each is there once, in order.
fn lines(text: &str, name: &str) -> usize {
    for (number, line) in (1..).zip(text.lines()) {
        assert_eq!(line, format!("{name} {number}"));
    }
    text.lines().count()
}

/// A small one, in memory.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir(&path).expect("the scratch folder is writable");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(DISK)).expect("root may");
        Self(path)
    }

    /// To the last byte: by a file that takes what there is, again and again, since others give back.
    fn fill(&self) {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(self.0.join("filler"))
            .expect("there is a name");
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

async fn becomes<T>(http: &Http, name: &str, look: impl Fn(&Value) -> Option<T>) -> T {
    let (path, look) = (format!("{PATH}/{name}"), &look);
    wait::until_async(&format!("{name} is as it should be"), wait::LATER, || async {
        let pod = http.get(&path).await.map_err(|error| error.to_string())?;
        look(&pod).ok_or_else(|| pod.to_string())
    })
    .await
}

fn process(cluster: &Cluster, word: &str) -> Option<i32> {
    let all = host::processes(cluster.scratch());
    let found =
        all.iter().find(|(_, line)| line.starts_with("/toolbox") && line.contains(&format!(" {word} ")));
    found.map(|(pid, _)| *pid)
}

fn pod(name: &str, policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n    - name: main\n      image: clawbernetes.io/toolbox:1\n      \
         args: [lines, --text, {name}, --count, \"100000\", --interval-ms, \"20\"]\n"
    )
}
