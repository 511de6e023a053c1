//! Pods of the image of kernels: what a worker calculates, says and leaves behind, through the whole product and with real kubectl.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use claw_e2e::{
    Cluster, Kubectl, Options, binary, host,
    need::{self, Need},
    wait,
};
use claw_graph::{
    order::{Reason, Report, State},
    qualification::{Check, Qualification},
};
use serde_json::{Value, json};

/// Rows and columns of what is multiplied.
const SIZE: usize = 48;

#[test]
fn workers_calculate_on_processors_and_through_vulkan_what_the_mathematics_says() {
    let story = "workers_calculate_on_processors_and_through_vulkan_what_the_mathematics_says";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let results = folder_for_all(&cluster);
    let mut backends = vec!["cpu"];
    if Path::new("/usr/share/vulkan/icd.d").is_dir() {
        backends.push("vulkan");
    } else {
        need::skipped(story, "a Vulkan device (run `make deps`, which installs mesa-vulkan-drivers)");
    }
    for backend in &backends {
        start(&kubectl, backend, &softmax_of_a_product(backend), &json!({}), &results);
    }
    for backend in backends {
        let (code, report) = end(&kubectl, backend);
        assert_eq!((code, report.state, report.runs), (0, State::Complete, 3), "{report:?}");
        let device = report.device.unwrap();
        assert!(device.id.starts_with(backend) && !device.model.is_empty(), "{device:?}");
        let figures = report.figures.unwrap();
        assert!(figures.seconds_min > 0.0 && figures.seconds_min <= figures.seconds_max, "{figures:?}");
        assert_eq!(report.outputs[0].shape, [SIZE as u64, SIZE as u64]);
        close_to(&rows_of(&results.join(format!("{backend}.txt"))), &expected());
        assert_eq!(report.outputs[1].values.len(), 1);
        let log = kubectl.ok(&["logs", backend]);
        for line in ["device ", "run 1 of 3: ", "output weights: ", "complete"] {
            assert!(log.contains(line), "{line:?} is not in {log}");
        }
        let progress = kubectl.ok(&["get", "pod", backend, "-o", PROGRESS]);
        assert_eq!(progress, "", "who has ended makes no progress");
    }
}

#[test]
fn a_device_is_looked_at_without_a_cluster_and_one_that_is_not_there_is_not_fit() {
    let check = |device: &str| {
        let mut command = Command::new(binary::clawbernetes());
        let done =
            command.args(["gpu", "check", "-o", "json", "--device", device]).output().expect("it runs");
        let found: Vec<Qualification> = serde_json::from_slice(&done.stdout).expect("it is JSON");
        (done.status.code(), found)
    };
    let (code, found) = check("cpu");
    assert_eq!((code, found.len()), (Some(0), 1), "{found:?}");
    assert!(found[0].passed() && found[0].findings.len() > 5, "{found:?}");
    let (code, found) = check("cuda:99");
    assert_eq!(code, Some(1), "{found:?}");
    assert_eq!(found[0].objection().map(|objection| objection.check), Some(Check::Open), "{found:?}");
}

#[test]
fn an_order_that_needs_more_than_the_pod_may_have_is_refused_by_the_worker() {
    let story = "an_order_that_needs_more_than_the_pod_may_have_is_refused_by_the_worker";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let results = folder_for_all(&cluster);
    let mut order = softmax_of_a_product("cpu");
    let large = json!({"name": "large", "dtype": "f32", "shape": [1 << 28], "source": {"fill": 1}});
    order["inputs"].as_array_mut().unwrap().push(large);
    start(&kubectl, "greedy", &order, &json!({"limits": {"memory": "512Mi"}}), &results);
    // The same without it has enough.
    let modest = softmax_of_a_product("cpu");
    start(&kubectl, "modest", &modest, &json!({"limits": {"memory": "512Mi", "cpu": "1"}}), &results);
    let mut wrong = softmax_of_a_product("cpu");
    wrong["outputs"][0]["file"] = json!("/made-by-nobody.txt");
    start(&kubectl, "wrong", &wrong, &json!({}), &results);

    let (code, report) = end(&kubectl, "greedy");
    let failure = report.failure.unwrap();
    assert_eq!((code, failure.reason), (1, Reason::OutOfMemory), "{failure:?}");
    let reason = "jsonpath={.status.containerStatuses[0].state.terminated.reason}";
    assert_eq!(kubectl.ok(&["get", "pod", "greedy", "-o", reason]), "Error", "the kernel killed nobody");
    let (code, report) = end(&kubectl, "modest");
    assert_eq!((code, report.state), (0, State::Complete), "{report:?}");
    let (code, report) = end(&kubectl, "wrong");
    let failure = report.failure.unwrap();
    assert_eq!((code, failure.reason), (1, Reason::BadOrder), "its root is read-only: {failure:?}");
}

#[test]
fn what_a_worker_keeps_is_there_for_the_next_of_its_namespace_alone() {
    let story = "what_a_worker_keeps_is_there_for_the_next_of_its_namespace_alone";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    if !Path::new("/usr/share/vulkan/icd.d").is_dir() {
        need::skipped(story, "a Vulkan device (run `make deps`, which installs mesa-vulkan-drivers)");
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let results = folder_for_all(&cluster);
    let kept = || host::files_in(&cluster.scratch().join("data"), "kept-of-kernels");
    let run = |namespace: &str, name: &str, order: &Value| {
        start_in(&kubectl, namespace, name, order, &json!({}), &results);
        let (code, report) = end_in(&kubectl, namespace, name);
        assert_eq!((code, report.state), (0, State::Complete), "{report:?}");
    };
    assert_eq!(kept(), [""; 0].map(PathBuf::from));
    run("default", "first", &softmax_of_a_product("vulkan"));
    let first = kept();
    assert!(!first.is_empty(), "its driver keeps what it compiled");
    // Other kernels, so that it has something to keep, too.
    let mut other = softmax_of_a_product("vulkan");
    other["operations"][1]["op"] = json!("Tanh");
    run("default", "second", &other);
    let second = kept();
    let folder = |path: &Path| path.ancestors().find(|part| part.ends_with("all")).map(Path::to_owned);
    assert!(second.len() > first.len() && first.iter().all(|file| second.contains(file)), "{second:?}");
    assert!(second.iter().all(|file| folder(file) == folder(&first[0])), "in the same folder: {second:?}");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "others"}});
    kubectl.ok_with(&["apply", "-f", "-"], &namespace.to_string());
    run("others", "first", &softmax_of_a_product("vulkan"));
    let third: Vec<PathBuf> = kept().into_iter().filter(|file| !second.contains(file)).collect();
    assert!(!third.is_empty(), "others begin with nothing");
    assert!(third.iter().all(|file| folder(file) != folder(&first[0])), "and elsewhere: {third:?}");
}

#[test]
fn a_worker_says_what_it_does_and_ends_when_its_pod_is_deleted() {
    let story = "a_worker_says_what_it_does_and_ends_when_its_pod_is_deleted";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let results = folder_for_all(&cluster);
    let mut order = softmax_of_a_product("cpu");
    order["runs"] = json!(2_000_000_000);
    start(&kubectl, "endless", &order, &json!({}), &results);
    let told = || kubectl.ok(&["get", "pod", "endless", "-o", PROGRESS]);
    let first = wait::until("the pod says what its worker does", wait::LATER, || {
        let told = told();
        if told.starts_with("run ") { Ok(told) } else { Err(told) }
    });
    wait::until("it says something else later", wait::LATER, || {
        let told = told();
        wait::check(told != first && told.starts_with("run "), told)
    });
    // Whoever does not hear SIGTERM stays for an hour.
    kubectl.ok(&["delete", "pod", "endless", "--timeout=180s"]);
}

const PROGRESS: &str = r#"jsonpath={.status.conditions[?(@.type=="clawbernetes.io/Progress")].message}"#;

/// A folder of the machine that pods of nobody may write to.
fn folder_for_all(cluster: &Cluster) -> PathBuf {
    let folder = cluster.scratch().join("results");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// What stands in the matrices: numbers that all types hold exactly.
fn element(matrix: usize, row: usize, column: usize) -> f64 {
    ((row * 7 + column * 3 + matrix * 5) % 17) as f64 / 8.0 - 1.0
}

fn matrix(number: usize) -> Value {
    let rows = (0..SIZE).flat_map(|row| (0..SIZE).map(move |column| element(number, row, column)));
    let values: Vec<f64> = rows.collect();
    let name = ["a", "b"][number];
    json!({"name": name, "dtype": "f32", "shape": [SIZE, SIZE], "source": {"values": values}})
}

fn softmax_of_a_product(backend: &str) -> Value {
    json!({
        "inputs": [matrix(0), matrix(1)],
        "operations": [
            {"name": "product", "op": "MatMul", "inputs": ["a", "b"]},
            {"name": "weights", "op": "Softmax", "inputs": ["product"]},
            {"name": "best", "op": "ReduceMax", "inputs": ["weights"]},
            {"name": "greatest", "op": "ReduceMax", "inputs": ["best"]},
        ],
        "outputs": [{"value": "weights", "file": format!("/results/{backend}.txt")}, {"value": "greatest"}],
        "backends": [backend], "runs": 3, "warmups": 1, "runTimeoutSeconds": 600,
    })
}

/// The same in float64.
fn expected() -> Vec<Vec<f64>> {
    let product = |row: usize, column: usize| {
        (0..SIZE).map(|k| element(0, row, k) * element(1, k, column)).sum::<f64>()
    };
    let softmax = |row: usize| {
        let powers: Vec<f64> = (0..SIZE).map(|column| product(row, column).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    };
    (0..SIZE).map(softmax).collect()
}

fn rows_of(file: &Path) -> Vec<Vec<f64>> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect()
}

/// Within what 48 additions and an exponential in f32 may lose, and some.
fn close_to(found: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-4 * expected.abs() + 1e-12, "{found} is not {expected}");
        }
    }
}

fn start(kubectl: &Kubectl, name: &str, order: &Value, resources: &Value, results: &Path) {
    start_in(kubectl, "default", name, order, resources, results);
}

/// A pod of the image as somebody would write it by hand, with its order in a `ConfigMap`.
fn start_in(
    kubectl: &Kubectl,
    namespace: &str,
    name: &str,
    order: &Value,
    resources: &Value,
    results: &Path,
) {
    let order = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"order.json": order.to_string()},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 3_600,
            "volumes": [
                {"name": "order", "configMap": {"name": name}},
                {"name": "results", "hostPath": {"path": results}},
            ],
            "containers": [{
                "name": "worker",
                "image": "clawbernetes.io/kernels:1",
                "resources": resources,
                "volumeMounts": [{"name": "order", "mountPath": "/job"}, {"name": "results", "mountPath": "/results"}],
            }],
        },
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [order, pod]});
    kubectl.ok_with(&["apply", "-n", namespace, "-f", "-"], &list.to_string());
}

fn end(kubectl: &Kubectl, pod: &str) -> (i64, Report) {
    end_in(kubectl, "default", pod)
}

/// How the worker ended, and its last words.
fn end_in(kubectl: &Kubectl, namespace: &str, pod: &str) -> (i64, Report) {
    let ended = wait::until(&format!("{pod} has ended"), wait::LATER, || {
        let pod = kubectl.ok(&["get", "pod", "-n", namespace, pod, "-o", "json"]);
        let pod: Value = serde_json::from_str(&pod).unwrap();
        let status = &pod["status"];
        let ended = status["containerStatuses"][0]["state"]["terminated"].clone();
        if ended.is_object() { Ok(ended) } else { Err(status.to_string()) }
    });
    let message = ended["message"].as_str().unwrap_or_default();
    let report = serde_json::from_str(message);
    let report = report.unwrap_or_else(|error| {
        panic!("{error}: {ended}; log: {}", kubectl.run(&["logs", "-n", namespace, pod]).stdout)
    });
    (ended["exitCode"].as_i64().unwrap(), report)
}
