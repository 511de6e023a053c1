//! What the pods of a node are promised. A pod that came past the scheduler and asks for more than is left, or for a port that
//! another has, is refused in the kubelet's words.
//!
//! Must never know: GPUs (whoever runs pods gives them out), or what pods really use.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use claw_schemas::{needs, quantity::Quantity};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use parking_lot::Mutex;

use crate::{
    pod::is_sidecar,
    runtime::{
        Refusal, StartFailure,
        machine::{amount, request},
    },
};

/// What is shared by asking, in the order in which the kubelet looks.
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What each pod has been promised, by uid.
#[derive(Default)]
pub(super) struct Room(Mutex<HashMap<String, Share>>);

/// Of one pod.
#[derive(Clone, Debug, Default)]
struct Share {
    /// In thousandths, in the order of [`RESOURCES`].
    amounts: Amounts,
    ports: BTreeSet<Port>,
}

/// A port of the machine: protocol, number, and the address if it is not all of them.
type Port = (String, i32, Option<String>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts([i128; RESOURCES.len()]);

impl Room {
    /// Promises a pod what it asks for. Asked again, it changes nothing.
    pub fn take(
        &self,
        pod: &Pod,
        allocatable: &BTreeMap<String, Quantity>,
        going: &HashSet<String>,
    ) -> Result<(), Refusal> {
        let (uid, share) = (pod.metadata.uid.clone().unwrap_or_default(), Share::of(pod));
        let mut held = self.0.lock();
        if held.contains_key(&uid) {
            return Ok(());
        }
        let Some(why) = share.obstacle(&held.values().collect::<Vec<_>>(), allocatable) else {
            held.insert(uid, share);
            return Ok(());
        };
        // What those have who are going will soon be free.
        let staying: Vec<&Share> =
            held.iter().filter(|(uid, _)| !going.contains(*uid)).map(|(_, share)| share).collect();
        Err(match share.obstacle(&staying, allocatable) {
            None => Refusal::Later(why),
            Some(why) => Refusal::Never(why),
        })
    }

    /// The pod is here already, or comes whatever there is.
    pub fn keep(&self, pod: &Pod) {
        self.0.lock().insert(pod.metadata.uid.clone().unwrap_or_default(), Share::of(pod));
    }

    /// Nothing of the pod runs any more.
    pub fn free(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

impl Share {
    fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let asked = |container: &Container| {
            Amounts(RESOURCES.map(|name| milli(request(container.resources.as_ref(), name))))
        };
        let init = spec.init_containers.iter().flatten().map(|one| (asked(one), is_sidecar(one)));
        let mut amounts: Amounts = needs::at_once(init, spec.containers.iter().map(asked));
        let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        for (at, name) in RESOURCES.into_iter().enumerate() {
            if let Some(stated) = amount(whole, name) {
                amounts.0[at] = stated.milli();
            }
            amounts.0[at] = amounts.0[at].saturating_add(milli(amount(spec.overhead.as_ref(), name)));
        }
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let ports = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(port);
        Self { amounts, ports: ports.collect() }
    }

    /// Why it cannot be beside these others.
    fn obstacle(&self, others: &[&Self], allocatable: &BTreeMap<String, Quantity>) -> Option<StartFailure> {
        let short = |name: &str, asked: i128, used: i128| {
            let all = allocatable.get(name)?.milli();
            let shown = |milli: i128| if name == "cpu" { milli } else { milli / 1000 };
            (asked > 0 && asked > all - used).then(|| {
                StartFailure::new(
                    reason(name),
                    format!(
                        "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                        shown(asked),
                        shown(used),
                        shown(all)
                    ),
                )
            })
        };
        let pods = i128::try_from(others.len()).unwrap_or(i128::MAX / 1000);
        let amounts = RESOURCES.into_iter().enumerate();
        let used = |at: usize| others.iter().fold(0_i128, |sum, one| sum.saturating_add(one.amounts.0[at]));
        short("pods", 1000, pods * 1000)
            .or_else(|| amounts.into_iter().find_map(|(at, name)| short(name, self.amounts.0[at], used(at))))
            .or_else(|| {
                let taken = others.iter().flat_map(|other| &other.ports);
                let clashes = |port: &Port| self.ports.iter().any(|own| clash(own, port));
                taken.into_iter().any(clashes).then(|| StartFailure::new("NodePorts", NO_PORT))
            })
    }
}

impl needs::Amounts for Amounts {
    fn add(&mut self, more: &Self) {
        self.0.iter_mut().zip(more.0).for_each(|(amount, more)| *amount = amount.saturating_add(more));
    }

    fn raise(&mut self, floor: &Self) {
        self.0.iter_mut().zip(floor.0).for_each(|(amount, floor)| *amount = floor.max(*amount));
    }
}

const NO_PORT: &str =
    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";

fn reason(resource: &str) -> &'static str {
    match resource {
        "cpu" => "OutOfcpu",
        "memory" => "OutOfmemory",
        "pods" => "OutOfpods",
        _ => "OutOfephemeral-storage",
    }
}

fn milli(amount: Option<Quantity>) -> i128 {
    amount.map_or(0, Quantity::milli)
}

fn port(port: &ContainerPort) -> Option<Port> {
    let number = port.host_port.filter(|number| *number != 0)?;
    let everywhere = ["", "0.0.0.0", "::"];
    let address = port.host_ip.clone().filter(|address| !everywhere.contains(&address.as_str()));
    Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number, address))
}

fn clash(one: &Port, other: &Port) -> bool {
    let same_place = one.2.is_none() || other.2.is_none() || one.2 == other.2;
    (&one.0, one.1) == (&other.0, other.1) && same_place
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, cpu: &str, ports: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"uid": uid},
            "spec": {"containers": [{"name": "c", "ports": ports, "resources": {"requests": {"cpu": cpu}}}]},
        }))
        .unwrap()
    }

    fn node() -> BTreeMap<String, Quantity> {
        let amounts = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3")];
        amounts.map(|(name, amount)| (name.to_owned(), amount.parse().unwrap())).into()
    }

    fn take(room: &Room, pod: &Pod) -> Result<(), Refusal> {
        room.take(pod, &node(), &HashSet::new())
    }

    fn never(refused: Result<(), Refusal>) -> (&'static str, String) {
        match refused {
            Err(Refusal::Never(why)) => (why.reason, why.message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_asks_for_more_than_is_left_is_refused_by_name() {
        let room = Room::default();
        assert_eq!(take(&room, &pod("a", "1500m", json!([]))), Ok(()));
        let (reason, message) = never(take(&room, &pod("b", "501m", json!([]))));
        assert_eq!(reason, "OutOfcpu");
        assert_eq!(
            message,
            "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
        );
        assert_eq!(take(&room, &pod("a", "1500m", json!([]))), Ok(()), "it has it already");
        assert_eq!(take(&room, &pod("c", "500m", json!([]))), Ok(()), "to the last thousandth");
        let mut greedy = pod("d", "0", json!([]));
        let requests = &mut greedy.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap().requests;
        requests.as_mut().unwrap().insert("memory".to_owned(), ApiQuantity("2Gi".to_owned()));
        let (reason, message) = never(take(&room, &greedy));
        let bytes = 1_u64 << 30;
        let expected = format!(
            "Node didn't have enough resource: memory, requested: {}, used: 0, capacity: {bytes}",
            2 * bytes
        );
        assert_eq!((reason, message), ("OutOfmemory", expected));
        assert_eq!(take(&room, &pod("e", "0", json!([]))), Ok(()));
        assert_eq!(never(take(&room, &pod("f", "0", json!([])))).0, "OutOfpods");
        room.free("a");
        assert_eq!(take(&room, &pod("f", "1500m", json!([]))), Ok(()));
    }

    #[test]
    fn what_those_have_who_are_going_is_waited_for() {
        let room = Room::default();
        room.keep(&pod("a", "2", json!([])));
        let late = pod("b", "1", json!([]));
        let going = HashSet::from(["a".to_owned()]);
        assert!(matches!(room.take(&late, &node(), &going), Err(Refusal::Later(_))));
        room.free("a");
        assert_eq!(room.take(&late, &node(), &going), Ok(()));
    }

    #[test]
    fn a_port_of_the_machine_belongs_to_one_pod() {
        let room = Room::default();
        let asking = |uid: &str, port: Value| take(&room, &pod(uid, "0", json!([port])));
        assert_eq!(asking("a", json!({"containerPort": 1, "hostPort": 80})), Ok(()));
        let (reason, message) =
            never(asking("b", json!({"containerPort": 2, "hostPort": 80, "hostIP": "192.0.2.1"})));
        assert_eq!((reason, &*message), ("NodePorts", NO_PORT));
        assert_eq!(asking("b", json!({"containerPort": 2, "hostPort": 80, "protocol": "UDP"})), Ok(()));
        assert_eq!(asking("c", json!({"containerPort": 80})), Ok(()), "its own is nobody else's");
    }

    #[test]
    fn all_that_runs_side_by_side_counts_and_what_comes_before_if_it_is_more() {
        let of =
            |spec: Value| Share::of(&serde_json::from_value(json!({"spec": spec})).unwrap()).amounts.0[0];
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let init = |policy: Value, cpu: &str| json!([{"name": "i", "restartPolicy": policy, "resources": asks(cpu)}]);
        let mains = json!([{"name": "a", "resources": asks("1")}, {"name": "b", "resources": {"limits": {"cpu": "2"}}}]);
        assert_eq!(of(json!({"containers": mains, "initContainers": init(json!(null), "4")})), 4_000);
        assert_eq!(of(json!({"containers": mains, "initContainers": init(json!("Always"), "4")})), 7_000);
        let overhead = json!({"cpu": "250m"});
        assert_eq!(of(json!({"containers": mains, "overhead": overhead})), 3_250);
        assert_eq!(of(json!({"containers": mains, "resources": asks("1")})), 1_000, "of the pod as a whole");
    }
}
