//! The kind `Sweep`, as a Rust type; `definition.yaml` follows from it.
//!
//! Must never know: what is done about a sweep.

use claw_client::custom::{CustomResource, Spec, column};
use k8s_openapi::{
    NamespaceResourceScope,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition,
    apimachinery::pkg::apis::meta::v1::Condition,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One program, run once for each value of a parameter.
pub type Sweep = CustomResource<SweepSpec>;

/// What to run, and with which values.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SweepSpec {
    /// Image of the program.
    pub image: String,
    /// Its arguments. `$(VALUE)` stands for the value, which is also the variable VALUE.
    #[serde(default)]
    pub args: Vec<String>,
    /// One pod runs with each of them.
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
    /// How many pods run at a time.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub parallelism: u32,
    /// Deletes the sweep and its pods so many seconds after it is complete. Left out, it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<u32>,
}

fn one() -> u32 {
    1
}

/// How far it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SweepStatus {
    /// Pods that wait or run.
    #[serde(default)]
    pub active: usize,
    /// Values whose pod ended well.
    #[serde(default)]
    pub succeeded: usize,
    /// Values whose pod ended badly.
    #[serde(default)]
    pub failed: usize,
    /// `Complete` says whether all values were run, or why not yet.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl Spec for SweepSpec {
    const API_VERSION: &'static str = "tuning.example.com/v1";
    const KIND: &'static str = "Sweep";
    const PLURAL: &'static str = "sweeps";
    type Scope = NamespaceResourceScope;
    type Status = SweepStatus;

    fn columns() -> Vec<CustomResourceColumnDefinition> {
        vec![
            column("Active", "integer", ".status.active"),
            column("Succeeded", "integer", ".status.succeeded"),
            column("Failed", "integer", ".status.failed"),
            column("Complete", "string", ".status.conditions[?(@.type==\"Complete\")].status"),
        ]
    }
}
