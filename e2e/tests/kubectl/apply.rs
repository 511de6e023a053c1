//! Server-side apply by real kubectl: owners and conflicts, the way over from client-side apply, `diff`.

use claw_e2e::{
    Cluster, Kubectl, Options,
    need::{self, Need},
    webhook::Webhook,
};
use serde_json::{Value, json};

fn config(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\ndata: {data}\n")
}

fn web(replicas: u32, env: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec: {{containers: [{{name: web, image: 'web:1', env: {env}}}]}}\n"
    )
}

/// One kubectl in a namespace of its own.
struct Story<'a> {
    kubectl: &'a Kubectl,
    namespace: String,
}

impl Story<'_> {
    fn apply(&self, flags: &[&str], manifest: &str) -> String {
        let args = [&["-n", &self.namespace, "apply", "-f", "-"], flags].concat();
        self.kubectl.ok_with(&args, manifest)
    }

    fn apply_fails(&self, flags: &[&str], manifest: &str) -> String {
        let args = [&["-n", &self.namespace, "apply", "-f", "-"], flags].concat();
        self.kubectl.fails(&args, manifest)
    }

    fn get(&self, what: &str) -> Value {
        let json = self.kubectl.ok(&["-n", &self.namespace, "get", what, "-o", "json"]);
        serde_json::from_str(&json).expect("kubectl prints JSON")
    }

    /// Two managers, one object.
    fn owners(&self) {
        let mine = config("{k: '1', l: '1'}");
        assert_eq!(self.apply(&["--server-side"], &mine), "configmap/x serverside-applied\n");
        let before = self.get("configmap/x")["metadata"]["resourceVersion"].clone();
        assert_eq!(self.apply(&["--server-side"], &mine), "configmap/x serverside-applied\n");
        assert_eq!(self.get("configmap/x")["metadata"]["resourceVersion"], before, "nothing to write");

        let other = ["--server-side", "--field-manager=other"];
        self.apply(&other, &config("{l: '1', m: '1'}"));
        let refused = self.apply_fails(&other, &config("{k: '2'}"));
        assert!(refused.contains("conflict with \"kubectl\": .data.k"), "{refused}");
        assert!(refused.contains("--force-conflicts"), "kubectl saw a conflict of fields: {refused}");
        self.apply(&[&other[..], &["--force-conflicts"]].concat(), &config("{k: '2'}"));
        assert_eq!(self.get("configmap/x")["data"], json!({"k": "2", "l": "1"}));
    }

    /// From `apply` to `apply --server-side`.
    fn over_from_client_side(&self) {
        assert_eq!(self.apply(&[], &web(1, "[{name: A, value: '1'}]")), "deployment.apps/web created\n");
        let applied = self.apply(&["--server-side"], &web(2, "[{name: A, value: '2'}, {name: B}]"));
        assert_eq!(applied, "deployment.apps/web serverside-applied\n");
        let spec = &self.get("deployment/web")["spec"];
        assert_eq!(spec["replicas"], 2);
        assert_eq!(spec["template"]["spec"]["containers"][0]["env"][0]["value"], "2");
        // And back: the annotation has followed.
        assert_eq!(self.apply(&[], &web(3, "[{name: A, value: '2'}]")), "deployment.apps/web configured\n");
        let container = &self.get("deployment/web")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"], json!([{"name": "A", "value": "2"}]));
    }

    /// What would change is shown, and not done.
    fn diff(&self) {
        self.apply(&["--server-side"], &config("{k: '2', z: '1'}"));
        let before = self.get("configmap/x");
        let args = ["-n", &self.namespace, "diff", "--server-side", "--force-conflicts", "-f", "-"];
        let shown = claw_e2e::kubectl::Outcome::of(&mut self.kubectl.command(args), &config("{k: '9'}"));
        assert_eq!(shown.code, 1, "{}{}", shown.stdout, shown.stderr);
        for line in ["-  k: \"2\"", "+  k: \"9\"", "-  z: \"1\""] {
            assert!(shown.stdout.contains(line), "no {line} in {}", shown.stdout);
        }
        assert_eq!(self.get("configmap/x"), before);
    }
}

#[test]
fn every_kubectl_applies_on_the_servers_side() {
    if !need::all("every_kubectl_applies_on_the_servers_side", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for (number, kubectl) in cluster.kubectls().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let namespace = format!("apply-{number}");
        kubectl.ok(&["create", "namespace", &namespace]);
        let story = Story { kubectl, namespace };
        story.owners();
        story.over_from_client_side();
        story.diff();
    }
}

/// A kind that keeps its color in one field in its first version and in another in its second.
fn definition(plural: &str, kind: &str, [first, second]: [&str; 2], conversion: &Value) -> String {
    let version = |name: &str, field: &str, storage: bool| {
        let properties = json!({field: {"type": "string"}, "size": {"type": "integer"}});
        let spec = json!({"type": "object", "properties": properties});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [version("v1", first, true), version("v2", second, false)],
            "conversion": conversion,
        },
    })
    .to_string()
}

fn converted(request: &Value) -> Value {
    let wanted = &request["desiredAPIVersion"];
    let (from, to) = if wanted == "example.com/v2" { ("color", "colour") } else { ("colour", "color") };
    let mut objects = request["objects"].clone();
    for object in objects.as_array_mut().into_iter().flatten() {
        object["apiVersion"] = wanted.clone();
        // An apply may ask about an object of which nothing is left.
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
            && let Some(value) = spec.remove(from)
        {
            spec.insert(to.to_owned(), value);
        }
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

fn of(kind: &str, version: &str, spec: &str) -> String {
    format!("apiVersion: example.com/{version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n")
}

impl Story<'_> {
    /// Two managers in two versions that a webhook converts.
    fn owners_of_what_is_converted(&self) {
        let (mine, other) = (["--server-side"], ["--server-side", "--field-manager=other"]);
        self.apply(&mine, &of("Paint", "v1", "{color: red, size: 1}"));
        let refused = self.apply_fails(&other, &of("Paint", "v2", "{colour: blue}"));
        assert!(refused.contains("conflict with \"kubectl\": .spec.color"), "{refused}");
        self.apply(&[&other[..], &["--force-conflicts"]].concat(), &of("Paint", "v2", "{colour: blue}"));
        assert_eq!(self.get("paints.v1.example.com/a")["spec"], json!({"color": "blue", "size": 1}));
        // The first gives up, in the second version, what it said in the first.
        self.apply(&mine, &of("Paint", "v2", "{}"));
        assert_eq!(self.get("paints.v2.example.com/a")["spec"], json!({"colour": "blue"}));
    }

    /// The same in two versions that differ in nothing but their name.
    fn owners_of_what_is_renamed(&self) {
        let (mine, other) = (["--server-side"], ["--server-side", "--field-manager=other"]);
        self.apply(&mine, &of("Dye", "v1", "{color: red, size: 1}"));
        let refused = self.apply_fails(&other, &of("Dye", "v2", "{color: blue}"));
        assert!(refused.contains("conflict with \"kubectl\": .spec.color"), "{refused}");
        self.apply(&other, &of("Dye", "v2", "{color: red}"));
        self.apply(&mine, &of("Dye", "v2", "{}"));
        assert_eq!(self.get("dyes.v1.example.com/a")["spec"], json!({"color": "red"}));
    }
}

#[test]
fn every_kubectl_applies_one_object_in_two_versions() {
    if !need::all("every_kubectl_applies_one_object_in_two_versions", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let folder = tempfile::tempdir().expect("a folder");
    let webhook = Webhook::start(folder.path(), converted);
    let config = json!({"url": webhook.url, "caBundle": webhook.bundle});
    let asks = json!({"conversionReviewVersions": ["v1"], "clientConfig": config});
    let kubectls = cluster.kubectls();
    for (plural, kind, fields, conversion) in [
        ("paints", "Paint", ["color", "colour"], json!({"strategy": "Webhook", "webhook": asks})),
        ("dyes", "Dye", ["color", "color"], json!({"strategy": "None"})),
    ] {
        kubectls[0].ok_with(&["apply", "-f", "-"], &definition(plural, kind, fields, &conversion));
        let defined = format!("crd/{plural}.example.com");
        kubectls[0].ok(&["wait", "--for=condition=Established", &defined, "--timeout=600s"]);
    }
    for (number, kubectl) in kubectls.iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let namespace = format!("versions-{number}");
        kubectl.ok(&["create", "namespace", &namespace]);
        let story = Story { kubectl, namespace };
        story.owners_of_what_is_converted();
        story.owners_of_what_is_renamed();
    }
}

#[test]
fn a_kubectl_that_moves_the_entries_itself_gives_up_what_it_drops() {
    if !need::all("a_kubectl_that_moves_the_entries_itself_gives_up_what_it_drops", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let kubectls = cluster.kubectls();
    // The oldest at hand cannot do it: its entries stay those of client-side apply.
    let kubectl = kubectls.last().expect("one at least");
    let minor = kubectl.name.rsplit('.').next().and_then(|minor| minor.parse::<u32>().ok()).unwrap_or(0);
    if minor < 26 {
        eprintln!("SKIPPED: {} does not move entries", kubectl.name);
        return;
    }
    let story = Story { kubectl, namespace: "default".to_owned() };
    story.apply(&[], &config("{k: '1', l: '1'}"));
    story.apply(&["--server-side"], &config("{k: '1', l: '1'}"));
    story.apply(&["--server-side"], &config("{k: '1'}"));
    assert_eq!(story.get("configmap/x")["data"], json!({"k": "1"}));
    let json = kubectl.ok(&["get", "configmap/x", "-o", "json", "--show-managed-fields"]);
    let object: Value = serde_json::from_str(&json).expect("kubectl prints JSON");
    let entries = object["metadata"]["managedFields"].as_array().expect("entries").clone();
    assert!(entries.iter().all(|entry| entry["manager"] != "kubectl-client-side-apply"), "{entries:?}");
}

#[test]
fn what_helm_template_prints_is_applied_unchanged_changed_and_deleted() {
    if !need::all("what_helm_template_prints", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let chart = std::fs::read_to_string(claw_e2e::binary::workspace().join("e2e/tests/data/chart.yaml"));
    let chart = chart.expect("it lies in the tree");
    for (number, kubectl) in cluster.kubectls().iter().enumerate() {
        eprintln!("--- {}", kubectl.name);
        let namespace = format!("helm-{number}");
        kubectl.ok(&["create", "namespace", &namespace]);
        let story = Story { kubectl, namespace };
        ends_with(&story.apply(&[], &chart), "created");
        ends_with(&story.apply(&[], &chart), "unchanged");
        let next = chart.replace("replicas: 2\n", "replicas: 3\n");
        let changed = story.apply(&[], &next);
        assert!(changed.contains("deployment.apps/reader configured\n"), "{changed}");
        assert_eq!(changed.matches("configured").count(), 1, "{changed}");
        assert_eq!(story.get("deployment/reader")["spec"]["replicas"], 3);
        // The other way that people apply charts, on top of the first.
        ends_with(&story.apply(&["--server-side", "--force-conflicts"], &next), "serverside-applied");
        let gone = kubectl.ok_with(&["-n", &story.namespace, "delete", "--wait=false", "-f", "-"], &next);
        assert_eq!(gone.matches(" deleted").count(), CHART_OBJECTS, "{gone}");
    }
}

/// How many objects `data/chart.yaml` makes.
const CHART_OBJECTS: usize = 9;

fn ends_with(said: &str, word: &str) {
    assert_eq!(said.lines().filter(|line| line.ends_with(word)).count(), CHART_OBJECTS, "{word}: {said}");
}
