//! `explain`: what a kind or a field of it is for, from the server's own description.
//!
//! Source of the descriptions: OpenAPI v3. The form is that of `kubectl explain`.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, bail};
use claw_schemas::{ApiError, Descriptor};
use serde::Deserialize;
use serde_json::Value;

use super::{context::Context, output::print, session::Session};

/// Width of a description: a line of a terminal without the indentation.
const WIDTH: usize = 76;

/// What a description is indented by.
const INDENT: &str = "    ";

/// Fields within fields that `--recursive` shows: no kind but that of schemas has more, which has no end.
const DEPTH_MAX: usize = 32;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// TYPE or TYPE.FIELD.FIELD, such as `pod.spec.containers`
    path: String,
    /// Version of the kind, such as apps/v1 (default: the one that the server prefers)
    #[arg(long, value_name = "GROUP/VERSION")]
    api_version: Option<String>,
    /// Show the names of all fields below
    #[arg(long)]
    recursive: bool,
}

pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let session = context.discovered().await?;
    let (kind, fields) = find(&session, &args)?;
    let schemas = Schemas::ask(&session, &kind).await?;
    let text = schemas.explain(&kind, &fields, args.recursive)?;
    Ok(print(&text)?)
}

/// The kind, and the names of the fields that lead on from it. Names of kinds may hold dots too: the longest counts.
fn find(session: &Session, args: &Args) -> anyhow::Result<(std::sync::Arc<Descriptor>, Vec<String>)> {
    let words: Vec<&str> = args.path.split('.').collect();
    let known = |length: &usize| session.registry.named(&words[..*length].join("."));
    let Some(length) = (1..=words.len()).rev().find(|length| known(length).is_some()) else {
        bail!("the server doesn't have a resource type \"{}\"", words[0]);
    };
    let Some(kind) = known(&length) else { bail!("the kind is gone") };
    let fields = words[length..].iter().map(|word| (*word).to_owned()).collect();
    match &args.api_version {
        None => Ok((kind.clone(), fields)),
        Some(version) => Ok((session.kind(version, &kind.kind)?, fields)),
    }
}

/// The schemas of one version of a group, by their names.
struct Schemas(BTreeMap<String, Value>);

#[derive(Deserialize)]
struct Index {
    paths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "serverRelativeURL")]
    url: String,
}

#[derive(Deserialize)]
struct Document {
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: BTreeMap<String, Value>,
}

/// A place in a schema.
#[derive(Clone, Copy)]
struct Field<'s> {
    schemas: &'s Schemas,
    schema: &'s Value,
}

impl Schemas {
    async fn ask(session: &Session, kind: &Descriptor) -> anyhow::Result<Self> {
        let unread = |error| ApiError::internal(format!("the server's description does not parse: {error}"));
        let index = session.http.get_raw("/openapi/v3").await?.body;
        let mut index: Index = serde_json::from_slice(&index).map_err(unread)?;
        let root = if kind.group.is_empty() { "api" } else { "apis" };
        let path = format!("{root}/{}", kind.api_version());
        let entry = index.paths.remove(&path);
        let entry = entry.with_context(|| format!("the server does not describe {}", kind.api_version()))?;
        let document = session.http.get_raw(&entry.url).await?.body;
        let document: Document = serde_json::from_slice(&document).map_err(unread)?;
        Ok(Self(document.components.schemas))
    }

    fn explain(&self, kind: &Descriptor, fields: &[String], recursive: bool) -> anyhow::Result<String> {
        let mut text = String::new();
        if !kind.group.is_empty() {
            let _ = writeln!(text, "GROUP:      {}", kind.group);
        }
        let _ = write!(text, "KIND:       {}\nVERSION:    {}\n\n", kind.kind, kind.version);
        let mut field = self.root(kind)?;
        for name in fields {
            field = field.below(name).with_context(|| format!("field \"{name}\" does not exist"))?;
        }
        if let Some(name) = fields.last() {
            let _ = writeln!(text, "FIELD: {name} <{}>", field.type_name());
            text.push_str(&field.enumeration());
            text.push('\n');
        }
        text.push_str(&field.description());
        text.push_str(&field.fields(recursive));
        text.push('\n');
        Ok(text)
    }

    fn root(&self, kind: &Descriptor) -> anyhow::Result<Field<'_>> {
        let is_it = |schema: &&Value| {
            let named = schema["x-kubernetes-group-version-kind"].as_array();
            named.into_iter().flatten().any(|named| {
                named["group"] == *kind.group
                    && named["version"] == *kind.version
                    && named["kind"] == *kind.kind
            })
        };
        let schema = self.0.values().find(is_it);
        let schema = schema.with_context(|| format!("the server does not describe {}", kind.kind))?;
        Ok(Field { schemas: self, schema })
    }
}

impl<'s> Field<'s> {
    /// Name of the schema that this place refers to.
    fn reference(self) -> Option<&'s str> {
        let refers = |schema: &'s Value| schema["$ref"].as_str();
        let reference =
            refers(self.schema).or_else(|| self.schema["allOf"].as_array()?.iter().find_map(refers));
        reference?.rsplit('/').next()
    }

    fn at(self, schema: &'s Value) -> Self {
        Self { schema, ..self }
    }

    /// What this place refers to, or itself.
    fn resolved(self) -> Self {
        let referred = self.reference().and_then(|name| self.schemas.0.get(name));
        referred.map_or(self, |schema| self.at(schema))
    }

    /// What a list or a map holds, or itself.
    fn element(self) -> Self {
        let resolved = self.resolved();
        let inner = [&resolved.schema["items"], &resolved.schema["additionalProperties"]];
        inner.into_iter().find(|inner| inner.is_object()).map_or(resolved, |inner| self.at(inner).element())
    }

    fn below(self, name: &str) -> Option<Self> {
        let element = self.element();
        element.schema["properties"].get(name).map(|schema| self.at(schema))
    }

    fn type_name(self) -> String {
        if let Some(name) = self.reference() {
            // A name for a simple type is no type of its own.
            return match self.resolved().schema["type"].as_str() {
                Some(simple) if simple != "object" => simple.to_owned(),
                _ => name.rsplit('.').next().unwrap_or(name).to_owned(),
            };
        }
        let (items, values) = (&self.schema["items"], &self.schema["additionalProperties"]);
        match self.schema["type"].as_str() {
            Some("array") => format!("[]{}", self.at(items).type_name()),
            Some("object") if values.is_object() => format!("map[string]{}", self.at(values).type_name()),
            Some("object") | None => "Object".to_owned(),
            Some(simple) => simple.to_owned(),
        }
    }

    fn values(self) -> Vec<String> {
        let values = self.resolved().schema["enum"].as_array();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        values.into_iter().flatten().map(text).collect()
    }

    /// The values that the field can have, or an empty line.
    fn enumeration(self) -> String {
        let values = self.values();
        if values.is_empty() {
            return "\n".to_owned();
        }
        let values: String = values.into_iter().map(|value| format!("{INDENT}{value}\n")).collect();
        format!("ENUM:\n{values}")
    }

    /// What is said of the field, then of what it holds.
    fn description(self) -> String {
        let mut said: Vec<&str> = Vec::new();
        let mut place = self;
        loop {
            let resolved = place.resolved();
            for schema in [place.schema, resolved.schema] {
                let text = schema["description"].as_str().filter(|text| !text.is_empty());
                said.extend(text.filter(|text| said.last() != Some(text)));
            }
            let element = [&resolved.schema["items"], &resolved.schema["additionalProperties"]];
            match element.into_iter().find(|element| element.is_object()) {
                Some(element) => place = self.at(element),
                None => break,
            }
        }
        if said.is_empty() {
            return format!("DESCRIPTION:\n{INDENT}<empty>\n");
        }
        let said: String = said.into_iter().map(|text| format!("{}\n", wrap(text))).collect();
        format!("DESCRIPTION:\n{}\n", indent(&said))
    }

    fn fields(self, recursive: bool) -> String {
        let element = self.element();
        if element.schema["properties"].as_object().is_none_or(serde_json::Map::is_empty) {
            return String::new();
        }
        if recursive {
            return format!("FIELDS:\n{}", self.tree(1));
        }
        let mut text = "FIELDS:\n".to_owned();
        for (name, field, required) in element.members() {
            let _ = writeln!(text, "  {name}\t<{}>{required}", field.type_name());
            let values = field.values();
            if !values.is_empty() {
                let _ = writeln!(text, "  enum: {}", values.join(", "));
            }
            let said = [field.schema, field.resolved().schema].into_iter();
            let said = said.filter_map(|schema| schema["description"].as_str()).find(|text| !text.is_empty());
            let _ = write!(text, "{}\n\n", indent(&wrap(said.unwrap_or("<no description>"))));
        }
        text
    }

    /// The names of all fields below.
    fn tree(self, depth: usize) -> String {
        let mut text = String::new();
        if depth > DEPTH_MAX {
            return text;
        }
        for (name, field, required) in self.element().members() {
            let _ = writeln!(text, "{}{name}\t<{}>{required}", "  ".repeat(depth), field.type_name());
            let values = field.values();
            if !values.is_empty() {
                let _ = writeln!(text, "{}enum: {}", "  ".repeat(depth), values.join(", "));
            }
            text.push_str(&field.tree(depth + 1));
        }
        text
    }

    /// Names of the fields of an object, each with its place and whether it must be there.
    fn members(self) -> impl Iterator<Item = (&'s str, Self, &'static str)> {
        let required = self.schema["required"].as_array();
        let fields = self.schema["properties"].as_object().into_iter().flatten();
        fields.map(move |(name, schema)| {
            let is_required = required.is_some_and(|required| required.iter().any(|one| one == name));
            (name.as_str(), self.at(schema), if is_required { " -required-" } else { "" })
        })
    }
}

/// Lines of at most [`WIDTH`] characters, if words are not longer. Line ends stay where they are.
fn wrap(text: &str) -> String {
    text.split('\n').map(wrap_line).collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str) -> String {
    let (mut wrapped, mut width) = (String::new(), 0);
    for word in line.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            wrapped.push('\n');
            width = 0;
        } else if !wrapped.is_empty() && width > 0 {
            wrapped.push(' ');
            width += 1;
        }
        wrapped.push_str(word);
        width += length;
    }
    wrapped
}

fn indent(text: &str) -> String {
    format!("{INDENT}{}", text.replace('\n', &format!("\n{INDENT}")))
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;
    use serde_json::json;

    use super::*;

    fn schemas() -> Schemas {
        let pod = json!({
            "description": "A pod.",
            "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/io.k8s.Spec"}], "description": "What is wanted."}},
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
        });
        let spec = json!({
            "description": "Spec of a pod.", "required": ["list"],
            "properties": {
                "list": {"type": "array", "items": {"$ref": "#/components/schemas/io.k8s.Spec"}, "description": "More."},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "mode": {"type": "string", "enum": ["fast", "slow"]},
            },
        });
        Schemas([("io.k8s.Pod".to_owned(), pod), ("io.k8s.Spec".to_owned(), spec)].into())
    }

    fn explained(path: &[&str], recursive: bool) -> anyhow::Result<String> {
        let registry = Registry::builtin();
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        schemas().explain(registry.named("pod").unwrap(), &path, recursive)
    }

    #[test]
    fn a_field_is_told_with_what_it_holds() {
        assert_eq!(
            explained(&["spec", "list"], false).unwrap(),
            "KIND:       Pod\nVERSION:    v1\n\nFIELD: list <[]Spec>\n\n\nDESCRIPTION:\n    More.\n    Spec of a pod.\n    \n\
             FIELDS:\n  list\t<[]Spec> -required-\n    More.\n\n  map\t<map[string]string>\n    <no description>\n\n  \
             mode\t<string>\n  enum: fast, slow\n    <no description>\n\n\n"
        );
        let mode = explained(&["spec", "mode"], false).unwrap();
        assert!(
            mode.contains("<string>\nENUM:\n    fast\n    slow\n\nDESCRIPTION:\n    <empty>\n"),
            "{mode}"
        );
        let error = explained(&["spec", "nope"], false).unwrap_err();
        assert_eq!(error.to_string(), "field \"nope\" does not exist");
    }

    #[test]
    fn a_kind_that_holds_itself_has_an_end() {
        let tree = explained(&[], true).unwrap();
        assert!(tree.contains("\n  spec\t<Spec>\n    list\t<[]Spec> -required-\n      list"), "{tree}");
        assert!(tree.lines().count() < 200);
    }

    #[test]
    fn lines_are_broken_between_words() {
        let word = "x".repeat(40);
        assert_eq!(wrap(&format!("{word} {word} a\n\nb")), format!("{word}\n{word} a\n\nb"));
        assert_eq!(wrap(&"y".repeat(90)), "y".repeat(90));
    }
}
