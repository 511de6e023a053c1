//! What every namespace has for the pods in it: the service account `default`, and the config map `kube-root-ca.crt`,
//! by which a pod knows the API server.
//!
//! Must never know: tokens, pods.

use std::{sync::Arc, time::Duration};

use claw_client::{Delta, Reflector, Store, api::Object};
use claw_runtime::{Action, Runtime, queue::Queue, readiness::Need};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};
use tracing::warn;

/// Its name among the controllers.
const CONTROLLER: &str = "service-accounts";

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
/// Tells people who find the map what it is. Kubernetes' words, by which tools recognise it.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

/// Namespaces worked on at the same time: each takes two small writes, once.
const WORKERS: usize = 4;

/// Waiting for a namespace whose objects the caches do not show yet, after they were made.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The objects by namespace, as the caches show them.
#[derive(Clone)]
struct Caches {
    namespaces: Store<Namespace>,
    accounts: Store<ServiceAccount>,
    maps: Store<ConfigMap>,
}

/// Runs the controller until the runtime is cancelled. Without a root certificate there are accounts only.
pub async fn run(runtime: Runtime, root_ca: Option<Arc<str>>) {
    let queue = Arc::new(Queue::counted(runtime.env.clone(), runtime.figures.of(CONTROLLER)));
    // Only the objects of these names: a cluster has tens of thousands of other config maps.
    let accounts =
        Reflector::new(&runtime.client.all::<ServiceAccount>()).fields(format!("metadata.name={ACCOUNT}"));
    let maps = Reflector::new(&runtime.client.all::<ConfigMap>()).fields(format!("metadata.name={ROOT_CA}"));
    let namespaces = runtime.caches.of::<Namespace>();
    let caches = Caches { namespaces, accounts: accounts.store(), maps: maps.store() };
    on_change(&caches.namespaces, &queue, |meta| meta.name.clone());
    on_change(&caches.accounts, &queue, |meta| meta.namespace.clone());
    on_change(&caches.maps, &queue, |meta| meta.namespace.clone());
    let cancel = runtime.cancel.clone();
    let worker = Worker { runtime, queue, caches, root_ca };
    let work = async {
        if worker.synced().await {
            worker.queue.work(&cancel, WORKERS, |name| worker.process(name)).await;
        }
    };
    tokio::join!(accounts.run(cancel.clone()), maps.run(cancel.clone()), work);
}

fn on_change<K: Object>(
    store: &Store<K>,
    queue: &Arc<Queue<String>>,
    key: fn(&ObjectMeta) -> Option<String>,
) {
    let queue = Arc::clone(queue);
    store.subscribe(move |delta| match delta {
        Delta::Applied { new: object, .. } | Delta::Deleted { last: object } => {
            key(object.metadata()).into_iter().for_each(|key| queue.add(key));
        }
        Delta::Synced => {}
    });
}

struct Worker {
    runtime: Runtime,
    queue: Arc<Queue<String>>,
    caches: Caches,
    root_ca: Option<Arc<str>>,
}

impl Worker {
    async fn synced(&self) -> bool {
        let Caches { namespaces, accounts, maps } = &self.caches;
        let needs = vec![Need::of(namespaces), Need::of(accounts), Need::of(maps)];
        self.runtime.readiness.all(&self.runtime.env, CONTROLLER, needs).await
    }

    async fn process(&self, name: String) {
        let Some(namespace) = self.caches.namespaces.get("", &name) else { return };
        let account = self.caches.accounts.get(&name, ACCOUNT);
        let map = self.caches.maps.get(&name, ROOT_CA);
        let actions = plan(&namespace, account.is_some(), map.as_deref(), self.root_ca.as_deref());
        if actions.is_empty() {
            self.queue.forget(&name);
            return;
        }
        match self.runtime.execute(&actions).await {
            Ok(()) => self.queue.add_after(name, LOOK_AGAIN),
            // The caches are a moment behind what was made.
            Err(failure) if failure.is_stale() => self.queue.add_after(name, LOOK_AGAIN),
            Err(failure) => {
                let delay = self.queue.retry(name.clone());
                warn!(namespace = name, %failure, ?delay, "cannot make what the namespace needs, will try again");
            }
        }
    }
}

/// What a namespace lacks. One that is being emptied lacks nothing.
fn plan(
    namespace: &Namespace,
    has_account: bool,
    map: Option<&ConfigMap>,
    root_ca: Option<&str>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_some() {
        return actions;
    }
    if !has_account {
        let metadata = metadata(name, ACCOUNT);
        actions.push(Action::create(&ServiceAccount { metadata, ..ServiceAccount::default() }));
    }
    let Some(root_ca) = root_ca else { return actions };
    let data = json!({ROOT_CA_KEY: root_ca});
    match map {
        None => {
            let mut metadata = metadata(name, ROOT_CA);
            metadata.annotations = Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into());
            let data = Some([(ROOT_CA_KEY.to_owned(), root_ca.to_owned())].into());
            actions.push(Action::create(&ConfigMap { metadata, data, ..ConfigMap::default() }));
        }
        Some(map) if json!(map.data) != data => {
            // What others put beside it goes: a patch that leaves it would be planned for ever.
            let others = map.data.iter().flatten().map(|(key, _)| (key.clone(), Value::Null));
            let mut changed: serde_json::Map<_, _> = others.collect();
            changed.insert(ROOT_CA_KEY.to_owned(), root_ca.into());
            actions.push(Action::merge(map, json!({"data": changed})));
        }
        Some(_) => {}
    }
    actions
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn namespace() -> Namespace {
        Namespace {
            metadata: ObjectMeta { name: Some("team".into()), ..ObjectMeta::default() },
            ..Namespace::default()
        }
    }

    fn told(actions: &[Action]) -> Vec<String> {
        actions.iter().map(ToString::to_string).collect()
    }

    fn map(text: &str) -> ConfigMap {
        let data = Some([(ROOT_CA_KEY.to_owned(), text.to_owned())].into());
        ConfigMap { metadata: metadata("team", ROOT_CA), data, ..ConfigMap::default() }
    }

    #[test]
    fn a_namespace_gets_what_it_lacks() {
        let made = told(&plan(&namespace(), false, None, Some("PEM")));
        assert_eq!(made, ["create serviceaccounts team/default", "create configmaps team/kube-root-ca.crt"]);
        assert!(plan(&namespace(), true, Some(&map("PEM")), Some("PEM")).is_empty());
        assert_eq!(told(&plan(&namespace(), false, None, None)), ["create serviceaccounts team/default"]);
    }

    #[test]
    fn a_certificate_that_is_not_right_is_put_right() {
        assert_eq!(
            told(&plan(&namespace(), true, Some(&map("OLD")), Some("PEM"))),
            [r#"patch configmaps team/kube-root-ca.crt {"data":{"ca.crt":"PEM"}}"#]
        );
    }

    #[test]
    fn what_others_put_beside_the_certificate_is_taken_out() {
        let mut shared = map("PEM");
        shared.data.get_or_insert_default().insert("other".to_owned(), "x".to_owned());
        assert_eq!(
            told(&plan(&namespace(), true, Some(&shared), Some("PEM"))),
            [r#"patch configmaps team/kube-root-ca.crt {"data":{"ca.crt":"PEM","other":null}}"#]
        );
    }

    #[test]
    fn a_namespace_that_goes_gets_nothing() {
        let mut going = namespace();
        going.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert!(plan(&going, false, None, Some("PEM")).is_empty());
    }
}
