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
