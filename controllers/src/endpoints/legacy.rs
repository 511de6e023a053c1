//! The older Endpoints: one object a service, which `kubectl describe` of old clients reads.

use std::collections::BTreeMap;

use claw_runtime::{Action, World, owner};
use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service},
        discovery::v1::Endpoint,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::wanted::{Groups, Shape};

/// Addresses in one object. Kubernetes' figure; what is left out is said by an annotation.
const ADDRESSES_MAX: usize = 1_000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What makes the Endpoints of a service say this, if they do not.
pub fn action(service: &Service, groups: &Groups, world: &World) -> Option<Action> {
    let new = endpoints(service, groups);
    let (namespace, name) = (new.metadata.namespace.as_deref(), new.metadata.name.as_deref());
    let present = world.kind::<Endpoints>();
    let Some(old) = present.get(namespace.unwrap_or_default(), name.unwrap_or_default()) else {
        let failed = "Failed to create endpoint for service {name}: {error}";
        return Some(Action::create(&new).on_failure("FailedToCreateEndpoint", failed));
    };
    let annotation = |one: &Endpoints| one.metadata.annotations.as_ref()?.get(OVER_CAPACITY).cloned();
    let same = old.subsets.clone().unwrap_or_default() == new.subsets.clone().unwrap_or_default()
        && old.metadata.labels == new.metadata.labels
        && annotation(old) == annotation(&new);
    if same || old.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut metadata = old.metadata.clone();
    metadata.labels.clone_from(&new.metadata.labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    annotations.extend(new.metadata.annotations.clone().unwrap_or_default());
    metadata.annotations = Some(annotations).filter(|all| !all.is_empty());
    metadata.owner_references.clone_from(&new.metadata.owner_references);
    let failed = "Failed to update endpoint {name}: {error}";
    Some(Action::update(&Endpoints { metadata, ..new }).on_failure("FailedToUpdateEndpoint", failed))
}

fn endpoints(service: &Service, groups: &Groups) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if super::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let total: usize = groups.values().map(BTreeMap::len).sum();
    let truncated =
        (total > ADDRESSES_MAX).then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: truncated,
            owner_references: Some(vec![owner::reference_to(service)]),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets(groups)).filter(|subsets| !subsets.is_empty()),
    }
}

/// A subset for every set of ports: weights are not known here.
fn subsets(groups: &Groups) -> Vec<EndpointSubset> {
    let mut subsets: BTreeMap<&[_], EndpointSubset> = BTreeMap::new();
    let all = groups.iter().flat_map(|(shape, endpoints)| endpoints.values().map(move |one| (shape, one)));
    let mut known: Vec<_> = all.filter(|(_, endpoint)| !is_leaving(endpoint)).collect();
    // Where not all have room, those who serve have it first.
    known.sort_by_key(|(_, endpoint)| !is_ready(endpoint));
    for (shape, endpoint) in known.into_iter().take(ADDRESSES_MAX) {
        let subset = subsets.entry(&shape.ports).or_insert_with(|| EndpointSubset {
            ports: Some(ports(shape)).filter(|ports| !ports.is_empty()),
            ..EndpointSubset::default()
        });
        let list = if is_ready(endpoint) { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address(endpoint));
    }
    for subset in subsets.values_mut() {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|one, other| one.ip.cmp(&other.ip));
        }
    }
    subsets.into_values().collect()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

/// Endpoints know no pods that are on their way out, but those that are published whatever they are.
fn is_leaving(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_some_and(|one| one.terminating == Some(true) && one.ready != Some(true))
}

fn ports(shape: &Shape) -> Vec<EndpointPort> {
    let port = |(name, protocol, port, app): &(String, String, i32, Option<String>)| EndpointPort {
        name: Some(name.clone()).filter(|name| !name.is_empty()),
        protocol: Some(protocol.clone()),
        port: *port,
        app_protocol: app.clone(),
    };
    shape.ports.iter().map(port).collect()
}

fn address(endpoint: &Endpoint) -> EndpointAddress {
    EndpointAddress {
        ip: endpoint.addresses.first().cloned().unwrap_or_default(),
        hostname: endpoint.hostname.clone(),
        node_name: endpoint.node_name.clone(),
        target_ref: endpoint.target_ref.clone(),
    }
}
