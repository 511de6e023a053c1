//! Which GPUs a pod has that asked for a number of them.
//!
//! The scheduler names them with the binding, in an annotation; the node says which it gave, in the status of the
//! containers, and has the last word: it chooses by itself for pods that came past the scheduler.

use std::collections::BTreeSet;

use claw_schemas::gpu::{NAMED, is_resource};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ResourceStatus};

/// The uuids, as soon as somebody said so.
pub fn of(pod: &Pod, count: i64) -> Option<Vec<String>> {
    let (is_told, uuids) = known(pod);
    let is_whole = is_told || (named(pod).is_some() && i64::try_from(uuids.len()) == Ok(count));
    is_whole.then(|| uuids.into_iter().map(str::to_owned).collect())
}

/// The uuids that its node tells (`true`), or else those that somebody chose for it.
pub fn known(pod: &Pod) -> (bool, BTreeSet<&str>) {
    let told: BTreeSet<&str> = statuses(pod)
        .flat_map(allocated)
        .filter(|resource| is_resource(&resource.name))
        .flat_map(|resource| resource.resources.iter().flatten())
        .map(|one| one.resource_id.as_str())
        .collect();
    let is_told = !told.is_empty();
    let chosen = || named(pod).unwrap_or_default().split(',').filter(|uuid| !uuid.is_empty()).collect();
    (is_told, if is_told { told } else { chosen() })
}

/// Whether two pictures of a pod say the same of its GPUs.
pub fn same(one: &Pod, other: &Pod) -> bool {
    named(one) == named(other) && statuses(one).map(allocated).eq(statuses(other).map(allocated))
}

fn named(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(NAMED).map(String::as_str)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(main)
}

fn allocated(status: &ContainerStatus) -> &[ResourceStatus] {
    status.allocated_resources_status.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use claw_schemas::gpu::RESOURCE;
    use serde_json::json;

    use super::*;

    fn pod(annotation: &str, told: &[&str]) -> Pod {
        let resources: Vec<_> =
            told.iter().map(|uuid| json!({"resourceID": uuid, "health": "Healthy"})).collect();
        serde_json::from_value(json!({
            "metadata": {"annotations": {NAMED: annotation}},
            "status": {"containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResourcesStatus": [{"name": RESOURCE, "resources": resources}],
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn the_node_has_the_last_word_and_the_scheduler_the_first() {
        assert_eq!(of(&pod("A,B", &[]), 2).unwrap(), ["A", "B"]);
        assert_eq!(of(&pod("A,B", &["C", "A"]), 2).unwrap(), ["A", "C"]);
        assert_eq!(of(&pod("A", &[]), 2), None, "a list that is not whole says nothing");
        assert_eq!(of(&Pod::default(), 1), None);
        assert!(same(&pod("A", &["B"]), &pod("A", &["B"])) && !same(&pod("A", &[]), &pod("A", &["B"])));
    }
}
