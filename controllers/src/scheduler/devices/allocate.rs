//! Which devices of a node meet what claims ask for: all of them, or none. Pure.
//!
//! A search that goes back where a choice leads nowhere. It tries devices that are close to each other first, and gives up
//! after a number of steps: constraints can make a puzzle of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use claw_schemas::gpu::tolerates;
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClassSpec, DeviceRequest, DeviceSelector, DeviceTaint, DeviceToleration,
};

use super::{
    inventory::Device,
    near,
    selector::{Selector, Selectors},
    taints::shown,
};

/// Choices that are tried for one pod on one node; each takes about a microsecond.
const STEPS_MAX: usize = 10_000;

/// Devices of one claim. Kubernetes' figure.
const DEVICES_MAX: usize = 32;

/// Classes of devices by name.
pub type Classes = BTreeMap<String, DeviceClassSpec>;

/// What some claims ask for, ready to be compared with devices.
#[derive(Debug, Default)]
pub struct Wishes {
    requests: Vec<Request>,
    constraints: Vec<Constraint>,
}

/// One request of a claim, with the ways to meet it, best first.
#[derive(Debug)]
struct Request {
    /// Which of the claims.
    claim: usize,
    ways: Vec<Way>,
}

#[derive(Debug)]
struct Way {
    /// As results name it: `gpus`, `gpus/large`.
    name: String,
    class: String,
    selectors: Vec<(Arc<Selector>, String)>,
    tolerations: Vec<DeviceToleration>,
    /// `None` is all that there are.
    count: Option<usize>,
}

#[derive(Debug)]
struct Constraint {
    claim: usize,
    attribute: String,
    /// The values must differ instead of being the same.
    is_distinct: bool,
    /// Names of requests; empty means all.
    requests: Vec<String>,
}

/// One device for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Which of the claims.
    pub claim: usize,
    pub request: String,
    pub class: String,
    /// Which of the node's devices.
    pub device: usize,
    /// What of the device it puts up with.
    pub tolerations: Vec<DeviceToleration>,
}

/// The parts of a request that both forms of it have.
struct Form<'a> {
    name: String,
    class: &'a str,
    selectors: &'a Option<Vec<DeviceSelector>>,
    tolerations: &'a Option<Vec<DeviceToleration>>,
    mode: Option<&'a str>,
    count: Option<i64>,
    unsupported: Option<&'static str>,
}

impl Wishes {
    /// Adds what a claim asks for. `place` names it in messages: `default/gpus`.
    ///
    /// # Errors
    /// Why no node will ever meet it as things are, in words.
    pub fn add(
        &mut self,
        claim: usize,
        place: &str,
        asks: &DeviceClaim,
        classes: &Classes,
        selectors: &mut Selectors,
    ) -> Result<(), String> {
        for request in asks.requests.iter().flatten() {
            let ways = forms(request).into_iter().map(|form| way(place, form, classes, selectors));
            self.requests.push(Request { claim, ways: ways.collect::<Result<_, _>>()? });
        }
        for constraint in asks.constraints.iter().flatten() {
            let requests = constraint.requests.clone().unwrap_or_default();
            let attributes = [(&constraint.match_attribute, false), (&constraint.distinct_attribute, true)];
            for (attribute, is_distinct) in attributes {
                let attribute = attribute.clone().filter(|name| !name.is_empty());
                self.constraints.extend(attribute.map(|attribute| Constraint {
                    claim,
                    attribute,
                    is_distinct,
                    requests: requests.clone(),
                }));
            }
        }
        Ok(())
    }

    /// Chooses devices of one node; `free` says which of them nobody has.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub fn allocate(&self, devices: &[Arc<Device>], free: &[bool]) -> Result<Vec<Given>, String> {
        let mut candidates = Vec::with_capacity(self.requests.len());
        for request in &self.requests {
            let ways = request.ways.iter().map(|way| way.candidates(devices, free));
            candidates.push(ways.collect::<Result<Vec<_>, _>>()?);
        }
        let mut search =
            Search { wishes: self, devices, candidates, free: free.to_vec(), given: Vec::new(), steps: 0 };
        if search.meet(0) { Ok(search.given) } else { Err(self.refusal(devices, free)) }
    }

    /// That it cannot be met, with the taints that keep away devices which would do otherwise.
    fn refusal(&self, devices: &[Arc<Device>], free: &[bool]) -> String {
        let ways = self.requests.iter().flat_map(|request| &request.ways);
        let mut taints = BTreeSet::new();
        for way in ways {
            let free = devices.iter().zip(free).filter(|(_, free)| **free).map(|(device, _)| device);
            let barred = free.filter_map(|device| Some((device, way.untolerated(device)?)));
            taints.extend(
                barred.filter(|(device, _)| way.selects(device) == Ok(true)).map(|(_, taint)| shown(taint)),
            );
        }
        let why = "cannot allocate all claims";
        match taints.is_empty() {
            true => why.to_owned(),
            false => {
                let taints: Vec<String> = taints.into_iter().collect();
                format!("{why} (untolerated device taint {})", taints.join(", "))
            }
        }
    }
}

fn forms(request: &DeviceRequest) -> Vec<Form<'_>> {
    let unsupported = |admin: Option<bool>, has_capacity: bool| match (admin, has_capacity) {
        (Some(true), _) => Some("adminAccess"),
        (_, true) => Some("capacity"),
        _ => None,
    };
    if let Some(one) = &request.exactly {
        return vec![Form {
            name: request.name.clone(),
            class: &one.device_class_name,
            selectors: &one.selectors,
            tolerations: &one.tolerations,
            mode: one.allocation_mode.as_deref(),
            count: one.count,
            unsupported: unsupported(one.admin_access, one.capacity.is_some()),
        }];
    }
    let alternatives = request.first_available.iter().flatten();
    let form = |one| {
        let one: &k8s_openapi::api::resource::v1::DeviceSubRequest = one;
        Form {
            name: format!("{}/{}", request.name, one.name),
            class: &one.device_class_name,
            selectors: &one.selectors,
            tolerations: &one.tolerations,
            mode: one.allocation_mode.as_deref(),
            count: one.count,
            unsupported: unsupported(None, one.capacity.is_some()),
        }
    };
    alternatives.map(form).collect()
}

fn way(place: &str, form: Form<'_>, classes: &Classes, selectors: &mut Selectors) -> Result<Way, String> {
    let Form { name, class, .. } = form;
    if let Some(field) = form.unsupported {
        return Err(format!(
            "request {name}: this scheduler does not evaluate {field} and will not ignore it"
        ));
    }
    let Some(spec) = classes.get(class) else {
        return Err(format!("request {name}: device class {class} does not exist"));
    };
    let of_class = (&spec.selectors, format!("class {class}"));
    let own = (form.selectors, format!("claim {place}: request {name}"));
    let mut compiled = Vec::new();
    for (list, whose) in [of_class, own] {
        for (index, selector) in list.iter().flatten().enumerate() {
            let whose = format!("{whose}: selector #{index}");
            let text = selector.cel.as_ref().map_or("", |cel| cel.expression.as_str());
            let selector = selectors.get(text).map_err(|why| format!("{whose}: CEL compile error: {why}"))?;
            compiled.push((selector, whose));
        }
    }
    let count = match form.mode {
        Some("All") => None,
        _ => Some(usize::try_from(form.count.unwrap_or(1)).unwrap_or(0)),
    };
    if count.is_some_and(|count| count > DEVICES_MAX) {
        return Err(format!("request {name}: a claim can have {DEVICES_MAX} devices at most"));
    }
    let tolerations = form.tolerations.clone().unwrap_or_default();
    Ok(Way { name, class: class.to_owned(), selectors: compiled, tolerations, count })
}

/// The devices that would do for one way, those to be tried first in front; `None` where the way is barred.
type Candidates = Option<Vec<usize>>;

impl Way {
    fn candidates(&self, devices: &[Arc<Device>], free: &[bool]) -> Result<Candidates, String> {
        let mut fitting = Vec::new();
        for (at, device) in devices.iter().enumerate() {
            if self.means(device)? {
                fitting.push(at);
            }
        }
        let all = fitting.len();
        fitting.retain(|at| free[*at]);
        let is_barred = match self.count {
            Some(count) => fitting.len() < count,
            None => fitting.len() < all || all == 0 || all > DEVICES_MAX,
        };
        if is_barred {
            return Ok(None);
        }
        let places: Vec<_> = fitting.iter().map(|at| devices[*at].place()).collect();
        let order = near::nearest(&places, self.count.unwrap_or(all));
        Ok(Some(order.into_iter().map(|at| fitting[at]).collect()))
    }

    fn means(&self, device: &Device) -> Result<bool, String> {
        if self.untolerated(device).is_some() { Ok(false) } else { self.selects(device) }
    }

    /// A taint that keeps a device away.
    fn untolerated<'a>(&self, device: &'a Device) -> Option<&'a DeviceTaint> {
        device.taints.iter().find(|taint| !tolerates(&self.tolerations, taint))
    }

    fn selects(&self, device: &Device) -> Result<bool, String> {
        for (selector, whose) in &self.selectors {
            let verdict = selector.matches(device);
            if !verdict.map_err(|why| format!("{whose}: CEL runtime error: {why}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Search<'a> {
    wishes: &'a Wishes,
    devices: &'a [Arc<Device>],
    /// By request and way.
    candidates: Vec<Vec<Candidates>>,
    free: Vec<bool>,
    given: Vec<Given>,
    steps: usize,
}

impl Search<'_> {
    /// Meets the requests from one on.
    fn meet(&mut self, request: usize) -> bool {
        let Some(wish) = self.wishes.requests.get(request) else { return true };
        wish.ways.iter().enumerate().any(|(at, way)| {
            let wanted = self.candidates[request][at].as_ref().map(|all| way.count.unwrap_or(all.len()));
            wanted.is_some_and(|wanted| self.take(request, at, wanted, 0))
        })
    }

    /// Takes so many more candidates from a place in their list on, and meets all requests that follow.
    fn take(&mut self, request: usize, way: usize, wanted: usize, from: usize) -> bool {
        if wanted == 0 {
            return self.meet(request + 1);
        }
        let count = self.candidates[request][way].as_ref().map_or(0, Vec::len);
        for at in from..count {
            self.steps += 1;
            if count - at < wanted || self.steps > STEPS_MAX {
                return false;
            }
            let Some(device) = self.candidates[request][way].as_ref().map(|all| all[at]) else {
                return false;
            };
            let given = self.as_given(request, way, device);
            if !self.free[device] || !self.is_allowed(&given) {
                continue;
            }
            self.free[device] = false;
            self.given.push(given);
            if self.take(request, way, wanted - 1, at + 1) {
                return true;
            }
            self.given.pop();
            self.free[device] = true;
        }
        false
    }

    fn as_given(&self, request: usize, way: usize, device: usize) -> Given {
        let request = &self.wishes.requests[request];
        let way = &request.ways[way];
        Given {
            claim: request.claim,
            request: way.name.clone(),
            class: way.class.clone(),
            device,
            tolerations: way.tolerations.clone(),
        }
    }

    /// Whether a device goes together with those that were chosen before.
    fn is_allowed(&self, new: &Given) -> bool {
        let mut concerned = self.wishes.constraints.iter().filter(|constraint| constraint.concerns(new));
        concerned.all(|constraint| {
            let value = |given: &Given| self.devices[given.device].attribute(&constraint.attribute);
            let Some(own) = value(new) else { return false };
            let mut others = self.given.iter().filter(|given| constraint.concerns(given));
            others.all(|other| value(other).is_some_and(|other| (own == other) != constraint.is_distinct))
        })
    }
}

impl Constraint {
    fn concerns(&self, given: &Given) -> bool {
        let request = given.request.split_once('/').map_or(given.request.as_str(), |(request, _)| request);
        given.claim == self.claim
            && (self.requests.is_empty()
                || self.requests.iter().any(|name| *name == given.request || name == request))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scheduler::devices::inventory::{Inventory, build::slice};

    fn classes() -> Classes {
        let selector = json!({"cel": {"expression": "device.driver == 'gpu.clawbernetes.io'"}});
        let gpu = serde_json::from_value(json!({"selectors": [selector]})).unwrap();
        let broken =
            serde_json::from_value(json!({"selectors": [{"cel": {"expression": "true &&"}}]})).unwrap();
        Classes::from([("gpu".to_owned(), gpu), ("broken".to_owned(), broken)])
    }

    /// `request=device` in the order of requests, or why not.
    fn given(claims: &[Value], gpus: &[(&str, Value)], busy: &[&str]) -> Result<Vec<String>, String> {
        let (mut wishes, mut selectors) = (Wishes::default(), Selectors::default());
        for (at, claim) in claims.iter().enumerate() {
            let asks = serde_json::from_value(claim.clone()).unwrap();
            wishes.add(at, "default/c", &asks, &classes(), &mut selectors)?;
        }
        let mut inventory = Inventory::default();
        inventory.apply(&slice("n", gpus));
        let devices = inventory.of("n");
        let free: Vec<bool> = devices.iter().map(|device| !busy.contains(&&*device.id.name)).collect();
        let given = wishes.allocate(devices, &free)?;
        Ok(given.iter().map(|one| format!("{}={}", one.request, devices[one.device].id.name)).collect())
    }

    fn exactly(name: &str, more: Value) -> Value {
        let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
        crate::pods::build::json_patch_merge(&mut exactly, &more);
        json!({"name": name, "exactly": exactly})
    }

    fn plain(names: &[&'static str]) -> Vec<(&'static str, Value)> {
        names.iter().map(|name| (*name, json!({}))).collect()
    }

    fn cel(text: &str) -> Value {
        json!([{"cel": {"expression": text}}])
    }

    #[test]
    fn all_claims_of_a_pod_are_met_or_none() {
        let one = json!({"requests": [exactly("x", json!({}))]});
        let two = json!({"requests": [exactly("y", json!({"count": 2}))]});
        let gpus = plain(&["A", "B", "C"]);
        assert_eq!(given(&[one.clone(), two.clone()], &gpus, &[]).unwrap(), ["x=a", "y=b", "y=c"]);
        assert_eq!(given(&[one, two], &gpus, &["b"]).unwrap_err(), "cannot allocate all claims");
    }

    #[test]
    fn a_choice_that_leaves_nothing_for_the_next_request_is_taken_back() {
        let picky = exactly(
            "picky",
            json!({"selectors": cel("device.attributes['gpu.clawbernetes.io'].uuid == 'A'")}),
        );
        let claim = json!({"requests": [exactly("any", json!({})), picky]});
        assert_eq!(given(&[claim], &plain(&["A", "B"]), &[]).unwrap(), ["any=b", "picky=a"]);
    }

    #[test]
    fn all_means_all_that_there_are_and_at_least_one() {
        let claim = json!({"requests": [{"name": "x", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}]});
        let claim = [claim];
        assert_eq!(given(&claim, &plain(&["A", "B"]), &[]).unwrap(), ["x=a", "x=b"]);
        assert!(given(&claim, &plain(&["A", "B"]), &["b"]).is_err(), "one is somebody's");
        assert!(given(&claim, &[], &[]).is_err());
    }

    #[test]
    fn the_first_alternative_that_can_be_had_is_taken() {
        let sub = |name: &str, count: u32| json!({"name": name, "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count});
        let claim = [json!({"requests": [{"name": "x", "firstAvailable": [sub("many", 3), sub("few", 1)]}]})];
        assert_eq!(
            given(&claim, &plain(&["A", "B", "C"]), &[]).unwrap(),
            ["x/many=a", "x/many=b", "x/many=c"]
        );
        assert_eq!(given(&claim, &plain(&["A", "B"]), &["a"]).unwrap(), ["x/few=b"]);
    }

    #[test]
    fn constraints_hold_over_the_requests_that_they_name() {
        let root = |name: &str| json!({"resource.kubernetes.io/pcieRoot": {"string": name}});
        let gpus = [("A", root("r1")), ("B", root("r2")), ("C", root("r2"))];
        let two = |constraint: &str, requests: Value| {
            json!({
                "requests": [exactly("x", json!({})), exactly("y", json!({}))],
                "constraints": [{constraint: "resource.kubernetes.io/pcieRoot", "requests": requests}],
            })
        };
        assert_eq!(given(&[two("matchAttribute", json!([]))], &gpus, &[]).unwrap(), ["x=b", "y=c"]);
        assert!(given(&[two("matchAttribute", json!(["x", "y"]))], &gpus, &["c"]).is_err());
        assert!(given(&[two("matchAttribute", json!(["x"]))], &gpus, &["c"]).is_ok(), "one alone agrees");
        assert_eq!(given(&[two("distinctAttribute", json!([]))], &gpus, &[]).unwrap(), ["x=a", "y=b"]);
        let missing =
            json!({"requests": [exactly("x", json!({}))], "constraints": [{"matchAttribute": "a.b/c"}]});
        assert!(
            given(&[missing], &gpus, &[]).is_err(),
            "what a device does not say it has in common with nobody"
        );
    }

    #[test]
    fn what_can_never_be_met_is_said_in_the_words_people_search_for() {
        let asks = |more: Value| [json!({"requests": [exactly("x", more)]})];
        let why = |claim: &[Value]| given(claim, &plain(&["A"]), &[]).unwrap_err();
        assert_eq!(why(&asks(json!({"deviceClassName": "no"}))), "request x: device class no does not exist");
        let broken = why(&asks(json!({"deviceClassName": "broken"})));
        assert!(broken.starts_with("class broken: selector #0: CEL compile error: "), "{broken}");
        let broken = why(&asks(json!({"selectors": cel("device.attributes['a'].b == 1")})));
        assert!(
            broken.starts_with("claim default/c: request x: selector #0: CEL runtime error: "),
            "{broken}"
        );
        let admin = why(&asks(json!({"adminAccess": true})));
        assert_eq!(admin, "request x: this scheduler does not evaluate adminAccess and will not ignore it");
    }

    #[test]
    fn a_puzzle_is_given_up_after_a_while() {
        // Each GPU has a root of its own, so no two can ever agree; choices of 12 of 30 are more than can be tried.
        let names: Vec<String> = (0..30).map(|n| format!("G{n}")).collect();
        let gpus: Vec<(&str, Value)> = names
            .iter()
            .map(|name| (name.as_str(), json!({"half": {"int": i64::from(name.ends_with('1'))}})))
            .collect();
        let claim = json!({
            "requests": [exactly("x", json!({"count": 12})), exactly("y", json!({"count": 12}))],
            "constraints": [{"matchAttribute": "gpu.clawbernetes.io/half", "requests": ["x"]},
                {"distinctAttribute": "gpu.clawbernetes.io/uuid", "requests": ["x"]},
                {"matchAttribute": "gpu.clawbernetes.io/uuid", "requests": ["y"]}],
        });
        assert_eq!(given(&[claim], &gpus, &[]).unwrap_err(), "cannot allocate all claims");
    }

    #[test]
    fn a_tainted_device_goes_to_who_tolerates_it() {
        let mut inventory = Inventory::default();
        let mut slice = slice("n", &[("A", json!({}))]);
        let taint = json!([{"key": "sick", "effect": "NoSchedule"}]);
        slice.spec.devices.as_mut().unwrap()[0].taints = serde_json::from_value(taint).unwrap();
        inventory.apply(&slice);
        let ask = |more: Value| {
            let mut wishes = Wishes::default();
            let asks = serde_json::from_value(json!({"requests": [exactly("x", more)]})).unwrap();
            wishes.add(0, "default/c", &asks, &classes(), &mut Selectors::default()).unwrap();
            wishes.allocate(inventory.of("n"), &[true]).is_ok()
        };
        assert!(!ask(json!({})));
        assert!(ask(json!({"tolerations": [{"key": "sick", "operator": "Exists"}]})));
    }
}
