//! What registries and archives say about images: indexes, manifests and configurations, of the OCI and of docker.
//!
//! Only the fields that matter here, and read as tolerantly as they are written in the field.
//! Source: the image specification of the OCI, and docker's "Image Manifest V 2, Schema 2".

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use super::Digest;
use crate::Error;

/// What is asked for, best first.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Longest manifest or configuration. docker.io refuses manifests over 4 MiB.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Most layers of an image: docker makes at most 127, and the kernel stacks at most 500.
pub(super) const LAYERS_MAX: usize = 256;

/// A content, by digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub digest: Digest,
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// What a machine must be to run an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    pub variant: Option<String>,
}

impl Platform {
    /// Of this machine.
    pub(super) fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    fn shown(&self) -> String {
        let variant = self.variant.iter().map(|variant| format!("/{variant}")).collect::<String>();
        format!("{}/{}{variant}", self.os, self.architecture)
    }
}

/// A configuration and layers, bottom first.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// What stands behind a reference.
#[derive(Debug)]
pub(super) enum Document {
    /// One image a platform.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// Reads a document.
pub(super) fn read(text: &[u8]) -> Result<Document, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Either {
        schema_version: Option<u32>,
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
    }
    let either: Either = parse("manifest", text)?;
    match (either.schema_version, either.manifests, either.config, either.layers) {
        (Some(1), ..) => Err(refused(
            "the registry has it only in docker's schema 1, which is no longer used: build it anew"
                .to_owned(),
        )),
        // What is both could be one thing to whoever signed it and another here.
        (_, Some(_), Some(_), _) | (_, Some(_), _, Some(_)) => {
            Err(refused("its manifest claims to be an index as well".to_owned()))
        }
        (_, Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (_, None, Some(config), Some(layers)) if layers.len() <= LAYERS_MAX => {
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        (_, None, Some(_), Some(layers)) => {
            Err(refused(format!("it has {} layers, more than {LAYERS_MAX}", layers.len())))
        }
        _ => Err(refused("its manifest is neither of an image nor of an index of images".to_owned())),
    }
}

/// The image of an index that runs on a platform.
pub(super) fn choose<'a>(index: &'a [Descriptor], here: &Platform) -> Result<&'a Descriptor, Error> {
    let fits = |platform: &Platform| {
        (&platform.os, &platform.architecture) == (&here.os, &here.architecture)
            // Of 64 bit ARM there is one that everybody means.
            && matches!(platform.variant.as_deref(), None | Some("" | "v8"))
    };
    let named = || index.iter().filter_map(|one| one.platform.as_ref().map(|platform| (one, platform)));
    if let Some((found, _)) = named().find(|(_, platform)| fits(platform)) {
        return Ok(found);
    }
    // An index of one image without a platform, as builders of archives write it.
    if let [only] = index
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let offered: Vec<String> =
        named().map(|(_, platform)| platform.shown()).filter(|shown| shown != "unknown/unknown").collect();
    let message = format!("no image for {}; there are: {}", here.shown(), offered.join(", "));
    Err(refused(message))
}

/// How an image wants to be run, and what it is made of.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ConfigFile {
    #[serde(default)]
    pub config: Option<Settings>,
    pub rootfs: Rootfs,
}

/// The layers, as they are without compression, bottom first.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rootfs {
    #[serde(default, deserialize_with = "or_none")]
    pub diff_ids: Vec<Digest>,
}

/// Go writes lists of nothing as `null`.
fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(text: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(text)?.unwrap_or_default())
}

/// How an image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Settings {
    /// `name`, `uid`, and either with `:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `NAME=value` each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// What a container's `command` replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// What a container's `args` replace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Where it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `SIGQUIT` or `3`: what asks it to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// Reads the configuration that belongs to a manifest of so many layers.
pub(super) fn read_config(text: &[u8], layers: usize) -> Result<ConfigFile, Error> {
    let config: ConfigFile = parse("configuration", text)?;
    if config.rootfs.diff_ids.len() != layers {
        let named = config.rootfs.diff_ids.len();
        return Err(refused(format!("its manifest names {layers} layers, its configuration {named}")));
    }
    Ok(config)
}

/// Parses JSON, or says of what it is none.
pub(super) fn parse<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| refused(format!("its {what} does not parse: {error}")))
}

fn refused(why: String) -> Error {
    Error::Image(why)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(content: &str, platform: Value) -> Value {
        json!({"mediaType": "m", "size": 1, "digest": Digest::of(content.as_bytes()), "platform": platform})
    }

    fn index(entries: &[Value]) -> Vec<Descriptor> {
        let text = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        match read(text.as_bytes()).unwrap() {
            Document::Index(index) => index,
            other => panic!("{other:?}"),
        }
    }

    fn amd64() -> Platform {
        Platform { architecture: "amd64".to_owned(), os: "linux".to_owned(), variant: None }
    }

    #[test]
    fn the_image_of_this_platform_is_chosen_from_an_index() {
        let all = index(&[
            entry("arm", json!({"os": "linux", "architecture": "arm64", "variant": "v8"})),
            entry("windows", json!({"os": "windows", "architecture": "amd64"})),
            entry("provenance", json!({"os": "unknown", "architecture": "unknown"})),
            entry("intel", json!({"os": "linux", "architecture": "amd64"})),
        ]);
        assert_eq!(choose(&all, &amd64()).unwrap().digest, Digest::of(b"intel"));
        let arm = Platform { architecture: "arm64".to_owned(), ..amd64() };
        assert_eq!(choose(&all, &arm).unwrap().digest, Digest::of(b"arm"));
    }

    #[test]
    fn an_index_without_this_platform_says_what_it_has() {
        let all = index(&[
            entry("arm", json!({"os": "linux", "architecture": "arm", "variant": "v7"})),
            entry("provenance", json!({"os": "unknown", "architecture": "unknown"})),
        ]);
        let error = choose(&all, &amd64()).unwrap_err().to_string();
        assert_eq!(error, "no image for linux/amd64; there are: linux/arm/v7");
        let only = index(&[entry("only", Value::Null)]);
        assert_eq!(choose(&only, &amd64()).unwrap().digest, Digest::of(b"only"));
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let one = entry("c", Value::Null);
        for (document, complaint) in [
            (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
            (json!({"manifests": [], "config": one, "layers": []}), "as well"),
            (json!({"config": one, "layers": vec![one.clone(); LAYERS_MAX + 1]}), "layers"),
            (json!({"layers": []}), "neither"),
            (json!({"config": {"digest": "md5:1", "size": 1}, "layers": []}), "no digest"),
            (json!([]), "does not parse"),
        ] {
            let error = read(document.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.contains(complaint), "{document}: {error}");
        }
    }

    #[test]
    fn a_configuration_names_as_many_layers_as_its_manifest() {
        let text = json!({"architecture": "amd64", "config": {"Env": null, "Cmd": ["a"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"")]}})
        .to_string();
        let config = read_config(text.as_bytes(), 1).unwrap();
        assert_eq!(config.config.unwrap().cmd, Some(vec!["a".to_owned()]));
        assert!(read_config(text.as_bytes(), 2).unwrap_err().to_string().contains("2 layers"));
    }
}
