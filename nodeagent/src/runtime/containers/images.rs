//! Images of containers: when they are pulled and with whose credentials, and which of them must stay.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Instant,
};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Container, ContainerImage, Pod};

use super::{Containers, RUN_RECORD, RunRecord, blocking, host_files::names};
use crate::{
    Error,
    image::{Image, InUse, Keyring, Name, Policy, Settings},
    runtime::{ImageNews, Sources, StartFailure, StartRequest, records},
};

/// As many as a kubelet tells of: a Node must not grow with them.
const TOLD_MAX: usize = 50;

impl Containers {
    /// The image of a container, pulled if its policy says so.
    pub(super) async fn image(&self, request: &StartRequest<'_>) -> Result<Image, StartFailure> {
        let text = request.container.image.as_deref().unwrap_or("");
        let name = Name::parse(text).map_err(|error| {
            StartFailure::new(
                "InvalidImageName",
                format!("Failed to apply default image tag \"{text}\": {error}"),
            )
        })?;
        let failed = |error: Error| StartFailure::new("ErrImagePull", error.full());
        let policy = Policy::of(request.container.image_pull_policy.as_deref(), &name);
        if policy != Policy::Always
            && let Some(image) = self.images.present(&name).await.map_err(failed)?
        {
            (request.tell)(ImageNews::Present);
            return Ok(image);
        }
        if policy == Policy::Never {
            let why = format!("Container image \"{text}\" is not present with pull policy of Never");
            return Err(StartFailure::new("ErrImageNeverPull", why));
        }
        (request.tell)(ImageNews::Pulling);
        let since = Instant::now();
        let keyring = self.keyring(request.pod, request.sources, request.tell).await;
        let tell = |progress: crate::image::Progress| {
            tracing::info!(image = text, %progress, "pulling");
            (request.tell)(ImageNews::Progress(progress.to_string()));
        };
        let pulled = self.images.pull(&name, &keyring, &tell).boxed();
        let image = tokio::select! {
            image = pulled => image.map_err(|error| {
                StartFailure::new("ErrImagePull", format!("failed to pull image \"{text}\": {}", error.full()))
            })?,
            () = request.given_up.cancelled() => {
                return Err(StartFailure::new("ErrImagePull", format!("the pod ends, so \"{text}\" is not pulled")));
            }
        };
        (request.tell)(ImageNews::Pulled { took: since.elapsed(), bytes: image.bytes });
        self.collect_images().await;
        Ok(image)
    }

    /// The node's credentials, and before them the pod's.
    async fn keyring(
        &self,
        pod: &Pod,
        sources: &Sources,
        tell: &(dyn Fn(ImageNews) + Send + Sync),
    ) -> Keyring {
        let mut keyring = Keyring::default();
        let mut lacking = Vec::new();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        for secret in secrets.filter(|secret| !secret.name.is_empty()) {
            let added = match sources.secret(namespace, &secret.name).await {
                Ok(Some(found)) => keyring.add_secret(&found).map_err(|error| error.full()),
                Ok(None) => Err("not found".to_owned()),
                Err(error) => Err(error.message),
            };
            if let Err(why) = added {
                lacking.push(format!("{}: {why}", secret.name));
            }
        }
        match self.images.own_keyring() {
            Ok(own) => keyring.extend(own),
            Err(error) => lacking.push(error.full()),
        }
        if !lacking.is_empty() {
            tell(ImageNews::NoCredentials(lacking.join("; ")));
        }
        keyring
    }

    /// Makes room for images if it is needed.
    pub(super) async fn collect_images(&self) {
        let root = self.root_dir.clone();
        match self.images.collect(move || images_in_use(&root)).await {
            Ok(collected) => {
                for image in collected.removed {
                    tracing::info!(image = %image.record.id, names = ?image.names, "an image made room");
                }
            }
            Err(error) => tracing::warn!(error = %error.full(), "no room was made for images"),
        }
    }

    /// Removes what earlier binaries carried and nobody uses any more.
    pub(super) async fn sweep_images(&self) {
        let root = self.root_dir.clone();
        let in_use = move || Ok(runs(&root)?.into_iter().map(|run| run.image_id).collect::<HashSet<_>>());
        if let Err(error) = self.images.sweep(in_use).await {
            tracing::warn!(error = %error.full(), "an image of an earlier binary was not removed");
        }
    }

    /// What the Node says of images.
    pub(super) async fn listed_images(&self) -> Vec<ContainerImage> {
        let store = self.images.store().clone();
        let listed = blocking(move || store.list()).await.unwrap_or_default();
        let mut listed: Vec<_> = listed.into_iter().filter(|one| !one.names.is_empty()).collect();
        listed.sort_by_key(|one| std::cmp::Reverse(one.record.bytes));
        let image = |one: crate::image::Listed| {
            let (digests, tags): (Vec<_>, Vec<_>) =
                one.names.into_iter().partition(|name| name.contains('@'));
            ContainerImage {
                names: Some(digests.into_iter().chain(tags).collect()),
                size_bytes: i64::try_from(one.record.bytes).ok(),
            }
        };
        listed.into_iter().take(TOLD_MAX).map(image).collect()
    }
}

/// Images that containers on disk were made of, those that are over included: they may be asked for their logs, and the
/// next run of the same container needs them.
///
/// # Errors
/// When the records cannot be read.
pub fn images_in_use(root_dir: &Path) -> Result<InUse, Error> {
    Ok(runs(root_dir)?.into_iter().filter_map(|run| run.image_key).collect())
}

/// All runs on disk.
fn runs(root_dir: &Path) -> Result<Vec<RunRecord>, Error> {
    let mut runs = Vec::new();
    let pods = root_dir.join("pods");
    for pod in names(&pods)? {
        let containers = pods.join(pod).join("containers");
        for container in names(&containers)? {
            let attempts = containers.join(container);
            for attempt in names(&attempts)? {
                let record: PathBuf = attempts.join(attempt).join(RUN_RECORD);
                runs.extend(records::read_if_whole::<RunRecord>(&record)?);
            }
        }
    }
    Ok(runs)
}

/// What asks a container to stop: what it says itself, else what its image says; `None` is SIGTERM.
pub(super) fn stop_signal(container: &Container, image: &Settings) -> Option<i32> {
    let own = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let name = own.or(image.stop_signal.as_deref()).filter(|name| !name.is_empty())?;
    let number = signal(name);
    if number.is_none() {
        tracing::warn!(container = %container.name, signal = name, "an unknown stop signal; it is SIGTERM instead");
    }
    number
}

/// `SIGQUIT`, `quit`, `3`, `SIGRTMIN+3`.
fn signal(name: &str) -> Option<i32> {
    let upper = name.trim().to_uppercase();
    let known = |number: &i32| (1..=nix::libc::SIGRTMAX()).contains(number);
    if let Ok(number) = upper.parse() {
        return Some(number).filter(known);
    }
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    for (name, base, sign) in [("RTMIN", nix::libc::SIGRTMIN(), 1), ("RTMAX", nix::libc::SIGRTMAX(), -1)] {
        if let Some(offset) = short.strip_prefix(name) {
            let offset = offset.trim_start_matches(['+', '-']);
            let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
            return base.checked_add(offset.checked_mul(sign)?).filter(known);
        }
    }
    format!("SIG{short}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (name, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("3", Some(3)),
            ("SIGRTMIN+3", Some(nix::libc::SIGRTMIN() + 3)),
            ("RTMAX-1", Some(nix::libc::SIGRTMAX() - 1)),
            ("SIGNONE", None),
            ("0", None),
            ("4711", None),
        ] {
            assert_eq!(signal(name), number, "{name}");
        }
    }

    #[test]
    fn a_container_has_the_first_word_on_what_stops_it() {
        let image = Settings { stop_signal: Some("SIGQUIT".to_owned()), ..Settings::default() };
        let mut container = Container::default();
        assert_eq!(stop_signal(&container, &image), Some(3));
        container.lifecycle = serde_json::from_value(serde_json::json!({"stopSignal": "SIGUSR1"})).unwrap();
        assert_eq!(stop_signal(&container, &image), Some(10));
        assert_eq!(stop_signal(&Container::default(), &Settings::default()), None);
    }
}
