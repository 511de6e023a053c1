//! Reads manifests: files, folders and stdin, YAML or JSON, several documents each.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use claw_client::ResourceRef;
use claw_schemas::{Descriptor, yaml};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::session::{Session, text};

/// Names of files that are read out of a folder.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Where manifests come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Files {
    /// File or folder with manifests, or "-" for stdin; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub paths: Vec<PathBuf>,
    /// Look into folders within folders too
    #[arg(short = 'R', long, requires = "paths")]
    pub recursive: bool,
}

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// File and document, for messages.
    pub source: String,
    pub object: Value,
}

/// A manifest matched with its kind and place.
pub struct Placed {
    pub source: String,
    pub kind: Arc<Descriptor>,
    pub object: Value,
    pub resource: ResourceRef,
}

impl Files {
    /// Every object, in the order of files, documents and list items.
    pub fn read(&self) -> anyhow::Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for path in &self.paths {
            if path.as_os_str() == "-" {
                let mut input = String::new();
                std::io::stdin().read_to_string(&mut input).context("reading stdin")?;
                manifests.extend(parse("stdin", &input)?);
                continue;
            }
            if let Some(url) = path.to_str().filter(|path| path.contains("://")) {
                bail!(
                    "{url} is not fetched from here: download it, as in `curl -fsSL {url} | clawbernetes apply -f -`"
                );
            }
            let metadata = fs::metadata(path).with_context(|| format!("the path {}", path.display()))?;
            let files = if metadata.is_dir() { self.folder(path)? } else { vec![path.clone()] };
            for file in files {
                let input =
                    fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
                manifests.extend(parse(&file.display().to_string(), &input)?);
            }
        }
        if manifests.is_empty() {
            bail!("no objects in {}", list(&self.paths));
        }
        Ok(manifests)
    }

    /// The same, matched with kinds and placed into namespaces.
    pub fn place(&self, session: &Session) -> anyhow::Result<Vec<Placed>> {
        self.read()?.into_iter().map(|manifest| manifest.place(session)).collect()
    }

    fn folder(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if self.recursive {
                    files.extend(self.folder(&path)?);
                }
            } else if path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known)) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Every object of a text; lists are taken apart.
fn parse(source: &str, input: &str) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for (i, document) in yaml::documents(input).enumerate() {
        let source = if i == 0 { source.to_owned() } else { format!("{source}, document {}", i + 1) };
        let value = document
            .and_then(|document| Value::deserialize(&document))
            .with_context(|| format!("error parsing {source}"))?;
        match value {
            Value::Null => {}
            Value::Object(_) => take(&source, value, &mut manifests)?,
            _ => bail!("{source} is not an object: a manifest is a map with apiVersion, kind and metadata"),
        }
    }
    Ok(manifests)
}

fn take(source: &str, mut value: Value, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    if text(&value, "/kind").ends_with("List")
        && let Value::Array(items) = value["items"].take()
    {
        for (i, item) in items.into_iter().enumerate() {
            take(&format!("{source}, item {}", i + 1), item, manifests)?;
        }
        return Ok(());
    }
    for field in ["apiVersion", "kind"] {
        if value[field].as_str().is_none_or(str::is_empty) {
            bail!("{source}: {field} is not set");
        }
    }
    manifests.push(Manifest { source: source.to_owned(), object: value });
    Ok(())
}

impl Manifest {
    /// `apiVersion` and `kind`.
    pub fn type_meta(&self) -> (&str, &str) {
        (text(&self.object, "/apiVersion"), text(&self.object, "/kind"))
    }

    /// Matches it with its kind, and places it into a namespace.
    pub fn place(self, session: &Session) -> anyhow::Result<Placed> {
        let (api_version, kind) = self.type_meta();
        let kind = session.kind(api_version, kind).with_context(|| self.source.clone())?;
        place(session, self, kind)
    }
}

fn place(session: &Session, manifest: Manifest, kind: Arc<Descriptor>) -> anyhow::Result<Placed> {
    let Manifest { source, mut object } = manifest;
    let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty()) else {
        bail!("{source}: metadata.name is not set");
    };
    let name = name.to_owned();
    let namespace = text(&object, "/metadata/namespace").to_owned();
    if !kind.namespaced() {
        let resource = Session::collection(&kind, None).named(&name);
        return Ok(Placed { source, kind, object, resource });
    }
    if namespace.is_empty() {
        object["metadata"]["namespace"] = json!(session.namespace);
    } else if session.namespace_given && namespace != session.namespace {
        bail!(
            "{source}: the object names namespace \"{namespace}\", but -n names \"{}\": use one of them",
            session.namespace
        );
    }
    let namespace = if namespace.is_empty() { session.namespace.clone() } else { namespace };
    let resource = Session::collection(&kind, Some(&namespace)).named(&name);
    Ok(Placed { source, kind, object, resource })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(input: &str) -> anyhow::Result<Vec<String>> {
        Ok(parse("f.yaml", input)?.iter().map(|m| text(&m.object, "/metadata/name").to_owned()).collect())
    }

    #[test]
    fn documents_lists_and_json_are_taken_apart() {
        let input = "\
---
# nothing here
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: b}}
- {apiVersion: v1, kind: Secret, metadata: {name: c}}
...
";
        assert_eq!(names(input).unwrap(), ["a", "b", "c"]);
        let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d"}}"#;
        assert_eq!(names(json).unwrap(), ["d"]);
        assert_eq!(names(&format!("\u{feff}{json}")).unwrap(), ["d"]);
        assert_eq!(names("kind: Pod\r\napiVersion: v1\r\nmetadata:\r\n  name: e\r\n").unwrap(), ["e"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_document() {
        for (input, expected) in [
            ("a: [", "error parsing f.yaml"),
            ("kind: Pod", "f.yaml: apiVersion is not set"),
            ("{apiVersion: v1, kind: Pod}\n---\n{apiVersion: v1}", "f.yaml, document 2: kind is not set"),
            ("- a\n- b", "f.yaml is not an object"),
            ("{apiVersion: v1, kind: List, items: [{kind: Pod}]}", "f.yaml, item 1: apiVersion"),
        ] {
            let error = format!("{:#}", names(input).unwrap_err());
            assert!(error.contains(expected), "{input}: {error}");
        }
    }

    #[test]
    fn folders_are_read_in_order_and_only_manifests_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, object: &str| {
            let text = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {object}}}}}");
            fs::write(folder.path().join(name), text).unwrap();
        };
        fs::create_dir(folder.path().join("deeper")).unwrap();
        write("b.yml", "two");
        write("a.yaml", "one");
        write("notes.txt", "none");
        write("deeper/c.json", "three");
        let read = |recursive| {
            let files = Files { paths: vec![folder.path().to_owned()], recursive };
            let manifests = files.read().unwrap();
            manifests.iter().map(|m| text(&m.object, "/metadata/name").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(read(false), ["one", "two"]);
        assert_eq!(read(true), ["one", "two", "three"]);
    }
}
