//! Endpoints of services: which pods, by which addresses and ports, answer for a service that selects pods.
//!
//! Writes EndpointSlices, which nodes route by, and the older Endpoints, which people and old clients read. Services without
//! a selector are left to whoever made them.
//!
//! Must never know: how packets find their way.

mod legacy;
mod slices;
#[cfg(test)]
mod tests;
mod wanted;

use std::{collections::BTreeMap, sync::Arc};

use claw_client::ObjectKey;
use claw_runtime::{Controller, Plan, Watches, World};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Endpoints as LegacyEndpoints, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// What services carried before anybody acted on them.
const UNATTENDED: &str = "ControllerAvailable";

/// The controller of endpoints.
pub struct Endpoints;

impl Controller for Endpoints {
    type Object = Service;

    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn watches(&self, watches: &mut Watches<Service>) {
        watches.owned::<EndpointSlice>();
        watches.owned::<LegacyEndpoints>();
        watches.mapped::<Pod>(|pod, services| {
            let snapshot = services.snapshot();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let about = snapshot.in_namespace(namespace).filter(|service| selects(service, &pod.metadata));
            about.map(|service| ObjectKey::of(&service.metadata)).collect()
        });
    }

    fn plan(&self, service: &Arc<Service>, world: &World, _now: Timestamp) -> Plan {
        if service.metadata.deletion_timestamp.is_some() || selector(service).is_none() {
            return Plan::nothing();
        }
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let all = world.kind::<Pod>();
        let pods = all.in_namespace(namespace).filter(|pod| selects(service, &pod.metadata));
        let groups = wanted::groups(service, pods);
        let mut plan = Plan::nothing();
        plan.actions.extend(slices::actions(service, &groups, world));
        plan.actions.extend(legacy::action(service, &groups, world));
        match attended(service) {
            Some(status) => plan.status(&status),
            None => plan,
        }
    }
}

/// The labels that a service asks for. An empty selector selects nothing, as no selector does.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn selects(service: &Service, meta: &ObjectMeta) -> bool {
    let Some(selector) = selector(service) else { return false };
    let Some(labels) = &meta.labels else { return false };
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The status without the condition that said that nobody acts on the service; `None` if it does not say so.
fn attended(service: &Service) -> Option<k8s_openapi::api::core::v1::ServiceStatus> {
    let mut status = service.status.clone()?;
    let conditions = status.conditions.take()?;
    let (stale, kept): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|one| one.type_ == UNATTENDED);
    if stale.is_empty() {
        return None;
    }
    status.conditions = Some(kept).filter(|kept| !kept.is_empty());
    Some(status)
}
