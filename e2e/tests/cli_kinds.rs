//! The verbs of our own binary for kinds that users defined, and those that tell about kinds.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use claw_e2e::{
    Cluster, Options,
    kubectl::Outcome,
    need::{self, Need},
    wait,
};

const DEFINITION: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sweeps.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: sweeps, kind: Sweep, singular: sweep, shortNames: [sw], categories: [all]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}, scale: {specReplicasPath: .spec.runs, statusReplicasPath: .status.runs}}
      additionalPrinterColumns: [{name: Runs, type: integer, jsonPath: .spec.runs}]
      schema:
        openAPIV3Schema:
          type: object
          description: A sweep over parameters, which is described in so many words that they do not fit into one line.
          properties:
            spec:
              type: object
              description: What is wanted.
              required: [runs]
              properties:
                runs: {type: integer, description: How many runs there are to be.}
                mode: {type: string, enum: [fast, slow], description: How.}
                any: {x-kubernetes-preserve-unknown-fields: true}
                list: {type: array, items: {type: object, properties: {a: {type: string}}}}
            status: {type: object, properties: {runs: {type: integer}, phase: {type: string}}}
";

fn sweep(runs: u32) -> String {
    format!(
        "apiVersion: example.com/v1\nkind: Sweep\nmetadata: {{name: first, labels: {{a: b}}}}\nspec: {{runs: {runs}}}\n"
    )
}

/// A server that knows sweeps.
fn server() -> Cluster {
    let cluster = Cluster::start(Options::server());
    ok(&cluster, "apply -f -", DEFINITION);
    let wait = "wait crd/sweeps.example.com --for=condition=Established --timeout=600s";
    assert_eq!(
        ok(&cluster, wait, ""),
        "customresourcedefinition.apiextensions.k8s.io/sweeps.example.com condition met\n"
    );
    cluster
}

fn cli(cluster: &Cluster, line: &str) -> Command {
    let mut command = cluster.cli();
    command.args(line.split_whitespace());
    command
}

fn run(cluster: &Cluster, line: &str, input: &str) -> Outcome {
    Outcome::of(&mut cli(cluster, line), input)
}

#[track_caller]
fn ok(cluster: &Cluster, line: &str, input: &str) -> String {
    let outcome = run(cluster, line, input);
    assert_eq!(outcome.code, 0, "{line}: {}{}", outcome.stdout, outcome.stderr);
    outcome.stdout
}

#[test]
fn objects_of_a_kind_that_somebody_defined_are_handled_like_all_others() {
    let cluster = server();
    let say = |line: &str| ok(&cluster, line, "");
    assert_eq!(ok(&cluster, "apply -f -", &sweep(3)), "sweep.example.com/first created\n");
    assert_eq!(ok(&cluster, "apply -f -", &sweep(4)), "sweep.example.com/first configured\n");
    for name in ["sweeps", "sweep", "sw", "Sweep", "sweeps.example.com"] {
        assert_eq!(say(&format!("get {name}")), "NAME    RUNS\nfirst   4\n", "{name}");
    }
    let all = say("get all -o name");
    assert!(all.lines().any(|line| line == "sweep.example.com/first"), "it is in the category: {all}");
    assert_eq!(say("get sw -l a=c -o name"), "");
    let described = say("describe sw/first");
    assert!(described.contains("Name:") && described.contains("Runs:"), "{described}");
    assert_eq!(say("scale sw/first --replicas=7"), "sweep.example.com/first scaled\n");
    assert_eq!(say("get sw --no-headers"), "first   7\n");
    assert_eq!(say("wait sw/first --for=jsonpath={.spec.runs}=7"), "sweep.example.com/first condition met\n");
    let late = run(&cluster, "wait sw/first --for=jsonpath={.spec.runs}=8 --timeout=0s", "");
    assert_eq!(late.code, 1, "{}", late.stdout);
    assert!(late.stderr.contains("timed out waiting for {.spec.runs} to be 8"), "{}", late.stderr);
    assert_eq!(say("delete sw first"), "sweep.example.com \"first\" deleted\n");
    let gone = run(&cluster, "get nothings", "");
    assert!(
        gone.code == 1 && gone.stderr.contains("doesn't have a resource type \"nothings\""),
        "{}",
        gone.stderr
    );
}

#[test]
fn one_file_may_define_a_kind_and_hold_objects_of_it_and_what_nobody_knows_is_left_out() {
    let cluster = Cluster::start(Options::server());
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside}\n";
    let stranger = "apiVersion: example.com/v1\nkind: Stranger\nmetadata: {name: x}\n";
    let all = [&*sweep(1), stranger, DEFINITION, map].join("---\n");
    let first = run(&cluster, "apply -f -", &all);
    assert_eq!(first.code, 1, "{}", first.stderr);
    assert_eq!(
        first.stdout,
        "customresourcedefinition.apiextensions.k8s.io/sweeps.example.com created\n\
         sweep.example.com/first created\nconfigmap/beside created\n"
    );
    for expected in
        ["no matches for kind \"Stranger\" in version \"example.com/v1\"", "1 of 4 objects were not applied"]
    {
        assert!(first.stderr.contains(expected), "{}", first.stderr);
    }
    let known = [&*sweep(1), DEFINITION, map].join("---\n");
    assert_eq!(
        ok(&cluster, "apply -f -", &known),
        "customresourcedefinition.apiextensions.k8s.io/sweeps.example.com unchanged\n\
         sweep.example.com/first unchanged\nconfigmap/beside unchanged\n"
    );
}

#[test]
fn a_difference_is_shown_and_is_the_exit_code() {
    let cluster = server();
    let new = run(&cluster, "diff -f -", &sweep(3));
    assert_eq!(new.code, 1, "{}", new.stderr);
    let name = "example.com.v1.Sweep.default.first";
    let heads =
        format!("diff -u -N LIVE/{name} MERGED/{name}\n--- LIVE/{name}\n+++ MERGED/{name}\n@@ -0,0 +1,");
    assert!(new.stdout.starts_with(&heads) && new.stdout.contains("\n+  runs: 3\n"), "{}", new.stdout);
    ok(&cluster, "apply -f -", &sweep(3));
    let same = run(&cluster, "diff -f -", &sweep(3));
    assert_eq!((same.code, same.stdout.as_str()), (0, ""), "{}", same.stderr);
    for line in ["diff -f -", "diff --server-side --force-conflicts -f -"] {
        let changed = run(&cluster, line, &sweep(5));
        assert_eq!(changed.code, 1, "{}", changed.stderr);
        assert!(changed.stdout.contains("\n-  runs: 3\n+  runs: 5\n"), "{line}: {}", changed.stdout);
        assert!(
            !changed.stdout.contains("managedFields") && !changed.stdout.contains("last-applied"),
            "{line}"
        );
    }
    assert_eq!(ok(&cluster, "get sw --no-headers", ""), "first   3\n", "nothing was stored");
    let wrong = run(&cluster, "diff -f -", &sweep(5).replace("runs: 5", "runs: many"));
    assert!(wrong.code > 1 && wrong.stderr.contains("spec.runs"), "{} {}", wrong.code, wrong.stderr);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: c2VzYW1l}\n";
    let hidden = run(&cluster, "diff -f -", secret);
    assert!(hidden.code == 1 && hidden.stdout.contains("+  a: '***'"), "{}", hidden.stdout);
}

#[test]
fn an_editor_changes_an_object_or_leaves_it() {
    let cluster = server();
    ok(&cluster, "apply -f -", &sweep(3));
    let editor = |script: &str| {
        let path = cluster.scratch().join("editor");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        Outcome::of(cli(&cluster, "edit sw/first").env("KUBE_EDITOR", path), "")
    };
    let changed = editor("sed -i 's/runs: 3/runs: 9/' \"$1\"");
    assert_eq!(
        (changed.code, changed.stdout.as_str()),
        (0, "sweep.example.com/first edited\n"),
        "{}",
        changed.stderr
    );
    assert_eq!(ok(&cluster, "get sw --no-headers", ""), "first   9\n");
    let left = editor("true");
    assert_eq!((left.code, left.stdout.as_str()), (0, ""), "{}", left.stderr);
    assert!(left.stderr.contains("Edit cancelled, no changes made."), "{}", left.stderr);
    let refused = editor("sed -i 's/runs: 9/runs: many/' \"$1\"");
    assert!(refused.code == 1 && refused.stderr.contains("spec.runs"), "{}", refused.stderr);
    let renamed = editor("sed -i 's/name: first/name: second/' \"$1\"");
    assert!(renamed.stderr.contains("metadata/name cannot be changed"), "{}", renamed.stderr);
    assert_eq!(editor("exit 3").code, 1);
    assert_eq!(ok(&cluster, "get sw --no-headers", ""), "first   9\n");
}

/// Without spaces at the ends of lines, of which kubectl has some after empty cells.
fn visible(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).collect()
}

#[test]
fn kinds_and_fields_are_told_as_kubectl_tells_them() {
    let story = "kinds_and_fields_are_told_as_kubectl_tells_them";
    if !need::all(story, &[Need::Kubectl]) {
        return;
    }
    let cluster = server();
    let kubectl = cluster.kubectl();
    wait::until("kubectl has read the new kind", wait::SOON, || {
        let told = kubectl.run(&["explain", "sweeps"]);
        wait::check(told.code == 0, told.stderr)
    });
    for line in [
        "api-resources",
        "api-resources -o wide",
        "api-resources -o name",
        "api-resources --namespaced=false --no-headers",
        "api-resources --api-group=example.com",
        "api-resources --verbs=list,deletecollection -o name",
        "explain pods",
        "explain deployment.spec",
        "explain deployments.apps.spec.replicas",
        "explain pod.spec.containers",
        "explain pod.spec.containers.ports",
        "explain pod.spec.volumes.emptyDir",
        "explain pod.metadata.labels",
        "explain secret.data",
        "explain sweeps",
        "explain sw.spec",
        "explain sweeps.spec.mode",
        "explain sweeps.spec.list",
        "explain sweeps.spec --recursive",
        "explain configmap --recursive",
        "explain hpa.spec --api-version=autoscaling/v1",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(visible(&ok(&cluster, line, "")), visible(&kubectl.ok(&words)), "{line}");
    }
    let nope = run(&cluster, "explain pod.spec.nope", "");
    assert!(nope.code == 1 && nope.stderr.contains("field \"nope\" does not exist"), "{}", nope.stderr);
}
