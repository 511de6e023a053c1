//! What verbs write: data on stdout, words on stderr, and how objects look as JSON, YAML or names.

use std::{
    io::{self, Write as _},
    str::FromStr,
};

use claw_schemas::{Descriptor, yaml};
use serde_json::{Value, json};

use super::session::{short_name, text};

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            other => Err(format!("\"{other}\" is not an output format: use json, yaml, name or wide")),
        }
    }
}

impl Format {
    /// Whether the server renders rows for it.
    pub fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// One object on its own. Tables are the printer's.
    pub fn one(self, kind: &Descriptor, object: &Value) -> anyhow::Result<String> {
        Ok(match self {
            Self::Json => format!("{}\n", serde_json::to_string_pretty(object)?),
            Self::Yaml => yaml::to_string(object),
            Self::Name | Self::Table | Self::Wide => {
                format!("{}\n", short_name(kind, text(object, "/metadata/name")))
            }
        })
    }

    /// Several objects, as one list.
    pub fn many(self, objects: &[(&Descriptor, Value)]) -> anyhow::Result<String> {
        if self == Self::Name {
            return objects.iter().map(|(kind, object)| self.one(kind, object)).collect();
        }
        let items: Vec<&Value> = objects.iter().map(|(_, object)| object).collect();
        let list = json!({
            "apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items,
        });
        Ok(match self {
            Self::Yaml => yaml::to_string(&list),
            _ => format!("{}\n", serde_json::to_string_pretty(&list)?),
        })
    }
}

/// Bookkeeping of writers that nobody reads: kubectl leaves it out too.
pub fn without_managed_fields(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Writes data. The reader may have gone (`| head`); that is told apart by [`is_broken_pipe`].
pub fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes raw data.
pub fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Whether a verb ended because nobody reads its output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;

    use super::*;

    #[test]
    fn objects_print_as_names_json_and_yaml() {
        let registry = Registry::builtin();
        let kind = registry.named("deploy").unwrap();
        let object = json!({"kind": "Deployment", "metadata": {"name": "web"}});
        assert_eq!(Format::Name.one(kind, &object).unwrap(), "deployment.apps/web\n");
        assert_eq!(Format::Yaml.one(kind, &object).unwrap(), "kind: Deployment\nmetadata:\n  name: web\n");
        let list = Format::Json.many(&[(kind, object)]).unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!(
            (list["kind"].as_str(), list["items"][0]["metadata"]["name"].as_str()),
            (Some("List"), Some("web"))
        );
        assert!("tabel".parse::<Format>().unwrap_err().contains("use json, yaml, name or wide"));
    }

    #[test]
    fn a_gone_reader_is_told_apart_from_other_faults() {
        let gone = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&gone));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
