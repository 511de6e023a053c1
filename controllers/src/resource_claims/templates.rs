//! Claims of pods that name a template. Planned by template, because nearly all pods name none.

use std::sync::Arc;

use claw_client::ObjectKey;
use claw_runtime::{Action, Controller, Plan, Watches, World, owner};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodResourceClaim},
        resource::v1::{ResourceClaim, ResourceClaimTemplate},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use super::{POD_CLAIM_NAME, owner_pod};
use crate::pods;

/// Longest generated name, without the hyphen and the five characters behind it. Kubernetes' figure.
const BASE_MAX: usize = 57;

/// The controller of claims that are made for pods.
pub struct Templates;

impl Controller for Templates {
    type Object = ResourceClaimTemplate;

    fn name(&self) -> &'static str {
        "resourceclaimtemplate"
    }

    fn watches(&self, watches: &mut Watches<ResourceClaimTemplate>) {
        watches.mapped::<Pod>(|pod, _| templates_of(pod));
        let pods = watches.reads::<Pod>();
        watches.mapped::<ResourceClaim>(move |claim, _| {
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let pod = owner_pod(claim).and_then(|(name, _)| pods.get(namespace, name));
            pod.map(|pod| templates_of(&pod)).unwrap_or_default()
        });
    }

    fn plan(&self, template: &Arc<ResourceClaimTemplate>, world: &World, _: Timestamp) -> Plan {
        let (all, claims) = (world.kind::<Pod>(), world.kind::<ResourceClaim>());
        let namespace = template.metadata.namespace.as_deref().unwrap_or_default();
        let mut plan = Plan::nothing();
        for pod in all.in_namespace(namespace).filter(|pod| pods::is_active(pod)) {
            for wanted in wants(pod).filter(|one| one.resource_claim_template_name == template.metadata.name)
            {
                let own = claims.owned_by(pod.metadata.uid.as_deref().unwrap_or_default());
                let mut own = own.filter(|claim| pod_claim_name(claim) == Some(&wanted.name));
                match own.next() {
                    None => plan = plan.then(make(pod, wanted, template)),
                    Some(claim) if !is_told(pod, wanted, claim) => plan = plan.then(tell(pod, wanted, claim)),
                    Some(_) => {}
                }
            }
        }
        plan
    }
}

fn wants(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten())
}

fn templates_of(pod: &Arc<Pod>) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let names = wants(pod).filter_map(|claim| claim.resource_claim_template_name.clone());
    names.map(|name| ObjectKey::new(namespace.clone(), name)).collect()
}

fn pod_claim_name(claim: &ResourceClaim) -> Option<&String> {
    claim.metadata.annotations.as_ref()?.get(POD_CLAIM_NAME)
}

fn is_told(pod: &Pod, wanted: &PodResourceClaim, claim: &ResourceClaim) -> bool {
    let mut told = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    told.any(|one| one.name == wanted.name && one.resource_claim_name == claim.metadata.name)
}

fn tell(pod: &Pod, wanted: &PodResourceClaim, claim: &ResourceClaim) -> Action {
    let told = json!({"name": wanted.name, "resourceClaimName": claim.metadata.name});
    Action::strategic(pod, json!({"status": {"resourceClaimStatuses": [told]}})).in_status()
}

fn make(pod: &Pod, wanted: &PodResourceClaim, template: &ResourceClaimTemplate) -> Action {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), wanted.name.clone());
    let metadata = ObjectMeta {
        generate_name: Some(base_name(pod.metadata.name.as_deref().unwrap_or_default(), &wanted.name)),
        namespace: pod.metadata.namespace.clone(),
        labels: meta.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![owner::reference_to(pod)]),
        ..ObjectMeta::default()
    };
    let claim = ResourceClaim { metadata, spec: template.spec.spec.clone(), status: None };
    let about = format!("PodResourceClaim {} of pod {{name}}: {{error}}", wanted.name);
    Action::create(&claim).on_failure("FailedResourceClaimCreation", about)
}

/// `POD-CLAIM-`; where that is too long both give.
fn base_name(pod: &str, claim: &str) -> String {
    let (pod_max, claim_max) = (BASE_MAX * 3 / 5, BASE_MAX - BASE_MAX * 3 / 5 - 1);
    if pod.len() + 1 + claim.len() <= BASE_MAX {
        return format!("{pod}-{claim}-");
    }
    let cut = |text: &str, max: usize| text.chars().take(max).collect::<String>();
    let pod = cut(pod, pod_max.max(BASE_MAX.saturating_sub(claim.len() + 1)));
    let claim = cut(claim, claim_max.max(BASE_MAX.saturating_sub(pod.len() + 1)));
    format!("{pod}-{claim}-")
}
