//! Real kubectl, and our own command line, show what nodes and pods use: also on a machine that can only dial out.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on fails")]

use std::process::Command;

use claw_e2e::{
    Cluster, Kubectl, Options,
    http::Http,
    kubectl::Outcome,
    need::{self, Need},
    netns::DialOut,
    wait,
};
use serde_json::Value;

/// What the busy pod holds, and how much more its programs and their pages may be.
const HELD_MIB: u64 = 50;
const BESIDE_MIB: u64 = 30;

/// What a program that never waits gets at least, on a machine with more to do; and no more than one CPU, but for the time
/// that the machine takes to read clock and count.
const BUSY_MILLIS: std::ops::RangeInclusive<u64> = 20..=1_300;

/// What one that always waits takes.
const IDLE_MILLIS: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_a_node_that_can_only_dial_out_uses() {
    let story = "top_shows_what_a_node_that_can_only_dial_out_uses";
    if !need::all(story, &[Need::Root, Need::Kubectl, Need::Networks]) {
        return;
    }
    let network = DialOut::new();
    let mut options = Options::up(0);
    options.listen = format!("{}:0", network.host);
    let mut cluster = Cluster::start(options);
    cluster.join_node_from("hidden", network.prefix(), &[]);
    cluster.join_node("worker", &[]);
    let http = Http::admin(&cluster);
    for node in ["hidden", "worker"] {
        cluster.node(node).becomes(&http, "True").await;
    }
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], PODS);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=600s"]);

    // Starting a container takes some CPU, too.
    wait::until("one is busy and holds its memory, and the others have come to rest", wait::LATER, || {
        let all = pods(&kubectl, &["--containers"])?;
        let (busy, idle): (Vec<&Row>, Vec<&Row>) = all.iter().partition(|row| row.is_busy());
        let rests = idle.iter().all(|row| row.millicores <= IDLE_MILLIS);
        wait::check((busy.len(), idle.len(), rests) == (1, 2, true), format!("{all:?}"))
    });
    for kubectl in &cluster.kubectls() {
        eprintln!("--- {}", kubectl.name);
        // A machine that stands still for a second between reading the clock and the count tells a figure of its own.
        wait::until("pods are shown", wait::LATER, || shows_pods(kubectl));
        shows_nodes(kubectl);
        let table = kubectl.ok(&["get", "podmetrics", "-l", "app=busy"]);
        let words: Vec<&str> = table.split_whitespace().collect();
        assert_eq!(words[..5], ["NAME", "CPU", "MEMORY", "WINDOW", "busy"], "{table}");
        let said = kubectl.fails(&["top", "pod", "nobody"], "");
        assert!(said.contains("pods \"nobody\" not found"), "{said}");
        let said = kubectl.fails(&["--as=stranger", "top", "pod"], "");
        assert!(said.contains("forbidden") && said.contains("metrics.k8s.io"), "{said}");
    }
    shows_the_same_by_ours(&cluster);
    explains_itself(&kubectl);
    goes_on_without_a_node(&mut cluster, &kubectl);
}

/// A row of `top pod`, whose last two cells are figures.
#[derive(Debug)]
struct Row {
    names: Vec<String>,
    millicores: u64,
    mebibytes: u64,
}

impl Row {
    fn is_busy(&self) -> bool {
        BUSY_MILLIS.contains(&self.millicores) && (HELD_MIB..HELD_MIB + BESIDE_MIB).contains(&self.mebibytes)
    }
}

fn rows(table: &str) -> Vec<Row> {
    let number = |cell: &str, unit: &str| {
        let number = cell.strip_suffix(unit).and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("{cell} in {table}"))
    };
    let row = |line: &str| {
        let mut cells: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (memory, cpu) = (cells.pop().expect("a cell"), cells.pop().expect("a cell"));
        Row { names: cells, millicores: number(&cpu, "m"), mebibytes: number(&memory, "Mi") }
    };
    table.lines().filter(|line| !line.contains("CPU(cores)")).map(row).collect()
}

fn pods(kubectl: &Kubectl, more: &[&str]) -> Result<Vec<Row>, String> {
    kubectl.run(&[&["top", "pod"][..], more].concat()).success().map(|table| rows(&table))
}

fn names(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.names.join(" ")).collect()
}

fn shows_pods(kubectl: &Kubectl) -> Result<(), String> {
    let all = pods(kubectl, &[]).unwrap();
    assert_eq!(names(&all), ["beside", "busy"]);
    wait::check(all[0].millicores <= IDLE_MILLIS && all[1].is_busy(), format!("{all:?}"))?;

    let selected = pods(kubectl, &["-l", "app=busy"]).unwrap();
    assert_eq!(names(&selected), ["busy"]);
    let everywhere = pods(kubectl, &["-A", "--sort-by=cpu"]).unwrap();
    assert_eq!(names(&everywhere), ["default busy", "default beside"]);
    let mut containers = pods(kubectl, &["busy", "--containers", "--no-headers"]).unwrap();
    // Some versions print them in any order.
    containers.sort_by(|a, b| a.names.cmp(&b.names));
    assert_eq!(names(&containers), ["busy burner", "busy sleeper"]);
    let rests = containers[1].millicores <= IDLE_MILLIS && containers[1].mebibytes < HELD_MIB;
    wait::check(rests, format!("{containers:?}"))
}

fn shows_nodes(kubectl: &Kubectl) {
    let table = kubectl.ok(&["top", "node", "--no-headers"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.iter().map(|line| line[0]).collect::<Vec<_>>(), ["hidden", "worker"], "{table}");
    for line in lines {
        // Both agents see the same machine, on which a pod burns a CPU.
        let cpu: u64 = line[1].strip_suffix('m').expect(line[1]).parse().expect(line[1]);
        let memory: u64 = line[3].strip_suffix("Mi").expect(line[3]).parse().expect(line[3]);
        assert!(cpu >= *BUSY_MILLIS.start() && memory >= HELD_MIB, "{table}");
        assert!(line[2].ends_with('%') && line[4].ends_with('%'), "{table}");
    }
}

fn shows_the_same_by_ours(cluster: &Cluster) {
    let ours = |words: &[&str]| {
        let mut command: Command = cluster.cli();
        Outcome::of(command.arg("top").args(words), "")
    };
    wait::until("the busy one is shown first", wait::LATER, || {
        let table = ours(&["pod", "-A", "--containers", "--sort-by", "cpu"]).success()?;
        assert!(table.starts_with("NAMESPACE   POD "), "{table}");
        let all = rows(&table);
        wait::check(all[0].names == ["default", "busy", "burner"] && all[0].is_busy(), table)
    });
    let table = ours(&["pod", "--sum"]).success().unwrap();
    let last = table.lines().last().unwrap_or_default().split_whitespace().last().unwrap_or_default();
    let sum: u64 = last.strip_suffix("Mi").and_then(|number| number.parse().ok()).expect(last);
    assert!(table.contains("________") && sum >= HELD_MIB, "{table}");
    let table = ours(&["node"]).success().unwrap();
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]);
    let missing = ours(&["pod", "nobody"]);
    assert_eq!(
        (missing.code, &*missing.stderr),
        (1, "Error from server (NotFound): pods \"nobody\" not found\n")
    );
    let none = ours(&["pod", "-l", "app=nothing"]);
    assert_eq!((none.code, &*none.stderr), (0, "No resources found in default namespace.\n"));
}

/// The figures are a kind like others: in discovery, with a schema, and among the rights of who may view.
fn explains_itself(kubectl: &Kubectl) {
    let told = kubectl.ok(&["explain", "podmetrics.containers"]);
    assert!(told.contains("usage"), "{told}");
    let kinds = kubectl.ok(&["api-resources", "--api-group=metrics.k8s.io", "--no-headers"]);
    assert!(kinds.contains("NodeMetrics") && kinds.contains("PodMetrics"), "{kinds}");
    kubectl.ok(&["create", "clusterrolebinding", "viewers", "--clusterrole=view", "--user=viewer"]);
    wait::until("a viewer may look", wait::LATER, || {
        kubectl.run(&["--as=viewer", "top", "pod"]).success().map(drop)
    });
    let raw = kubectl.ok(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/busy"]);
    let one: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!((&one["kind"], &one["metadata"]["labels"]["app"]), (&"PodMetrics".into(), &"busy".into()));
}

fn goes_on_without_a_node(cluster: &mut Cluster, kubectl: &Kubectl) {
    cluster.node("worker").kill();
    wait::until("the node that is away is unknown, and the other is there", wait::LATER, || {
        let table = kubectl.run(&["top", "node", "--no-headers"]).success()?;
        let is_unknown = |line: &str| line.contains("<unknown>");
        let told: Vec<(&str, bool)> =
            table.lines().filter_map(|line| Some((line.split(' ').next()?, is_unknown(line)))).collect();
        wait::check(told.contains(&("hidden", false)) && told.contains(&("worker", true)), table)
    });
    wait::until("nothing is shown of its pods", wait::LATER, || {
        let all = pods(kubectl, &[])?;
        wait::check(names(&all) == ["busy"], format!("{all:?}"))
    });
    cluster.node("worker").start();
    wait::until("it is back", wait::LATER, || {
        let all = pods(kubectl, &[])?;
        wait::check(names(&all) == ["beside", "busy"], format!("{all:?}"))
    });
}

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  nodeName: hidden
  terminationGracePeriodSeconds: 1
  containers:
    - {name: burner, image: "clawbernetes.io/toolbox:1", args: ["sh", "-c", "toolbox memory --mib 50 & toolbox cpu --threads 1"]}
    - {name: sleeper, image: "clawbernetes.io/toolbox:1", args: ["sleep", "86400"]}
---
apiVersion: v1
kind: Pod
metadata: {name: beside, labels: {app: beside}}
spec:
  nodeName: worker
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: "clawbernetes.io/toolbox:1", args: ["sleep", "86400"]}
"#;
