//! Addresses of services: each is an `IPAddress` object, stored and freed in the same transaction as its service. So no
//! two services have the same one, whatever runs at the same time and whenever the power fails.
//!
//! Must never know: how packets find their way.

use std::{collections::HashSet, net::Ipv4Addr};

use claw_schemas::{ApiError, schema::time_text, status::Cause};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ObjectService, encode, errors, kinds::Target, object::text};
use crate::store::{Change, Expect, Key, Write};

/// Where services live: 10.96.0.0/16, as Kubernetes' own installer has it. 65,534 services are six times what its
/// documentation supports.
const NETWORK: u32 = Ipv4Addr::new(10, 96, 0, 0).to_bits();
const PREFIX_BITS: u32 = 16;
const SIZE: u32 = 1 << (32 - PREFIX_BITS);

/// The API server's own, as clients in containers know it.
pub const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::from_bits(NETWORK + 1);

/// The first addresses are given last, so that people can choose among them. Kubernetes' own figure for this size.
const CHOSEN_BY_PEOPLE: u32 = 256;

/// Random tries before the range is searched. With half of it taken, one in 65,000 services comes to that.
const PROBES: usize = 16;

const GROUP: &str = "networking.k8s.io";
const PLURAL: &str = "ipaddresses";

impl ObjectService {
    /// The writes that take the address of a new service and give back that of the one before it.
    pub(super) async fn address_writes(
        &self,
        target: &Target,
        old: Option<&Value>,
        new: Option<&mut Value>,
    ) -> Result<Vec<Write>, ApiError> {
        if !target.kind.is_core("services") {
            return Ok(Vec::new());
        }
        let had = old.and_then(|old| address(&old["spec"]));
        let (has, name) = match new {
            None => (None, String::new()),
            Some(new) => (self.settle_address(target, had, new).await?, text(new, "name").to_owned()),
        };
        let mut writes = Vec::new();
        if had != has {
            if let Some(ip) = had {
                writes.extend(self.release(&key(ip)).await?);
            }
            if let Some(ip) = has {
                let change = Change::Put(encode::draft(&ip_address(ip, &target.namespace, &name)));
                writes.push(Write { key: key(ip), expect: Expect::Absent, change });
            }
        }
        Ok(writes)
    }

    /// The address that a service is to have, written into it.
    async fn settle_address(
        &self,
        target: &Target,
        had: Option<Ipv4Addr>,
        service: &mut Value,
    ) -> Result<Option<Ipv4Addr>, ApiError> {
        let spec = &mut service["spec"];
        if spec["type"] == "ExternalName" || spec["clusterIP"] == "None" {
            return Ok(None);
        }
        let asked = address(spec);
        let unusable = match asked {
            Some(ip) if Some(ip) == had => return Ok(asked),
            Some(ip) if !is_in_range(ip) => Some(format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}/{PREFIX_BITS}",
                Ipv4Addr::from_bits(NETWORK)
            )),
            Some(ip) if self.find(&key(ip)).await?.is_some() => {
                Some("provided IP is already allocated".to_owned())
            }
            Some(_) => return Ok(asked),
            None => None,
        };
        if let Some(why) = unusable {
            let why =
                format!("failed to allocate IP {}: {why}", spec["clusterIP"].as_str().unwrap_or_default());
            let cause = Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], &why);
            return Err(target.kind.invalid(text(service, "name"), vec![cause]));
        }
        let ip = self.free_address().await?;
        spec["clusterIP"] = ip.to_string().into();
        spec["clusterIPs"] = json!([ip.to_string()]);
        Ok(Some(ip))
    }

    async fn free_address(&self) -> Result<Ipv4Addr, ApiError> {
        for _ in 0..PROBES {
            let ip = at(CHOSEN_BY_PEOPLE + 1 + random()? % (SIZE - 2 - CHOSEN_BY_PEOPLE));
            if self.find(&key(ip)).await?.is_none() {
                return Ok(ip);
            }
        }
        let prefix = Key::collection(GROUP, PLURAL, None);
        let taken = self.store.list(&prefix, None, 0, None).await.map_err(errors::from_store)?;
        let taken: HashSet<Key> = taken.items.into_iter().map(|record| record.key).collect();
        let mut free = (CHOSEN_BY_PEOPLE + 1..SIZE - 1).chain(1..=CHOSEN_BY_PEOPLE).map(at);
        free.find(|ip| !taken.contains(&key(*ip)))
            .ok_or_else(|| ApiError::internal("failed to allocate a serviceIP: range is full"))
    }

    /// Frees what a service was given, by its record; that it is free already is no reason to keep the service.
    pub(super) async fn release(&self, key: &Key) -> Result<Option<Write>, ApiError> {
        let record = self.find(key).await?;
        Ok(record.map(|record| Write {
            expect: Expect::Revision(record.revision),
            change: Change::Delete(encode::draft_of(&record.value)),
            key: record.key,
        }))
    }

    /// An address that a service has is not free, whoever says so.
    pub(super) async fn admit_release(&self, target: &Target) -> Result<(), ApiError> {
        let descriptor = &target.kind.descriptor;
        if (&*descriptor.group, &*descriptor.plural) != (GROUP, PLURAL) {
            return Ok(());
        }
        let Some(record) = self.find(&target.key()).await? else { return Ok(()) };
        let parent = &encode::value_of(&record)?["spec"]["parentRef"];
        let (namespace, name) = (&parent["namespace"], &parent["name"]);
        let (Some(namespace), Some(name)) = (namespace.as_str(), name.as_str()) else { return Ok(()) };
        let Some(service) = self.find(&Key::object("", "services", namespace, name)).await? else {
            return Ok(());
        };
        let has = address(&encode::value_of(&service)?["spec"]).map(|ip| ip.to_string());
        if has.as_deref() != Some(&target.name) {
            return Ok(());
        }
        let why = format!("it is the address of service \"{namespace}/{name}\": delete that");
        Err(target.kind.forbidden(&target.name, &why))
    }
}

/// The address of a service that has one of its own.
pub(super) fn address(spec: &Value) -> Option<Ipv4Addr> {
    spec["clusterIP"].as_str()?.parse().ok()
}

fn key(ip: Ipv4Addr) -> Key {
    Key::object(GROUP, PLURAL, "", &ip.to_string())
}

fn at(offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(NETWORK + offset)
}

fn is_in_range(ip: Ipv4Addr) -> bool {
    // The first address names the network, the last one means everybody in it.
    (NETWORK + 1..NETWORK + SIZE - 1).contains(&ip.to_bits())
}

pub(super) fn random() -> Result<u32, ApiError> {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::internal(format!("the machine gives no random numbers: {error}")))?;
    Ok(u32::from_le_bytes(bytes))
}

fn ip_address(ip: Ipv4Addr, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": ip.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": time_text(Timestamp::now()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    })
}
