//! The verbs of our own binary, from outside: what they print, where, and how they exit.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::mpsc,
    thread,
};

use claw_e2e::{
    Cluster, Options,
    kubectl::Outcome,
    need::{self, Need},
    wait,
};
use serde_json::Value;

/// Nodes that only pretend: the whole control plane without root.
fn hollow() -> Cluster {
    Cluster::start(Options::up(2).with(&["--hollow"]))
}

fn cli(cluster: &Cluster, line: &str, input: &str) -> Outcome {
    let mut command = cluster.cli();
    command.args(line.split_whitespace());
    Outcome::of(&mut command, input)
}

/// Standard output of a verb that must succeed.
#[track_caller]
fn ok(cluster: &Cluster, line: &str, input: &str) -> String {
    let outcome = cli(cluster, line, input);
    assert_eq!(outcome.code, 0, "{line}: {}{}", outcome.stdout, outcome.stderr);
    outcome.stdout
}

/// Standard error of a verb that must fail, with nothing on standard output.
#[track_caller]
fn fails(cluster: &Cluster, line: &str, input: &str) -> String {
    let outcome = cli(cluster, line, input);
    assert_eq!(outcome.code, 1, "{line}: {}{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.stdout, "", "{line}");
    outcome.stderr
}

fn web(image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec: {{containers: [{{name: main, image: '{image}', ports: [{{containerPort: 80}}]}}]}}\n\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\ndata: {{a: '1'}}\n"
    )
}

#[test]
fn a_deployment_is_applied_rolled_out_scaled_undone_and_deleted() {
    let cluster = hollow();
    let run = |line: &str| ok(&cluster, line, "");
    assert_eq!(
        ok(&cluster, "apply -f -", &web("web:1", 3)),
        "deployment.apps/web created\nconfigmap/web created\n"
    );
    let status = run("rollout status deploy/web --timeout 600s");
    assert!(status.ends_with("deployment \"web\" successfully rolled out\n"), "{status}");
    assert_eq!(
        run("wait deploy/web --for=condition=Available --timeout=600s"),
        "deployment.apps/web condition met\n"
    );
    assert_eq!(
        ok(&cluster, "apply -f -", &web("web:1", 3)),
        "deployment.apps/web unchanged\nconfigmap/web unchanged\n"
    );
    let table = run("get deploy web");
    assert_eq!(
        table.split_whitespace().collect::<Vec<_>>()[..8],
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "web", "3/3", "3"]
    );

    assert_eq!(
        ok(&cluster, "apply -f -", &web("web:2", 3)),
        "deployment.apps/web configured\nconfigmap/web unchanged\n"
    );
    run("rollout status deploy/web --timeout 600s");
    assert!(run("get pods -o wide --show-labels").contains("app=web"));
    let images = |line: &str| {
        let list: Value = serde_json::from_str(&run(line)).expect("JSON");
        let pods = list["items"].as_array().expect("items").clone();
        pods.iter()
            .map(|pod| pod["spec"]["containers"][0]["image"].as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    wait::until("old pods are gone", wait::LATER, || {
        let images = images("get pods -l app=web -o json");
        wait::check(images == ["web:2", "web:2", "web:2"], format!("{images:?}"))
    });
    assert_eq!(
        run("rollout history deploy/web").lines().skip(2).take(2).collect::<Vec<_>>(),
        ["1         <none>", "2         <none>"]
    );
    assert_eq!(run("rollout undo deploy/web"), "deployment.apps/web rolled back\n");
    run("rollout status deploy/web --timeout 600s");
    let template = run("rollout history deploy/web --revision 3");
    assert!(template.contains("image: web:1") && !template.contains("pod-template-hash"), "{template}");

    assert_eq!(run("scale deploy/web --replicas 1 --current-replicas 3"), "deployment.apps/web scaled\n");
    let late = fails(&cluster, "scale deploy/web --replicas 5 --current-replicas 3", "");
    assert!(late.contains("expected 3 replicas of web, but 1"), "{late}");
    assert_eq!(run("rollout pause deploy/web"), "deployment.apps/web paused\n");
    assert!(fails(&cluster, "rollout restart deploy/web", "").contains("resume it first"));
    assert_eq!(run("rollout resume deploy/web"), "deployment.apps/web resumed\n");
    assert_eq!(run("rollout restart deploy/web"), "deployment.apps/web restarted\n");
    run("rollout status deploy/web --timeout 600s");

    // Events come after what they tell of.
    wait::until("it is told what happened", wait::SOON, || {
        let told = run("describe deploy/web");
        wait::check(told.contains("Replicas:") && told.contains("ScalingReplicaSet"), told)?;
        let events = run("events --for deploy/web");
        wait::check(events.contains("Scaled up replica set"), events)
    });
    assert!(run("describe node").contains("Allocated resources:"));

    let deleted = ok(&cluster, "delete -f - --cascade=foreground --timeout 600s", &web("web:1", 3));
    assert_eq!(deleted, "deployment.apps \"web\" deleted\nconfigmap \"web\" deleted\n");
    let left = run("get all -o name");
    assert_eq!(left, "service/kubernetes\n", "delete returned before all was gone");
}

#[test]
fn apply_and_kubectl_take_turns_on_the_same_objects() {
    if !need::all("apply_and_kubectl_take_turns_on_the_same_objects", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let kubectl = cluster.kubectl();
    let file = |text: String| {
        let path = cluster.scratch().join("web.yaml");
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    ok(&cluster, "apply -f -", &web("web:1", 2));
    let unchanged = kubectl.ok(&["apply", "-f", &file(web("web:1", 2))]);
    assert!(unchanged.lines().all(|line| line.ends_with("unchanged")), "{unchanged}");
    kubectl.ok(&["apply", "-f", &file(web("web:2", 2))]);
    assert_eq!(
        ok(&cluster, "apply -f -", &web("web:2", 2)),
        "deployment.apps/web unchanged\nconfigmap/web unchanged\n"
    );
    // What kubectl applied and we no longer want goes.
    let without = web("web:2", 2).replace(", ports: [{containerPort: 80}]", "").replace("a: '1'", "b: '2'");
    ok(&cluster, "apply -f -", &without);
    let kept = kubectl.ok(&["get", "configmap/web", "-o", "jsonpath={.data}"]);
    assert_eq!(kept, r#"{"b":"2"}"#);
    let ports =
        kubectl.ok(&["get", "deploy/web", "-o", "jsonpath={.spec.template.spec.containers[0].ports}"]);
    assert_eq!(ports, "");
}

#[test]
fn tables_agree_with_kubectl_word_for_word() {
    if !need::all("tables_agree_with_kubectl_word_for_word", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    ok(&cluster, "apply -f -", &web("web:1", 2));
    for line in ["get deploy,cm", "get cm -A", "get ns", "get deploy -o wide", "get deploy/web -o name"] {
        let ours = |text: String| {
            // Ages move on between two commands, and kubectl leaves blanks at the end of some lines.
            let words =
                text.lines().map(|line| line.split_whitespace().filter(|word| !is_age(word)).collect());
            words
                .collect::<Vec<Vec<_>>>()
                .into_iter()
                .map(|words: Vec<&str>| words.join(" "))
                .collect::<Vec<_>>()
        };
        let theirs = cluster.kubectl().ok(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(ours(ok(&cluster, line, "")), ours(theirs), "{line}");
    }
}

fn is_age(word: &str) -> bool {
    word.ends_with('s')
        && word.trim_end_matches('s').chars().all(|c| c.is_ascii_digit() || c == 'm')
        && word.len() > 1
}

#[test]
fn refusals_name_what_is_wrong_on_stderr_and_in_the_exit_code() {
    let cluster = Cluster::start(Options::server());
    let none = cli(&cluster, "get pods", "");
    assert_eq!(
        (none.code, none.stdout.as_str(), none.stderr.as_str()),
        (0, "", "No resources found in default namespace.\n")
    );
    for (line, input, expected) in [
        ("get pod/x", "", "Error from server (NotFound): pods \"x\" not found"),
        ("get pod/x -w", "", "Error from server (NotFound): pods \"x\" not found"),
        ("get podz", "", "the server doesn't have a resource type \"podz\""),
        ("delete pods", "", "say which pods to delete"),
        ("delete pod x", "", "Error from server (NotFound)"),
        ("apply -f -", "kind: Pod", "stdin: apiVersion is not set"),
        ("apply -f -", "a: [", "error parsing stdin"),
        ("apply -f -", "{apiVersion: v1, kind: Podd, metadata: {name: x}}", "no matches for kind \"Podd\""),
        (
            "apply -f -",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, dat: {}}",
            "unknown field \"dat\"",
        ),
        ("apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: [1]}}", "data"),
        ("apply -f /nonexistent", "", "/nonexistent"),
        ("apply -f https://example.org/web.yaml", "", "curl -fsSL https://example.org/web.yaml |"),
        ("scale cm/x --replicas 1", "", "configmaps cannot be scaled"),
        ("rollout status cm/x", "", "configmaps have no rollouts"),
        ("logs x", "", "pods \"x\" not found"),
        ("wait pod/x --for=condition=Ready --timeout=1s", "", "pods \"x\" not found"),
        ("--context other get pods", "", "no context \"other\""),
        ("--kubeconfig /nonexistent get pods", "", "cannot read the kubeconfig /nonexistent"),
    ] {
        let told = fails(&cluster, line, input);
        assert!(told.contains(expected), "{line}: {told}");
        assert_eq!(told.lines().count(), 1, "{line}: {told}");
    }
    for line in ["get pods x y", "get pods x y -o yaml"] {
        let told = fails(&cluster, line, "");
        assert!(told.contains("\"x\" not found") && told.contains("\"y\" not found"), "{line}: {told}");
    }
    let usage = cli(&cluster, "get pods -o jsno", "");
    assert_eq!(usage.code, 2, "{}", usage.stderr);
    assert!(usage.stderr.contains("use json, yaml, name or wide"), "{}", usage.stderr);
    assert_eq!(cli(&cluster, "delete pod x --ignore-not-found", "").code, 0);
    assert_eq!(cli(&cluster, "get pod x --ignore-not-found", "").code, 0);
}

#[test]
fn every_example_is_taken_by_our_own_apply() {
    let cluster = Cluster::start(Options::server());
    let folder = claw_e2e::binary::workspace().join("examples");
    let examples = folder.to_string_lossy();
    let made = ok(&cluster, &format!("apply -f {examples}"), "");
    assert!(made.lines().all(|line| line.ends_with(" created")), "{made}");
    let again = ok(&cluster, &format!("apply -f {examples}"), "");
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
}

#[test]
fn one_bad_object_does_not_keep_the_others_from_being_applied() {
    let cluster = Cluster::start(Options::server());
    let input = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n---\n\
                 {apiVersion: v1, kind: ConfigMap, metadata: {name: b}, nonsense: 1}\n---\n\
                 {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n";
    let outcome = cli(&cluster, "apply -f -", input);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, "configmap/a created\nconfigmap/c created\n"));
    assert!(outcome.stderr.contains("stdin, document 2"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("1 of 3 objects were not applied"), "{}", outcome.stderr);
}

#[test]
fn a_server_that_is_away_and_a_reader_that_left_are_no_panics() {
    let mut cluster = Cluster::start(Options::server());
    let mut shell = std::process::Command::new("sh");
    let program = cluster.cli().get_program().to_owned();
    shell.args(["-c", "for i in 1 2 3; do \"$0\" get ns -o yaml | head -c 1; done"]).arg(program);
    shell.env("KUBECONFIG", cluster.kubeconfig());
    let outcome = Outcome::of(&mut shell, "");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    cluster.kill();
    let told = fails(&cluster, "get pods", "");
    assert!(told.contains(cluster.address()) && told.contains("is it running"), "{told}");
}

#[test]
fn a_watch_prints_rows_as_they_come() {
    let cluster = Cluster::start(Options::server());
    let mut child = cluster.cli().args(["get", "cm", "-w"]).stdout(Stdio::piped()).spawn().expect("starts");
    let (send, lines) = mpsc::channel();
    let stdout = child.stdout.take().expect("stdout is piped");
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    // The first may come before the watch began, the second may not.
    ok(&cluster, "apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: first}}");
    let next = || lines.recv_timeout(wait::SOON).expect("a line");
    assert!(next().starts_with("NAME"));
    assert!(next().starts_with("first"));
    ok(&cluster, "apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: second}, data: {a: b}}");
    let line = next();
    assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["second", "1"], "{line}");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    drop(lines);
    reader.join().expect("the reader ends");
}

#[test]
fn logs_and_run_reach_real_containers() {
    if !need::all("logs_and_run_reach_real_containers", &[Need::Root]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let run = |line: &str| ok(&cluster, line, "");
    run(
        "run talker --image clawbernetes.io/toolbox --restart Never -- lines --count 5 --interval-ms 1 --text word",
    );
    wait::until("the pod ends", wait::LATER, || {
        let pod = run("get pod talker");
        wait::check(pod.contains("Completed"), pod)
    });
    let all = run("logs talker");
    assert_eq!(all.lines().count(), 5, "{all}");
    assert!(all.lines().all(|line| line.contains("word")), "{all}");
    assert_eq!(
        run("logs talker --tail 2"),
        all.lines().skip(3).map(|l| format!("{l}\n")).collect::<String>()
    );
    assert_eq!(run("logs -f pod/talker"), all, "following a container that has ended ends");
    assert!(run("logs -l run=talker --prefix").starts_with("[pod/talker/talker] "));
    let stamped = run("logs talker --timestamps --tail 1");
    assert!(stamped.contains('T') && stamped.contains("Z "), "{stamped}");
    let told = run("describe pod talker");
    assert!(told.contains("Terminated") && told.contains("Exit Code: 0"), "{told}");
    let wrong = fails(&cluster, "logs talker -c other", "");
    assert!(wrong.contains("container other is not valid for pod talker: it has talker"), "{wrong}");
    assert_eq!(run("delete pod talker --timeout 600s"), "pod \"talker\" deleted\n");
}

#[test]
fn server_side_apply_keeps_two_managers_apart() {
    let cluster = Cluster::start(Options::server());
    let map =
        |data: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}, data: {data}}}");
    let applied = ok(&cluster, "apply --server-side -f -", &map("{k: '1', l: '1'}"));
    assert_eq!(applied, "configmap/a serverside-applied\n");
    let other = "apply --server-side --field-manager ci -f -";
    let told = fails(&cluster, other, &map("{k: '2'}"));
    let expected = "Error from server (Conflict): stdin: Apply failed with 1 conflict: \
                    conflict with \"clawbernetes\": .data.k\n";
    assert_eq!(told, expected);
    ok(&cluster, "apply --server-side --field-manager ci --force-conflicts -f -", &map("{k: '2'}"));
    ok(&cluster, "apply --server-side -f -", &map("{}"));
    let object: Value = serde_json::from_str(&ok(&cluster, "get cm a -o json", "")).expect("JSON");
    assert_eq!(object["data"], serde_json::json!({"k": "2"}));
    assert_eq!(cli(&cluster, "apply --force-conflicts -f -", "").code, 2, "there is nothing to force");
}
