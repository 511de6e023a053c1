//! The folder of static pods: each file is one Pod, in YAML or JSON. Pure but for reading.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::ids::hex;

/// Says that a pod comes from a file, as the kubelet does.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Names the version of it; of a mirror, whose mirror it is.
const HASH: &str = "kubernetes.io/config.hash";
/// Marks the mirror of a static pod in the API.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a file was when it was last looked at.
type Parsed = Result<Pod, String>;

/// The files of a folder; one that cannot be read is an error, since nothing may be concluded from half of them. Names that begin with a dot are
/// for files that are being written.
pub fn read(folder: &Path, node: &str) -> io::Result<BTreeMap<PathBuf, Parsed>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.is_file() {
            match fs::read_to_string(&path) {
                Ok(text) => drop(found.insert(path.clone(), parse(&path, &text, node))),
                // Removed in this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// The pod of a file, as this node runs it: under a name of its own, and with a uid that says which file it is and what is in it.
fn parse(path: &Path, text: &str, node: &str) -> Parsed {
    let value: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if value["apiVersion"] != "v1" || value["kind"] != "Pod" {
        return Err("it is no v1 Pod".to_owned());
    }
    if let Some(what) = of_the_api(&value["spec"]) {
        return Err(format!("a static pod may not refer to what is in the API: {what}"));
    }
    let mut pod: Pod = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let metadata = &mut pod.metadata;
    let name = metadata.name.take().filter(|name| !name.is_empty());
    metadata.name = Some(format!("{}-{node}", name.ok_or("metadata.name is missing")?));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let identity = format!("{node}\n{}\n{text}", path.display());
    let uid = hex(&Sha256::digest(identity.as_bytes()))[..32].to_owned();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    annotations.insert(HASH.to_owned(), uid.clone());
    metadata.uid = Some(uid);
    metadata.deletion_timestamp = None;
    let spec = pod.spec.as_mut().filter(|spec| !spec.containers.is_empty());
    let spec = spec.ok_or("spec.containers is missing")?;
    spec.node_name = Some(node.to_owned());
    // It is part of the machine: no taint drives it away.
    let every = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    spec.tolerations.get_or_insert_default().push(every);
    pod.status = None;
    Ok(pod)
}

/// The first reference to an object of the API, which need not be there to be asked.
fn of_the_api(spec: &Value) -> Option<String> {
    const REFERENCES: [&str; 10] = [
        "configMap",
        "configMapKeyRef",
        "configMapRef",
        "imagePullSecrets",
        "persistentVolumeClaim",
        "secret",
        "secretKeyRef",
        "secretRef",
        "serviceAccountName",
        "serviceAccountToken",
    ];
    match spec {
        Value::Array(items) => items.iter().find_map(of_the_api),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let refers = REFERENCES.contains(&name.as_str()) && !value.is_null();
            if refers { Some(name.clone()) } else { of_the_api(value) }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";

    #[test]
    fn a_file_is_a_pod_of_this_node_with_a_uid_that_says_what_is_in_it() {
        let pod = parse(Path::new("/m/web.yaml"), WEB, "gpu-02").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-gpu-02"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("gpu-02"));
        let uid = |path: &str, text: &str| parse(Path::new(path), text, "gpu-02").unwrap().metadata.uid;
        assert_eq!(uid("/m/web.yaml", WEB), pod.metadata.uid);
        assert_ne!(uid("/m/web.yaml", &WEB.replace("image: i", "image: j")), pod.metadata.uid);
        assert_ne!(uid("/m/other.yaml", WEB), pod.metadata.uid);
    }

    #[test]
    fn what_cannot_run_without_a_server_is_refused() {
        let refused = |from: &str, to: &str| parse(Path::new("/m"), &WEB.replace(from, to), "n").unwrap_err();
        assert!(refused("kind: Pod", "kind: Job").contains("no v1 Pod"));
        assert!(refused("name: web", "labels: {}").contains("metadata.name"));
        assert!(refused("[{name: c, image: i}]", "[]").contains("spec.containers"));
        let why = refused("image: i", "image: i, envFrom: [{secretRef: {name: s}}]");
        assert!(why.contains("secretRef"), "{why}");
        assert!(refused("spec: {", "spec: {serviceAccountName: a, ").contains("serviceAccountName"));
    }

    #[test]
    fn files_that_are_being_written_are_left_out_and_broken_ones_are_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("web.yaml", WEB), (".web.yaml.swp", WEB), ("broken.yaml", "{")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let found = read(folder.path(), "n").unwrap();
        let names: Vec<_> = found.keys().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["broken.yaml", "web.yaml"]);
        assert!(found[&folder.path().join("broken.yaml")].is_err());
        assert!(read(&folder.path().join("nothing"), "n").is_err());
    }
}
