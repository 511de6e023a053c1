//! What a node does with a pod's references and probes, through the whole product.

use claw_e2e::{
    Cluster, Kubectl, Options,
    need::{self, Need},
    wait,
};

#[test]
fn references_are_waited_for_and_changes_reach_running_pods() {
    let story = "references_are_waited_for_and_changes_reach_running_pods";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], READER);
    kubectl.ok_with(&["apply", "-f", "-"], NEEDY);

    // The volume names a config map that is not there.
    wait::until("an event names the missing config map", wait::LATER, || {
        let events = kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        wait::check(events.contains("configmap \"settings\" not found"), events)
    });
    wait::until("the status says that the pod is not there yet", wait::LATER, || {
        let reason = waiting(&kubectl, "reader");
        wait::check(reason == "ContainerCreating", reason)
    });
    // The environment names a secret that is not there.
    wait::until("the status names the missing secret", wait::LATER, || {
        let waiting = "{.status.containerStatuses[0].state.waiting['reason','message']}";
        let told = get(&kubectl, "needy", waiting);
        wait::check(told == "CreateContainerConfigError secret \"pass\" not found", told)
    });

    kubectl.ok(&["create", "secret", "generic", "pass", "--from-literal=WORD=sesame"]);
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/needy", "--timeout=600s"]);
    assert!(kubectl.ok(&["logs", "needy"]).lines().any(|line| line == "DOOR_WORD=sesame"));

    kubectl.ok(&["create", "configmap", "settings", "--from-literal=mode=slow"]);
    wait::until("the reader runs", wait::LATER, || {
        let phase = get(&kubectl, "reader", "{.status.phase}");
        wait::check(phase == "Running", phase)
    });
    // Its readiness probe reads a key that comes with a change.
    assert_eq!(get(&kubectl, "reader", "{.status.containerStatuses[0].ready}"), "false");
    kubectl.ok(&["patch", "configmap", "settings", "-p", r#"{"data":{"ready":"yes"}}"#]);
    // A change is there a minute and a half later at the latest.
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=600s"]);
    assert_eq!(get(&kubectl, "reader", "{.status.containerStatuses[0].restartCount}"), "0");
}

#[test]
fn a_pod_finds_a_token_that_is_good_for_as_long_as_it_is_there() {
    let story = "a_pod_finds_a_token_that_is_good_for_as_long_as_it_is_there";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], TALKER);
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/talker", "--timeout=600s"]);
    let said = kubectl.ok(&["logs", "talker"]);
    assert!(said.contains("BEGIN CERTIFICATE"), "{said}");
    // The last file is the namespace, right behind the token.
    let token = said.lines().last().and_then(|line| line.strip_suffix("default")).expect("a token");
    let review = |shown: &str| {
        let ask =
            format!("apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {{token: {token}}}\n");
        let shown = format!("jsonpath={shown}");
        kubectl.ok_with(&["create", "--validate=false", "-f", "-", "-o", &shown], &ask)
    };
    assert_eq!(review("{.status.user.username}"), "system:serviceaccount:default:default");
    let pod = review(r"{.status.user.extra.authentication\.kubernetes\.io/pod-name[0]}");
    assert_eq!(pod, "talker");
    kubectl.ok(&["delete", "pod", "talker", "--now"]);
    assert_eq!(review("{.status.authenticated}"), "");
}

#[test]
fn a_server_that_turns_unhealthy_is_restarted() {
    let story = "a_server_that_turns_unhealthy_is_restarted";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], SICKLY);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/sickly", "--timeout=600s"]);
    wait::until("it was restarted", wait::LATER, || {
        let count = get(&kubectl, "sickly", "{.status.containerStatuses[0].restartCount}");
        wait::check(count.parse().is_ok_and(|count: u32| count > 0), count)
    });
    wait::until("events say why", wait::LATER, || {
        let events = kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        let failed = events.contains("Liveness probe failed: HTTP probe failed with statuscode: 503");
        let restarted = events.contains("Container main failed liveness probe, will be restarted");
        wait::check(failed && restarted, events)
    });
    let previous = kubectl.ok(&["logs", "sickly", "--previous"]);
    assert!(previous.contains("received SIGTERM, stopping"), "it was asked before it was killed: {previous}");
}

#[test]
fn pods_run_where_they_really_run_unless_they_tolerate_a_hollow_node() {
    let story = "pods_run_where_they_really_run_unless_they_tolerate_a_hollow_node";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(3));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], TOLERANT);
    kubectl.ok(&["create", "deployment", "plain", "--image=clawbernetes.io/toolbox", "--replicas=3"]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/tolerant", "--timeout=600s"]);
    assert_eq!(get(&kubectl, "tolerant", "{.spec.nodeName}"), "hollow-2");
    wait::until("all plain pods have a node", wait::LATER, || {
        let path = "jsonpath={.items[*].spec.nodeName}";
        let nodes = kubectl.ok(&["get", "pods", "-l", "app=plain", "-o", path]);
        assert!(!nodes.contains("hollow-"), "{nodes}");
        wait::check(nodes.split_whitespace().count() == 3, nodes)
    });
}

fn get(kubectl: &Kubectl, pod: &str, path: &str) -> String {
    kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={path}")])
}

fn waiting(kubectl: &Kubectl, pod: &str) -> String {
    get(kubectl, pod, "{.status.containerStatuses[0].state.waiting.reason}")
}

const READER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: settings, configMap: {name: settings}}]
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "3600"]
      volumeMounts: [{name: settings, mountPath: /settings}]
      readinessProbe: {exec: {command: ["/toolbox", "cat", "/settings/ready"]}, periodSeconds: 1, timeoutSeconds: 60}
"#;

const NEEDY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: needy}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["env"]
      envFrom: [{prefix: DOOR_, secretRef: {name: pass}}]
"#;

/// Its probe fails by what it answers, not by how long that takes; and it has the time to say that it stops.
const SICKLY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sickly}
spec:
  terminationGracePeriodSeconds: 60
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["serve", "--unhealthy-after", "4"]
      readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 60}
      startupProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, failureThreshold: 1000}
      livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 60}
"#;

const TOLERANT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: tolerant}
spec:
  nodeSelector: {kubernetes.io/hostname: hollow-2}
  tolerations: [{key: clawbernetes.io/hollow, operator: Exists}]
  containers:
    - {name: main, image: "clawbernetes.io/toolbox:1", args: ["serve"]}
"#;

/// Says what it finds of its account.
const TALKER: &str = r"apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args:
        - cat
        - /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
        - /var/run/secrets/kubernetes.io/serviceaccount/token
        - /var/run/secrets/kubernetes.io/serviceaccount/namespace
";
