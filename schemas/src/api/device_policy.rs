//! `DevicePolicy`: which devices are looked at before they get anybody's work, and what becomes of those that are not fit.

use k8s_openapi::{
    ClusterResourceScope,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::custom::{CustomResource, Spec};

/// Label of the checks and of the `DeviceTaintRules` of a policy: its name.
pub const POLICY_LABEL: &str = "clawbernetes.io/device-policy";
/// Key of the taint of a device that was looked at and is not fit; the value is the check's name.
pub const NOT_FIT: &str = "clawbernetes.io/not-fit";
/// Key of the taint, which no object has, of a device that a policy holds back until it was looked at.
pub const UNCHECKED: &str = "clawbernetes.io/unchecked";
/// Annotation of a `DeviceTaintRule` with the first of these keys: what speaks against the device, in words.
pub const OBJECTION: &str = "clawbernetes.io/objection";
/// Condition of a Node, and of a policy: whether all of its devices that were looked at are fit.
pub const DEVICES_FIT: &str = "DevicesFit";

/// Which devices are looked at before they get anybody's work.
pub type DevicePolicy = CustomResource<DevicePolicySpec>;

/// Which devices are looked at before they get anybody's work, how, and what becomes of those that are not fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "io.clawbernetes.v1.DevicePolicySpec")]
pub struct DevicePolicySpec {
    /// A `DeviceClass`: only devices of it are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class_name: Option<String>,
    /// What devices must be to be meant, each in CEL as in a claim, e.g.
    /// `device.attributes["gpu.clawbernetes.io"].productName.contains("H100")`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub selectors: Vec<String>,
    /// Labels that their node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// How thoroughly they are looked at: `Quick` or `Full`. `Quick` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Whether nobody is given one of them before a look at it has found it fit. `true` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_back: Option<bool>,
    /// Seconds from a look's end after which they are looked at again. Never, if not given, as long as they stay what they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recheck_after_seconds: Option<i64>,
    /// How many looks are under way at once. 16 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<i32>,
    /// How many of them on one node. 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel_per_node: Option<i32>,
    /// What they must reach at least, by the names of figures that `clawbernetes gpu check -o json` prints: `copyBytesPerSecond: 2T`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub minimums: BTreeMap<String, Quantity>,
    /// Seconds that a look may take, from the moment when its device is free. 900 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// The effect of the taint of those that are not fit: `NoSchedule`, `NoExecute` or `None`. `NoSchedule` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.clawbernetes.v1.DevicePolicyStatus")]
pub struct DevicePolicyStatus {
    /// The generation that this is said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: it can be said which devices are meant. `Checked`: all of them were looked at. `DevicesFit`: and none was found unfit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many devices are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<i32>,
    /// How many of them were looked at and are fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<i32>,
    /// How many of them were looked at and are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_fit: Option<i32>,
    /// How many of them are yet to be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<i32>,
    /// How many looks are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<i32>,
}

impl Spec for DevicePolicySpec {
    const API_VERSION: &'static str = "clawbernetes.io/v1";
    const KIND: &'static str = "DevicePolicy";
    const PLURAL: &'static str = "devicepolicies";
    const SHORT: &'static [&'static str] = &["dpol"];
    type Scope = ClusterResourceScope;
    type Status = DevicePolicyStatus;
}
