//! GPUs of containers: given to a pod before anything is made for it, written down before anything is started, and
//! freed once nothing of the pod runs.

use std::{collections::HashSet, fs, path::Path};

use claw_schemas::gpu::RESOURCE;
use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::runtime::Spec;

use super::{Containers, blocking, host_files::remove_if_there, uid};
use crate::{
    Error,
    gpu::{
        edits,
        ledger::{self, Assignment, Shortage},
    },
    runtime::{Refusal, StartFailure, records},
};

/// Which container of the pod holds which GPU.
const GPU_RECORD: &str = "gpus.json";

impl Containers {
    /// Gives the pod what it asks for. Asked again, it changes nothing.
    pub(super) async fn admit_to_gpus(&self, pod: &Pod, going: &HashSet<String>) -> Result<(), Refusal> {
        let needs = pod.spec.as_ref().map(ledger::needs).unwrap_or_default();
        if needs.is_empty() {
            return Ok(());
        }
        let failed = |error: Error| Refusal::Later(StartFailure::new("FailedGPUAssignment", error.full()));
        let pod_uid = uid(pod).map_err(failed)?.to_owned();
        let record = self.pod_folder(&pod_uid).map_err(failed)?.join(GPU_RECORD);
        let assignment = {
            let mut ledger = self.ledger.lock();
            if ledger.of(&pod_uid).is_some() {
                return Ok(());
            }
            ledger.assign(&pod_uid, &needs, &self.gpus.present(), going).map_err(refusal)?
        };
        let written = blocking(move || records::write_durably(&record, &assignment)).await;
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
        spec: &mut Spec,
    ) -> Result<(), StartFailure> {
        let wanted = ledger::count(container);
        if wanted == 0 {
            return Ok(());
        }
        let failed = |why: String| StartFailure::new("CreateContainerError", why);
        let uuids = self.ledger.lock().of(pod_uid).and_then(|all| all.get(&container.name)).cloned();
        let uuids = uuids.filter(|uuids| uuids.len() == wanted);
        let uuids = uuids.ok_or_else(|| failed(format!("no {RESOURCE} was assigned to this container")))?;
        let needed = self.gpus.edits(&uuids).map_err(failed)?;
        edits::apply(spec, &needed).map_err(|error| failed(error.to_string()))
    }

    /// Takes over what an earlier run of the agent wrote down.
    pub(super) fn adopt_gpus(&self, folder: &Path, pod_uid: &str) -> Result<(), Error> {
        if let Some(assignment) = records::read::<Assignment>(&folder.join(GPU_RECORD))? {
            self.ledger.lock().adopt(pod_uid, assignment);
        }
        Ok(())
    }

    /// Nothing of the pod runs any more.
    pub(super) fn free_gpus(&self, folder: &Path, pod_uid: &str) -> Result<(), Error> {
        let record = folder.join(GPU_RECORD);
        if record.exists() {
            remove_if_there(&record)?;
            sync(folder)?;
        }
        self.ledger.lock().free(pod_uid);
        Ok(())
    }
}

/// A record that came back with a power cut would hold GPUs that others were given meanwhile.
fn sync(folder: &Path) -> Result<(), Error> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Error::io("syncing", folder))
}

/// In kubelet's words, which tools look for. What the scheduler gave the pod may still be held by one that is going.
fn refusal(shortage: Shortage) -> Refusal {
    let Shortage { wanted, free, leaving } = shortage;
    if wanted <= free.saturating_add(leaving) {
        let why =
            format!("waiting for GPUs: {wanted} wanted, {free} free, {leaving} held by pods that are ending");
        return Refusal::Later(StartFailure::new("WaitingForGPUs", why));
    }
    let why = format!(
        "Allocate failed due to requested number of devices unavailable for {RESOURCE}. Requested: {wanted}, \
         Available: {free}, which is unexpected"
    );
    Refusal::Never(StartFailure::new("UnexpectedAdmissionError", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_waits_for_those_that_go_and_for_nobody_else() {
        let shortage = |wanted, free, leaving| refusal(Shortage { wanted, free, leaving });
        assert!(
            matches!(shortage(2, 1, 1), Refusal::Later(why) if why.message.contains("1 held by pods that are ending"))
        );
        let Refusal::Never(why) = shortage(3, 1, 1) else { panic!("three will never be there") };
        assert_eq!(why.reason, "UnexpectedAdmissionError");
        assert!(why.message.contains("Requested: 3, Available: 1"), "{}", why.message);
    }
}
