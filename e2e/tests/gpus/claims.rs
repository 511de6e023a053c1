//! ResourceClaims through the whole product: made from templates, allocated, shared, waited for, freed; and pods beside them
//! that ask for GPUs by number.

use std::collections::BTreeSet;

use crate::{container, gpus_of, holder, is_killed_and_started_again, with_a_worker};
use claw_e2e::{
    Kubectl,
    binary::workspace,
    need::{self, Need},
    wait,
};

/// A template for one GPU, and what asks for one by it.
pub(super) const TEMPLATE: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: one}
spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}]}}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_numbers_share_a_machine_and_never_a_gpu() {
    if !need::all("claims_and_numbers_share_a_machine_and_never_a_gpu", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (mut cluster, _recording, _) = with_a_worker(3).await;
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], TEMPLATE);
    kubectl.ok_with(&["apply", "-f", "-"], &claimer("one", "resourceClaimTemplateName: one"));
    kubectl.ok_with(&["apply", "-f", "-"], &holder("two", ""));
    kubectl.ok_with(&["apply", "-f", "-"], &claimer("three", "resourceClaimTemplateName: one"));
    let names = ["one", "two", "three"];
    names.iter().for_each(|name| ready(&kubectl, name));
    let given: Vec<String> = names.iter().map(|name| gpus_of(&cluster, name)).collect();
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 3, "{given:?}");
    for (name, gpu) in names.iter().zip(&given) {
        let path = "jsonpath={.status.containerStatuses[0].allocatedResourcesStatus[0]}";
        let told = kubectl.ok(&["get", "pod", name, "-o", path]).to_lowercase();
        assert!(told.contains(&gpu.to_lowercase()) && told.contains("\"healthy\""), "{name}: {told}");
    }

    let listed = kubectl.ok(&["get", "resourceclaims"]);
    assert!(listed.starts_with("NAME") && listed.contains("STATE"), "{listed}");
    assert_eq!(listed.lines().filter(|line| line.contains("allocated,reserved")).count(), 2, "{listed}");
    let claim = claim_of(&kubectl, "one");
    assert!(claim.starts_with("one-gpu-"), "{claim}");
    let described = kubectl.ok(&["describe", "resourceclaim", &claim]).to_lowercase();
    assert!(described.contains(&given[0].to_lowercase()), "{described}");

    for (name, pod) in
        [("claims", claimer("claims", "resourceClaimTemplateName: one")), ("counts", holder("counts", ""))]
    {
        kubectl.ok_with(&["apply", "-f", "-"], &pod);
        let why = if name == "claims" { "cannot allocate all claims" } else { "Insufficient nvidia.com/gpu" };
        waits_because(&kubectl, name, why);
    }
    kubectl.ok(&["delete", "pod", "counts", "--now"]);

    // What a container has it keeps, over the agent and over its own end.
    cluster.node("worker").kill();
    cluster.node("worker").start();
    is_killed_and_started_again(&cluster, &kubectl, "three");
    assert_eq!(gpus_of(&cluster, "three"), given[2]);

    kubectl.ok(&["delete", "pod", "two", "--now"]);
    ready(&kubectl, "claims");
    assert_eq!(gpus_of(&cluster, "claims"), given[1], "what was asked for by number is claimed now");
    kubectl.ok_with(&["apply", "-f", "-"], &holder("counts", ""));
    waits_because(&kubectl, "counts", "Insufficient nvidia.com/gpu");
    kubectl.ok(&["delete", "pod", "one", "--now"]);
    ready(&kubectl, "counts");
    assert_eq!(gpus_of(&cluster, "counts"), given[0], "and what was claimed is given by number");
    kubectl.ok(&["delete", "pod", "three", "claims", "--now"]);
    no_claim_is_left(&kubectl);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_shared_and_kept_under_its_pods_and_wrong_selectors_are_told() {
    let story = "a_claim_is_shared_and_kept_under_its_pods_and_wrong_selectors_are_told";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (cluster, _recording, _) = with_a_worker(2).await;
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &claimer("early", "resourceClaimName: shared"));
    waits_because(&kubectl, "early", "resourceclaim.resource.k8s.io \"shared\" not found");
    kubectl.ok_with(&["apply", "-f", "-"], &claim("shared", "device.driver == 'gpu.clawbernetes.io'"));
    kubectl.ok_with(&["apply", "-f", "-"], &claimer("late", "resourceClaimName: shared"));
    ready(&kubectl, "early");
    ready(&kubectl, "late");
    assert_eq!(gpus_of(&cluster, "early"), gpus_of(&cluster, "late"), "they share one");

    kubectl.ok(&["delete", "resourceclaim", "shared", "--wait=false"]);
    let state = kubectl.ok(&["get", "resourceclaim", "shared", "--no-headers"]);
    assert!(state.contains("deleted,allocated,reserved"), "{state}");
    kubectl.ok(&["delete", "pod", "early", "--now"]);
    let state = kubectl.ok(&["get", "resourceclaim", "shared", "--no-headers"]);
    assert!(state.contains("deleted,allocated,reserved"), "the other still uses it: {state}");
    assert!(container(&cluster, "late").is_some());
    kubectl.ok(&["delete", "pod", "late", "--now"]);
    no_claim_is_left(&kubectl);

    let huge = "device.capacity['gpu.clawbernetes.io'].memory.isGreaterThan(quantity('1Ti'))";
    for (name, selector, why) in [
        ("huge", huge, "0/1 nodes are available: 1 cannot allocate all claims."),
        (
            "missing",
            "device.attributes['gpu.clawbernetes.io'].colour == 'red'",
            "selector #0: CEL runtime error: ",
        ),
    ] {
        kubectl.ok_with(&["apply", "-f", "-"], &claim(name, selector));
        kubectl.ok_with(&["apply", "-f", "-"], &claimer(name, &format!("resourceClaimName: {name}")));
        waits_because(&kubectl, name, why);
    }
    wait::until("an event tells of the wrong one", wait::LATER, || {
        let said = kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        wait::check(said.contains("CEL runtime error"), said)
    });
    let why = kubectl.fails(&["apply", "-f", "-"], &claim("broken", "device.driver =="));
    assert!(why.contains("selectors[0].cel.expression") && why.contains("compilation failed"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_says_whether_its_gpu_is_ready_and_who_tolerates_a_fault_gets_one_with_it() {
    let story = "a_claim_says_whether_its_gpu_is_ready_and_who_tolerates_a_fault_gets_one_with_it";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (cluster, recording, _) = with_a_worker(1).await;
    let kubectl = cluster.kubectl();
    let says = |name: &str, wanted: &str| {
        wait::until("the claim says how its GPU is", wait::LATER, || {
            let path = "jsonpath={.status.devices[*].pool} {.status.devices[*].conditions[*]['type','status','reason']}";
            let said = kubectl.ok(&["get", "resourceclaim", name, "-o", path]);
            wait::check(said == wanted, said)
        });
    };
    kubectl.ok_with(&["apply", "-f", "-"], &claim("plain", "true"));
    kubectl.ok_with(&["apply", "-f", "-"], &claimer("user", "resourceClaimName: plain"));
    ready(&kubectl, "user");
    says("plain", "worker Ready True Healthy");
    recording.change(|gpus| gpus[0]["xids"] = serde_json::json!([79]));
    says("plain", "worker Ready False Xid");
    kubectl.ok(&["delete", "pod", "user", "--now"]);

    kept_away(&kubectl, "wary", &claimer("wary", "resourceClaimName: plain"), "cannot allocate all claims");
    kubectl.ok(&["delete", "pod", "wary", "--now"]);
    let tolerant = claim("tolerant", "true").trim_end().to_owned()
        + "\n          tolerations: [{key: gpu.clawbernetes.io/xid, operator: Equal, value: '79'}]\n";
    kubectl.ok_with(&["apply", "-f", "-"], &tolerant);
    kubectl.ok_with(&["apply", "-f", "-"], &claimer("doctor", "resourceClaimName: tolerant"));
    ready(&kubectl, "doctor");
    says("tolerant", "worker Ready False Xid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_claim_does_what_it_says() {
    if !need::all("the_example_of_a_claim_does_what_it_says", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (cluster, _recording, _) = with_a_worker(1).await;
    let kubectl = cluster.kubectl();
    let file = workspace().join("examples/gpu-claim.yaml");
    kubectl.ok(&["apply", "-f", &file.to_string_lossy()]);
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/gpu-claim", "--timeout=600s"]);
    let said = kubectl.ok(&["logs", "gpu-claim"]);
    assert!(said.contains(&format!("{}{}", crate::VISIBLE, crate::FIRST)), "{said}");
    no_claim_is_left(&kubectl);
}

pub(super) fn ready(kubectl: &Kubectl, pod: &str) {
    kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=600s"]);
}

fn claim_of(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.ok(&["get", "pod", pod, "-o", "jsonpath={.status.resourceClaimStatuses[0].resourceClaimName}"])
}

pub(super) fn waits_because(kubectl: &Kubectl, pod: &str, why: &str) {
    wait::until(&format!("{pod} waits and says why"), wait::LATER, || {
        let path = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}";
        let said = kubectl.ok(&["get", "pod", pod, "-o", path]);
        wait::check(said.contains(why), said)
    });
}

/// Waits until a pod is given no GPU, and says why. The scheduler hears of what is against a GPU by another stream than of the pod, so one that
/// was quicker is made anew.
pub(super) fn kept_away(kubectl: &Kubectl, name: &str, pod: &str, why: &str) {
    wait::until(&format!("{name} is kept away and says why"), wait::LATER, || {
        kubectl.ok_with(&["apply", "-f", "-"], pod);
        let path = "jsonpath={.spec.nodeName}:{.status.conditions[?(@.type=='PodScheduled')].message}";
        let said = kubectl.ok(&["get", "pod", name, "-o", path]);
        if !said.starts_with(':') {
            kubectl.ok(&["delete", "pod", name, "--now"]);
        }
        wait::check(said.starts_with(':') && said.contains(why), said)
    });
}

fn no_claim_is_left(kubectl: &Kubectl) {
    wait::until("no claim is left", wait::LATER, || {
        let left = kubectl.ok(&["get", "resourceclaims", "-o", "name"]);
        wait::check(left.is_empty(), left)
    });
}

/// A claim for one GPU that a selector picks.
fn claim(name: &str, selector: &str) -> String {
    format!(
        r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {{name: {name}}}
spec:
  devices:
    requests:
      - name: gpu
        exactly:
          deviceClassName: gpu.nvidia.com
          selectors: [{{cel: {{expression: "{selector}"}}}}]
"#
    )
}

/// A pod whose container uses the GPU of a claim.
pub(super) fn claimer(name: &str, source: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{{name: gpu, {source}}}]
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "3600", "{name}"]
      resources: {{claims: [{{name: gpu}}]}}
"#
    )
}
