//! Pods run as a service account: which one, with what token, and with whose rights to pull images.
//!
//! The account `default` need not be there yet when a pod is made: its controller is a moment behind, and the node waits
//! for it. Any other must be.

use claw_schemas::ApiError;
use serde_json::{Value, json};

use super::{
    ObjectService, encode,
    kinds::Target,
    object::{self, text},
};
use crate::{auth, store::Key};

const DEFAULT_ACCOUNT: &str = "default";

/// Where a container finds its token: every client library looks there.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What names of token volumes begin with.
const VOLUME_PREFIX: &str = "kube-api-access-";

/// Life of a mounted token: an hour, and seven seconds by which upstream tells such tokens from others.
const TOKEN_SECONDS: i64 = 3_607;

/// Permissions of the files: 0644.
const FILE_MODE: i64 = 0o644;

/// Marks a pod that a node runs by itself, and which so is nobody here. Said by anybody else it means nothing.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

impl ObjectService {
    /// Completes a new pod by what it has as an account.
    pub(super) async fn admit_account(&self, target: &Target, pod: &mut Value) -> Result<(), ApiError> {
        if !target.kind.is_pod() {
            return Ok(());
        }
        if is_mirror(target, pod) {
            let refused = refusal(&pod["spec"]).map(|why| target.kind.forbidden(text(pod, "name"), why));
            return refused.map_or(Ok(()), Err);
        }
        let name = account_name(&pod["spec"]);
        let key = Key::object("", "serviceaccounts", &target.namespace, &name);
        let account = match self.find(&key).await? {
            Some(record) => encode::value_of(&record)?,
            None if name == DEFAULT_ACCOUNT => Value::Null,
            None => {
                let why = format!(
                    "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                    target.namespace
                );
                return Err(target.kind.forbidden(text(pod, "name"), &why));
            }
        };
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        for field in ["serviceAccount", "serviceAccountName"] {
            spec.insert(field.to_owned(), name.as_str().into());
        }
        let pull = &account["imagePullSecrets"];
        if is_empty(spec.get("imagePullSecrets").unwrap_or(&Value::Null)) && !is_empty(pull) {
            spec.insert("imagePullSecrets".to_owned(), pull.clone());
        }
        if wants_token(&pod["spec"], &account) {
            mount_token(&mut pod["spec"], &object::generate_name(VOLUME_PREFIX)?);
        }
        Ok(())
    }
}

fn is_mirror(target: &Target, pod: &Value) -> bool {
    let is_of_node = target.by.as_ref().is_some_and(|who| who.node().is_some());
    is_of_node && !pod["metadata"]["annotations"][MIRROR].is_null()
}

/// Why a pod cannot be the image of one that a node runs by itself: what such a pod uses is on the node.
fn refusal(spec: &Value) -> Option<&'static str> {
    if ["serviceAccountName", "serviceAccount"]
        .iter()
        .any(|field| spec[field].as_str().is_some_and(|name| !name.is_empty()))
    {
        return Some("a mirror pod may not reference service accounts");
    }
    if auth::refers_to_secrets(spec) {
        return Some("a mirror pod may not reference secrets");
    }
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let mut sources =
        volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    let has_token = sources.any(|source| !source["serviceAccountToken"].is_null());
    has_token.then_some("a mirror pod may not use service account token projections")
}

fn account_name(spec: &Value) -> String {
    let mut named =
        ["serviceAccountName", "serviceAccount"].into_iter().filter_map(|field| spec[field].as_str());
    named.find(|name| !name.is_empty()).unwrap_or(DEFAULT_ACCOUNT).to_owned()
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

/// The pod decides, then its account.
fn wants_token(spec: &Value, account: &Value) -> bool {
    let field = "automountServiceAccountToken";
    spec[field].as_bool().or(account[field].as_bool()).unwrap_or(true)
}

/// Mounts a token into every container that has nothing in its place. A volume that was made for it before serves the
/// containers that somebody added since.
fn mount_token(spec: &mut Value, volume: &str) {
    let made = token_volume_of(spec);
    let volume = made.as_deref().unwrap_or(volume);
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        // Indexing would leave a null where there is no such list.
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != TOKEN_FOLDER) {
                mounts.push(json!({"name": volume, "mountPath": TOKEN_FOLDER, "readOnly": true}));
                mounted = true;
            }
        }
    }
    let Some(spec) = spec.as_object_mut().filter(|_| mounted && made.is_none()) else { return };
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(token_volume(volume));
    }
}

/// The name of a pod's volume with its token.
fn token_volume_of(spec: &Value) -> Option<String> {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let mut names = volumes.filter_map(|volume| volume["name"].as_str());
    names.find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
}

/// A token, the certificate to know the server by, and the namespace.
fn token_volume(name: &str) -> Value {
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({"name": name, "projected": {"defaultMode": FILE_MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_decides_about_its_token_before_its_account() {
        let (yes, no) =
            (json!({"automountServiceAccountToken": true}), json!({"automountServiceAccountToken": false}));
        for (pod, account, expected) in [
            (&Value::Null, &Value::Null, true),
            (&Value::Null, &no, false),
            (&yes, &no, true),
            (&no, &yes, false),
        ] {
            assert_eq!(wants_token(pod, account), expected, "{pod} {account}");
        }
    }

    #[test]
    fn a_container_with_something_in_its_place_gets_no_token() {
        let own = json!({"name": "mine", "mountPath": TOKEN_FOLDER});
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [own]}]});
        mount_token(&mut spec, "kube-api-access-x");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-x");
        assert_eq!(spec["containers"][1]["volumeMounts"], json!([own]));
        assert_eq!(spec["volumes"][0]["name"], "kube-api-access-x");
        spec["containers"][1] = json!({"name": "c"});
        mount_token(&mut spec, "kube-api-access-y");
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "kube-api-access-x");
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 1);
        let only = json!({"containers": [{"name": "b", "volumeMounts": [own]}]});
        let mut spec = only.clone();
        mount_token(&mut spec, "kube-api-access-x");
        assert_eq!(spec, only);
    }

    #[test]
    fn either_spelling_names_the_account() {
        assert_eq!(account_name(&json!({})), "default");
        assert_eq!(account_name(&json!({"serviceAccount": "old"})), "old");
        assert_eq!(account_name(&json!({"serviceAccountName": "new", "serviceAccount": "old"})), "new");
    }
}
