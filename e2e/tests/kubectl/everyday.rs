//! Real kubectl, oldest and newest at hand, does what people do with it all day.

use claw_e2e::{
    Cluster, Kubectl, Options,
    cluster::write,
    need::{self, Need},
    wait,
};

/// A Deployment of `replicas` web servers; the image's tag is visible in what they log.
fn web(name: &str, tag: &str, replicas: u32) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: clawbernetes.io/toolbox:{tag}
          args: [serve, --port, "8080"]
          readinessProbe:
            httpGet: {{path: /healthz, port: 8080}}
            periodSeconds: 1
"#
    )
}

#[test]
fn every_kubectl_runs_a_deployment_through_its_life() {
    if !need::all("every_kubectl_runs_a_deployment_through_its_life", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    for (number, kubectl) in cluster.kubectls().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        // Each in a namespace of its own, so that the second does not find the first one's traces.
        let namespace = format!("life-{number}");
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
        kubectl.ok_with(&["apply", "-f", "-"], &text);
        let story = Story { cluster: &cluster, kubectl, namespace: &namespace };
        story.apply_and_read();
        story.roll_out_and_back();
        story.scale();
        story.follow_logs();
        story.delete();
    }
}

struct Story<'a> {
    cluster: &'a Cluster,
    kubectl: &'a Kubectl,
    namespace: &'a str,
}

impl Story<'_> {
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.kubectl.ok(&[&["-n", self.namespace], args].concat())
    }

    fn file(&self, name: &str, text: &str) -> String {
        write(&self.cluster.scratch().join(name), text).to_string_lossy().into_owned()
    }

    fn apply_and_read(&self) {
        let file = self.file("web.yaml", &web("web", "1", 2));
        let watch = self.kubectl.spawn(
            &["-n", self.namespace, "get", "pods", "-w"],
            &self.cluster.scratch().join(format!("watch-{}", self.namespace)),
        );
        assert_eq!(self.ok(&["apply", "-f", &file]), "deployment.apps/web created\n");
        assert_eq!(self.ok(&["apply", "-f", &file]), "deployment.apps/web unchanged\n");
        self.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
        self.ok(&["wait", "--for=condition=Available", "deployment/web", "--timeout=600s"]);
        wait::until("get -w shows the pods becoming ready", wait::SOON, || {
            let seen = watch.output();
            wait::check(seen.starts_with("NAME") && seen.contains("1/1"), seen)
        });

        let table = self.ok(&["get", "deployment", "web"]);
        assert_header(&table, &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
        assert!(table.contains("2/2"), "{table}");
        let pods = self.ok(&["get", "pods"]);
        assert_header(&pods, &["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
        assert_eq!(pods.matches("Running").count(), 2, "{pods}");
        let wide = self.ok(&["get", "pods", "-o", "wide"]);
        assert!(wide.lines().next().is_some_and(|header| header.contains("NODE")), "{wide}");
        let all = self.ok(&["get", "all"]);
        for kind in ["pod/web-", "deployment.apps/web", "replicaset.apps/web-"] {
            assert!(all.contains(kind), "`get all` lacks {kind}: {all}");
        }
        let yaml = self.ok(&["get", "deployment", "web", "-o", "yaml"]);
        assert!(yaml.contains("clawbernetes.io/toolbox:1"), "{yaml}");
        // Events come after what they tell of.
        let describes = |what: &[&str], words: &[&str]| {
            wait::until(&format!("it is described with {words:?}"), wait::SOON, || {
                let described = self.ok(&[&["describe"], what].concat());
                wait::check(words.iter().all(|word| described.contains(word)), described)
            });
        };
        describes(&["pods", "-l", "app=web"], &["Started", "clawbernetes.io/toolbox:1", "Ready", "Normal"]);
        describes(&["deployment", "web"], &["ScalingReplicaSet"]);
    }

    fn roll_out_and_back(&self) {
        let file = self.file("web.yaml", &web("web", "2", 2));
        assert_eq!(self.ok(&["apply", "-f", &file]), "deployment.apps/web configured\n");
        self.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
        assert_eq!(self.images(), ["clawbernetes.io/toolbox:2"; 2]);
        let history = self.ok(&["rollout", "history", "deployment/web"]);
        assert!(history.lines().any(|line| line.starts_with('2')), "{history}");

        self.ok(&["rollout", "undo", "deployment/web"]);
        self.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
        assert_eq!(self.images(), ["clawbernetes.io/toolbox:1"; 2]);
        self.ok(&["set", "image", "deployment/web", "web=clawbernetes.io/toolbox:3"]);
        self.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
        assert_eq!(self.images(), ["clawbernetes.io/toolbox:3"; 2]);
    }

    /// Images of the pods that are there to stay, once no other pod is left.
    fn images(&self) -> Vec<String> {
        wait::until("two pods are left", wait::SOON, || {
            let seen = self.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"]);
            let images: Vec<_> = seen.split_whitespace().map(str::to_owned).collect();
            if images.len() == 2 { Ok(images) } else { Err(seen) }
        })
    }

    fn scale(&self) {
        self.ok(&["scale", "deployment", "web", "--replicas=4"]);
        self.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
        assert_eq!(self.ok(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]), "4");
        self.ok(&["scale", "deployment", "web", "--current-replicas=4", "--replicas=1"]);
        wait::until("three pods leave", wait::SOON, || {
            let left = self.ok(&["get", "pods", "-o", "name"]);
            wait::check(left.lines().count() == 1, left)
        });
    }

    fn follow_logs(&self) {
        let lines = self.file(
            "lines.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: lines}\nspec:\n  restartPolicy: Never\n  \
             terminationGracePeriodSeconds: 1\n  containers:\n    - name: main\n      \
             image: clawbernetes.io/toolbox:1\n      \
             args: [lines, --count, \"40\", --interval-ms, \"50\", --text, tick]\n",
        );
        self.ok(&["apply", "-f", &lines]);
        // Two seconds later it is over.
        wait::until("the pod has started", wait::LATER, || {
            let phase = self.ok(&["get", "pod", "lines", "-o", "jsonpath={.status.phase}"]);
            wait::check(["Running", "Succeeded"].contains(&phase.as_str()), phase)
        });
        // Ends by itself when the container ends, with every line in it.
        let followed = self.ok(&["logs", "-f", "lines"]);
        assert_eq!(followed.lines().filter(|line| line.contains("tick")).count(), 40, "{followed}");
        assert_eq!(self.ok(&["logs", "lines", "--tail=2"]).lines().count(), 2);
        assert!(!self.ok(&["logs", "deployment/web"]).is_empty());
        let refused = self.kubectl.fails(&["-n", self.namespace, "logs", "lines", "-c", "nobody"], "");
        assert!(refused.contains("nobody"), "{refused}");
    }

    fn delete(&self) {
        // Newer versions also say where they delete.
        assert!(self.ok(&["delete", "pod", "lines"]).starts_with("pod \"lines\" deleted"));
        self.ok(&["delete", "deployment", "web"]);
        wait::until("the pods follow their deployment", wait::SOON, || {
            let left = self.ok(&["get", "pods,replicasets", "-o", "name"]);
            wait::check(left.is_empty(), left)
        });
        let gone = self.kubectl.fails(&["-n", self.namespace, "get", "deployment", "web"], "");
        assert!(gone.contains("deployments.apps \"web\" not found"), "{gone}");
        // A namespace takes what is in it along, and `delete` waits for that.
        let file = self.file("left.yaml", &web("left", "1", 1));
        self.ok(&["apply", "-f", &file]);
        self.ok(&["wait", "--for=condition=Available", "deployment/left", "--timeout=600s"]);
        self.kubectl.ok(&["delete", "namespace", self.namespace, "--timeout=600s"]);
        let gone = self.kubectl.fails(&["get", "namespace", self.namespace], "");
        assert!(gone.contains("not found"), "{gone}");
    }
}

#[test]
fn every_kubectl_discovers_and_explains_the_api() {
    if !need::all("every_kubectl_discovers_and_explains_the_api", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for kubectl in cluster.kubectls() {
        let resources = kubectl.ok(&["api-resources"]);
        for line in ["deploy", "po ", "ns ", "cm ", "rs "] {
            assert!(resources.contains(line), "{}: api-resources lacks {line}: {resources}", kubectl.name);
        }
        let explained = kubectl.ok(&["explain", "deployment"]);
        assert!(explained.contains("Deployment") && explained.contains("spec"), "{explained}");
        let explained = kubectl.ok(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]);
        assert!(explained.contains("maxSurge"), "{explained}");
        let versions = kubectl.ok(&["api-versions"]);
        assert!(versions.lines().any(|line| line == "apps/v1"), "{versions}");
        assert!(kubectl.ok(&["version", "-o", "json"]).contains("serverVersion"));
        assert!(kubectl.ok(&["get", "namespaces", "-o", "name"]).contains("namespace/kube-system"));
    }
}

#[test]
fn every_kubectl_edits_objects_in_place() {
    if !need::all("every_kubectl_edits_objects_in_place", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for kubectl in cluster.kubectls() {
        let apply = |data: &str| {
            let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{{data}}}\n");
            kubectl.ok_with(&["apply", "-f", "-"], &text)
        };
        assert_eq!(apply("a: one, b: two"), "configmap/c created\n");
        // What an apply no longer names goes away; what others set stays.
        kubectl.ok(&["patch", "configmap", "c", "--type=merge", "-p", r#"{"data":{"c":"three"}}"#]);
        assert_eq!(apply("a: uno"), "configmap/c configured\n");
        let data = kubectl.ok(&["get", "configmap", "c", "-o", "jsonpath={.data}"]);
        let data: serde_json::Value = serde_json::from_str(&data).expect("jsonpath prints JSON");
        assert_eq!(data, serde_json::json!({"a": "uno", "c": "three"}));

        kubectl.ok(&["label", "configmap", "c", "colour=blue"]);
        assert!(kubectl.ok(&["get", "cm", "-l", "colour=blue", "-o", "name"]).contains("configmap/c"));
        kubectl.ok(&["annotate", "configmap", "c", "note=kept"]);
        let patch = r#"[{"op":"test","path":"/data/a","value":"uno"},{"op":"remove","path":"/data/c"}]"#;
        kubectl.ok(&["patch", "configmap", "c", "--type=json", "-p", patch]);
        assert_eq!(kubectl.ok(&["get", "configmap", "c", "-o", "jsonpath={.data.c}"]), "");
        kubectl.ok(&["delete", "configmap", "c"]);
    }
}

#[track_caller]
fn assert_header(table: &str, columns: &[&str]) {
    let header: Vec<_> = table.lines().next().unwrap_or("").split_whitespace().collect();
    assert_eq!(header, columns, "in {table}");
}
