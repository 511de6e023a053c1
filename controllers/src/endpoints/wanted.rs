//! Which endpoints a service is to have. Pods that answer by the same ports and with the same weight are a group, and
//! each group has slices of its own: ports and weight stand once in a slice.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Container, ObjectReference, Pod, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::pods;

/// Annotation of a pod: its share of its service's connections, beside the 1 of others. From 1 to 100.
pub const WEIGHT: &str = "clawbernetes.io/weight";
const WEIGHT_MAX: u32 = 100;

/// What the endpoints of one slice have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Name, protocol, port and application protocol, in the order of the service.
    pub ports: Vec<(String, String, i32, Option<String>)>,
    pub weight: u32,
}

impl Shape {
    pub fn endpoint_ports(&self) -> Vec<EndpointPort> {
        let port = |(name, protocol, port, app): &(String, String, i32, Option<String>)| EndpointPort {
            // The name is "" where the service's port has none.
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: Some(*port),
            app_protocol: app.clone(),
        };
        self.ports.iter().map(port).collect()
    }
}

/// Endpoints by what they have in common; inside a group by the names of their pods.
pub type Groups = BTreeMap<Shape, BTreeMap<String, Endpoint>>;

/// The endpoints of a service, from the pods it selects.
pub fn groups<'a>(service: &Service, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Groups {
    let mut groups = Groups::new();
    for pod in pods.filter(|pod| !pods::is_finished(pod)) {
        let Some(endpoint) = endpoint(service, pod) else { continue };
        let shape = Shape { ports: ports(service, pod), weight: weight(pod) };
        let headless = super::is_headless(service);
        // A port by name that the pod does not have leaves nothing to route to.
        if shape.ports.is_empty() && !headless {
            continue;
        }
        groups.entry(shape).or_default().insert(pod.metadata.name.clone().unwrap_or_default(), endpoint);
    }
    groups
}

/// `None` while the pod has no address.
fn endpoint(service: &Service, pod: &Pod) -> Option<Endpoint> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    let spec = pod.spec.as_ref()?;
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let unready_too = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let named_by_us = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    Some(Endpoint {
        addresses: vec![ip],
        conditions: Some(EndpointConditions {
            ready: Some(unready_too || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.hostname.clone().filter(|name| named_by_us && !name.is_empty()),
        node_name: spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

fn ports(service: &Service, pod: &Pod) -> Vec<(String, String, i32, Option<String>)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let number = target(port, &protocol, pod)?;
            Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
        })
        .collect()
}

/// The number of the port of a pod that a port of a service leads to.
fn target(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => containers(pod)
            .flat_map(|container| container.ports.iter().flatten())
            .find(|one| {
                one.name.as_deref() == Some(name) && one.protocol.as_deref().unwrap_or("TCP") == protocol
            })
            .map(|one| one.container_port),
    }
}

/// The containers that serve: all but the init containers that end.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars)
    })
}

fn weight(pod: &Pod) -> u32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(WEIGHT));
    annotation.and_then(|text| text.parse().ok()).map_or(1, |weight: u32| weight.clamp(1, WEIGHT_MAX))
}
