//! What the containers of a pod have in common beside volumes and network: processes and shared memory.
//!
//! A namespace of processes lives as long as its first one. So where a pod shares one, a container of ours is that first
//! process: it does nothing but reap whom others leave behind. It has a shim like any other, and no name that a pod
//! could give.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod};
use nix::mount::{MsFlags, mount};

use super::{Containers, RUN_RECORD, RunRecord, blocking, create_error, shared_namespaces, write_bundle};
use crate::{
    Error,
    image::{Image, Name},
    runtime::{
        StartFailure, StartRequest,
        environment::Environment,
        records, resources,
        spec::{self, Bind, Processes},
    },
    shim::{RunJob, ShimRecord, Stdin, files},
};

/// Folder of the container that holds a shared namespace, in the folder of its pod.
pub(super) const PAUSE: &str = "pause";

/// Folder of the memory that containers share by name.
pub(super) const MEMORY: &str = "shm";

/// What container runtimes give.
const MEMORY_OPTIONS: &str = "mode=1777,size=64m";

/// The last to go when memory runs out: with it go all processes of its pod.
const PAUSE_OOM_SCORE: i32 = -998;

impl Containers {
    /// Whose processes a container sees.
    pub(super) async fn processes(&self, request: &StartRequest<'_>) -> Result<Processes, StartFailure> {
        let asks = |field: Option<bool>| field == Some(true);
        if let Some(target) = request.target {
            return self.processes_of(request.pod, target);
        }
        match &request.pod.spec {
            Some(spec) if asks(spec.host_pid) => Ok(Processes::Machine),
            Some(spec) if asks(spec.share_process_namespace) => {
                let init = self.pause(request.pod).await?;
                Ok(Processes::Of(format!("/proc/{init}/ns/pid").into()))
            }
            _ => Ok(Processes::Own),
        }
    }

    /// Those of another container.
    fn processes_of(&self, pod: &Pod, target: &str) -> Result<Processes, StartFailure> {
        let uid = super::uid(pod).map_err(create_error)?;
        let keys = self.keys(uid).map_err(create_error)?;
        for key in keys.iter().rev().filter(|key| key.container == target) {
            let bundle = self.bundle(key).map_err(create_error)?;
            if let Some(init) = self.first_process(&bundle).map_err(create_error)? {
                return Ok(Processes::Of(format!("/proc/{init}/ns/pid").into()));
            }
        }
        let why = format!("the target container \"{target}\" does not run");
        Err(StartFailure::new("CreateContainerError", why))
    }

    /// The first process of the namespace that the pod shares, started if it does not run.
    async fn pause(&self, pod: &Pod) -> Result<i32, StartFailure> {
        // The containers of a pod may start at the same time.
        let _one_at_a_time = self.pausing.lock().await;
        let uid = super::uid(pod).map_err(create_error)?;
        let bundle = self.pod_folder(uid).map_err(create_error)?.join(PAUSE);
        match self.first_process(&bundle).map_err(create_error)? {
            Some(init) => Ok(init),
            None => self.start_pause(uid, &bundle).await,
        }
    }

    /// The first process of a container, while it runs.
    fn first_process(&self, bundle: &Path) -> Result<Option<i32>, Error> {
        if bundle.join(files::EXIT).exists() || !self.is_locked(bundle)? {
            return Ok(None);
        }
        let shim = records::read_if_whole::<ShimRecord>(&bundle.join(files::SHIM))?;
        Ok(shim.map(|shim| shim.init_pid))
    }

    async fn start_pause(&self, pod_uid: &str, bundle: &Path) -> Result<i32, StartFailure> {
        let name = Name::parse("clawbernetes.io/toolbox:pause").map_err(create_error)?;
        let missing = || create_error(Error::NotFound("the built-in image is missing".to_owned()));
        let image = self.images.present(&name).await.map_err(create_error)?.ok_or_else(missing)?;
        let run = RunRecord {
            id: self.container_id_of(pod_uid, "", 0),
            image: String::new(),
            image_id: image.id.clone(),
            restart_delay_ms: 0,
            sandbox: None,
            cgroup: format!("{}/{PAUSE}", self.pod_cgroup(pod_uid)),
            image_key: None,
            stop_signal: None,
        };
        self.clear(bundle, &run).await.map_err(create_error)?;
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": PAUSE,
            "args": [PAUSE],
            "securityContext": {
                "runAsUser": 65535,
                "runAsGroup": 65535,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        }))
        .map_err(|error| StartFailure::new("CreateContainerError", error.to_string()))?;
        let config = pause_config(&container, &image, bundle, &run)?;
        let (config, filter) = self.confine(Pod::default(), container, config).await?;
        let (folder, record) = (bundle.to_owned(), run.clone());
        let write = move || write_bundle(&folder, &config, filter.as_ref(), &record);
        blocking(write).await.map_err(create_error)?;
        let job = RunJob {
            id: run.id,
            bundle: bundle.to_owned(),
            state_root: self.root_dir.join("state"),
            layers: image.layers,
            cgroup: run.cgroup,
            stdin: Stdin::Null,
            tty: false,
            shares_processes: false,
        };
        self.starter.run(job).await.map(|shim| shim.init_pid).map_err(create_error)
    }

    /// Ends the process that holds a shared namespace, and all that are left in it.
    pub(super) async fn end_pause(&self, pod_folder: &Path) -> Result<(), Error> {
        let bundle = pod_folder.join(PAUSE);
        match records::read_if_whole::<RunRecord>(&bundle.join(RUN_RECORD))? {
            Some(run) => self.end_shim(&bundle, &run).await,
            None => Ok(()),
        }
    }
}

fn pause_config(
    container: &Container,
    image: &Image,
    bundle: &Path,
    run: &RunRecord,
) -> Result<oci_spec::runtime::Spec, StartFailure> {
    let mut environment = Environment::default();
    environment.set("PATH", "/bin".to_owned());
    let pod_folder = bundle.parent().unwrap_or(bundle);
    let mut config = spec::build(&spec::Plan {
        pod: &Pod::default(),
        container,
        image,
        environment: &environment,
        cgroup: &run.cgroup,
        mounts: Vec::new(),
        namespaces: shared_namespaces(pod_folder, &Pod::default()),
        processes: Processes::Own,
        memory_bytes: 0,
    })?;
    if let Some(mut process) = config.process().clone() {
        process.set_oom_score_adj(Some(resources::possible_oom_score(PAUSE_OOM_SCORE)));
        config.set_process(Some(process));
    }
    Ok(config)
}

/// Makes the memory that the containers of a pod share by name, unless they share the machine's.
pub(super) fn make_memory(pod_folder: &Path, pod: &Pod) -> Result<(), Error> {
    if uses_host_ipc(pod) {
        return Ok(());
    }
    let folder = pod_folder.join(MEMORY);
    fs::create_dir_all(&folder).map_err(Error::io("creating", &folder))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), &folder, Some("tmpfs"), flags, Some(MEMORY_OPTIONS))
        .map_err(|errno| Error::io("mounting", &folder)(errno.into()))
}

/// Shows that memory to a container. Pods that are older than this have none.
pub(super) fn memory(pod_folder: &Path, pod: &Pod) -> Option<Bind> {
    let source = if uses_host_ipc(pod) { PathBuf::from("/dev/shm") } else { pod_folder.join(MEMORY) };
    source.is_dir().then(|| Bind {
        source,
        target: "/dev/shm".to_owned(),
        read_only: false,
        propagation: "rprivate",
    })
}

pub(super) fn uses_host_ipc(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_ipc).unwrap_or(false)
}
