//! What a claim's status says of its devices here: whether each is ready. Pure.

use claw_schemas::gpu::DRIVER;
use jiff::Timestamp;
use k8s_openapi::{
    api::resource::v1::AllocatedDeviceStatus,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use super::{
    Gpu, Inventory,
    ledger::{ClaimedDevice, HeldClaim},
};

/// The condition's type.
const READY: &str = "Ready";

/// The status of all devices of a claim, with ours as they are now; those of others stay as they are. `None` when
/// `before` says all of it already.
pub fn next(
    before: &[AllocatedDeviceStatus],
    held: &HeldClaim,
    inventory: &Inventory,
    now: Timestamp,
) -> Option<Vec<AllocatedDeviceStatus>> {
    let mut all = before.to_vec();
    for device in &held.devices {
        let Some((driver, pool, name)) = parts(device) else { continue };
        let is_it =
            |one: &&mut AllocatedDeviceStatus| one.driver == driver && one.pool == pool && one.device == name;
        let ready = ready(inventory.get(&device.uuid));
        match all.iter_mut().find(is_it) {
            Some(known) => put(known.conditions.get_or_insert_default(), ready, now),
            None => all.push(AllocatedDeviceStatus {
                driver: driver.to_owned(),
                pool: pool.to_owned(),
                device: name.to_owned(),
                conditions: Some(vec![Condition { last_transition_time: Time(now), ..ready }]),
                ..AllocatedDeviceStatus::default()
            }),
        }
    }
    (all != before).then_some(all)
}

fn parts(device: &ClaimedDevice) -> Option<(&str, &str, &str)> {
    let (driver, rest) = device.id.split_once('/')?;
    let (pool, name) = rest.rsplit_once('/')?;
    (driver == DRIVER).then_some((driver, pool, name))
}

fn ready(gpu: Option<&Gpu>) -> Condition {
    let why = match gpu {
        Some(gpu) => gpu.withheld.clone(),
        None => Some("it is not on this machine any more".to_owned()),
    };
    let kind = gpu.and_then(|gpu| gpu.fault.as_ref()).map_or("NotOffered", |fault| reason(fault.kind));
    let (status, reason) = if why.is_none() { ("True", "Healthy") } else { ("False", kind) };
    Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: why.unwrap_or_default(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// One word, as conditions have them.
fn reason(kind: &str) -> &'static str {
    match kind {
        "lost" => "Lost",
        "reset" => "ResetRequired",
        "xid" => "Xid",
        "row-remap" => "RowRemapFailed",
        "ecc" => "UncorrectedErrors",
        "memory" => "MemoryUnreadable",
        "slowdown" => "Slowdown",
        "silent" => "DriverSilent",
        _ => "Fault",
    }
}

/// In the place of the one before, which keeps its time while the status is the same.
fn put(conditions: &mut Vec<Condition>, ready: Condition, now: Timestamp) {
    match conditions.iter_mut().find(|one| one.type_ == READY) {
        Some(known) => {
            let since =
                if known.status == ready.status { known.last_transition_time.clone() } else { Time(now) };
            *known = Condition { last_transition_time: since, ..ready };
        }
        None => conditions.push(Condition { last_transition_time: Time(now), ..ready }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::health::Fault;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held() -> HeldClaim {
        serde_json::from_value(serde_json::json!({
            "name": "c", "uid": "u",
            "devices": [{"request": "gpu", "id": format!("{DRIVER}/n/gpu-a"), "uuid": "GPU-A"}],
        }))
        .unwrap()
    }

    fn machine() -> Inventory {
        let gpu = Gpu { uuid: "GPU-A".to_owned(), ..Gpu::default() };
        Inventory { gpus: vec![gpu], ..Inventory::default() }
    }

    fn condition(all: &[AllocatedDeviceStatus]) -> (String, String, i64) {
        let condition = &all.last().unwrap().conditions.as_ref().unwrap()[0];
        let since = condition.last_transition_time.0.as_second();
        (condition.status.clone(), condition.reason.clone(), since)
    }

    #[test]
    fn a_device_is_ready_until_it_has_a_fault_and_again_when_it_is_healed() {
        let mut machine = machine();
        let well = next(&[], &held(), &machine, at(1)).unwrap();
        assert_eq!((well[0].pool.as_str(), well[0].device.as_str()), ("n", "gpu-a"));
        assert_eq!(condition(&well), ("True".to_owned(), "Healthy".to_owned(), 1));
        assert_eq!(next(&well, &held(), &machine, at(2)), None, "the same is no news");
        machine.gpus[0].withhold(Fault::lost());
        let lost = next(&well, &held(), &machine, at(3)).unwrap();
        assert_eq!(condition(&lost), ("False".to_owned(), "Lost".to_owned(), 3));
        machine.gpus[0].withhold(Fault::silent("no answer"));
        let silent = next(&lost, &held(), &machine, at(4)).unwrap();
        assert_eq!(
            condition(&silent),
            ("False".to_owned(), "DriverSilent".to_owned(), 3),
            "not ready since then"
        );
        (machine.gpus[0].withheld, machine.gpus[0].fault) = (None, None);
        assert_eq!(condition(&next(&silent, &held(), &machine, at(5)).unwrap()).2, 5);
        assert_eq!(condition(&next(&silent, &held(), &Inventory::default(), at(6)).unwrap()).1, "NotOffered");
    }

    #[test]
    fn what_other_drivers_say_stays() {
        let other = AllocatedDeviceStatus {
            driver: "net.example.com".to_owned(),
            pool: "n".to_owned(),
            device: "gpu-a".to_owned(),
            ..AllocatedDeviceStatus::default()
        };
        let all = next(std::slice::from_ref(&other), &held(), &machine(), at(1)).unwrap();
        assert_eq!((all.len(), &all[0]), (2, &other));
    }
}
