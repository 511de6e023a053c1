//! Names under which a node's GPUs appear in the API: agents write them, the server guards them.

use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration};

/// The resource that containers ask for in their limits, as everywhere.
pub const RESOURCE: &str = "nvidia.com/gpu";

/// The same of AMD's GPUs.
pub const AMD_RESOURCE: &str = "amd.com/gpu";

/// The same of GPUs that only Vulkan knows, whoever made them: makers' own plugins count by drivers of the kernel (`gpu.intel.com/xe`), and one who
/// calculates through Vulkan does not care which that is.
pub const VULKAN_RESOURCE: &str = "clawbernetes.io/gpu";

/// What the resources are called of instances of GPUs that are cut (MIG), before their profile.
const INSTANCES: &str = "nvidia.com/mig-";

/// The resource of instances of a profile: `1g.10gb`, `1g.10gb+me`.
pub fn instances(profile: &str) -> String {
    format!("{INSTANCES}{}", profile.replace('+', "."))
}

/// Whether a resource is GPUs that our agents give out by name.
pub fn is_resource(name: &str) -> bool {
    name == AMD_RESOURCE || name == VULKAN_RESOURCE || is_nvidia(name)
}

/// Whether a resource is GPUs of NVIDIA: whole ones, instances or turns on shared ones.
pub fn is_nvidia(name: &str) -> bool {
    name.strip_prefix(RESOURCE).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        || name.starts_with(INSTANCES)
}

/// Driver of the ResourceSlices that our agents publish. Not NVIDIA's, whose own driver may run beside.
pub const DRIVER: &str = "gpu.clawbernetes.io";

/// Node condition of an agent: whether every GPU of the machine can be given to pods.
pub const CONDITION: &str = "GPUReady";

/// Label of a node whose GPUs are read from a recording.
pub const REPLAYED_LABEL: &str = "clawbernetes.io/gpu-replayed";

/// Label of a node that offers software as GPUs: the machine's processors do their work.
pub const SOFTWARE_LABEL: &str = "clawbernetes.io/software-gpu";

/// Annotation of a node: the labels that its agent found out, separated by commas. What stood in it and is not found out
/// any more is taken off the node.
pub const FOUND_LABELS: &str = "clawbernetes.io/found-labels";

/// Annotation of a pod that asks for GPUs by number: the uuids of those that the scheduler chose for it, separated by commas.
pub const NAMED: &str = "clawbernetes.io/gpus";

/// The class of all devices that our agents publish, which every cluster has.
pub const ANY_CLASS: &str = DRIVER;

/// The class of all GPUs of NVIDIA that our agents publish, which every cluster has.
pub const CLASS: &str = "gpu.nvidia.com";

/// The class of all GPUs of AMD, which every cluster has.
pub const AMD_CLASS: &str = "gpu.amd.com";

/// The type of devices that are GPUs of AMD, as AMD's own driver has it; NVIDIA's are of the type `gpu`.
pub const AMD_TYPE: &str = "amdgpu";

/// The class of all GPUs that only Vulkan knows, which every cluster has.
pub const VULKAN_CLASS: &str = "gpu.vulkan";

/// The type of devices that are such GPUs.
pub const VULKAN_TYPE: &str = "vulkan";

/// The class of all instances of GPUs, which every cluster has.
pub const INSTANCE_CLASS: &str = "mig.nvidia.com";

/// The effect of a taint that ends the pods which have the device and do not tolerate it.
pub const NO_EXECUTE: &str = "NoExecute";

/// The one ResourceSlice of a node's agent.
pub fn slice_name(node: &str) -> String {
    format!("{node}-{DRIVER}")
}

/// Whether a request may have a device all the same (Kubernetes "Device taints and tolerations").
pub fn tolerates(tolerations: &[DeviceToleration], taint: &DeviceTaint) -> bool {
    !keeps_away(taint) || tolerations.iter().any(|toleration| covers(toleration, taint))
}

/// Whether a toleration is about a taint, for however long.
pub fn covers(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let (key, exists) = (toleration.key.as_deref(), toleration.operator.as_deref() == Some("Exists"));
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && key.filter(|key| !key.is_empty()).map_or(exists, |key| key == taint.key)
        && (exists
            || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

/// Whether a taint is more than a remark.
pub fn keeps_away(taint: &DeviceTaint) -> bool {
    taint.effect == "NoSchedule" || taint.effect == NO_EXECUTE
}
