//! DeviceTaintRules through the whole product: a GPU that one taints is given to nobody, and taken from who has it.

use crate::{
    claims::{TEMPLATE, claimer, kept_away, ready},
    container, gpus_of, holder, with_a_worker,
};
use claw_e2e::{
    Kubectl,
    need::{self, Need},
    wait,
};

/// What a rule of these stories says of its devices.
const TAINT: &str = "untolerated device taint {example.com/maintenance: planned}";

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_keeps_pods_from_gpus_and_ends_those_that_have_one() {
    let story = "a_rule_keeps_pods_from_gpus_and_ends_those_that_have_one";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (cluster, _recording, _) = with_a_worker(2).await;
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], TEMPLATE);

    kubectl.ok_with(&["apply", "-f", "-"], &rule("pool: worker", "NoSchedule"));
    says(&kubectl, "False OtherEffect: Eviction only happens for the NoExecute effect.");
    let stamped =
        kubectl.ok(&["get", "devicetaintrule", "maintenance", "-o", "jsonpath={.spec.taint.timeAdded}"]);
    assert!(stamped.ends_with('Z'), "the server says since when: {stamped:?}");
    let wait_for_it = [
        ("one", holder("one", ""), format!("1 Insufficient nvidia.com/gpu, 1 node(s) had {TAINT}.")),
        (
            "two",
            claimer("two", "resourceClaimTemplateName: one"),
            format!("1 cannot allocate all claims ({TAINT})."),
        ),
    ];
    for (name, pod, why) in &wait_for_it {
        kept_away(&kubectl, name, pod, why);
    }
    kubectl.ok(&["delete", "devicetaintrule", "maintenance"]);
    ready(&kubectl, "one");
    ready(&kubectl, "two");
    let (one, two) = (gpus_of(&cluster, "one"), gpus_of(&cluster, "two"));
    assert_ne!(one, two);

    // What it would do, then what it does, to the GPU of one of them.
    let only_one = format!("driver: gpu.clawbernetes.io, pool: worker, device: {}", one.to_lowercase());
    kubectl.ok_with(&["apply", "-f", "-"], &rule(&only_one, "None"));
    says(
        &kubectl,
        "False NoEffect: 1 published device selected. 1 allocated device selected. 1 pod would be evicted in 1 namespace if",
    );
    assert!(container(&cluster, "one").is_some());
    // So that one can see what became of it.
    let held = r#"{"metadata":{"finalizers":["example.com/look"]}}"#;
    kubectl.ok(&["patch", "pod", "one", "--type=merge", "-p", held]);
    kubectl.ok_with(&["apply", "-f", "-"], &rule(&only_one, "NoExecute"));
    wait::until("the pod that had it has ended and says why", wait::LATER, || {
        let path = "jsonpath={.status.phase} {.metadata.deletionTimestamp} {.status.conditions[?(@.type=='DisruptionTarget')]['reason','message']}";
        let said = kubectl.ok(&["get", "pod", "one", "-o", path]);
        let why = "DeletionByDeviceTaintManager Device Taint manager: deleting due to NoExecute taint";
        wait::check(said.ends_with(why) && said.contains('T') && container(&cluster, "one").is_none(), said)
    });
    kubectl.ok(&["patch", "pod", "one", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    wait::until("an event tells of it", wait::LATER, || {
        let path = "jsonpath={range .items[*]}{.involvedObject.name} {.reason}: {.message}{'\\n'}{end}";
        let said = kubectl.ok(&["get", "events", "-o", path]);
        wait::check(said.contains("one DeviceTaintManagerEviction: Marking for deletion"), said)
    });
    says(&kubectl, "False Completed: ");
    assert_eq!(gpus_of(&cluster, "two"), two, "who has another goes on");

    kept_away(&kubectl, "next", &holder("next", ""), &format!("1 node(s) had {TAINT}"));
    kubectl.ok(&["delete", "devicetaintrule", "maintenance"]);
    ready(&kubectl, "next");
    assert_eq!(gpus_of(&cluster, "next"), one);
}

/// A rule about the devices that a selector names.
fn rule(selector: &str, effect: &str) -> String {
    format!(
        r#"
apiVersion: resource.k8s.io/v1beta2
kind: DeviceTaintRule
metadata: {{name: maintenance}}
spec:
  deviceSelector: {{{selector}}}
  taint: {{key: example.com/maintenance, value: planned, effect: {effect}}}
"#
    )
}

/// Waits for what the rule says of itself: status, reason and how its message begins.
fn says(kubectl: &Kubectl, wanted: &str) {
    wait::until(&format!("the rule says {wanted}"), wait::LATER, || {
        let path = "jsonpath={range .status.conditions[?(@.type=='EvictionInProgress')]}{.status} {.reason}: {.message}{end}";
        let said = kubectl.ok(&["get", "devicetaintrule", "maintenance", "-o", path]);
        wait::check(said.starts_with(wanted), said)
    });
}
