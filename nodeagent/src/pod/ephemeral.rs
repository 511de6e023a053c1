//! Ephemeral containers: they come to a pod that runs already, run once, and decide about nothing.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec};

/// One, as containers are.
#[derive(Clone, Debug)]
pub struct Ephemeral {
    /// What it runs.
    pub container: Container,
    /// The container whose processes it sees.
    pub target: Option<String>,
}

/// All of a pod, in order.
pub(super) fn all(spec: Option<&PodSpec>) -> Vec<Ephemeral> {
    let containers = spec.into_iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    containers.map(one).collect()
}

fn one(container: &EphemeralContainer) -> Ephemeral {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        target_container_name,
        // The server lets nobody say the rest.
        ..
    } = container.clone();
    let container = Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        name,
        security_context,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        ..Container::default()
    };
    Ephemeral { container, target: target_container_name.filter(|name| !name.is_empty()) }
}
