//! The list of kinds, and what the rest of the system may ask about one.
//!
//! A new kind is one file under `kinds/`, one line in [`kinds::all`](crate::kinds::all) and one controller module.
//! User-defined kinds arrive at run time through the same [`Descriptor`], which is why it owns its strings.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    pick::Pick,
    schema::{Compiled, Schema, custom},
};

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// A second document behind an object, with its own path, verbs and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `log`, ...
    pub name: Cow<'static, str>,
    /// Group, version and kind of what it carries (`autoscaling`, `v1`, `Scale`), where that is not the parent's.
    pub carries: Option<(&'static str, &'static str, &'static str)>,
    /// Discovery verbs.
    pub verbs: &'static [&'static str],
}

/// One column of a `Table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Header: `Ready`.
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name`, or empty.
    pub format: &'static str,
    /// One sentence.
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// Makes the cells of one row of a built-in kind; as many as there are columns.
pub type CellsOf = fn(object: &Value, now: Timestamp) -> Vec<Value>;

/// Builds the JSON schema (draft 2020-12, `$defs` by Kubernetes name) of a built-in kind.
pub type SchemaOf = fn() -> Value;

/// Makes the cells of one row of a kind that arrived at run time.
pub trait MakeCells: Send + Sync {
    /// As many cells as the kind has columns.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

/// How the rows of a kind are filled.
#[derive(Clone)]
pub enum Cells {
    /// By code.
    Builtin(CellsOf),
    /// By what a definition says.
    Custom(Arc<dyn MakeCells>),
}

impl Cells {
    /// The cells of one row, as many as there are columns.
    pub fn of(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Builtin(cells) => cells(object, now),
            Self::Custom(cells) => cells.cells(object, now),
        }
    }
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Builtin(_) => "Builtin",
            Self::Custom(_) => "Custom",
        })
    }
}

/// Where the schema of a kind comes from.
#[derive(Clone, Debug)]
pub enum SchemaSource {
    /// From a type of `k8s-openapi`.
    Builtin(SchemaOf),
    /// From a definition: its structural schema, as it says it.
    Custom(Arc<Value>),
}

impl SchemaSource {
    /// The JSON schema of the whole object, references resolved in its own `$defs`.
    pub fn document(&self) -> Value {
        match self {
            Self::Builtin(schema) => schema(),
            Self::Custom(structural) => custom::document(structural),
        }
    }

    /// The compact form.
    pub fn compile(&self) -> Schema {
        match self {
            Self::Builtin(schema) => Schema::compile(&schema()),
            Self::Custom(structural) => Schema::compile_custom(structural),
        }
    }
}

/// The kind whose objects another one shows in its own way. Both have the same plural.
#[derive(Clone, Copy, Debug)]
pub struct StoredAs {
    /// Empty for the core group.
    pub group: &'static str,
    /// `v2`
    pub version: &'static str,
    /// The stored form of a served object.
    pub store: fn(Value) -> Value,
    /// The served form of a stored object.
    pub serve: fn(Value) -> Value,
}

/// Everything the system knows about a kind.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    /// `v1`
    pub version: Cow<'static, str>,
    /// `Deployment`
    pub kind: Cow<'static, str>,
    /// `deployments`
    pub plural: Cow<'static, str>,
    /// `deployment`
    pub singular: Cow<'static, str>,
    /// `deploy`
    pub short_names: Vec<Cow<'static, str>>,
    /// `all`
    pub categories: Vec<Cow<'static, str>>,
    /// Where objects live.
    pub scope: Scope,
    /// `status`, `scale`, ...
    pub subresources: Vec<Subresource>,
    /// Field selector paths beyond `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<Cow<'static, str>>,
    /// Columns after which [`Self::cells`] fills rows.
    pub columns: Vec<Column>,
    /// Fills a row.
    pub cells: Cells,
    /// Paths ([`Pick::paths`](crate::pick::Pick::paths)) that [`Self::cells`] looks at; nothing else of an object needs
    /// to be read for a row. Empty for everything.
    pub cells_read: Vec<Cow<'static, str>>,
    /// Schema source, compiled on first use: see [`Self::compiled`].
    pub schema: SchemaSource,
    /// Where the compiled schema is kept.
    pub compiled: Compiled,
    /// Whether `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
    /// Built-in kinds accept strategic merge patches, custom ones do not.
    pub builtin: bool,
    /// What the objects are stored as, where that is another built-in kind.
    pub stored_as: Option<StoredAs>,
}

impl Descriptor {
    /// The compiled schema.
    pub fn compiled(&self) -> &Schema {
        self.compiled.get(&self.schema)
    }

    /// What has to be read of an object to fill a row.
    pub fn row(&self) -> Pick {
        match self.cells_read.is_empty() {
            true => Pick::everything(),
            false => Pick::paths(self.cells_read.iter().map(|path| &**path)),
        }
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `DeploymentList`
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The group under which the objects are stored.
    pub fn storage_group(&self) -> &str {
        self.stored_as.map_or(&*self.group, |stored_as| stored_as.group)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// `deployments.apps`, or `pods` in the core group.
    pub fn qualified_plural(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

/// All kinds, indexed the ways requests name them.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// (group, version, plural) → kind
    by_resource: BTreeMap<(String, String, String), Arc<Descriptor>>,
}

impl Registry {
    /// The kinds this build knows.
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        for descriptor in crate::kinds::all() {
            registry.insert(descriptor);
        }
        registry
    }

    /// Adds a kind, or replaces the one with the same group, version and plural.
    pub fn insert(&mut self, descriptor: impl Into<Arc<Descriptor>>) {
        let descriptor = descriptor.into();
        let key =
            (descriptor.group.to_string(), descriptor.version.to_string(), descriptor.plural.to_string());
        self.by_resource.insert(key, descriptor);
    }

    /// By REST path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Descriptor>> {
        self.by_resource.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// By the `apiVersion` and `kind` of a manifest.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Descriptor>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.iter().find(|d| d.group == group && d.version == version && d.kind == kind)
    }

    /// By what a person types: plural, singular, kind, short name, each with an optional `.group`. Of several versions
    /// it is the stored one; of a built-in kind and one that somebody defined, the built-in one.
    pub fn named(&self, name: &str) -> Option<&Arc<Descriptor>> {
        let wanted = name.to_ascii_lowercase();
        let (plain, group) = wanted.split_once('.').map_or((wanted.as_str(), None), |(p, g)| (p, Some(g)));
        let is_it = |d: &&Arc<Descriptor>| {
            group.is_none_or(|group| d.group == group)
                && (d.plural == plain
                    || d.singular == plain
                    || d.kind.eq_ignore_ascii_case(plain)
                    || d.short_names.iter().any(|short| short == plain))
        };
        self.iter().filter(is_it).min_by_key(|d| (d.stored_as.is_some(), !d.builtin))
    }

    /// The kinds as they are stored: every object there is belongs to exactly one of them.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        self.iter().filter(|kind| kind.stored_as.is_none())
    }

    /// Every kind, ordered by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        self.by_resource.values()
    }
}
