//! Names under which a node's GPUs appear in the API: agents write them, the server guards them.

/// The resource that containers ask for in their limits, as everywhere.
pub const RESOURCE: &str = "nvidia.com/gpu";

/// Driver of the ResourceSlices that our agents publish. Not NVIDIA's, whose own driver may run beside.
pub const DRIVER: &str = "gpu.clawbernetes.io";

/// Node condition of an agent: whether every GPU of the machine can be given to pods.
pub const CONDITION: &str = "GPUReady";

/// Label of a node whose GPUs are read from a recording.
pub const REPLAYED_LABEL: &str = "clawbernetes.io/gpu-replayed";

/// Annotation of a node: the labels that its agent found out, separated by commas. What stood in it and is not found out
/// any more is taken off the node.
pub const FOUND_LABELS: &str = "clawbernetes.io/found-labels";

/// Annotation of a pod that asks for GPUs by number: the uuids of those that the scheduler chose for it, separated by commas.
pub const NAMED: &str = "clawbernetes.io/gpus";

/// The class of all GPUs that our agents publish, which every cluster has.
pub const CLASS: &str = "gpu.nvidia.com";

/// The one ResourceSlice of a node's agent.
pub fn slice_name(node: &str) -> String {
    format!("{node}-{DRIVER}")
}
