//! Which system calls a container may make: what the pod says of it, and filters for that, each compiled once.
//!
//! Compiling a filter takes longer than starting a container (20 ms beside 30), and the same few are wanted again and
//! again: there is one for each profile and set of capabilities.
//!
//! Must never know: how a process comes to be filtered (that is [`crate::shim`]).

mod profile;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use oci_spec::runtime::Spec;
use parking_lot::Mutex;

use self::profile::Profile;
use super::StartFailure;
use crate::shim::Filter;

/// Ours. See the comments in it.
const DEFAULT: &str = include_str!("default.json");

/// Filters kept: a cluster has a few sets of capabilities and fewer profiles of its own. Each takes some 10 KiB.
const COMPILED_MAX: usize = 64;

/// The filters of one node.
pub(super) struct Seccomp {
    /// Where profiles of type `Localhost` lie.
    folder: PathBuf,
    compiled: Mutex<HashMap<Wanted, Arc<Filter>>>,
}

/// What decides about a filter.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Wanted {
    profile: String,
    capabilities: BTreeSet<String>,
}

impl Seccomp {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, compiled: Mutex::default() }
    }

    /// The filter of a container, which is then prepared to be loaded; `None`: it may call what it likes. Takes some
    /// milliseconds for a profile that was not asked for before.
    pub(super) fn confine(
        &self,
        pod: &Pod,
        container: &Container,
        spec: &mut Spec,
    ) -> Result<Option<Filter>, StartFailure> {
        let failed = |why| StartFailure::new("CreateContainerError", why);
        let Some(profile) = self.profile(pod, container).map_err(failed)? else { return Ok(None) };
        let capabilities = held(spec);
        let filter = self.filter(Wanted { profile, capabilities }).map_err(failed)?;
        let mut filter = Filter::clone(&filter);
        filter.lend(spec);
        Ok(Some(filter))
    }

    /// The text of the profile that applies.
    fn profile(&self, pod: &Pod, container: &Container) -> Result<Option<String>, String> {
        let own = container.security_context.as_ref();
        if own.and_then(|own| own.privileged) == Some(true) {
            return Ok(None);
        }
        let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let said = own
            .and_then(|own| own.seccomp_profile.as_ref())
            .or_else(|| of_pod.and_then(|of_pod| of_pod.seccomp_profile.as_ref()));
        match said.map(|said| said.type_.as_str()) {
            None | Some("RuntimeDefault") => Ok(Some(DEFAULT.to_owned())),
            Some("Unconfined") => Ok(None),
            Some("Localhost") => self.read(said).map(Some),
            Some(other) => Err(format!("seccompProfile type \"{other}\" is not known")),
        }
    }

    fn read(&self, said: Option<&SeccompProfile>) -> Result<String, String> {
        let name = said.and_then(|said| said.localhost_profile.as_deref()).unwrap_or_default();
        let stays_inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !stays_inside {
            return Err(format!("seccomp profile \"{name}\" is not a path below {}", self.folder.display()));
        }
        let path = self.folder.join(name);
        std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot load seccomp profile \"{}\": {error}", path.display()))
    }

    fn filter(&self, wanted: Wanted) -> Result<Arc<Filter>, String> {
        // Held while compiling: who wants the same one waits for it instead of making it too.
        let mut compiled = self.compiled.lock();
        if let Some(filter) = compiled.get(&wanted) {
            return Ok(Arc::clone(filter));
        }
        let profile: Profile = serde_json::from_str(&wanted.profile)
            .map_err(|error| format!("the seccomp profile cannot be read: {error}"))?;
        let filter = profile
            .compile(&wanted.capabilities)
            .map(Arc::new)
            .map_err(|error| format!("the seccomp profile cannot be used: {error}"))?;
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(wanted, Arc::clone(&filter));
        Ok(filter)
    }
}

/// The capabilities that a program may come to hold, as `CAP_NAME`.
fn held(spec: &Spec) -> BTreeSet<String> {
    let process = spec.process().as_ref();
    let bounding = process.and_then(|process| process.capabilities().as_ref()?.bounding().as_ref());
    let name = |capability| serde_json::to_value(capability).ok()?.as_str().map(str::to_owned);
    bounding.into_iter().flatten().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn profile_of(seccomp: &Seccomp, pod: Value, container: Value) -> Result<Option<String>, String> {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "securityContext": pod}})).unwrap();
        let container: Container =
            serde_json::from_value(json!({"name": "c", "securityContext": container})).unwrap();
        seccomp.profile(&pod, &container)
    }

    #[test]
    fn who_says_nothing_gets_the_default_and_the_privileged_are_free() {
        let seccomp = Seccomp::new("/nowhere".into());
        let of = |pod: Value, container: Value| profile_of(&seccomp, pod, container).unwrap();
        let (free, bound) = (
            json!({"seccompProfile": {"type": "Unconfined"}}),
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
        );
        assert_eq!(of(json!({}), json!({})).as_deref(), Some(DEFAULT));
        assert_eq!(of(free.clone(), json!({})), None);
        assert_eq!(of(free.clone(), bound.clone()).as_deref(), Some(DEFAULT), "the container's word counts");
        assert_eq!(of(bound.clone(), free), None);
        assert_eq!(of(bound, json!({"privileged": true})), None);
    }

    #[test]
    fn profiles_of_the_machine_are_read_from_their_folder_alone() {
        let folder = tempfile::tempdir().unwrap();
        let seccomp = Seccomp::new(folder.path().join("profiles"));
        std::fs::create_dir_all(folder.path().join("profiles/team")).unwrap();
        std::fs::write(folder.path().join("profiles/team/a.json"), "own").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        let of = |name: &str| {
            let said = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}});
            profile_of(&seccomp, json!({}), said)
        };
        assert_eq!(of("team/a.json").unwrap().as_deref(), Some("own"));
        for outside in ["../secret", "team/../../secret", "/etc/passwd", ""] {
            assert!(of(outside).unwrap_err().contains("is not a path below"), "{outside}");
        }
        assert!(of("missing.json").unwrap_err().contains("missing.json"));
    }

    #[test]
    fn a_filter_is_compiled_once_for_a_profile_and_capabilities() {
        let seccomp = Seccomp::new("/nowhere".into());
        let filter = |capabilities: &[&str]| {
            let capabilities = capabilities.iter().map(|&name| name.to_owned()).collect();
            seccomp.filter(Wanted { profile: DEFAULT.to_owned(), capabilities }).unwrap()
        };
        assert!(Arc::ptr_eq(&filter(&["CAP_CHOWN"]), &filter(&["CAP_CHOWN"])));
        assert_ne!(filter(&["CAP_CHOWN"]), filter(&["CAP_SYS_ADMIN"]));
    }
}
