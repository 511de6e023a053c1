//! Adoption: what an earlier run of the agent left, told from the files in each bundle.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nix::unistd::Pid;

use super::{
    Containers, LOCK_POLL, RUN_RECORD, RunRecord, SANDBOX_RECORD, SETTLE_LIMIT, SHIM_END_LIMIT, blocking,
    host_files::{names, remove_if_there},
    instance, uid, uses_host_network,
};
use crate::{
    Error, rootless,
    runtime::{
        ExitRecord, Instance, InstanceKey, RecoveredPod, Sandbox, cgroups, network::namespace, records,
        termination,
    },
    shim::{self, ShimRecord, files},
};

impl Containers {
    pub(super) async fn recover_pod(&self, folder: &Path, pod: Pod) -> Result<RecoveredPod, Error> {
        let pod_uid = uid(&pod)?.to_owned();
        let mut sandbox = records::read::<Sandbox>(&folder.join(SANDBOX_RECORD))?;
        if !namespace::is_pinned(&folder.join("ns/ipc")) {
            sandbox = None;
        }
        if sandbox.is_none() && rootless::is_inside() {
            // The holder is gone with the pod's namespaces, and with it whatever could be done about what runs there.
            self.end_all(folder, &pod_uid).await?;
        }
        if let Some(ip) = sandbox.as_ref().and_then(|sandbox| sandbox.ip).filter(|_| !uses_host_network(&pod))
        {
            self.network.adopt(&pod_uid, &pod, ip);
        }
        self.adopt_gpus(folder, &pod_uid)?;
        let mut instances = Vec::new();
        for key in self.keys(&pod_uid)? {
            instances.extend(self.recover_run(key).await?);
        }
        Ok(RecoveredPod { pod, sandbox, instances })
    }

    /// Ends every container of a pod.
    pub(super) async fn end_all(&self, folder: &Path, pod_uid: &str) -> Result<(), Error> {
        for key in self.keys(pod_uid)? {
            if let Ok((bundle, run)) = self.run_record(&key) {
                self.end_shim(&bundle, &run).await?;
            }
        }
        self.end_pause(folder).await
    }

    /// All runs on disk, in order of container and attempt.
    pub(super) fn keys(&self, pod_uid: &str) -> Result<Vec<InstanceKey>, Error> {
        let mut keys = Vec::new();
        for container in names(&self.pod_folder(pod_uid)?.join("containers"))? {
            for attempt in names(&self.pod_folder(pod_uid)?.join("containers").join(&container))? {
                if let Ok(attempt) = attempt.parse() {
                    keys.push(InstanceKey {
                        pod_uid: pod_uid.to_owned(),
                        container: container.clone(),
                        attempt,
                    });
                }
            }
        }
        keys.sort();
        Ok(keys)
    }

    pub(super) async fn recover_run(&self, key: InstanceKey) -> Result<Option<Instance>, Error> {
        let bundle = self.bundle(&key)?;
        let Some(run) = records::read_if_whole::<RunRecord>(&bundle.join(RUN_RECORD))? else {
            blocking(move || remove_if_there(&bundle)).await?;
            return Ok(None);
        };
        let deadline = tokio::time::Instant::now() + SETTLE_LIMIT;
        loop {
            let exit = self.outcome(&bundle, &run).await?;
            let shim = records::read_if_whole::<ShimRecord>(&bundle.join(files::SHIM))?;
            match (&shim, exit) {
                (shim, Some(exit)) => {
                    let exit = termination::with_message(&bundle, exit);
                    let started_at = shim.as_ref().map(|shim| shim.started_at);
                    return Ok(Some(instance(key, run, started_at, Some(exit))));
                }
                (Some(shim), None) => return Ok(Some(instance(key, run, Some(shim.started_at), None))),
                // A shim that is just starting: a moment will tell.
                (None, None) if self.is_locked(&bundle)? && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                (None, None) => {
                    // Never ran: as if it had not been tried.
                    self.clear(&bundle, &run).await?;
                    return Ok(None);
                }
            }
        }
    }

    fn lock_holder(&self, bundle: &Path) -> Result<Option<Pid>, Error> {
        let lock = bundle.join(files::LOCK);
        shim::sys::lock_holder(&lock).map_err(Error::io("asking for the lock", &lock))
    }

    pub(super) fn is_locked(&self, bundle: &Path) -> Result<bool, Error> {
        self.lock_holder(bundle).map(|holder| holder.is_some())
    }

    /// How a run ended, if it did. A run whose shim is gone is ended here, and recorded as lost.
    pub(super) async fn outcome(&self, bundle: &Path, run: &RunRecord) -> Result<Option<ExitRecord>, Error> {
        let path = bundle.join(files::EXIT);
        if let Some(exit) = records::read(&path)? {
            return Ok(Some(exit));
        }
        let Some(shim) = records::read_if_whole::<ShimRecord>(&bundle.join(files::SHIM))? else {
            return Ok(None);
        };
        if self.is_locked(bundle)? {
            return Ok(None);
        }
        // It may have written the record and ended since the first look.
        if let Some(exit) = records::read(&path)? {
            return Ok(Some(exit));
        }
        self.kill_leftovers(bundle, run).await?;
        let exit = ExitRecord::lost(shim.started_at, Timestamp::now());
        if let Err(error) = records::write_reserved(&path, &exit) {
            // Nothing of it runs, so it is over all the same; the next run of the agent finds that out anew.
            tracing::error!(error = %error.full(), "the end of a container is not recorded");
        }
        Ok(Some(exit))
    }

    /// A run that nobody said has started, and whose shim is gone. With a shim's record the program may have run, so it
    /// ended as the shim recorded, or is lost.
    pub(super) async fn not_started(
        &self,
        key: InstanceKey,
        run: RunRecord,
        bundle: &Path,
        why: &Error,
    ) -> Result<Instance, Error> {
        let exit = match self.outcome(bundle, &run).await? {
            Some(exit) => termination::with_message(bundle, exit),
            None => {
                let exit = ExitRecord::start_error(why.full(), Timestamp::now());
                let (file, record) = (bundle.join(files::EXIT), exit.clone());
                blocking(move || records::write_durably(&file, &record)).await?;
                exit
            }
        };
        Ok(instance(key, run, exit.started_at, Some(exit)))
    }

    /// Ends what a run whose shim is gone left in the kernel and in libcontainer's state.
    pub(super) async fn kill_leftovers(&self, bundle: &Path, run: &RunRecord) -> Result<(), Error> {
        let state = self.root_dir.join("state").join(&run.id);
        let cgroup = run.cgroup.clone();
        let shim = records::read_if_whole::<ShimRecord>(&bundle.join(files::SHIM))?;
        blocking(move || {
            // Its other processes go with the first. Without control groups nothing else says which they are.
            if let Some(shim) = shim {
                shim.kill_init();
            }
            cgroups::kill_and_remove(&cgroup)?;
            remove_if_there(&state)
        })
        .await
    }

    /// Waits for the shim of a run that is over; kills one that does not end.
    pub(super) async fn end_shim(&self, bundle: &Path, run: &RunRecord) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + SHIM_END_LIMIT;
        while self.is_locked(bundle)? && tokio::time::Instant::now() < deadline {
            if !bundle.join(files::EXIT).exists() {
                let _ = shim::client::signal(bundle, nix::libc::SIGKILL).await;
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
        // It holds the lock, so the process is certainly the shim.
        if let Some(shim) = self.lock_holder(bundle)? {
            let _ = nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL);
        }
        self.kill_leftovers(bundle, run).await
    }

    /// Makes room for a run: an earlier try at the same one goes.
    pub(super) async fn clear(&self, bundle: &Path, run: &RunRecord) -> Result<(), Error> {
        if bundle.exists() {
            self.end_shim(bundle, run).await?;
        }
        let bundle = bundle.to_owned();
        blocking(move || remove_if_there(&bundle)).await
    }
}
