//! Real kubectl in a cluster where others have a say: webhooks that change and refuse, policies that deny and warn.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use claw_e2e::{
    Cluster, Kubectl, Options,
    need::{self, Need},
    webhook::Webhook,
};
use serde_json::{Value, json};

/// What the policies say of ConfigMaps.
const POLICIES: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: words}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}]
  variables: [{name: word, expression: \"has(object.data) && 'k' in object.data ? object.data.k : ''\"}]
  validations:
  - {expression: \"variables.word != 'forbidden'\", messageExpression: \"'do not say ' + variables.word\"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: words}
spec: {policyName: words, validationActions: [Deny]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: tone}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: \"!has(object.data) || !('k' in object.data) || object.data.k != 'dubious'\", message: think again}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: tone}
spec: {policyName: tone, validationActions: [Warn]}
";

/// What becomes of ConfigMaps.
const MUTATIONS: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: team}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
  matchConditions: [{name: bare, expression: \"!has(object.metadata.labels) || !('team' in object.metadata.labels)\"}]
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: \"Object{metadata: Object.metadata{labels: {'team': 'green'}}}\"}
  - patchType: JSONPatch
    jsonPatch:
      expression: >
        [JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/keys'), value: has(object.data) ?
        string(size(object.data)) : '0'}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: team}
spec: {policyName: team}
";

#[test]
fn every_kubectl_sees_what_mutating_policies_make_of_its_objects() {
    let name = "every_kubectl_sees_what_mutating_policies_make_of_its_objects";
    if !need::all(name, &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for kubectl in &cluster.kubectls() {
        eprintln!("--- {}", kubectl.name);
        let applied = kubectl.run_with(&["apply", "-f", "-"], MUTATIONS);
        assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "nobody warns: somebody acts on them");
        let policy = "mutatingadmissionpolicies.admissionregistration.k8s.io";
        let table = kubectl.ok(&["get", policy]);
        assert!(table.contains("MUTATIONS") && table.contains("team"), "{table}");
        let labels = "jsonpath={.metadata.labels.team} {.metadata.labels.example\\.com/keys}";
        let dry = ["create", "configmap", "m", "--from-literal=k=v", "--dry-run=server", "-o", labels];
        assert_eq!(kubectl.ok(&dry), "green 1");
        kubectl.ok(&["create", "configmap", "m", "--from-literal=k=v"]);
        assert_eq!(kubectl.ok(&["get", "configmap", "m", "-o", labels]), "green 1");
        kubectl.ok(&["label", "configmap", "m", "team-"]);
        assert_eq!(kubectl.ok(&["get", "configmap", "m", "-o", labels]), "green 1", "it comes back at once");
        kubectl.ok(&["create", "configmap", "m", "-n", "kube-public"]);
        assert_eq!(kubectl.ok(&["get", "configmap", "m", "-n", "kube-public", "-o", labels]), " ");
        let red = configmap(&json!({"name": "own", "labels": {"team": "red"}}));
        kubectl.ok_with(&["apply", "--server-side", "-f", "-"], &red);
        assert_eq!(kubectl.ok(&["get", "configmap", "own", "-o", labels]), "red ");
        let broken = r#"[{"op": "replace", "path": "/spec/mutations/0/applyConfiguration/expression", "value": "Object{metadata: Object.metadata{labels: {'team': object.missing}}}"}]"#;
        kubectl.ok(&["patch", policy, "team", "--type=json", "-p", broken]);
        let said = kubectl.fails(&["create", "configmap", "n"], "");
        assert!(said.contains("policy 'team' with binding 'team' denied request: expression"), "{said}");
        let misspelt = broken.replace("Object.metadata{", "Objekt{");
        let said = kubectl.fails(&["patch", policy, "team", "--type=json", "-p", &misspelt], "");
        assert!(said.contains("compilation failed: undeclared reference to 'Objekt'"), "{said}");
        kubectl.ok(&["delete", "mutatingadmissionpolicybindings.admissionregistration.k8s.io", "team"]);
        kubectl.ok(&["delete", policy, "team"]);
        kubectl.ok(&["create", "configmap", "n"]);
        kubectl.ok(&["delete", "configmap", "m", "n", "own"]);
        kubectl.ok(&["delete", "configmap", "m", "-n", "kube-public"]);
        priorities(kubectl);
    }
}

fn priorities(kubectl: &Kubectl) {
    kubectl.ok(&["create", "priorityclass", "high", "--value=1000", "--preemption-policy=Never"]);
    let pod = |class: &str| {
        let spec = json!({"priorityClassName": class, "containers": [{"name": "c", "image": "clawbernetes.io/toolbox:1"}]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}).to_string()
    };
    let said = kubectl.fails(&["create", "-f", "-"], &pod("unknown"));
    assert!(said.contains("pods \"p\" is forbidden: no PriorityClass with name unknown was found"), "{said}");
    kubectl.ok_with(&["create", "-f", "-"], &pod("high"));
    let standing = "jsonpath={.spec.priority} {.spec.preemptionPolicy}";
    assert_eq!(kubectl.ok(&["get", "pod", "p", "-o", standing]), "1000 Never");
    kubectl.ok(&["delete", "pod", "p", "--force", "--grace-period=0"]);
    kubectl.ok(&["delete", "priorityclass", "high"]);
}

/// Refuses objects with the label `bad`, and gives those without labels one.
fn answer(request: &Value) -> Value {
    let labels = &request["object"]["metadata"]["labels"];
    if labels["bad"].is_string() {
        return json!({"allowed": false, "status": {"code": 403, "message": "bad is bad"}});
    }
    if request["options"]["kind"] != "CreateOptions" || labels.is_object() {
        return json!({"allowed": true});
    }
    let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"team": "blue"}}]);
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

/// Only validating: the same, but changing nothing.
fn judge(request: &Value) -> Value {
    let mut response = answer(request);
    if let Some(fields) = response.as_object_mut() {
        fields.retain(|field, _| !field.starts_with("patch"));
    }
    response
}

fn configuration(kind: &str, webhook: &Webhook) -> String {
    let rule = json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let name = format!("{}.example.com", kind.to_lowercase());
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": "story"},
        "webhooks": [{
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [rule],
            "clientConfig": {"url": webhook.url, "caBundle": webhook.bundle},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        }],
    })
    .to_string()
}

#[test]
fn every_kubectl_hears_what_webhooks_and_policies_have_to_say() {
    if !need::all("every_kubectl_hears_what_webhooks_and_policies_have_to_say", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for kubectl in &cluster.kubectls() {
        eprintln!("--- {}", kubectl.name);
        let mutating = Webhook::start(&cluster.scratch().join("mutating"), answer);
        let validating = Webhook::start(&cluster.scratch().join("validating"), judge);
        let applied = kubectl.run_with(&["apply", "-f", "-"], POLICIES);
        assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "nobody warns: somebody acts on them");
        kubectl.ok_with(&["apply", "-f", "-"], &configuration("Mutating", &mutating));
        kubectl.ok_with(&["apply", "-f", "-"], &configuration("Validating", &validating));
        refusals(kubectl);
        changes(kubectl);
        applies(kubectl);
        drop((mutating, validating));
        outages(kubectl);
        kubectl.ok(&["delete", "validatingwebhookconfiguration,mutatingwebhookconfiguration", "story"]);
        kubectl.ok(&[
            "delete",
            "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            "words",
            "tone",
        ]);
        kubectl.ok(&["delete", "validatingadmissionpolicies.admissionregistration.k8s.io", "words", "tone"]);
        kubectl.ok(&["delete", "configmap", "--all"]);
    }
}

fn refusals(kubectl: &Kubectl) {
    let bad = configmap(&json!({"name": "bad", "labels": {"bad": "very"}}));
    let said = kubectl.fails(&["create", "-f", "-"], &bad);
    assert!(
        said.contains("admission webhook \"mutating.example.com\" denied the request: bad is bad"),
        "{said}"
    );
    let said = kubectl.fails(&["create", "configmap", "f", "--from-literal=k=forbidden"], "");
    let denied =
        "ValidatingAdmissionPolicy 'words' with binding 'words' denied request: do not say forbidden";
    assert!(said.contains(denied), "{said}");
    let warned = kubectl.run(&["create", "configmap", "dubious", "--from-literal=k=dubious"]);
    assert_eq!(warned.code, 0);
    assert!(
        warned.stderr.contains(
            "Warning: Validation failed for ValidatingAdmissionPolicy 'tone' with binding 'tone': think again"
        ),
        "{}",
        warned.stderr
    );
    let said = kubectl.fails(&["label", "configmap", "dubious", "bad=now"], "");
    assert!(said.contains("denied the request: bad is bad"), "{said}");
}

fn changes(kubectl: &Kubectl) {
    let team = "jsonpath={.metadata.labels.team}";
    let dry = kubectl.ok(&["create", "configmap", "a", "--from-literal=k=v", "--dry-run=server", "-o", team]);
    assert_eq!(dry, "blue", "a dry run shows what webhooks would do");
    assert!(kubectl.fails(&["get", "configmap", "a"], "").contains("not found"));
    kubectl.ok(&["create", "configmap", "a", "--from-literal=k=v"]);
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-o", team]), "blue");
    // Other namespaces are not selected.
    kubectl.ok(&["create", "configmap", "a", "-n", "kube-public"]);
    assert_eq!(kubectl.ok(&["get", "configmap", "a", "-n", "kube-public", "-o", team]), "");
    kubectl.ok(&["delete", "configmap", "a", "-n", "kube-public"]);
}

fn applies(kubectl: &Kubectl) {
    let apply = |manager: &str, metadata: &Value| {
        let manager = format!("--field-manager={manager}");
        kubectl.ok_with(&["apply", "--server-side", &manager, "-f", "-"], &configmap(metadata));
        kubectl.ok(&["get", "configmap", "applied", "-o", "jsonpath={.metadata.labels.team}"])
    };
    let bare = json!({"name": "applied"});
    assert_eq!(apply("one", &bare), "blue");
    assert_eq!(apply("one", &bare), "blue", "it is not the applier's to give up");
    let red = json!({"name": "applied", "labels": {"team": "red"}});
    assert_eq!(apply("two", &red), "red", "it is nobody's, so there is no conflict");
}

fn configmap(metadata: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}}).to_string()
}

fn outages(kubectl: &Kubectl) {
    let said = kubectl.fails(&["create", "configmap", "b"], "");
    assert!(
        said.contains("failed calling webhook \"mutating.example.com\": failed to call webhook: Post"),
        "{said}"
    );
    let ignore = r#"[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]"#;
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        kubectl.ok(&["patch", kind, "story", "--type=json", "-p", ignore]);
    }
    kubectl.ok(&["create", "configmap", "b"]);
    assert_eq!(kubectl.ok(&["get", "configmap", "b", "-o", "jsonpath={.metadata.labels.team}"]), "");
}
