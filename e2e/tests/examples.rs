//! Every file of `examples/` does what its first lines say.

use std::path::PathBuf;

use claw_e2e::{
    Cluster, Kubectl, Options,
    binary::workspace,
    need::{self, Need},
    wait,
};

/// Waits for what a file promises.
type Story = fn(&Kubectl);

/// Every file, and what holds once it is applied.
const STORIES: [(&str, Story); 11] = [
    ("device-policy.yaml", a_policy_says_that_no_device_waits_to_be_looked_at),
    ("device-taint.yaml", a_rule_says_what_it_would_do),
    ("gpu-claim.yaml", a_claim_waits_for_its_gpu_and_says_so),
    ("hello.yaml", hello_answers_from_three_pods),
    ("init.yaml", init_hands_its_file_over),
    ("kernel-job.yaml", a_kernel_job_comes_to_figures_and_results),
    ("limits.yaml", limits_kill_and_throttle),
    ("quota.yaml", a_quota_holds_the_third_pod_back),
    ("restart.yaml", a_crashing_container_is_restarted_and_its_last_words_are_kept),
    ("service.yaml", a_name_is_answered_by_its_servers),
    ("secret.yaml", secrets_arrive_as_file_and_as_variable),
];

#[test]
fn every_example_does_what_it_says() {
    if !need::all("every_example_does_what_it_says", &[Need::Root, Need::Kubectl, Need::Networks]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    // Together, as a newcomer would do it: they must not get into each other's way.
    kubectl.ok(&["apply", "-f", &example("")]);
    for (file, holds) in STORIES {
        // Each file stands alone, too.
        kubectl.ok(&["apply", "-f", &example(file)]);
        holds(&kubectl);
    }
    a_kind_of_ones_own_is_served(&kubectl);
    kubectl.ok(&["delete", "-f", &example(""), "--wait=true"]);
    wait::until("all pods are gone", wait::LATER, || {
        let left = kubectl.ok(&["get", "pods", "-o", "name"]);
        wait::check(left.is_empty(), left)
    });
}

/// On a machine without GPUs. What it does to one that has some is in `gpus/checks.rs`.
fn a_policy_says_that_no_device_waits_to_be_looked_at(kubectl: &Kubectl) {
    kubectl.ok(&["wait", "--for=condition=Checked", "devicepolicy/every-gpu", "--timeout=60s"]);
    assert_eq!(
        field(kubectl, "dpol/every-gpu", "{.status.devices} {.spec.level} {.spec.holdBack}"),
        "0 Quick true"
    );
}

/// On a machine without GPUs. What it does on one that has some is in `gpus/claims.rs`.
fn a_claim_waits_for_its_gpu_and_says_so(kubectl: &Kubectl) {
    wait::until("the claim is made, and the pod waits or has ended", wait::LATER, || {
        let condition = "{.status.conditions[?(@.type=='PodScheduled')].message}";
        let seen = field(kubectl, "pod/gpu-claim", &format!("{{.status.phase}} {condition}"));
        wait::check(seen.contains("cannot allocate all claims") || seen.starts_with("Succeeded"), seen)
    });
}

fn a_rule_says_what_it_would_do(kubectl: &Kubectl) {
    wait::until("the rule says so", wait::LATER, || {
        let path = "{.status.conditions[?(@.type=='EvictionInProgress')].message}";
        let said = field(kubectl, "devicetaintrule/maintenance", path);
        wait::check(said.contains("0 pods would be evicted"), said)
    });
}

fn hello_answers_from_three_pods(kubectl: &Kubectl) {
    let file = example("hello.yaml");
    kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=600s"]);
    assert_eq!(field(kubectl, "deployment/hello", "{.status.readyReplicas}"), "3");
    let addresses =
        kubectl.ok(&["get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].status.podIP}"]);
    let mut addresses: Vec<_> = addresses.split_whitespace().collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "three pods on one port need three addresses: {addresses:?}");
    for address in addresses {
        let answer = http_get(&format!("{address}:8080"));
        assert!(answer.contains("hello from Clawbernetes"), "{address} answered: {answer}");
    }
    let unchanged = kubectl.ok(&["apply", "-f", &file]);
    assert!(unchanged.lines().all(|line| line.ends_with("unchanged")), "{unchanged}");
}

fn init_hands_its_file_over(kubectl: &Kubectl) {
    phase(kubectl, "init", "Succeeded");
    assert_eq!(kubectl.ok(&["logs", "init", "-c", "main"]), "prepared by the init container\n");
}

fn a_name_is_answered_by_its_servers(kubectl: &Kubectl) {
    phase(kubectl, "caller", "Succeeded");
    let said = kubectl.ok(&["logs", "caller"]);
    assert_eq!(said.lines().filter(|line| line.contains("echo-")).count(), 100, "{said}");
}

fn secrets_arrive_as_file_and_as_variable(kubectl: &Kubectl) {
    phase(kubectl, "secret", "Succeeded");
    assert_eq!(kubectl.ok(&["logs", "secret", "-c", "file"]).trim_end(), "open-sesame");
    let variables = kubectl.ok(&["logs", "secret", "-c", "variable"]);
    assert!(variables.lines().any(|line| line == "DOOR_USER=alice"), "{variables}");
    assert!(variables.lines().any(|line| line == "POD_NAME=secret"), "{variables}");
}

fn a_kernel_job_comes_to_figures_and_results(kubectl: &Kubectl) {
    let table = kubectl.ok(&["get", "kj", "attention"]);
    assert!(table.contains("ReduceMean+2"), "{table}");
    assert_eq!(field(kubectl, "kj/attention", "{.spec.backoffLimit} {.spec.runTimeoutSeconds}"), "2 600");
    wait::until("it is complete", wait::LATER, || {
        let status = field(kubectl, "kj/attention", "{.status}");
        wait::check(field(kubectl, "kj/attention", "{.status.phase}") == "Complete", status)
    });
    assert_eq!(
        field(kubectl, "kj/attention", "{.status.figures.runs} {.status.outputs[*].value}"),
        "10 attended mean"
    );
}

fn limits_kill_and_throttle(kubectl: &Kubectl) {
    phase(kubectl, "hungry", "Failed");
    let reason = field(kubectl, "pod/hungry", "{.status.containerStatuses[0].state.terminated.reason}");
    assert_eq!(reason, "OOMKilled");
    phase(kubectl, "busy", "Succeeded");
}

fn a_quota_holds_the_third_pod_back(kubectl: &Kubectl) {
    wait::until("two pods run and the Deployment says why not three", wait::LATER, || {
        let status = field(kubectl, "deployment/reserved", "{.status}");
        let ready = field(kubectl, "deployment/reserved", "{.status.readyReplicas}");
        wait::check(ready == "2" && status.contains("exceeded quota: reserved"), status)
    });
    assert_eq!(
        field(kubectl, "quota/reserved", "{.status.used}"),
        r#"{"pods":"2","requests.memory":"32Mi"}"#
    );
    wait::until("the budget lets one of two go", wait::SOON, || {
        let allowed = field(kubectl, "pdb/reserved", "{.status.disruptionsAllowed}");
        wait::check(allowed == "1", allowed)
    });
}

fn a_crashing_container_is_restarted_and_its_last_words_are_kept(kubectl: &Kubectl) {
    wait::until("the container is restarted", wait::LATER, || {
        let count = field(kubectl, "pod/restart", "{.status.containerStatuses[0].restartCount}");
        wait::check(count.parse::<u32>().unwrap_or(0) >= 1, count)
    });
    let code = field(kubectl, "pod/restart", "{.status.containerStatuses[0].lastState.terminated.exitCode}");
    assert_eq!(code, "3");
    assert!(!kubectl.ok(&["logs", "restart", "--previous"]).is_empty(), "the first run's log is kept");
}

fn a_kind_of_ones_own_is_served(kubectl: &Kubectl) {
    let (definition, object) = (example("custom-kind/definition.yaml"), example("custom-kind/object.yaml"));
    kubectl.ok(&["apply", "-f", &definition]);
    kubectl.ok(&["wait", "--for=condition=Established", "crd/datasets.data.example.com", "--timeout=600s"]);
    assert_eq!(kubectl.ok(&["apply", "-f", &object]), "dataset.data.example.com/books created\n");
    assert_eq!(kubectl.ok(&["apply", "-f", &object]), "dataset.data.example.com/books unchanged\n");
    assert_eq!(field(kubectl, "dset/books", "{.spec.format} {.spec.copies}"), "parquet 1");
    kubectl.ok(&["delete", "-f", &definition, "--timeout=600s"]);
    kubectl.finds_no_kind("datasets");
}

fn phase(kubectl: &Kubectl, pod: &str, wanted: &str) {
    wait::until(&format!("pod {pod} is {wanted}"), wait::LATER, || {
        let seen = field(kubectl, &format!("pod/{pod}"), "{.status}");
        let phase = field(kubectl, &format!("pod/{pod}"), "{.status.phase}");
        wait::check(phase == wanted, seen)
    });
}

fn field(kubectl: &Kubectl, object: &str, path: &str) -> String {
    kubectl.ok(&["get", object, "-o", &format!("jsonpath={path}")])
}

fn example(name: &str) -> String {
    let path: PathBuf = workspace().join("examples").join(name);
    path.to_string_lossy().into_owned()
}

/// The least of an HTTP client: pods are plain HTTP.
fn http_get(address: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream =
        std::net::TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(wait::SOON)).expect("a time-out can be set");
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("the pod reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the pod answers");
    answer
}
