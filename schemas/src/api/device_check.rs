//! `DeviceCheck`: one look at one device of the cluster, as a Job is one run of a `CronJob`.
//!
//! Like the types of Kubernetes, these read an object that lacks what its schema demands. Judging them is the API server's.

use k8s_openapi::{
    ClusterResourceScope,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::custom::{CustomResource, Spec};

/// Bytes that a check's name may have: it is the name of a pod, and the value of a label and of a taint.
pub const CHECK_NAME_BYTES_MAX: usize = 63;

/// Label of what belongs to one check: its name.
pub const CHECK_LABEL: &str = "clawbernetes.io/device-check";

/// The priority of the pods that look at devices, which every cluster has: below all others, and nobody makes room for one.
pub const CHECK_PRIORITY: &str = "device-check";

/// One look at one device.
pub type DeviceCheck = CustomResource<DeviceCheckSpec>;

/// One look at one device: whether it is what it says, and calculates rightly and as quickly as it should.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.DeviceCheckSpec", extend("required" = ["device"]))]
pub struct DeviceCheckSpec {
    /// Which device.
    pub device: DeviceName,
    /// How thoroughly it is looked at: `Quick`, half a minute and a part of its memory, or `Full`, under three minutes and all of its memory.
    /// `Quick` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// What it must reach at least, by the names of figures that `clawbernetes gpu check -o json` prints: `copyBytesPerSecond: 2T`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub minimums: BTreeMap<String, Quantity>,
    /// Seconds that looking may take, from the moment when the device is free. 900 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// Seconds after its end when it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// The name of a device: where it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.DeviceName", extend("required" = ["pool", "name"]))]
pub struct DeviceName {
    /// The driver of its `ResourceSlice`. `gpu.clawbernetes.io` if not given.
    pub driver: String,
    /// The pool, which has the name of its node.
    pub pool: String,
    /// Its name in the slice.
    pub name: String,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.clawbernetes.v1.DeviceCheckStatus")]
pub struct DeviceCheckStatus {
    /// The generation that this is said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Complete`: it was looked at, and there is a verdict. `Failed`: it could not be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// In one word, for people: `Pending`, `Running`, `Complete`, `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// `Fit` or `NotFit`, once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Which device it was when this began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceFacts>,
    /// The pod that looks at it, in the namespace `kube-system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod itself, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "podUID")]
    pub pod_uid: Option<String>,
    /// What is done, or waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// When its pod was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What was found, check by check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub findings: Vec<DeviceFinding>,
}

/// What tells a device, as it is now, from others and from what it was before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.DeviceFacts", extend("required" = ["node", "uuid"]))]
pub struct DeviceFacts {
    /// Where it is.
    pub node: String,
    /// Its maker's name for this one.
    pub uuid: String,
    /// What its maker calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The version of its driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// Which start of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "bootID")]
    pub boot_id: Option<String>,
}

/// What one check found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.DeviceFinding", extend("required" = ["check", "passed", "words"]))]
pub struct DeviceFinding {
    /// `Open`, `Memory`, `Copy`, `Transfer`, `Matrix`, `Determinism`, `Soak`, `Minimums`, `Fleet`.
    pub check: String,
    /// Whether the device may be used as far as this is concerned.
    pub passed: bool,
    /// What was found, in words.
    pub words: String,
    /// What was measured: names end with their unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

impl Spec for DeviceCheckSpec {
    const API_VERSION: &'static str = "clawbernetes.io/v1";
    const KIND: &'static str = "DeviceCheck";
    const PLURAL: &'static str = "devicechecks";
    const SHORT: &'static [&'static str] = &["dchk"];
    type Scope = ClusterResourceScope;
    type Status = DeviceCheckStatus;
}
