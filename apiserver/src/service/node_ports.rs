//! Ports of nodes that lead to services: each is a record, stored and freed in the same transaction as its service. So no
//! two services have the same one, whatever runs at the same time and whenever the power fails.
//!
//! The records are of no kind that is served: Kubernetes has none for them either.
//!
//! Must never know: how packets find their way.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::RangeInclusive,
};

use claw_schemas::{ApiError, status::Cause};
use serde_json::{Value, json};

use super::{ObjectService, addresses::random, encode, errors, kinds::Target, object::text};
use crate::store::{Change, Expect, Key, Write};

/// Kubernetes' own figures.
const RANGE: RangeInclusive<u16> = 30_000..=32_767;

/// Random tries before the range is searched.
const PROBES: usize = 16;

const PLURAL: &str = "nodeports";

impl ObjectService {
    /// The writes that take the node ports of a new service and give back those of the one before it.
    pub(super) async fn node_port_writes(
        &self,
        target: &Target,
        old: Option<&Value>,
        new: Option<&mut Value>,
    ) -> Result<Vec<Write>, ApiError> {
        if !target.kind.is_core("services") {
            return Ok(Vec::new());
        }
        let had = old.map(|old| numbers(&old["spec"])).unwrap_or_default();
        let (has, name) = match new {
            None => (BTreeSet::new(), String::new()),
            Some(new) => {
                self.settle_node_ports(target, &had, new).await?;
                (numbers(&new["spec"]), text(new, "name").to_owned())
            }
        };
        let mut writes = Vec::new();
        for number in had.difference(&has) {
            writes.extend(self.release(&key(*number)).await?);
        }
        for number in has.difference(&had) {
            let change = Change::Put(encode::draft(&record(*number, &target.namespace, &name)));
            writes.push(Write { key: key(*number), expect: Expect::Absent, change });
        }
        Ok(writes)
    }

    /// Checks the node ports that a service names, and gives it those that it lacks.
    async fn settle_node_ports(
        &self,
        target: &Target,
        had: &BTreeSet<u16>,
        service: &mut Value,
    ) -> Result<(), ApiError> {
        let name = text(service, "name").to_owned();
        let needs_all = needs_all(&service["spec"]);
        let mut taken = numbers(&service["spec"]);
        let Some(ports) = service["spec"]["ports"].as_array_mut() else { return Ok(()) };
        for (index, port) in ports.iter().enumerate() {
            let Some(number) = number(port).filter(|number| !had.contains(number)) else { continue };
            let why = if !RANGE.contains(&number) {
                let (first, last) = (RANGE.start(), RANGE.end());
                format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
            } else if self.find(&key(number)).await?.is_some() {
                "provided port is already allocated".to_owned()
            } else {
                continue;
            };
            let cause = Cause::invalid(format!("spec.ports[{index}].nodePort"), number, &why);
            return Err(target.kind.invalid(&name, vec![cause]));
        }
        // Protocols that share a port of the service share that of the node.
        let mut by_port: HashMap<i64, u16> = HashMap::new();
        for port in ports.iter() {
            by_port.extend(port["port"].as_i64().zip(number(port)));
        }
        for port in ports.iter_mut().filter(|port| needs_all && number(port).is_none()) {
            let own = port["port"].as_i64().unwrap_or_default();
            let given = match by_port.get(&own) {
                Some(number) => *number,
                None => self.free_node_port(&taken).await?,
            };
            by_port.insert(own, given);
            taken.insert(given);
            port["nodePort"] = given.into();
        }
        Ok(())
    }

    async fn free_node_port(&self, taken: &BTreeSet<u16>) -> Result<u16, ApiError> {
        let size = u32::from(RANGE.end() - RANGE.start()) + 1;
        for _ in 0..PROBES {
            let offset = u16::try_from(random()? % size).unwrap_or_default();
            let number = RANGE.start() + offset;
            if !taken.contains(&number) && self.find(&key(number)).await?.is_none() {
                return Ok(number);
            }
        }
        let prefix = Key::collection("", PLURAL, None);
        let stored = self.store.list(&prefix, None, 0, None).await.map_err(errors::from_store)?;
        let stored: HashSet<Key> = stored.items.into_iter().map(|record| record.key).collect();
        let mut free = RANGE.filter(|number| !taken.contains(number) && !stored.contains(&key(*number)));
        free.next().ok_or_else(|| ApiError::internal("failed to allocate a nodePort: range is full"))
    }
}

/// Whether every port of a service is to have one of the nodes.
fn needs_all(spec: &Value) -> bool {
    match spec["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// The node ports of a service.
fn numbers(spec: &Value) -> BTreeSet<u16> {
    spec["ports"].as_array().into_iter().flatten().filter_map(number).collect()
}

fn number(port: &Value) -> Option<u16> {
    port["nodePort"].as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

fn key(number: u16) -> Key {
    Key::object("", PLURAL, "", &number.to_string())
}

fn record(number: u16, namespace: &str, service: &str) -> Value {
    json!({"metadata": {"name": number.to_string()}, "spec": {"namespace": namespace, "service": service}})
}
