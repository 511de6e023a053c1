//! The served kinds, and what a request's path means among them.
//!
//! Built-in kinds are there from the start; custom ones come and go ([`Kinds::set_custom`]). A request works with the
//! kinds as they were when it came.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use claw_client::ResourceRef;
use claw_schemas::{
    ApiError, Descriptor, Registry,
    pick::Pick,
    schema::time_text,
    status::{Cause, Reason},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{body, facts::Plan, form::Form, twins::Twin};
use crate::{auth::Identity, custom, defaults, store::Key, validation};

/// A kind with everything that is worked out once for it.
pub(super) struct Served {
    pub descriptor: Arc<Descriptor>,
    pub api_version: String,
    pub plan: Plan,
    /// What is read of an object for a row.
    pub row: Pick,
    /// Tells this kind, as it is served now, from every other: a name for what is remembered about objects.
    pub id: u64,
    /// How the objects differ from what is stored, where they do.
    pub form: Option<Arc<dyn Form>>,
    /// The built-in kind that stores the objects, where that is another one.
    pub twin: Option<Arc<Twin>>,
    /// What the definition of a custom kind says.
    pub custom: Option<Arc<custom::Version>>,
    /// Until when a custom kind is served like this.
    pub term: Option<Term>,
}

/// The time for which a custom kind is served by the same rules, and who writes by them.
#[derive(Clone, Default)]
pub(super) struct Term {
    over: CancellationToken,
    writers: TaskTracker,
}

impl Term {
    /// Told when the time is over.
    pub fn over(&self) -> CancellationToken {
        self.over.child_token()
    }

    /// Ends it. When this returns, nothing is written by its rules any more.
    pub async fn end(&self) {
        self.over.cancel();
        self.writers.close();
        self.writers.wait().await;
    }
}

/// All served kinds.
pub(super) struct Kinds {
    builtin: Registry,
    current: ArcSwap<Current>,
}

/// The kinds of one moment.
struct Current {
    registry: Arc<Registry>,
    /// By `group/version/plural`.
    by_path: HashMap<String, Arc<Served>>,
    /// Versions of custom kinds that are defined and not served: nobody reads or writes them, but somebody may have.
    unserved: HashMap<String, Arc<Served>>,
}

/// What a request is about: a collection, an object, or a subresource of one.
#[derive(Clone)]
pub(super) struct Target {
    pub kind: Arc<Served>,
    /// Empty for cluster-scoped kinds, and for a collection over all namespaces.
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
    pub sub: Option<Sub>,
    /// Who asks; nobody when the server acts for itself.
    pub by: Option<Identity>,
    /// What others have to say about a write.
    pub said: Option<Arc<Said>>,
}

/// Warnings of those who were asked about a write, for its answer.
#[derive(Default)]
pub(super) struct Said(Mutex<Vec<String>>);

/// The subresources served. Which kind has which, the registry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sub {
    Status,
    EphemeralContainers,
    Scale,
    Binding,
    Eviction,
    Finalize,
    Log,
    Attach,
    Exec,
    PortForward,
    Approval,
    Token,
}

impl Sub {
    /// As paths have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Finalize => "finalize",
            Self::Log => "log",
            Self::Attach => "attach",
            Self::Exec => "exec",
            Self::PortForward => "portforward",
            Self::Approval => "approval",
            Self::Token => "token",
        }
    }
}

impl Kinds {
    pub fn new(builtin: Registry) -> Self {
        let served = |descriptor: &Arc<Descriptor>| Arc::new(Served::builtin(descriptor, &builtin));
        let by_path = builtin.iter().map(|descriptor| keyed(served(descriptor))).collect();
        let registry = Arc::new(builtin.clone());
        Self {
            builtin,
            current: ArcSwap::from_pointee(Current { registry, by_path, unserved: HashMap::new() }),
        }
    }

    /// The kinds served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.current.load().registry.clone()
    }

    /// The kinds that no definition can take the names of.
    pub fn builtin(&self) -> &Registry {
        &self.builtin
    }

    /// Serves these custom kinds, and no others, from now on. Others may be defined, too.
    pub fn set_custom(&self, custom: Vec<Arc<Served>>, unserved: Vec<Arc<Served>>) {
        let current = self.current.load();
        let stays = |served: &&Arc<Served>| served.descriptor.builtin;
        let builtin = current.by_path.values().filter(stays).cloned();
        let mut registry = self.builtin.clone();
        custom.iter().for_each(|served| registry.insert(served.descriptor.clone()));
        let by_path = builtin.chain(custom).map(keyed).collect();
        let unserved = unserved.into_iter().map(keyed).collect();
        self.current.store(Arc::new(Current { registry: Arc::new(registry), by_path, unserved }));
    }

    /// The kind that shows the same objects in another version, served or not.
    pub fn sibling(&self, kind: &Served, api_version: &str) -> Option<Arc<Served>> {
        let core = if api_version.contains('/') { "" } else { "/" };
        let key = format!("{core}{api_version}/{}", kind.descriptor.plural);
        let current = self.current.load();
        let found = current.by_path.get(&key).or_else(|| current.unserved.get(&key));
        let group = kind.descriptor.storage_group();
        found.filter(|other| other.descriptor.storage_group() == group).cloned()
    }

    /// Finds the kind of a path, and checks that the path fits its scope.
    pub fn resolve(&self, resource: ResourceRef) -> Result<Target, ApiError> {
        let key = format!("{}/{}/{}", resource.group, resource.version, resource.plural);
        let kind = self.current.load().by_path.get(&key).ok_or_else(no_such_path)?.clone();
        let (namespace, name) = (resource.namespace.unwrap_or_default(), resource.name.unwrap_or_default());
        let namespaced = kind.descriptor.namespaced();
        if (!namespaced && !namespace.is_empty()) || (namespaced && namespace.is_empty() && !name.is_empty())
        {
            return Err(no_such_path());
        }
        let sub = match resource.subresource.filter(|sub| !sub.is_empty()) {
            None => None,
            Some(_) if name.is_empty() => return Err(no_such_path()),
            Some(sub) => Some(kind.subresource(&sub).ok_or_else(no_such_path)?),
        };
        Ok(Target { kind, namespace, name, sub, by: None, said: None })
    }

    /// The kind of that core plural, which every registry has.
    pub fn core(&self, plural: &str) -> Option<Arc<Served>> {
        self.current.load().by_path.get(&format!("/v1/{plural}")).cloned()
    }
}

fn keyed(served: Arc<Served>) -> (String, Arc<Served>) {
    let descriptor = &served.descriptor;
    (format!("{}/{}/{}", descriptor.group, descriptor.version, descriptor.plural), served)
}

impl Served {
    /// A kind whose objects are served as they are stored.
    pub fn new(descriptor: Arc<Descriptor>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self {
            api_version: descriptor.api_version(),
            plan: Plan::new(&descriptor),
            row: descriptor.row(),
            descriptor,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            form: None,
            twin: None,
            custom: None,
            term: None,
        }
    }

    /// Fills in what a manifest may leave out.
    pub fn fill_in(&self, object: &mut Value) {
        match &self.custom {
            Some(custom) => custom.fill_in(object),
            None => self.change_as_stored(object, defaults::apply),
        }
    }

    /// Keeps of an object what one in its place says nothing about.
    pub fn inherit(&self, old: &Value, new: &mut Value) {
        if self.custom.is_none() {
            defaults::inherit(&self.descriptor, old, new);
        }
    }

    /// Fills in what is not for the writer to say.
    pub fn admit(&self, object: &mut Value) {
        if self.custom.is_none() {
            defaults::admit(&self.descriptor, object);
        }
    }

    /// Puts the time of the write where it belongs and nobody said another.
    pub fn stamp(&self, old: Option<&Value>, new: &mut Value) {
        if self.custom.is_none() {
            defaults::stamp(&self.descriptor, old, new, || time_text(Timestamp::now()));
        }
    }

    /// What is wrong with a new object, or with one that replaces `old`.
    pub fn faults(&self, old: Option<&Value>, new: &Value) -> Vec<Cause> {
        let mut causes = match (&self.twin, old) {
            (Some(twin), old) => twin.faults(old, new),
            (None, None) => validation::create(&self.descriptor, new),
            (None, Some(old)) => validation::update(&self.descriptor, old, new),
        };
        if let Some(custom) = &self.custom {
            causes.extend(custom.faults(old, new));
        }
        causes
    }

    /// Whether a change asks for something else than before, which `metadata.generation` counts.
    pub fn is_wish(&self, old: &Value, new: &Value) -> bool {
        if self.descriptor.builtin {
            return validation::changes_what_is_wanted(old, new);
        }
        let has_status = self.has_status();
        let wish = |key: &str| key != "metadata" && !(key == "status" && has_status);
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return true };
        let counts = |object: &Map<String, Value>| object.keys().filter(|key| wish(key)).count();
        let kept = new.iter().filter(|(key, _)| wish(key)).all(|(key, value)| old.get(key) == Some(value));
        !kept || counts(old) != counts(new)
    }

    pub fn is_core(&self, plural: &str) -> bool {
        self.descriptor.group.is_empty() && self.descriptor.plural == plural
    }

    pub fn is_pod(&self) -> bool {
        self.is_core("pods")
    }

    pub fn is_namespace(&self) -> bool {
        self.is_core("namespaces")
    }

    pub fn is_definition(&self) -> bool {
        self.descriptor.plural == custom::DEFINITIONS && self.descriptor.group == custom::GROUP
    }

    /// Refuses to write by rules that are not those of the kind any more. What is given is to be kept until the write is
    /// committed: new rules count from a revision on, and what is older is brought into their form.
    pub fn writing(&self) -> Result<Option<TaskTrackerToken>, ApiError> {
        let Some(term) = &self.term else { return Ok(None) };
        let writing = term.writers.token();
        if !term.over.is_cancelled() {
            return Ok(Some(writing));
        }
        let kind = self.descriptor.qualified_plural();
        let why = format!("the definition of {kind} has just changed; try again");
        Err(ApiError::new(Reason::ServiceUnavailable, why))
    }

    pub fn has_status(&self) -> bool {
        self.descriptor.subresource("status").is_some()
    }

    fn subresource(&self, name: &str) -> Option<Sub> {
        use Sub::{
            Approval, Attach, Binding, EphemeralContainers, Eviction, Exec, Finalize, Log, PortForward,
            Scale, Status, Token,
        };
        self.descriptor.subresource(name)?;
        let all = [
            Approval,
            Attach,
            Binding,
            EphemeralContainers,
            Eviction,
            Exec,
            Finalize,
            Log,
            PortForward,
            Scale,
            Status,
            Token,
        ];
        all.into_iter().find(|sub| sub.name() == name)
    }

    pub fn key(&self, namespace: &str, name: &str) -> Key {
        Key::object(self.descriptor.storage_group(), &self.descriptor.plural, namespace, name)
    }

    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.descriptor.group, &self.descriptor.plural, name)
    }

    pub fn already_exists(&self, name: &str) -> ApiError {
        ApiError::already_exists(&self.descriptor.group, &self.descriptor.plural, name)
    }

    pub fn conflict(&self, name: &str, why: &str) -> ApiError {
        ApiError::conflict(&self.descriptor.group, &self.descriptor.plural, name, why)
    }

    pub fn modified(&self, name: &str) -> ApiError {
        self.conflict(
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn invalid(&self, name: &str, causes: Vec<Cause>) -> ApiError {
        ApiError::invalid(&self.descriptor.group, &self.descriptor.kind, name, causes)
    }

    pub fn forbidden(&self, name: &str, why: &str) -> ApiError {
        let message = format!("{} \"{name}\" is forbidden: {why}", self.descriptor.qualified_plural());
        ApiError::new(Reason::Forbidden, message).about(&self.descriptor.group, &self.descriptor.plural, name)
    }
}

impl Target {
    /// The same, asked for by somebody.
    pub fn asked_by(mut self, who: &Identity) -> Self {
        self.by = Some(who.clone());
        self
    }

    /// The same, as a write about which others may have something to say.
    pub fn heard(self) -> Self {
        Self { said: Some(Arc::default()), ..self }
    }

    /// Keeps warnings for the answer: each once, however often the write is tried.
    pub fn say(&self, warnings: &[String]) {
        let Some(said) = &self.said else { return };
        let mut all = said.0.lock();
        for warning in warnings {
            if !all.contains(warning) {
                all.push(warning.clone());
            }
        }
    }

    /// What was said, as far as headers carry it.
    pub fn warnings(&self) -> Vec<String> {
        self.said.as_ref().map_or_else(Vec::new, |said| body::told(std::mem::take(&mut said.0.lock())))
    }

    pub fn key(&self) -> Key {
        self.kind.key(&self.namespace, &self.name)
    }

    /// The path, for another look at what its asker may do.
    pub fn resource(&self) -> ResourceRef {
        let descriptor = &self.kind.descriptor;
        let resource = ResourceRef::collection(&descriptor.group, &descriptor.version, &descriptor.plural);
        let namespace = Some(self.namespace.clone()).filter(|namespace| !namespace.is_empty());
        ResourceRef { namespace, ..resource }.named(&self.name)
    }

    /// The range of a collection.
    pub fn prefix(&self) -> Key {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let descriptor = &self.kind.descriptor;
        Key::collection(descriptor.storage_group(), &descriptor.plural, namespace)
    }

    pub fn not_found(&self) -> ApiError {
        self.kind.not_found(&self.name)
    }

    pub fn modified(&self) -> ApiError {
        self.kind.modified(&self.name)
    }
}

pub(super) fn no_such_path() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// 405 for a verb that a path does not have.
pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_must_fit_the_scope_of_its_kind() {
        let kinds = Kinds::new(Registry::builtin());
        let pods = ResourceRef::collection("", "v1", "pods");
        let nodes = ResourceRef::collection("", "v1", "nodes");
        assert!(kinds.resolve(pods.clone()).is_ok());
        assert!(kinds.resolve(pods.clone().in_namespace("a").named("x")).is_ok());
        for wrong in [
            pods.clone().named("x"),
            nodes.clone().in_namespace("a"),
            nodes.clone().named("n").sub("log"),
            pods.sub("status"),
            ResourceRef::collection("apps", "v2", "deployments"),
        ] {
            let error = kinds.resolve(wrong.clone()).err().unwrap();
            assert_eq!(error.reason, Reason::NotFound, "{wrong:?}");
        }
    }

    #[test]
    fn a_key_says_where_its_object_is() {
        let key = Key::object("apps", "deployments", "ns", "web");
        assert_eq!(key.place(), ("ns", "web"));
        assert_eq!(Key::object("", "nodes", "", "n1").place(), ("", "n1"));
    }
}
