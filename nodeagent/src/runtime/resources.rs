//! From a pod's requests and limits to what the kernel enforces.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use oci_spec::{
    OciSpecError,
    runtime::{
        LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
        LinuxResourcesBuilder,
    },
};

use super::{
    cgroups,
    machine::{amount, limit, request},
};
use crate::rootless;

/// Processes and threads in one container. Large enough for any honest program, small enough that a
/// fork bomb in each of 110 pods leaves the kernel's default of 4 million untouched.
const PIDS_MAX: i64 = 32_768;

/// Period over which the CPU limit is enforced, as in kubelet: 100 ms.
const CPU_PERIOD_US: u64 = 100_000;

/// Least shares and quota the kernel accepts.
const CPU_SHARES_MIN: u64 = 2;
const CPU_QUOTA_MIN_US: i64 = 1_000;

/// Quality of service, which decides who is killed first when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// Nobody asks for anything.
    BestEffort,
}

impl Qos {
    /// As in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The class of a pod.
    pub fn of(spec: &PodSpec) -> Self {
        let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let asks = |container: &Container| {
            ["cpu", "memory"].iter().any(|name| {
                request(container.resources.as_ref(), name).is_some_and(|quantity| quantity.milli() > 0)
            })
        };
        let guaranteed = |container: &Container| {
            ["cpu", "memory"].iter().all(|name| {
                let limit = limit(container.resources.as_ref(), name);
                let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
                limit.is_some_and(|limit| limit.milli() > 0)
                    && amount(requests, name).is_none_or(|request| Some(request) == limit)
            })
        };
        if containers().all(guaranteed) {
            Self::Guaranteed
        } else if containers().any(asks) {
            Self::Burstable
        } else {
            Self::BestEffort
        }
    }
}

/// How willingly the kernel kills a container when memory runs out, as far as this process may say.
pub(super) fn oom_score(pod: &Pod, container: &Container, memory_bytes: i128) -> i32 {
    possible_oom_score(wanted_oom_score(pod, container, memory_bytes))
}

/// The wanted score, as far as this process may give it.
pub(super) fn possible_oom_score(wanted: i32) -> i32 {
    if may_lower_oom_scores() { wanted } else { wanted.max(own_oom_score()) }
}

/// Without CAP_SYS_RESOURCE (number 24), on the machine and not in some namespace, a process cannot give its children a lower
/// score than its own.
fn may_lower_oom_scores() -> bool {
    if rootless::is_inside() {
        return false;
    }
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()).is_some_and(|held| held & (1 << 24) != 0)
}

fn own_oom_score() -> i32 {
    std::fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Source: kubelet's `qos` package.
fn wanted_oom_score(pod: &Pod, container: &Container, memory_bytes: i128) -> i32 {
    let qos = pod.spec.as_ref().map_or(Qos::BestEffort, Qos::of);
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let requested = request(container.resources.as_ref(), "memory").unwrap_or_default().units();
            let score = 1000 - 1000 * requested / memory_bytes.max(1);
            i32::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// Cgroup settings of a container, as far as this process may limit anything.
pub(super) fn linux(container: &Container, privileged: bool) -> Result<Option<LinuxResources>, OciSpecError> {
    if !cgroups::can_change() {
        return Ok(None);
    }
    let resources = container.resources.as_ref();
    let devices = LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm").build()?;
    let mut linux = LinuxResourcesBuilder::default().devices(vec![devices]);
    if cgroups::limits("pids") {
        linux = linux.pids(LinuxPidsBuilder::default().limit(PIDS_MAX).build()?);
    }
    if cgroups::limits("cpu") {
        let mut cpu =
            LinuxCpuBuilder::default().shares(shares(request(resources, "cpu").map_or(0, |q| q.milli())));
        if let Some(limit) = limit(resources, "cpu").filter(|limit| limit.milli() > 0) {
            cpu = cpu.quota(quota_us(limit.milli())).period(CPU_PERIOD_US);
        }
        linux = linux.cpu(cpu.build()?);
    }
    let memory = limit(resources, "memory").filter(|limit| limit.milli() > 0);
    if let Some(limit) = memory.filter(|_| cgroups::limits("memory")) {
        let bytes = i64::try_from(limit.units()).unwrap_or(i64::MAX);
        let mut memory = LinuxMemoryBuilder::default().limit(bytes);
        match cgroups::version() {
            // On version 1 the figure is memory and swap together.
            cgroups::Version::V1 if cgroups::limits_swap() => memory = memory.swap(bytes),
            cgroups::Version::V1 => {}
            // On version 2 libcontainer would take it as "unlimited".
            cgroups::Version::V2 => {
                let no_swap = HashMap::from([("memory.swap.max".to_owned(), "0".to_owned())]);
                linux = linux.unified(no_swap);
            }
        }
        linux = linux.memory(memory.build()?);
    }
    linux.build().map(Some)
}

/// 1024 for each CPU requested.
fn shares(milli_cpus: i128) -> u64 {
    u64::try_from(milli_cpus.max(0).saturating_mul(1024) / 1000)
        .unwrap_or(u64::MAX)
        .clamp(CPU_SHARES_MIN, 262_144)
}

fn quota_us(milli_cpus: i128) -> i64 {
    i64::try_from(milli_cpus.saturating_mul(i128::from(CPU_PERIOD_US)) / 1000)
        .unwrap_or(i64::MAX)
        .max(CPU_QUOTA_MIN_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_amount_of_processors_is_too_many_to_count() {
        assert_eq!((shares(i128::MAX), quota_us(i128::MAX)), (262_144, i64::MAX));
    }

    fn spec(resources: serde_json::Value) -> PodSpec {
        serde_json::from_value(serde_json::json!({"containers": [{"name": "c", "resources": resources}]}))
            .unwrap()
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let json = |text: &str| serde_json::from_str(text).unwrap();
        for (resources, expected) in [
            (r#"{}"#, Qos::BestEffort),
            (r#"{"requests":{"cpu":"1"}}"#, Qos::Burstable),
            (r#"{"limits":{"cpu":"1"}}"#, Qos::Burstable),
            (r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#, Qos::Guaranteed),
            (
                r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1000m","memory":"1024Mi"}}"#,
                Qos::Guaranteed,
            ),
            (r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"500m"}}"#, Qos::Burstable),
        ] {
            assert_eq!(Qos::of(&spec(json(resources))), expected, "{resources}");
        }
    }

    #[test]
    fn who_asked_for_more_memory_is_killed_later() {
        let pod = |resources| Pod { spec: Some(spec(resources)), ..Pod::default() };
        let score = |resources: serde_json::Value| {
            let pod = pod(resources);
            wanted_oom_score(&pod, &pod.spec.as_ref().unwrap().containers[0], 1 << 30)
        };
        assert_eq!(score(serde_json::json!({})), 1000);
        assert_eq!(score(serde_json::json!({"requests": {"memory": "512Mi"}})), 500);
        assert_eq!(score(serde_json::json!({"requests": {"memory": "1Gi"}})), 3);
        assert_eq!(score(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}})), -997);
    }

    #[test]
    fn cpu_is_counted_in_shares_and_quota() {
        assert_eq!(shares(0), 2);
        assert_eq!(shares(500), 512);
        assert_eq!(quota_us(500), 50_000);
        assert_eq!(quota_us(1), 1_000);
    }
}
