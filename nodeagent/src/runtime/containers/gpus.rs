//! GPUs of containers: given to a pod before anything is made for it, written down before anything is started, and
//! freed once nothing of the pod runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
};

use claw_schemas::gpu::NAMED;
use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::runtime::Spec;

use super::{Containers, blocking, host_files::remove_if_there, uid};
use crate::{
    Error,
    gpu::{
        Gpu, Inventory,
        cdi::ContainerEdits,
        claims, edits,
        ledger::{self, Assignment, Held, HeldClaim, Obstacle, Shortage, Wish},
    },
    image::Image,
    runtime::{HeldDevice, Refusal, Sources, StartFailure, records},
};

/// Which container of the pod holds which GPU.
const GPU_RECORD: &str = "gpus.json";
/// What its claims have.
const CLAIMS_RECORD: &str = "claims.json";

impl Containers {
    /// Gives the pod what it asks for. Asked again, it changes nothing.
    pub(super) async fn admit_to_gpus(
        &self,
        pod: &Pod,
        going: &HashSet<String>,
        sources: &Sources,
    ) -> Result<(), Refusal> {
        let needs = pod.spec.as_ref().map(ledger::needs).unwrap_or_default();
        if needs.is_empty() && !claims::has_some(pod) {
            return Ok(());
        }
        let failed = |error: Error| Refusal::Later(StartFailure::new("FailedGPUAssignment", error.full()));
        let pod_uid = uid(pod).map_err(failed)?.to_owned();
        let folder = self.pod_folder(&pod_uid).map_err(failed)?;
        if self.ledger.lock().of(&pod_uid).is_some_and(|held| is_whole(held, &needs, pod)) {
            return Ok(());
        }
        let claims = claims::of(pod, sources, &self.gpus.present()).await.map_err(not_prepared)?;
        let wish = Wish { needs, named: named(pod), claims };
        let present = self.gpus.present();
        if let Some(why) = &present.silent {
            let why = format!("waiting for GPUs: {why}");
            return Err(Refusal::Later(StartFailure::new("WaitingForGPUs", why)));
        }
        let held = self.ledger.lock().assign(&pod_uid, &wish, &present, going).map_err(refusal)?;
        let written = blocking(move || write(&folder, &held)).await;
        written.map_err(|error| {
            self.ledger.lock().free(&pod_uid);
            failed(error)
        })
    }

    /// Puts the container's GPUs into its configuration.
    pub(super) fn add_gpus(
        &self,
        pod_uid: &str,
        container: &Container,
        image: &Image,
        spec: &mut Spec,
    ) -> Result<(), StartFailure> {
        let counts = ledger::counts(container);
        let wanted = counts.values().fold(0, |all: usize, count| all.saturating_add(*count));
        let claims = container.resources.as_ref().and_then(|resources| resources.claims.as_ref());
        if wanted == 0 && claims.is_none_or(Vec::is_empty) {
            return Ok(());
        }
        let failed = |why: String| StartFailure::new("CreateContainerError", why);
        let held = self.ledger.lock().of(pod_uid).cloned().unwrap_or_default();
        let mut uuids = held.counted.get(&container.name).cloned().unwrap_or_default();
        if uuids.len() != wanted {
            let names: Vec<&str> = counts.keys().map(String::as_str).collect();
            return Err(failed(format!("no {} was assigned to this container", names.join(", "))));
        }
        let claimed: BTreeSet<&str> =
            ledger::claimed(&held.claims, container).map(|(_, device)| device.uuid.as_str()).collect();
        uuids.extend(claimed.into_iter().map(str::to_owned));
        if uuids.is_empty() {
            return Ok(());
        }
        let mut needed = self.gpus.edits(&uuids).map_err(failed)?;
        leave_out_what_is_shown(&mut needed, image);
        edits::apply(spec, &needed).map_err(|error| failed(error.to_string()))
    }

    /// The GPUs of each container, and whether they are well.
    pub(super) fn held_gpus(&self, pod: &Pod) -> BTreeMap<String, Vec<HeldDevice>> {
        let pod_uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let Some(held) = self.ledger.lock().of(pod_uid).cloned() else { return BTreeMap::new() };
        told(&held, pod, &self.gpus.present())
    }

    /// Takes over what an earlier run of the agent wrote down.
    pub(super) fn adopt_gpus(&self, folder: &Path, pod_uid: &str) -> Result<(), Error> {
        let counted = records::read::<Assignment>(&folder.join(GPU_RECORD))?;
        let claims = records::read::<Vec<HeldClaim>>(&folder.join(CLAIMS_RECORD))?;
        if counted.is_some() || claims.is_some() {
            let held = Held { counted: counted.unwrap_or_default(), claims: claims.unwrap_or_default() };
            self.ledger.lock().adopt(pod_uid, held);
        }
        Ok(())
    }

    /// Nothing of the pod runs any more.
    pub(super) async fn free_gpus(&self, folder: &Path, pod_uid: &str) -> Result<(), Error> {
        let folder = folder.to_owned();
        let forget = move || {
            let records = [GPU_RECORD, CLAIMS_RECORD].map(|name| folder.join(name));
            if records.iter().any(|record| record.exists()) {
                records.iter().try_for_each(|record| remove_if_there(record))?;
                sync(&folder)?;
            }
            Ok(())
        };
        blocking(forget).await?;
        self.ledger.lock().free(pod_uid);
        Ok(())
    }
}

fn write(folder: &Path, held: &Held) -> Result<(), Error> {
    if !held.claims.is_empty() {
        records::write_durably(&folder.join(CLAIMS_RECORD), &held.claims)?;
    }
    if !held.counted.is_empty() {
        records::write_durably(&folder.join(GPU_RECORD), &held.counted)?;
    }
    Ok(())
}

/// Whether all that the pod asks for was written down: one of two records may have come too late.
fn is_whole(held: &Held, needs: &[ledger::Need], pod: &Pod) -> bool {
    (needs.is_empty() || !held.counted.is_empty()) && (!claims::has_some(pod) || !held.claims.is_empty())
}

/// Where the machine's libraries are shown, those of its GPUs are among them: nothing need be put over them, and hooks, which put their
/// names into the container's files, could not.
fn leave_out_what_is_shown(edits: &mut ContainerEdits, image: &Image) {
    if image.shown.is_empty() {
        return;
    }
    edits.hooks.clear();
    edits
        .mounts
        .retain(|mount| !image.shown.iter().any(|shown| mount.container_path.starts_with(&shown.target)));
}

/// The GPUs that the scheduler chose for what is asked for by number.
fn named(pod: &Pod) -> Vec<String> {
    let named = pod.metadata.annotations.as_ref().and_then(|all| all.get(NAMED));
    named
        .iter()
        .flat_map(|named| named.split(','))
        .filter(|uuid| !uuid.is_empty())
        .map(str::to_owned)
        .collect()
}

fn told(held: &Held, pod: &Pod, inventory: &Inventory) -> BTreeMap<String, Vec<HeldDevice>> {
    let is_well = |uuid: &str| inventory.get(uuid).is_some_and(|gpu| gpu.withheld.is_none());
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let of = |container: &Container| {
        let asked = ledger::counts(container).into_keys().next();
        let counted = held.counted.get(&container.name).into_iter().flatten().map(|uuid| HeldDevice {
            // One that is gone was what its container asks for.
            resource: inventory.get(uuid).map(Gpu::resource).or_else(|| asked.clone()).unwrap_or_default(),
            id: uuid.clone(),
            is_well: is_well(uuid),
        });
        let claimed = ledger::claimed(&held.claims, container).map(|(claim, device)| HeldDevice {
            resource: format!("claim:{}/{}", claim.name, device.request),
            id: device.id.clone(),
            is_well: is_well(&device.uuid),
        });
        (container.name.clone(), counted.chain(claimed).collect())
    };
    init.iter().chain(main).map(of).collect()
}

/// A record that came back with a power cut would hold GPUs that others were given meanwhile.
fn sync(folder: &Path) -> Result<(), Error> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Error::io("syncing", folder))
}

/// In the kubelet's words.
fn not_prepared(why: String) -> Refusal {
    let why = format!("Failed to prepare dynamic resources: {why}");
    Refusal::Later(StartFailure::new("FailedPrepareDynamicResources", why))
}

/// In kubelet's words, which tools look for. What the scheduler gave the pod may still be held by one that is going.
fn refusal(obstacle: Obstacle) -> Refusal {
    let Shortage { resource, wanted, free, leaving } = match obstacle {
        Obstacle::Few(shortage) => shortage,
        Obstacle::Busy(uuid) => {
            let why = format!("waiting for GPU {uuid}: another pod on this node holds it");
            return Refusal::Later(StartFailure::new("WaitingForGPUs", why));
        }
        Obstacle::Greedy(resource, count) => {
            let why = format!(
                "Allocate failed due to rpc error: request for '{resource}: {count}' too large: maximum request size for \
                 shared resources is 1, which is unexpected"
            );
            return Refusal::Never(StartFailure::new("UnexpectedAdmissionError", why));
        }
        Obstacle::NotOffered(uuid) => return not_prepared(format!("GPU {uuid} is not offered to pods")),
    };
    if wanted <= free.saturating_add(leaving) {
        let why =
            format!("waiting for GPUs: {wanted} wanted, {free} free, {leaving} held by pods that are ending");
        return Refusal::Later(StartFailure::new("WaitingForGPUs", why));
    }
    let why = format!(
        "Allocate failed due to requested number of devices unavailable for {resource}. Requested: {wanted}, \
         Available: {free}, which is unexpected"
    );
    Refusal::Never(StartFailure::new("UnexpectedAdmissionError", why))
}

#[cfg(test)]
mod tests {
    use claw_schemas::gpu::RESOURCE;

    use super::*;

    #[test]
    fn a_pod_waits_for_those_that_go_and_for_nobody_else() {
        let shortage = |wanted, free, leaving| {
            let resource = RESOURCE.to_owned();
            refusal(Obstacle::Few(Shortage { resource, wanted, free, leaving }))
        };
        assert!(
            matches!(shortage(2, 1, 1), Refusal::Later(why) if why.message.contains("1 held by pods that are ending"))
        );
        let Refusal::Never(why) = shortage(3, 1, 1) else { panic!("three will never be there") };
        assert_eq!(why.reason, "UnexpectedAdmissionError");
        assert!(why.message.contains("Requested: 3, Available: 1"), "{}", why.message);
    }

    #[test]
    fn a_status_names_what_each_container_has_and_whether_it_is_well() {
        let claim: HeldClaim = serde_json::from_value(serde_json::json!({
            "name": "c", "uid": "u", "devices": [{"request": "gpu", "id": "d/n/b", "uuid": "B"}],
        }))
        .unwrap();
        let held = Held { counted: [("x".to_owned(), vec!["A".to_owned()])].into(), claims: vec![claim] };
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [
            {"name": "x", "resources": {"claims": [{"name": "c"}]}}, {"name": "y"},
        ]}}))
        .unwrap();
        let gpu = |uuid: &str, withheld: Option<&str>| crate::gpu::Gpu {
            uuid: uuid.to_owned(),
            withheld: withheld.map(str::to_owned),
            ..crate::gpu::Gpu::default()
        };
        let inventory =
            Inventory { gpus: vec![gpu("A", None), gpu("B", Some("broken"))], ..Inventory::default() };
        let all = told(&held, &pod, &inventory);
        let lines: Vec<String> =
            all["x"].iter().map(|one| format!("{} {} {}", one.resource, one.id, one.is_well)).collect();
        assert_eq!(lines, [format!("{RESOURCE} A true"), "claim:c/gpu d/n/b false".to_owned()]);
        assert!(all["y"].is_empty());
    }
}
