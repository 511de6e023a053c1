//! What an object of a kind may contain: a compact, compiled form of its JSON schema.
//!
//! The source ([`crate::registry::SchemaSource`]) is a large JSON document with a description for every field; it is
//! built once, compiled, and dropped. What stays is names, shapes and merge rules (about 100 KiB for a Pod), which
//! is all that checking, pruning and strategic merging need. Descriptions live in [`crate::openapi`] alone.
//!
//! Must never know: defaults and validation rules, which belong to the API server.

mod check;
mod compile;
pub(crate) mod custom;
mod normalize;
mod ownership;
mod rules;
mod time;

use std::sync::{Arc, OnceLock};

pub use check::Report;
pub use ownership::{Key, Ownership};
pub(crate) use rules::bare_name;
pub use rules::{ListType, MergeRule, is_atomic_structure, rule};
pub use time::in_seconds as time_text;

use crate::registry::SchemaSource;

/// Index of a node in [`Schema::nodes`].
pub(crate) type NodeId = u32;

/// The compiled schema of a kind.
#[derive(Debug)]
pub struct Schema {
    /// Node 0 is the root object.
    nodes: Box<[Shape]>,
    /// How server-side apply takes each node apart.
    owned: Box<[Ownership]>,
    /// Whether it describes a custom kind, whose objects are pruned and not normalized.
    is_custom: bool,
}

/// What may stand at one place of an object.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Anything: raw extensions and fields that keep what they do not know.
    Any,
    /// A structure.
    Struct(Struct),
    /// Any keys, values of one shape.
    Map(NodeId),
    /// A list of one shape.
    List(NodeId),
    /// A leaf.
    Scalar(Scalar),
}

/// The leaves of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Any text.
    String,
    /// Base64 of bytes.
    Bytes,
    /// RFC 3339, stored in seconds of UTC.
    Time,
    /// The same, stored in microseconds.
    MicroTime,
    /// An integer that fits 32 bits.
    Int32,
    /// An integer that fits 64 bits.
    Int64,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A 32-bit integer, or text such as `25%`.
    IntOrString,
    /// A resource quantity; a plain number is accepted and stored as text.
    Quantity,
}

/// A structure.
#[derive(Debug)]
pub(crate) struct Struct {
    /// Name of its type, empty for one without.
    pub(crate) name: Box<str>,
    /// Sorted by name.
    fields: Box<[Field]>,
    /// Whether fields that are not named are kept.
    open: bool,
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    node: NodeId,
    rule: Option<&'static MergeRule>,
}

/// A place in a schema: a node, and how the field that leads there is merged.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    schema: &'a Schema,
    node: NodeId,
    rule: Option<&'static MergeRule>,
}

impl Schema {
    /// Compiles a JSON schema (draft 2020-12) as [`SchemaOf`](crate::registry::SchemaOf) makes it.
    pub fn compile(source: &serde_json::Value) -> Self {
        compile::compile(source)
    }

    /// Compiles the structural schema of a custom kind. What it demands of values is not in the compact form.
    pub fn compile_custom(structural: &serde_json::Value) -> Self {
        custom::compile(structural)
    }

    /// The whole object.
    pub fn root(&self) -> Place<'_> {
        Place { schema: self, node: 0, rule: None }
    }

    /// Lists unknown fields and values of a wrong type, each with its exact path. Null counts as absent.
    pub fn check(&self, object: &serde_json::Value) -> Report {
        check::check(self.root(), object)
    }

    /// Brings an object that [`Self::check`] found well typed into the form that is stored: unknown fields go, nulls
    /// become absent (or the zero value, inside maps and lists), quantities and times take their canonical form. Outside of its
    /// metadata, an object of a custom kind only loses its unknown fields.
    pub fn normalize(&self, object: &mut serde_json::Value) {
        if self.is_custom {
            normalize::prune(self.root(), object);
        } else {
            normalize::normalize(self.root(), object);
        }
    }

    fn shape(&self, node: NodeId) -> &Shape {
        &self.nodes[node as usize]
    }
}

impl<'a> Place<'a> {
    pub(crate) fn shape(self) -> &'a Shape {
        self.schema.shape(self.node)
    }

    fn at(self, node: NodeId) -> Self {
        Self { schema: self.schema, node, rule: None }
    }

    /// The place under a key: a field of a structure, or the values of a map.
    pub fn field(self, name: &str) -> Option<Self> {
        match self.shape() {
            Shape::Struct(Struct { fields, .. }) => {
                let index = fields.binary_search_by(|field| (*field.name).cmp(name)).ok()?;
                Some(Self { schema: self.schema, node: fields[index].node, rule: fields[index].rule })
            }
            Shape::Map(values) => Some(self.at(*values)),
            _ => None,
        }
    }

    /// The place of the items of a list.
    pub fn items(self) -> Option<Self> {
        match self.shape() {
            Shape::List(items) => Some(self.at(*items)),
            _ => None,
        }
    }

    /// How the field is merged, where that is not the default (maps merge, lists are replaced).
    pub fn rule(self) -> Option<&'static MergeRule> {
        self.rule
    }

    /// How server-side apply takes apart what stands here.
    pub fn ownership(self) -> &'a Ownership {
        &self.schema.owned[self.node as usize]
    }

    /// Whether this is a structure that declares a field of that name; the entries of a map are not declared.
    pub fn declares(self, name: &str) -> bool {
        matches!(self.shape(), Shape::Struct(_)) && self.field(name).is_some()
    }

    /// Whether this is a structure.
    pub fn is_structure(self) -> bool {
        matches!(self.shape(), Shape::Struct(_))
    }

    /// The leaf here, if it is one.
    pub fn scalar(self) -> Option<Scalar> {
        match self.shape() {
            Shape::Scalar(scalar) => Some(*scalar),
            _ => None,
        }
    }

    /// Whether fields that the schema does not name are kept here.
    pub fn keeps_unknown(self) -> bool {
        matches!(self.shape(), Shape::Any | Shape::Map(_) | Shape::Struct(Struct { open: true, .. }))
    }

    /// Whether anything may stand here.
    pub fn is_any(self) -> bool {
        matches!(self.shape(), Shape::Any)
    }
}

/// A schema that is compiled on first use and then shared.
#[derive(Clone, Default)]
pub struct Compiled(Arc<OnceLock<Schema>>);

impl Compiled {
    /// The schema, compiled now if nobody asked before.
    pub fn get(&self, source: &SchemaSource) -> &Schema {
        self.0.get_or_init(|| source.compile())
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "Compiled" } else { "NotYetCompiled" })
    }
}

#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;
