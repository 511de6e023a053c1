//! `KernelJob` as clients see it: a kind that no client library knows, through every real kubectl, on a server without nodes.

use std::{fs, os::unix::fs::PermissionsExt as _};

use claw_e2e::{
    Cluster, Kubectl, Options,
    kubectl::Outcome,
    need::{self, Need},
};
use serde_json::{Value, json};

/// A job whose spec ends with some more lines.
fn job(name: &str, more: &str) -> String {
    format!(
        "apiVersion: clawbernetes.io/v1\nkind: KernelJob\nmetadata: {{name: {name}}}\nspec:\n  \
         inputs: [{{name: x, dtype: f32, shape: [2, 2], values: [1, 2.5, 3, 4]}}]\n  \
         operations: [{{name: p, op: Softmax, inputs: [x]}}]\n  outputs: [{{value: p}}]\n{more}"
    )
}

/// One kubectl in a namespace of its own.
struct Story<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: String,
}

impl Story<'_> {
    fn args<'a>(&'a self, line: &'a str) -> Vec<&'a str> {
        ["-n", &self.namespace].into_iter().chain(line.split(' ')).collect()
    }

    fn ok(&self, line: &str, input: &str) -> String {
        self.kubectl.ok_with(&self.args(line), input)
    }

    fn fails(&self, line: &str, input: &str) -> String {
        self.kubectl.fails(&self.args(line), input)
    }

    fn object(&self) -> Value {
        serde_json::from_str(&self.ok("get kj/a -o json", "")).expect("an object")
    }

    fn applied(&self) {
        assert_eq!(self.ok("apply -f -", &job("a", "")), "kerneljob.clawbernetes.io/a created\n");
        assert_eq!(self.ok("apply -f -", &job("a", "")), "kerneljob.clawbernetes.io/a unchanged\n");
        let changed = job("a", "  suspend: true\n  activeDeadlineSeconds: 60\n");
        assert_eq!(self.ok("apply -f -", &changed), "kerneljob.clawbernetes.io/a configured\n");
        let object = self.object();
        let seen = [&object["spec"]["suspend"], &object["spec"]["runs"], &object["metadata"]["generation"]];
        assert_eq!(seen, [&json!(true), &json!(1), &json!(2)]);
        let refused = self.fails("apply -f -", &job("a", "  runs: 3\n"));
        assert!(refused.contains("spec.runs: Invalid value: 3: field is immutable"), "{refused}");
        let wrong = job("b", "").replace("inputs: [x]", "inputs: [z]");
        let refused = self.fails("apply -f -", &wrong);
        let cause =
            "spec.operations[0].inputs[0]: Invalid value: \"z\": \"p\" reads \"z\", and no input or earlier";
        assert!(refused.contains(cause), "{refused}");
    }

    fn patched(&self) {
        for (kind, patch) in [
            ("merge", r#"{"spec":{"ttlSecondsAfterFinished":7}}"#),
            ("strategic", r#"{"spec":{"ttlSecondsAfterFinished":8}}"#),
            ("json", r#"[{"op":"replace","path":"/spec/ttlSecondsAfterFinished","value":9}]"#),
        ] {
            self.ok(&format!("patch kj/a --type={kind} -p {patch}"), "");
        }
        assert_eq!(self.object()["spec"]["ttlSecondsAfterFinished"], 9);
    }

    /// What was read is written back by whoever edits.
    fn edited(&self) {
        let editor = self.cluster.scratch().join("editor");
        fs::write(&editor, "#!/bin/sh\nsed -i 's/suspend: true/suspend: false/' \"$1\"\n").expect("a script");
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let mut command = self.kubectl.command(self.args("edit kj/a"));
        let edited = Outcome::of(command.env("KUBE_EDITOR", editor), "").success().expect("it is edited");
        assert_eq!(edited, "kerneljob.clawbernetes.io/a edited\n");
        let spec = &self.object()["spec"];
        assert_eq!((&spec["suspend"], &spec["inputs"][0]["values"]), (&json!(false), &json!([1, 2.5, 3, 4])));
    }

    /// By several owners. kubectl 1.20 applies on the server's side, too.
    fn shared(&self) {
        let mine = job("s", "  volumes: [{name: r, emptyDir: {}}]\n");
        let apply = "apply --server-side -f -";
        assert_eq!(self.ok(apply, &mine), "kerneljob.clawbernetes.io/s serverside-applied\n");
        let suspended =
            "apiVersion: clawbernetes.io/v1\nkind: KernelJob\nmetadata: {name: s}\nspec: {suspend: true}\n";
        self.ok("apply --server-side --field-manager=other -f -", suspended);
        let refused = self.fails(apply, &format!("{mine}  suspend: false\n"));
        assert!(refused.contains("conflict with \"other\": .spec.suspend"), "{refused}");
        let path = format!("/apis/clawbernetes.io/v1/namespaces/{}/kerneljobs/s", self.namespace);
        let text = self.cluster.kubectl().ok(&["get", "--raw", &path]);
        let object: Value = serde_json::from_str(&text).expect("an object");
        let owners = object["metadata"]["managedFields"].as_array().expect("owners");
        let mine = owners.iter().find(|owner| owner["manager"] != "other").expect("it owns some");
        let spec = &mine["fieldsV1"]["f:spec"];
        assert!(spec["f:volumes"][r#"k:{"name":"r"}"#].is_object(), "volumes are owned by name: {spec}");
        assert_eq!(spec["f:operations"], json!({}), "operations are one piece");
    }

    fn shown(&self) {
        let table = self.ok("get all", "");
        assert!(table.contains("kerneljob.clawbernetes.io/a"), "{table}");
        let told = self.ok("explain kerneljob.spec.operations", "");
        for words in ["transposeFirst", "keepAxis", "One step of a graph", "-required-"] {
            assert!(told.contains(words), "no {words} in {told}");
        }
        assert!(self.ok("explain kj", "").contains("A graph of tensor operations"));
    }
}

#[test]
fn every_client_works_on_kernel_jobs_as_on_any_kind() {
    if !need::all("every_client_works_on_kernel_jobs_as_on_any_kind", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for (number, kubectl) in cluster.reaching().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let namespace = format!("jobs-{number}");
        cluster.kubectl().ok(&["create", "namespace", &namespace]);
        let story = Story { cluster: &cluster, kubectl, namespace };
        story.applied();
        // Our own command line has no `patch`.
        if !kubectl.is_ours() {
            story.patched();
        }
        story.edited();
        story.shared();
        story.shown();
    }
}

#[test]
fn a_misspelt_field_of_an_operation_is_refused_and_a_status_is_only_for_who_says_so() {
    let story = "a_misspelt_field_of_an_operation_is_refused_and_a_status_is_only_for_who_says_so";
    if !need::all(story, &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let kubectl = cluster.kubectl();
    let misspelt = job("a", "").replace("inputs: [x]", "inputs: [x], axes: 0");
    let refused = kubectl.fails(&["create", "--validate=strict", "-f", "-"], &misspelt);
    assert!(refused.contains("unknown field \"spec.operations[0].axes\""), "{refused}");
    kubectl.ok_with(&["create", "-f", "-"], &format!("{}status: {{phase: Complete}}\n", job("a", "")));
    assert_eq!(kubectl.ok(&["get", "kj/a", "-o", "jsonpath={.status.phase}"]), "");
    let status = r#"{"status":{"phase":"Running","attempts":[{"pod":"a-0","device":"cuda:0"}],"figures":{"runs":1,"gflopsPerSecond":12.5}}}"#;
    kubectl.ok(&["patch", "kj/a", "--subresource=status", "--type=merge", "-p", status]);
    let table = kubectl.ok(&["get", "kj/a", "--no-headers"]);
    let words: Vec<&str> = table.split_whitespace().take(5).collect();
    assert_eq!(words, ["a", "Softmax", "cuda:0", "12.5", "Running"], "{table}");
    assert_eq!(kubectl.ok(&["get", "kj/a", "-o", "jsonpath={.metadata.generation}"]), "1");
}

#[test]
fn kernel_jobs_are_counted_by_quotas_and_covered_by_the_usual_roles() {
    let story = "kernel_jobs_are_counted_by_quotas_and_covered_by_the_usual_roles";
    if !need::all(story, &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let kubectl = cluster.kubectl();
    kubectl.ok(&["create", "quota", "q", "--hard=count/kerneljobs.clawbernetes.io=1"]);
    kubectl.ok_with(&["create", "-f", "-"], &job("a", ""));
    let refused = kubectl.fails(&["create", "-f", "-"], &job("b", ""));
    assert!(
        refused.contains("exceeded quota: q, requested: count/kerneljobs.clawbernetes.io=1"),
        "{refused}"
    );
    for role in ["view", "edit"] {
        let (binding, user) = (format!("the-{role}"), format!("--user={role}er"));
        kubectl.ok(&["create", "rolebinding", &binding, &format!("--clusterrole={role}"), &user]);
    }
    for (user, verb, resource, expected) in [
        ("viewer", "watch", "kerneljobs", true),
        ("viewer", "get", "kerneljobs/status", true),
        ("viewer", "create", "kerneljobs", false),
        ("editer", "create", "kerneljobs", true),
        ("editer", "deletecollection", "kerneljobs", true),
        ("editer", "patch", "kerneljobs/status", false),
    ] {
        let (name, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let name = format!("{name}.clawbernetes.io");
        let (who, subresource) = (format!("--as={user}"), format!("--subresource={sub}"));
        let may = kubectl.run(&["auth", "can-i", verb, &name, &subresource, &who]);
        assert_eq!(may.code == 0, expected, "{user} {verb} {resource}: {}{}", may.stdout, may.stderr);
    }
}
