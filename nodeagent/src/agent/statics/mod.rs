//! Static pods: those that a folder on the machine says, with or without a server. In the API each has a mirror, so that
//! people see it; what becomes of the mirror changes nothing here.
//!
//! A static pod's uid is a hash of its file, so a file that changes is another pod, which starts when the one before
//! is gone. What the server says and asks of the mirror's uid is translated to it.

mod manifests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use claw_client::{ApiError, Client, request::DeleteOptions};
use claw_schemas::status::Reason;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::manifests::{MIRROR, SOURCE};
use super::{Pods, Shared};

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// After the server could not be asked.
const RETRY: Duration = Duration::from_secs(5);

/// For a pod that does not say.
const GRACE_SECONDS: i64 = 30;

/// The mirror of a static pod, as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Mirror {
    fn of(pod: &Pod) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        Self { namespace: text(&metadata.namespace), name: text(&metadata.name), uid: text(&metadata.uid) }
    }
}

/// Whether a pod here comes from a file.
pub(super) fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some("file")
}

/// Of a mirror: the uid of the static pod that it shows.
fn mirrored(pod: &Pod) -> Option<&str> {
    annotation(pod, MIRROR)
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// What the folder says, and what was said about it.
pub(super) struct Statics {
    shared: Arc<Shared>,
    pods: Arc<Pods>,
    folder: Option<PathBuf>,
    files: BTreeMap<PathBuf, Pod>,
    /// By file: what is wrong with it, said once.
    complaints: BTreeMap<PathBuf, String>,
}

impl Statics {
    pub fn new(shared: &Arc<Shared>, pods: &Arc<Pods>) -> Self {
        let (files, complaints) = Default::default();
        let folder = shared.config.static_pods.clone();
        Self { shared: Arc::clone(shared), pods: Arc::clone(pods), folder, files, complaints }
    }

    /// Keeps them until cancelled.
    pub async fn keep(mut self, client: Client, cancel: CancellationToken) {
        let mut ask_at = Instant::now();
        loop {
            if Instant::now() >= ask_at
                && let Err(error) = self.show(&client).await
            {
                if error.is_retryable() {
                    tracing::debug!(%error, "mirrors of static pods are not as they should be yet");
                } else {
                    tracing::warn!(%error, "a mirror of a static pod is refused");
                }
                ask_at = Instant::now() + RETRY;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep_until(Instant::now() + LOOK) => self.follow().await,
            }
        }
    }

    /// Looks at the folder, and starts and ends what follows from it.
    pub async fn follow(&mut self) {
        if let Some(folder) = self.folder.clone() {
            match manifests::read(&folder, &self.shared.config.node_name) {
                Ok(found) => self.take_in(found),
                // Not read is not empty.
                Err(error) => return self.complain(&folder, error.to_string()),
            }
        }
        let wanted: Vec<&str> = self.files.values().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        for pod in self.pods.statics() {
            if !wanted.contains(&pod.metadata.uid.as_deref().unwrap_or_default()) {
                self.pods.keep_static(going(pod)).await;
            }
        }
        for pod in self.files.values() {
            self.pods.start_static(pod).await;
        }
    }

    /// A file that cannot be understood stays what it was: it may be half written.
    fn take_in(&mut self, found: BTreeMap<PathBuf, Result<Pod, String>>) {
        self.files.retain(|path, _| found.contains_key(path));
        self.complaints.retain(|path, _| found.contains_key(path));
        for (path, parsed) in found {
            match parsed {
                Ok(pod) => {
                    self.complaints.remove(&path);
                    self.files.insert(path, pod);
                }
                Err(why) => self.complain(&path, why),
            }
        }
    }

    fn complain(&mut self, path: &Path, why: String) {
        if self.complaints.get(path) != Some(&why) {
            tracing::error!(path = %path.display(), why, "static pods: this is not followed");
            self.complaints.insert(path.to_owned(), why);
        }
    }

    /// Makes the mirrors, and removes those of pods that are gone.
    async fn show(&self, client: &Client) -> Result<(), ApiError> {
        let mirrors = self.shared.mirrors.lock().clone();
        for (uid, mirror) in mirrors.iter().filter(|(uid, _)| !self.pods.has(uid)) {
            remove(client, mirror).await?;
            self.shared.mirrors.lock().retain(|known, one| known != uid || one != mirror);
        }
        for pod in self.pods.statics().iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            if !mirrors.contains_key(pod.metadata.uid.as_deref().unwrap_or_default()) {
                self.show_one(client, pod).await?;
            }
        }
        Ok(())
    }

    async fn show_one(&self, client: &Client, pod: &Pod) -> Result<(), ApiError> {
        let wanted = Mirror::of(pod);
        let api = client.namespaced::<Pod>(&wanted.namespace);
        // Before it is there, a node may not even ask for it.
        let found = match api.create(&mirror(pod)).await {
            Err(error) if error.reason == Reason::AlreadyExists => api.get(&wanted.name).await?,
            created => created?,
        };
        match mirrored(&found) {
            Some(uid) if uid == wanted.uid && found.metadata.deletion_timestamp.is_none() => {
                self.pods.mirror(found).await;
                Ok(())
            }
            // Of an earlier version of the file.
            Some(_) => remove(client, &Mirror::of(&found)).await,
            None => {
                let why = format!("a pod of the API has the name of static pod {}", wanted.name);
                Err(ApiError::new(Reason::AlreadyExists, why))
            }
        }
    }
}

/// As it is to end, in its own time.
fn going(mut pod: Pod) -> Pod {
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let metadata = &mut pod.metadata;
    metadata.deletion_timestamp.get_or_insert_with(|| Time(Timestamp::now()));
    metadata.deletion_grace_period_seconds = Some(grace.unwrap_or(GRACE_SECONDS));
    pod
}

/// What the API is to show of a static pod.
fn mirror(pod: &Pod) -> Pod {
    let mut mirror = pod.clone();
    let uid = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), uid);
    mirror.status = None;
    mirror
}

/// Removes a mirror at once: nothing of it is on this machine.
async fn remove(client: &Client, mirror: &Mirror) -> Result<(), ApiError> {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        precondition_uid: Some(mirror.uid.clone()),
        ..DeleteOptions::default()
    };
    match client.namespaced::<Pod>(&mirror.namespace).delete(&mirror.name, options).await {
        // Gone, or another has its name.
        Err(error) if matches!(error.reason, Reason::NotFound | Reason::Conflict) => Ok(()),
        removed => removed,
    }
}

/// What the server says of mirrors.
impl Pods {
    /// Whether a pod of the server's is a mirror, which is then dealt with.
    pub(super) async fn mirror(&self, pod: Pod) -> bool {
        let Some(uid) = mirrored(&pod).map(str::to_owned) else { return false };
        let mirror = Mirror::of(&pod);
        if pod.metadata.deletion_timestamp.is_some() {
            // Nothing of it is here: it may go, and comes back if the pod stays.
            self.shared.mirrors.lock().retain(|_, known| *known != mirror);
            self.shared.outbox.terminated(&mirror.namespace, &mirror.name, &mirror.uid);
            return true;
        }
        let known = self.statics().into_iter().find(|known| known.metadata.uid.as_deref() == Some(&uid));
        // Also without such a pod: it is removed then.
        self.shared.mirrors.lock().insert(uid, mirror);
        if let Some(known) = known {
            self.keep_static(Pod { status: pod.status, ..known }).await;
        }
        true
    }

    /// The mirror is gone from the server; if the pod stays, another is made.
    pub(super) fn unmirror(&self, uid: &str) {
        let mut mirrors = self.shared.mirrors.lock();
        let before = mirrors.len();
        mirrors.retain(|_, mirror| mirror.uid != uid);
        if mirrors.len() < before {
            self.shared.outbox.forget(uid);
        }
    }

    /// Under which uid a pod of the server's runs here.
    pub(super) fn local<'a>(&self, uid: &'a str) -> std::borrow::Cow<'a, str> {
        let mirrors = self.shared.mirrors.lock();
        let found = mirrors.iter().find(|(_, mirror)| mirror.uid == uid).map(|(local, _)| local.clone());
        found.map_or(uid.into(), Into::into)
    }
}

impl Shared {
    /// Under which uid the server knows a pod that runs here; `None` for a static pod without a mirror.
    pub(super) fn uid_on_server(&self, pod: &Pod) -> Option<String> {
        let uid = pod.metadata.uid.as_ref()?;
        if is_static(pod) {
            return self.mirrors.lock().get(uid).map(|mirror| mirror.uid.clone());
        }
        Some(uid.clone())
    }
}
