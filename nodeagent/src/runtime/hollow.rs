//! A runtime that only pretends: containers start after a moment and run until they are told to stop.
//! All state is in memory; a thousand of them fit in one process.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use claw_schemas::api::IMAGE as KERNELS;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    ExecReply, ExitReason, ExitRecord, Host, ImageNews, Instance, InstanceKey, Machine, ProbeTarget,
    RecoveredPod, Runtime, Sandbox, Sources, StartFailure, StartRequest, Talk, TalkWish,
};
use crate::Error;

/// How long a pretended container takes to start: about what a real one does.
const START_DELAY: Duration = Duration::from_millis(50);

/// What a hollow node claims to have: 8 CPUs and 32 GiB.
const CPUS: i128 = 8;
const MEMORY_BYTES: i128 = 32 << 30;

/// Pretends to run pods.
pub struct Hollow {
    machine: Machine,
    runs: Mutex<BTreeMap<InstanceKey, Run>>,
    addresses: AtomicU32,
}

struct Run {
    started_at: Timestamp,
    exit: watch::Sender<Option<ExitRecord>>,
}

impl Hollow {
    /// A machine of the usual size.
    pub fn new() -> Self {
        Self {
            machine: Machine::pretend(CPUS, MEMORY_BYTES),
            runs: Mutex::default(),
            addresses: AtomicU32::new(1),
        }
    }

    fn end(&self, key: &InstanceKey, code: i32, signal: Option<i32>, message: &str) {
        if let Some(run) = self.runs.lock().get(key) {
            run.exit.send_if_modified(|exit| {
                let ends = exit.is_none();
                if ends {
                    *exit = Some(ExitRecord {
                        code,
                        signal,
                        reason: if code == 0 { ExitReason::Completed } else { ExitReason::Error },
                        message: message.to_owned(),
                        started_at: Some(run.started_at),
                        finished_at: Timestamp::now(),
                    });
                }
                ends
            });
        }
    }
}

impl Default for Hollow {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Runtime for Hollow {
    fn machine(&self) -> Machine {
        self.machine.clone()
    }

    async fn recover(&self) -> Result<Vec<RecoveredPod>, Error> {
        Ok(Vec::new())
    }

    async fn remember(&self, _pod: &Pod) -> Result<(), Error> {
        Ok(())
    }

    async fn prepare(&self, _pod: &Pod, _host: &Host, _sources: &Sources) -> Result<Sandbox, StartFailure> {
        // Addresses nobody can reach, from a range that is never routed (RFC 2544).
        let number = self.addresses.fetch_add(1, Ordering::Relaxed);
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
        let ip = IpAddr::V4(Ipv4Addr::from(base | (number & 0x1_FFFF)));
        Ok(Sandbox { ip: Some(ip), created_at: Timestamp::now() })
    }

    async fn refresh(
        &self,
        _pod: &Pod,
        _host: &Host,
        _sources: &Sources,
        _given_up: &CancellationToken,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn start(&self, request: StartRequest<'_>) -> Result<Instance, StartFailure> {
        tokio::time::sleep(START_DELAY).await;
        (request.tell)(ImageNews::Present);
        let pod_uid = request.pod.metadata.uid.clone().unwrap_or_default();
        let key =
            InstanceKey { pod_uid, container: request.container.name.clone(), attempt: request.attempt };
        let started_at = Timestamp::now();
        self.runs.lock().insert(key.clone(), Run { started_at, exit: watch::Sender::new(None) });
        // An init container would keep its pod waiting for ever.
        let is_init = request
            .pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten())
            .any(|container| container.name == key.container);
        if is_init {
            self.end(&key, 0, None, "");
        }
        let image = request.container.image.clone().unwrap_or_default();
        if image == KERNELS {
            // Who waits for a result would wait for ever.
            self.end(&key, 1, None, "a hollow node calculates nothing");
        }
        Ok(Instance {
            id: format!("{}-{}-{}", key.pod_uid, key.container, key.attempt),
            image_id: image.clone(),
            image,
            restart_delay: request.restart_delay,
            sandbox: Some(request.sandbox.created_at),
            started_at: Some(started_at),
            exit: None,
            key,
        })
    }

    async fn wait(&self, key: &InstanceKey) -> Result<ExitRecord, Error> {
        let gone = || Error::NotFound(format!("container {} has no run {}", key.container, key.attempt));
        let mut exit = self.runs.lock().get(key).map(|run| run.exit.subscribe()).ok_or_else(gone)?;
        let ended = exit.wait_for(Option::is_some).await.map_err(|_| gone())?;
        ended.clone().ok_or_else(gone)
    }

    async fn signal(&self, key: &InstanceKey, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL {
            self.end(key, 137, Some(signal), "");
        } else {
            self.end(key, 0, None, "");
        }
        Ok(())
    }

    async fn exec(
        &self,
        _key: &InstanceKey,
        _command: &[String],
        _timeout: Duration,
    ) -> Result<ExecReply, Error> {
        Ok(ExecReply::Exited { code: 0, output: String::new() })
    }

    async fn talk(&self, _key: &InstanceKey, _wish: &TalkWish, _talk: Talk) -> Result<Option<i32>, Error> {
        Err(Error::Unsupported("this node only pretends: its containers have no processes".to_owned()))
    }

    async fn dial(&self, _pod_uid: &str, _port: u16) -> Result<TcpStream, Error> {
        Err(Error::Unsupported("this node only pretends: its pods have no network".to_owned()))
    }

    async fn probe(
        &self,
        _key: &InstanceKey,
        _target: &ProbeTarget,
        _timeout: Duration,
    ) -> Result<(), String> {
        Ok(())
    }

    fn log_folder(&self, _key: &InstanceKey) -> Result<PathBuf, Error> {
        Err(Error::Unsupported("a hollow node runs nothing, so there are no logs".to_owned()))
    }

    async fn discard(&self, key: &InstanceKey) -> Result<(), Error> {
        self.runs.lock().remove(key);
        Ok(())
    }

    async fn release(&self, _pod_uid: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn forget(&self, pod_uid: &str) -> Result<(), Error> {
        self.runs.lock().retain(|key, _| key.pod_uid != pod_uid);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
