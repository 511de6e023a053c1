//! Limit ranges: what a container gets that asks for nothing, and how much or little may be asked for. Pure.
//!
//! Source of the rules and of their words: the admission plugin `LimitRanger` of `kube-apiserver`.
//!
//! Must never know: where limit ranges and objects are stored.

use serde_json::{Map, Value};

use crate::quota::{Amount, Amounts, usage::of_pod};

/// Tells people which amounts are not the author's. Upstream's name.
const NOTE: &str = "kubernetes.io/limit-ranger";

/// Containers of a pod, and what the note calls one.
const LISTS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

/// Fills in what the containers of a pod leave open, and says so in an annotation.
pub fn fill_in(range: &Value, pod: &mut Value) {
    let (limits, requests) = (defaults(range, "default"), defaults(range, "defaultRequest"));
    let mut notes = Vec::new();
    for (list, called) in LISTS {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, amounts, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let given = fill(container, field, amounts);
                if !given.is_empty() {
                    notes.push(format!("{} {word} for {called} {name}", given.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let annotations = &mut pod["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = Value::Object(Map::new());
        }
        annotations[NOTE] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

fn items(range: &Value) -> impl Iterator<Item = &Value> {
    range["spec"]["limits"].as_array().into_iter().flatten()
}

fn defaults(range: &Value, field: &str) -> Map<String, Value> {
    let of_containers = items(range).filter(|limit| limit["type"] == "Container");
    of_containers.filter_map(|limit| limit[field].as_object().cloned()).flatten().collect()
}

/// Sets the amounts that a container does not have; gives their names.
fn fill(container: &mut Value, field: &str, amounts: &Map<String, Value>) -> Vec<String> {
    let has = |name: &str| !container["resources"][field][name].is_null();
    let missing: Vec<String> = amounts.keys().filter(|name| !has(name)).cloned().collect();
    for name in &missing {
        container["resources"][field][name] = amounts[name].clone();
    }
    missing
}

/// What a pod asks for that a range does not allow, in upstream's words.
pub fn faults_of_pod(range: &Value, pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut faults = Vec::new();
    for limit in items(range) {
        match limit["type"].as_str() {
            Some("Container") => {
                let containers = LISTS.into_iter().filter_map(|(list, _)| spec[list].as_array()).flatten();
                for container in containers {
                    let of = |field: &str| Amounts::of(&container["resources"][field]);
                    faults.extend(Asked { requests: of("requests"), limits: of("limits") }.faults(limit));
                }
            }
            Some("Pod") => {
                let asked = Asked { requests: of_pod(spec, "requests"), limits: of_pod(spec, "limits") };
                faults.extend(asked.faults(limit));
            }
            _ => {}
        }
    }
    faults
}

/// What a claim asks for that a range does not allow.
pub fn faults_of_claim(range: &Value, claim: &Value) -> Vec<String> {
    let requests = Amounts::of(&claim["spec"]["resources"]["requests"]);
    let asked = Asked { requests, limits: Amounts::default() };
    let of_claims = items(range).filter(|limit| limit["type"] == "PersistentVolumeClaim");
    of_claims.flat_map(|limit| [asked.too_little(limit), asked.too_much_requested(limit)].concat()).collect()
}

/// What is asked for.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

impl Asked {
    fn faults(&self, limit: &Value) -> Vec<String> {
        [self.too_little(limit), self.too_much(limit), self.too_far_apart(limit)].concat()
    }

    fn too_little(&self, limit: &Value) -> Vec<String> {
        each(limit, "min", |name, least| {
            let begin = || begin("minimum", name, limit, least);
            let Some(request) = self.requests.get(name) else {
                return Some(format!("{}.  No request is specified", begin()));
            };
            if request.milli < least.milli {
                return Some(format!("{}, but request is {}", begin(), request.text()));
            }
            let low = self.limits.get(name).filter(|own| own.milli < least.milli)?;
            Some(format!("{}, but limit is {}", begin(), low.text()))
        })
    }

    fn too_much(&self, limit: &Value) -> Vec<String> {
        each(limit, "max", |name, most| {
            let begin = || begin("maximum", name, limit, most);
            let Some(own) = self.limits.get(name) else {
                return Some(format!("{}.  No limit is specified", begin()));
            };
            if own.milli > most.milli {
                return Some(format!("{}, but limit is {}", begin(), own.text()));
            }
            let high = self.requests.get(name).filter(|request| request.milli > most.milli)?;
            Some(format!("{}, but request is {}", begin(), high.text()))
        })
    }

    /// Where there are only requests.
    fn too_much_requested(&self, limit: &Value) -> Vec<String> {
        each(limit, "max", |name, most| {
            let begin = || begin("maximum", name, limit, most);
            match self.requests.get(name) {
                None => Some(format!("{}.  No request is specified", begin())),
                Some(request) if request.milli > most.milli => {
                    Some(format!("{}, but request is {}", begin(), request.text()))
                }
                Some(_) => None,
            }
        })
    }

    fn too_far_apart(&self, limit: &Value) -> Vec<String> {
        each(limit, "maxLimitRequestRatio", |name, most| {
            let kind = limit["type"].as_str().unwrap_or_default();
            let begin = || format!("{name} max limit to request ratio per {kind} is {}, but", most.text());
            let some = |amounts: &Amounts| amounts.get(name).filter(|amount| amount.milli != 0);
            let Some(request) = some(&self.requests) else {
                return Some(format!("{} no request is specified or request is 0", begin()));
            };
            let Some(own) = some(&self.limits) else {
                return Some(format!("{} no limit is specified or limit is 0", begin()));
            };
            // own / request > most, without a fraction; `most` is in thousandths, too.
            let is_more = own.milli.saturating_mul(1000) > most.milli.saturating_mul(request.milli);
            is_more.then(|| format!("{} provided ratio is {}", begin(), quotient(own, request)))
        })
    }
}

fn begin(which: &str, name: &str, limit: &Value, amount: Amount) -> String {
    let kind = limit["type"].as_str().unwrap_or_default();
    format!("{which} {name} usage per {kind} is {}", amount.text())
}

fn each(limit: &Value, field: &str, mut judge: impl FnMut(&str, Amount) -> Option<String>) -> Vec<String> {
    Amounts::of(&limit[field]).iter().filter_map(|(name, amount)| judge(name, amount)).collect()
}

/// A quotient with six digits after the point.
fn quotient(of: Amount, by: Amount) -> String {
    let millionths = (of.milli.saturating_mul(1_000_000) + by.milli / 2) / by.milli;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

/// Several faults as one text, each once.
pub fn together(faults: Vec<String>) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    for fault in faults {
        if !told.contains(&fault) {
            told.push(fault);
        }
    }
    match told.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limit: Value) -> Value {
        json!({"spec": {"limits": [limit]}})
    }

    fn container(name: &str, requests: Value, limits: Value) -> Value {
        json!({"name": name, "resources": {"requests": requests, "limits": limits}})
    }

    fn pod(containers: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
    }

    #[test]
    fn what_containers_leave_open_is_filled_in_and_told() {
        let range = range(
            json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m", "memory": "512Mi"}}),
        );
        let mut filled = pod(
            json!([{"name": "a"}, container("b", json!({"cpu": "1"}), json!({"cpu": "2", "memory": "2Gi"}))]),
        );
        filled["spec"]["initContainers"] = json!([{"name": "i"}]);
        fill_in(&range, &mut filled);
        let resources = |pod: &Value, list: &str, at: usize| pod["spec"][list][at]["resources"].clone();
        let all = json!({"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(resources(&filled, "containers", 0), all);
        assert_eq!(resources(&filled, "initContainers", 0), all);
        assert_eq!(
            resources(&filled, "containers", 1),
            json!({"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}})
        );
        assert_eq!(
            filled["metadata"]["annotations"][NOTE],
            "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; memory request for container b; cpu, memory request for init container i; cpu, memory limit for init container i"
        );
        let mut whole = pod(json!([container(
            "a",
            json!({"cpu": "1", "memory": "1"}),
            json!({"cpu": "1", "memory": "1"})
        )]));
        let before = whole.clone();
        fill_in(&range, &mut whole);
        assert_eq!(whole, before);
    }

    #[test]
    fn each_bound_is_told_in_the_words_of_upstream() {
        let asks = |request: &str, limit: &str| {
            let of = |amount: &str| if amount.is_empty() { json!({}) } else { json!({"cpu": amount}) };
            pod(json!([container("a", of(request), of(limit))]))
        };
        for (limit, request, own, expected) in [
            (
                json!({"min": {"cpu": "200m"}}),
                "",
                "",
                "minimum cpu usage per Container is 200m.  No request is specified",
            ),
            (
                json!({"min": {"cpu": "200m"}}),
                "100m",
                "1",
                "minimum cpu usage per Container is 200m, but request is 100m",
            ),
            (
                json!({"min": {"cpu": "200m"}}),
                "200m",
                "150m",
                "minimum cpu usage per Container is 200m, but limit is 150m",
            ),
            (
                json!({"max": {"cpu": "1"}}),
                "1",
                "",
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                json!({"max": {"cpu": "1"}}),
                "1",
                "1500m",
                "maximum cpu usage per Container is 1, but limit is 1500m",
            ),
            (
                json!({"max": {"cpu": "1"}}),
                "2",
                "1",
                "maximum cpu usage per Container is 1, but request is 2",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                "",
                "1",
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                "1",
                "",
                "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "1500m"}}),
                "300m",
                "500m",
                "cpu max limit to request ratio per Container is 1500m, but provided ratio is 1.666667",
            ),
            (json!({"maxLimitRequestRatio": {"cpu": "2"}}), "250m", "500m", ""),
            (json!({"min": {"cpu": "200m"}, "max": {"cpu": "1"}}), "200m", "1", ""),
        ] {
            let mut limit = limit;
            limit["type"] = json!("Container");
            let told =
                together(faults_of_pod(&range(limit.clone()), &asks(request, own))).unwrap_or_default();
            assert_eq!(told, expected, "{limit} {request} {own}");
        }
    }

    #[test]
    fn a_pod_is_judged_by_the_sum_of_its_containers() {
        let range = range(json!({"type": "Pod", "max": {"memory": "1Gi"}}));
        let half = |name: &str| container(name, json!({}), json!({"memory": "512Mi"}));
        assert_eq!(faults_of_pod(&range, &pod(json!([half("a"), half("b")]))), Vec::<String>::new());
        assert_eq!(
            faults_of_pod(&range, &pod(json!([half("a"), half("b"), half("c")]))),
            ["maximum memory usage per Pod is 1Gi, but limit is 1536Mi"]
        );
    }

    #[test]
    fn claims_are_judged_by_what_they_request() {
        let range = range(
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}}),
        );
        let claim = |storage: &str| json!({"spec": {"resources": {"requests": {"storage": storage}}}});
        assert_eq!(faults_of_claim(&range, &claim("2Gi")), Vec::<String>::new());
        assert_eq!(
            faults_of_claim(&range, &claim("512Mi")),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi"]
        );
        assert_eq!(
            faults_of_claim(&range, &claim("6Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"]
        );
    }

    #[test]
    fn several_faults_are_told_together_and_each_once() {
        let fault = |text: &str| text.to_owned();
        assert_eq!(together(vec![]), None);
        assert_eq!(together(vec![fault("a"), fault("a")]).as_deref(), Some("a"));
        assert_eq!(together(vec![fault("a"), fault("b")]).as_deref(), Some("[a, b]"));
    }
}
