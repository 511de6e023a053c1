//! Endpoints in slices. An endpoint stays in the slice it is in, so that a pod that comes or goes changes one slice,
//! however many there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use claw_runtime::{Action, World, owner};
use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::wanted::{Groups, Shape, WEIGHT};

/// Endpoints in one slice. Kubernetes' figure.
const ENDPOINTS_MAX: usize = 100;

/// How many empty places among the slices of a shape are looked past.
const HOLES: usize = 16;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who writes the slices of services with selectors. Kubernetes' name, which clients look for.
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What makes the slices of a service hold these endpoints.
pub fn actions(service: &Service, groups: &Groups, world: &World) -> Vec<Action> {
    let all = world.kind::<EndpointSlice>();
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let present = all.owned_by(uid).filter(|slice| is_ours(slice));
    let present: BTreeMap<&str, &Arc<EndpointSlice>> =
        present.map(|slice| (slice.metadata.name.as_deref().unwrap_or_default(), slice)).collect();
    let wanted = distribute(service, groups, &present);
    let mut actions = Vec::new();
    for (name, slice) in &wanted {
        match present.get(name.as_str()) {
            None => actions.push(
                Action::create(slice)
                    .on_failure("FailedToCreateEndpointSlices", "Error creating EndpointSlice: {error}"),
            ),
            Some(old) if says_the_same(old, slice) => {}
            Some(old) => actions.push(
                Action::update(&in_place_of(old, slice))
                    .on_failure("FailedToUpdateEndpointSlices", "Error updating EndpointSlice: {error}"),
            ),
        }
    }
    let stale = present.iter().filter(|(name, _)| !wanted.contains_key(**name));
    actions.extend(stale.map(|(_, slice)| Action::delete(&***slice)));
    actions
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    slice.metadata.deletion_timestamp.is_none()
        && labels.and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
}

/// The slices by name: first what stays where it is, then what is new, where there is room.
fn distribute(
    service: &Service,
    groups: &Groups,
    present: &BTreeMap<&str, &Arc<EndpointSlice>>,
) -> BTreeMap<String, EndpointSlice> {
    let mut wanted = BTreeMap::new();
    for (shape, endpoints) in groups {
        let mut slots: BTreeMap<usize, Vec<&Endpoint>> = BTreeMap::new();
        let mut placed = BTreeSet::new();
        // Slices that became empty leave holes; an endpoint beyond all these moves to a lower slice, and no harm is done.
        for slot in 0..present.len() + HOLES {
            let Some(slice) = present.get(name(service, shape, slot).as_str()) else { continue };
            let pods = slice.endpoints.iter().flatten().filter_map(pod_of);
            let staying = pods.filter(|pod| endpoints.contains_key(*pod) && placed.insert((*pod).to_owned()));
            slots.insert(slot, staying.map(|pod| &endpoints[pod]).collect());
        }
        for (pod, endpoint) in endpoints.iter().filter(|(pod, _)| !placed.contains(*pod)) {
            debug_assert_eq!(pod_of(endpoint), Some(pod.as_str()));
            let slot = (0..).find(|slot| slots.get(slot).is_none_or(|one| one.len() < ENDPOINTS_MAX));
            slots.entry(slot.unwrap_or_default()).or_default().push(endpoint);
        }
        for (slot, endpoints) in slots.into_iter().filter(|(_, endpoints)| !endpoints.is_empty()) {
            let slice = slice(service, shape, slot, endpoints);
            wanted.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
        }
    }
    if wanted.is_empty() {
        // A service without endpoints has one empty slice: whoever waits for it sees that somebody has looked.
        let shape = Shape { ports: Vec::new(), weight: 1 };
        let slice = slice(service, &shape, 0, Vec::new());
        wanted.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
    }
    wanted
}

fn pod_of(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref()
}

/// The same for the same service, ports and weight, so that a lost answer makes no second slice.
fn name(service: &Service, shape: &Shape, slot: usize) -> String {
    // FNV-1a, 32 bits: names only have to differ among the few shapes of one service.
    let text = format!("{:?} {} {slot}", shape.ports, shape.weight);
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}", service.metadata.name.as_deref().unwrap_or_default())
}

fn slice(service: &Service, shape: &Shape, slot: usize, mut endpoints: Vec<&Endpoint>) -> EndpointSlice {
    endpoints.sort_by_key(|endpoint| pod_of(endpoint));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if super::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let weight = (shape.weight != 1).then(|| [(WEIGHT.to_owned(), shape.weight.to_string())].into());
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints.into_iter().cloned().collect()),
        metadata: ObjectMeta {
            name: Some(name(service, shape, slot)),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: weight,
            owner_references: Some(vec![owner::reference_to(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(shape.endpoint_ports()),
    }
}

fn says_the_same(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    let list = |endpoints: &Option<Vec<Endpoint>>| endpoints.clone().unwrap_or_default();
    let annotation =
        |slice: &EndpointSlice| slice.metadata.annotations.as_ref().and_then(|all| all.get(WEIGHT)).cloned();
    list(&old.endpoints) == list(&new.endpoints)
        && old.ports.clone().unwrap_or_default() == new.ports.clone().unwrap_or_default()
        && old.metadata.labels == new.metadata.labels
        && annotation(old) == annotation(new)
}

/// The new content under the old identity.
fn in_place_of(old: &EndpointSlice, new: &EndpointSlice) -> EndpointSlice {
    let mut metadata = old.metadata.clone();
    metadata.labels.clone_from(&new.metadata.labels);
    EndpointSlice { metadata, ..new.clone() }
}
