//! What one object uses, by the names under which quotas limit it.

use claw_schemas::{Descriptor, needs};
use serde_json::Value;

use super::{Amount, Amounts};

/// Compute resources whose requests may be limited by their bare name, too.
const BARE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";

/// Compute resources that every container has to say something about once a quota limits them.
const TO_BE_SAID: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// Kinds of the core group that older quotas count by their plural alone.
const COUNTED_BARE: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// What decides how much an object of a kind uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// That it is there.
    Being,
    /// What it says.
    Saying,
}

/// A kind as quotas see it.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Where its objects are stored.
    pub group: String,
    /// `pods`
    pub plural: String,
}

impl Kind {
    /// Of a served kind.
    pub fn of(kind: &Descriptor) -> Self {
        Self { group: kind.storage_group().to_owned(), plural: kind.plural.to_string() }
    }

    fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether it is the kind that can have requests, limits and scopes.
    pub fn is_pod(&self) -> bool {
        self.is_core("pods")
    }

    /// What decides how much an object uses.
    pub fn by(&self) -> By {
        let by_saying = ["pods", "services", "persistentvolumeclaims"];
        if by_saying.iter().any(|plural| self.is_core(plural)) { By::Saying } else { By::Being }
    }

    /// `count/deployments.apps`, `count/pods`
    fn count_name(&self) -> String {
        if self.group.is_empty() {
            format!("count/{}", self.plural)
        } else {
            format!("count/{}.{}", self.plural, self.group)
        }
    }

    /// Whether a resource of a quota is about objects of this kind.
    pub fn is_about(&self, resource: &str) -> bool {
        if resource.starts_with("count/") {
            return resource == self.count_name();
        }
        if !self.group.is_empty() {
            return false;
        }
        match self.plural.as_str() {
            "pods" => resource == "pods" || is_compute(resource),
            "services" => resource == "services" || resource.starts_with("services."),
            "persistentvolumeclaims" => is_of_claims(resource),
            plural => plural == resource && COUNTED_BARE.contains(&plural),
        }
    }

    /// What an object uses.
    pub fn usage(&self, object: &Value) -> Amounts {
        let mut usage = Amounts::default();
        usage.set(self.count_name(), Amount::count(1));
        if !self.group.is_empty() {
            return usage;
        }
        match self.plural.as_str() {
            "pods" if !is_over(object) => usage.add_all(&compute(&object["spec"])),
            "services" => usage.add_all(&service(&object["spec"])),
            "persistentvolumeclaims" => usage.add_all(&claim(&object["spec"])),
            plural if COUNTED_BARE.contains(&plural) => usage.set(plural, Amount::count(1)),
            _ => {}
        }
        usage
    }
}

fn is_compute(resource: &str) -> bool {
    let plain = resource.strip_prefix("limits.").or_else(|| resource.strip_prefix("requests."));
    let known = |name: &str| BARE.contains(&name) || name.starts_with(HUGE_PAGES);
    known(resource) || plain.is_some_and(|plain| known(plain) || plain.contains('/'))
}

fn is_of_claims(resource: &str) -> bool {
    matches!(resource, "persistentvolumeclaims" | "requests.storage")
        || resource.contains(".storageclass.storage.k8s.io/")
}

/// A pod whose containers have all ended takes nothing from anybody.
fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// What a pod that is not over uses of the compute resources.
fn compute(spec: &Value) -> Amounts {
    let mut usage = named(&of_pod(spec, "requests"), &of_pod(spec, "limits"));
    usage.set("pods", Amount::count(1));
    usage
}

/// Requests and limits under the names of quotas.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::default();
    for (name, amount) in requests.iter() {
        let bare = BARE.contains(&name) || name.starts_with(HUGE_PAGES);
        if bare {
            usage.set(name, amount);
        }
        if bare || name.contains('/') {
            usage.set(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| BARE.contains(name)) {
        usage.set(format!("limits.{name}"), amount);
    }
    usage
}

/// What a pod asks for at any time, plus overhead. What it says as a whole goes before what its containers say.
pub fn of_pod(spec: &Value, list: &str) -> Amounts {
    let of = |container: &Value| Amounts::of(&container["resources"][list]);
    let items = |field: &str| spec[field].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let init = items("initContainers").map(|one| (of(one), one["restartPolicy"] == "Always"));
    let mut total: Amounts = needs::at_once(init, items("containers").map(of));
    for (name, amount) in Amounts::of(&spec["resources"][list]).iter() {
        total.set(name, amount);
    }
    for (name, amount) in Amounts::of(&spec["overhead"]).iter() {
        // An overhead limits nothing that has no limit.
        if list == "requests" || total.has(name) {
            total.add(name, amount);
        }
    }
    total
}

/// The limited compute resources that containers of a pod say nothing about, with the names of those containers.
pub fn unsaid(pod: &Value, hard: &Amounts) -> Vec<(&'static str, Vec<String>)> {
    let lists = ["containers", "initContainers"].into_iter();
    let containers: Vec<&Value> = lists.filter_map(|list| pod["spec"][list].as_array()).flatten().collect();
    let says = |one: &Value, resource: &str| {
        let (requests, limits) = (&one["resources"]["requests"], &one["resources"]["limits"]);
        named(&Amounts::of(requests), &Amounts::of(limits)).has(resource)
    };
    // What the pod says as a whole it says for all.
    let hard = hard.of_names(|resource| !says(&pod["spec"], resource));
    let missing = TO_BE_SAID.into_iter().filter(|resource| hard.has(resource)).map(|resource| {
        let silent = containers.iter().filter(|container| !says(container, resource));
        let mut names: Vec<String> =
            silent.map(|container| container["name"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        (resource, names)
    });
    missing.filter(|(_, names)| !names.is_empty()).collect()
}

fn service(spec: &Value) -> Amounts {
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let given = || ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
    let balanced = spec["type"] == "LoadBalancer";
    let node_ports = match spec["type"].as_str() {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => given(),
        Some("LoadBalancer") => ports.len(),
        _ => 0,
    };
    let mut usage = Amounts::default();
    usage.set("services", Amount::count(1));
    usage.set("services.nodeports", Amount::count(node_ports));
    usage.set("services.loadbalancers", Amount::count(usize::from(balanced)));
    usage
}

fn claim(spec: &Value) -> Amounts {
    let mut usage = Amounts::default();
    usage.set("persistentvolumeclaims", Amount::count(1));
    let class = spec["storageClassName"].as_str().filter(|class| !class.is_empty());
    let of_class = |what: &str| class.map(|class| format!("{class}.storageclass.storage.k8s.io/{what}"));
    if let Some(name) = of_class("persistentvolumeclaims") {
        usage.set(name, Amount::count(1));
    }
    if let Some(storage) = Amount::of(&spec["resources"]["requests"]["storage"]) {
        usage.set("requests.storage", storage);
        if let Some(name) = of_class("requests.storage") {
            usage.set(name, storage);
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(group: &str, plural: &str) -> Kind {
        Kind { group: group.to_owned(), plural: plural.to_owned() }
    }

    fn container(name: &str, requests: Value, limits: Value) -> Value {
        json!({"name": name, "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn a_pod_uses_what_it_requests_under_both_names_and_what_limits_it() {
        let gpu = json!({"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"});
        let pod = json!({"spec": {"containers": [container("a", gpu, json!({"cpu": "1"})), container("b", json!({"cpu": "250m"}), json!({}))]}});
        assert_eq!(
            kind("", "pods").usage(&pod).json(),
            json!({
                "count/pods": "1", "pods": "1", "cpu": "750m", "requests.cpu": "750m", "limits.cpu": "1",
                "memory": "1Gi", "requests.memory": "1Gi", "requests.nvidia.com/gpu": "2",
                "hugepages-2Mi": "4Mi", "requests.hugepages-2Mi": "4Mi",
            })
        );
    }

    #[test]
    fn a_pod_that_is_over_is_still_an_object_and_nothing_else() {
        for phase in ["Succeeded", "Failed"] {
            let pod = json!({"spec": {"containers": [container("a", json!({"cpu": "1"}), json!({}))]}, "status": {"phase": phase}});
            assert_eq!(kind("", "pods").usage(&pod).json(), json!({"count/pods": "1"}));
        }
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_by_their_sum() {
        let cpu = |name: &str, cpu: &str| container(name, json!({"cpu": cpu}), json!({}));
        let mut sidecar = cpu("s", "200m");
        sidecar["restartPolicy"] = json!("Always");
        let of = |init: Value, overhead: Value| {
            let spec = json!({"initContainers": init, "containers": [cpu("a", "300m"), cpu("b", "100m")], "overhead": overhead});
            of_pod(&spec, "requests").listed()
        };
        assert_eq!(of(json!([]), json!({})), "cpu=400m");
        assert_eq!(of(json!([cpu("i", "1"), cpu("j", "900m")]), json!({})), "cpu=1");
        assert_eq!(of(json!([sidecar, cpu("i", "100m")]), json!({})), "cpu=600m");
        assert_eq!(of(json!([sidecar, cpu("i", "1")]), json!({})), "cpu=1200m");
        assert_eq!(of(json!([]), json!({"cpu": "50m"})), "cpu=450m");
    }

    #[test]
    fn services_count_their_ports_on_nodes() {
        for (spec, expected) in [
            (json!({"type": "ClusterIP", "ports": [{}, {}]}), ("0", "0")),
            (json!({"type": "NodePort", "ports": [{}, {}]}), ("2", "0")),
            (json!({"type": "LoadBalancer", "ports": [{}, {}]}), ("2", "1")),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 30000}, {}]}),
                ("1", "1"),
            ),
        ] {
            let usage = kind("", "services").usage(&json!({"spec": spec})).json();
            assert_eq!(
                (&usage["services.nodeports"], &usage["services.loadbalancers"]),
                (&json!(expected.0), &json!(expected.1))
            );
        }
    }

    #[test]
    fn claims_count_by_class_too() {
        let claim =
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "5Gi"}}}});
        assert_eq!(
            kind("", "persistentvolumeclaims").usage(&claim).listed(),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=5Gi,persistentvolumeclaims=1,requests.storage=5Gi"
        );
    }

    #[test]
    fn every_kind_can_be_counted_and_is_asked_only_about_itself() {
        let widget = kind("example.com", "widgets");
        assert_eq!(widget.usage(&json!({})).listed(), "count/widgets.example.com=1");
        assert_eq!(kind("", "configmaps").usage(&json!({})).listed(), "configmaps=1,count/configmaps=1");
        for (kind, resource, about) in [
            (&widget, "count/widgets.example.com", true),
            (&widget, "count/widgets", false),
            (&kind("", "pods"), "requests.nvidia.com/gpu", true),
            (&kind("", "pods"), "requests.storage", false),
            (&kind("", "pods"), "limits.memory", true),
            (&kind("", "services"), "services.nodeports", true),
            (&kind("", "persistentvolumeclaims"), "gold.storageclass.storage.k8s.io/requests.storage", true),
            (&kind("", "secrets"), "secrets", true),
            (&kind("", "secrets"), "configmaps", false),
            (&kind("apps", "services"), "services", false),
            (&kind("", "events"), "events", false),
        ] {
            assert_eq!(kind.is_about(resource), about, "{kind:?} {resource}");
        }
    }

    #[test]
    fn a_limited_compute_resource_has_to_be_said_for_every_container() {
        let pod = json!({"spec": {
            "containers": [container("b", json!({"cpu": "1"}), json!({})), container("a", json!({}), json!({"memory": "1Gi"}))],
            "initContainers": [container("i", json!({"cpu": "1"}), json!({"memory": "1"}))],
        }});
        let hard = Amounts::of(
            &json!({"requests.cpu": "4", "limits.memory": "4Gi", "requests.nvidia.com/gpu": "1", "pods": "9"}),
        );
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(unsaid(&pod, &hard), [("limits.memory", names(&["b"])), ("requests.cpu", names(&["a"]))]);
        assert_eq!(unsaid(&pod, &Amounts::of(&json!({"pods": "1"}))), []);
    }
}
