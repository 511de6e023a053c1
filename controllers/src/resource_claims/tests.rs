//! Plans as text: pods, claims and templates in, writes out.

use claw_runtime::{Caches, action::describe};
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;

use super::*;
use crate::pods::build::{json_patch_merge, pod};

fn user(name: &str, more: &Value) -> Pod {
    let mut spec = json!({
        "spec": {"containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}]},
    });
    json_patch_merge(&mut spec, more);
    pod(name, spec)
}

fn claim(name: &str, more: &Value) -> ResourceClaim {
    let mut claim = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": "1"},
        "spec": {},
    });
    json_patch_merge(&mut claim, more);
    serde_json::from_value(claim).unwrap()
}

/// A claim that was made for a pod, allocated to it and reserved for it.
fn in_use(name: &str, of: &str) -> ResourceClaim {
    claim(
        name,
        &json!({
            "metadata": {
                "annotations": {POD_CLAIM_NAME: "gpu"}, "finalizers": [PROTECTION],
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Pod", "name": of, "uid": format!("uid-{of}"), "controller": true,
                }],
            },
            "status": {"allocation": {}, "reservedFor": [{"resource": "pods", "name": of, "uid": format!("uid-{of}")}]},
        }),
    )
}

fn planned(claim: ResourceClaim, pods: Vec<Pod>) -> Vec<String> {
    let caches = Caches::offline();
    caches.set(pods);
    describe(&Claims.plan(&Arc::new(claim), &caches.world(), Timestamp::UNIX_EPOCH).actions)
}

fn made(pods: Vec<Pod>, claims: Vec<ResourceClaim>) -> Vec<String> {
    let template: ResourceClaimTemplate = serde_json::from_value(json!({
        "metadata": {"name": "one", "namespace": "default"}, "spec": {"spec": {}},
    }))
    .unwrap();
    let caches = Caches::offline();
    caches.set(pods);
    caches.set(claims);
    describe(&Templates.plan(&Arc::new(template), &caches.world(), Timestamp::UNIX_EPOCH).actions)
}

const FREED: &str =
    r#"patch resourceclaims default/c {"status":{"allocation":null,"devices":null,"reservedFor":null}}"#;

#[test]
fn a_pod_that_names_a_template_gets_a_claim_and_is_told_its_name() {
    assert_eq!(made(vec![user("a", &json!({}))], Vec::new()), ["create resourceclaims default/a-gpu-*"]);
    let tells = made(vec![user("a", &json!({}))], vec![in_use("a-gpu-x", "a"), in_use("b-gpu-x", "b")]);
    let told = json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "a-gpu-x"}]});
    assert_eq!(tells, [format!("patch pods default/a {}", json!({"status": told}))]);
    let knows = user("a", &json!({"status": told}));
    assert!(made(vec![knows], vec![in_use("a-gpu-x", "a")]).is_empty());
}

#[test]
fn no_claim_is_made_for_a_pod_that_is_over_or_wants_another_template() {
    let over = user("a", &json!({"status": {"phase": "Succeeded"}}));
    let going = user("b", &json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"}}));
    let mut other = user("c", &json!({}));
    other.spec.as_mut().unwrap().resource_claims.as_mut().unwrap()[0].resource_claim_template_name =
        Some("two".to_owned());
    assert!(made(vec![over, going, other, pod("d", json!({}))], Vec::new()).is_empty());
}

#[test]
fn a_claim_in_use_is_left_alone() {
    assert!(planned(in_use("c", "a"), vec![user("a", &json!({}))]).is_empty());
}

#[test]
fn when_its_pod_is_over_a_claim_is_freed_and_one_that_was_made_for_it_goes() {
    let over = user("a", &json!({"status": {"phase": "Failed"}}));
    assert_eq!(planned(in_use("c", "a"), vec![over.clone()]), [FREED, "delete resourceclaims default/c"]);
    let mut own = in_use("c", "a");
    own.metadata.annotations = None;
    assert_eq!(planned(own, vec![over]), [FREED], "one that somebody made stays");
    let namesake = user("a", &json!({"metadata": {"uid": "another"}}));
    let mut late = in_use("c", "a");
    late.metadata.resource_version = Some("0".to_owned());
    assert_eq!(planned(late, vec![namesake]), [FREED, "delete resourceclaims default/c"]);
}

#[test]
fn a_shared_claim_loses_the_pods_that_are_over_and_keeps_its_devices_for_the_rest() {
    let mut shared = in_use("c", "a");
    shared.metadata.annotations = None;
    let other = json!({"resource": "pods", "name": "b", "uid": "uid-b"});
    let consumers = shared.status.as_mut().unwrap().reserved_for.as_mut().unwrap();
    consumers.push(serde_json::from_value(other.clone()).unwrap());
    let pods = vec![user("a", &json!({"status": {"phase": "Succeeded"}})), user("b", &json!({}))];
    let kept = json!({"status": {"reservedFor": [other]}});
    let planned = planned(shared, pods);
    assert_eq!(planned.len(), 1);
    let patch = planned[0].strip_prefix("patch resourceclaims default/c ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(patch).unwrap(), kept);
}

#[test]
fn devices_that_nobody_has_reserved_go_back_and_a_claim_that_is_deleted_goes_after_them() {
    let mut idle = in_use("c", "a");
    idle.metadata.annotations = None;
    idle.status.as_mut().unwrap().reserved_for = None;
    assert_eq!(planned(idle.clone(), Vec::new()), [FREED]);
    idle.metadata.deletion_timestamp = serde_json::from_value(json!("1970-01-01T00:00:00Z")).unwrap();
    assert_eq!(planned(idle.clone(), Vec::new()), [FREED], "first the devices");
    idle.status = None;
    assert_eq!(
        planned(idle, Vec::new()),
        [r#"patch resourceclaims default/c {"metadata":{"finalizers":[]}}"#]
    );
}

#[test]
fn a_pod_that_is_not_known_yet_does_not_count_as_gone() {
    let mut claim = in_use("c", "a");
    claim.metadata.resource_version = Some("9".to_owned());
    let mut going = claim.clone();
    going.metadata.deletion_timestamp = serde_json::from_value(json!("1970-01-01T00:00:00Z")).unwrap();
    assert_eq!(planned(going, Vec::new()), [FREED], "nobody new uses it");
    let caches = Caches::offline();
    caches.set(Vec::<Pod>::new());
    let plan = Claims.plan(&Arc::new(claim), &caches.world(), Timestamp::UNIX_EPOCH);
    assert!(plan.actions.is_empty() && plan.requeue_after.is_some(), "{plan:?}");
}
