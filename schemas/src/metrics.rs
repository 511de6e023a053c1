//! What nodes and pods use at the moment: the types of `metrics.k8s.io/v1beta1`, which `k8s-openapi` does not have, and the
//! text of the amounts in them.
//!
//! Source: `k8s.io/metrics`. Amounts of CPU are in billionths here, a million times finer than [`crate::quantity`] is.
//!
//! Must never know: where the figures come from.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ClusterResourceScope, Metadata, NamespaceResourceScope, Resource,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The group of all that is measured.
pub const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Amounts by the name of their resource: `cpu`, `memory`.
pub type Amounts = BTreeMap<String, Quantity>;

/// NodeMetrics says what a node uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics")]
pub struct NodeMetrics {
    /// Version of the schema of this object.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// What this object is.
    #[serde(default)]
    pub kind: String,
    /// Name and labels are those of the node.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Time,
    /// What was used: CPU on average over the window, memory at the end of it.
    pub usage: Amounts,
    /// The time that was measured over, such as 15s.
    pub window: String,
}

/// PodMetrics says what the running containers of a pod use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics")]
pub struct PodMetrics {
    /// Version of the schema of this object.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// What this object is.
    #[serde(default)]
    pub kind: String,
    /// The running containers.
    pub containers: Vec<ContainerMetrics>,
    /// Namespace, name and labels are those of the pod.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Time,
    /// The time that was measured over, such as 15s.
    pub window: String,
}

/// ContainerMetrics says what one container uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics")]
pub struct ContainerMetrics {
    /// Name of the container.
    pub name: String,
    /// What was used: CPU on average over the window, memory at the end of it.
    pub usage: Amounts,
}

fn api_version() -> String {
    API_VERSION.to_owned()
}

impl Resource for NodeMetrics {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "NodeMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "nodes";
    type Scope = ClusterResourceScope;
}

impl Resource for PodMetrics {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "PodMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl Metadata for NodeMetrics {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Metadata for PodMetrics {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is used, in words of the API.
pub fn amounts(cpu_nanocores: u64, memory_bytes: u64) -> Amounts {
    let cpu = shortest(cpu_nanocores, 1000, &["n", "u", "m", "", "k"]);
    let memory = shortest(memory_bytes, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi"]);
    Amounts::from([("cpu".to_owned(), Quantity(cpu)), ("memory".to_owned(), Quantity(memory))])
}

/// The text of an amount with the largest suffix that keeps it exact.
fn shortest(mut amount: u64, base: u64, suffixes: &[&str]) -> String {
    let mut step = 0;
    while amount != 0 && amount.is_multiple_of(base) && step + 1 < suffixes.len() {
        amount /= base;
        step += 1;
    }
    if amount == 0 { "0".to_owned() } else { format!("{amount}{}", suffixes[step]) }
}

/// Billionths of a CPU in an amount of [`Amounts`].
pub fn nanocores(amount: &str) -> Option<u64> {
    let (number, factor) = match amount.strip_suffix(['n', 'u', 'm', 'k']) {
        None => (amount, 1_000_000_000),
        Some(number) => match &amount[number.len()..] {
            "n" => (number, 1),
            "u" => (number, 1_000),
            "m" => (number, 1_000_000),
            _ => (number, 1_000_000_000_000),
        },
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A window as Go writes durations: `15.2s`, `1m0s`.
pub fn window(length: Duration) -> String {
    let millis = length.as_millis();
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let seconds = match (rest / 1000, rest % 1000) {
        (whole, 0) => format!("{whole}s"),
        (0, millis) if minutes == 0 => return format!("{millis}ms"),
        (whole, millis) => format!("{whole}.{}s", format!("{millis:03}").trim_end_matches('0')),
    };
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_as_short_as_they_can_be() {
        for (nanocores, memory, text) in [
            (0, 0, ["0", "0"]),
            (1, 1, ["1n", "1"]),
            (7_103_521, 1536, ["7103521n", "1536"]),
            (250_000_000, 50 << 20, ["250m", "50Mi"]),
            (3_000_000_000, 12_964 << 10, ["3", "12964Ki"]),
        ] {
            let amounts = amounts(nanocores, memory);
            assert_eq!([&*amounts["cpu"].0, &*amounts["memory"].0], text);
            assert_eq!(super::nanocores(&amounts["cpu"].0), Some(nanocores));
        }
        assert_eq!(nanocores("much"), None);
    }

    #[test]
    fn a_window_is_written_as_go_does() {
        for (millis, text) in [
            (0, "0s"),
            (812, "812ms"),
            (1_000, "1s"),
            (15_270, "15.27s"),
            (60_000, "1m0s"),
            (61_005, "1m1.005s"),
            (60_400, "1m0.4s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(window(Duration::from_millis(millis)), text);
        }
    }
}
