//! From a JSON schema document to the compact form.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

use super::{Field, NodeId, Ownership, Scalar, Schema, Shape, Struct, ownership, rules};

const REFERENCE: &str = "#/$defs/";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

pub(super) fn compile(source: &Value) -> Schema {
    let mut compiler = Compiler::new(source);
    let owner = source["title"].as_str().unwrap_or_default();
    compiler.reserve();
    let root = compiler.shape(source, owner);
    compiler.nodes[0] = root;
    compiler.finish(false)
}

pub(super) struct Compiler<'a> {
    definitions: &'a Map<String, Value>,
    /// Definitions met so far: one node each, so that recursive types end.
    named: HashMap<&'a str, NodeId>,
    /// Leaves are shared.
    leaves: HashMap<&'static str, NodeId>,
    nodes: Vec<Shape>,
    /// One for each node.
    owned: Vec<Ownership>,
}

static NO_DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl<'a> Compiler<'a> {
    /// For a document with its definitions.
    pub fn new(source: &'a Value) -> Self {
        Self {
            definitions: source["$defs"].as_object().unwrap_or(&NO_DEFINITIONS),
            named: HashMap::new(),
            leaves: HashMap::new(),
            nodes: Vec::new(),
            owned: Vec::new(),
        }
    }

    pub fn finish(self, is_custom: bool) -> Schema {
        Schema { nodes: self.nodes.into_boxed_slice(), owned: self.owned.into_boxed_slice(), is_custom }
    }

    /// Says what stands at a reserved place, and how server-side apply takes it apart.
    pub fn set(&mut self, node: NodeId, shape: Shape, owned: Ownership) {
        self.nodes[node as usize] = shape;
        self.owned[node as usize] = owned;
    }

    /// Takes the next id; the shape is filled in when it is known.
    pub fn reserve(&mut self) -> NodeId {
        self.nodes.push(Shape::Any);
        self.owned.push(Ownership::default());
        NodeId::try_from(self.nodes.len() - 1).expect("a schema has fewer than 2^32 nodes")
    }

    fn node(&mut self, schema: &'a Value) -> NodeId {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix(REFERENCE)) {
            return self.definition(name);
        }
        match leaf(schema) {
            Some((key, scalar)) => self.leaf(key, scalar),
            None => {
                let id = self.reserve();
                self.nodes[id as usize] = self.shape(schema, "");
                self.owned[id as usize] = ownership::of_source(schema);
                id
            }
        }
    }

    fn definition(&mut self, name: &'a str) -> NodeId {
        if name == QUANTITY {
            return self.leaf("quantity", Scalar::Quantity);
        }
        if name == MICRO_TIME {
            return self.leaf("micro-time", Scalar::MicroTime);
        }
        if let Some(id) = self.named.get(name) {
            return *id;
        }
        let id = self.reserve();
        self.named.insert(name, id);
        let definitions = self.definitions;
        if let Some(schema) = definitions.get(name) {
            self.nodes[id as usize] = self.shape(schema, name);
            self.owned[id as usize] = ownership::of_source(schema);
        }
        if rules::is_atomic_structure(name) {
            self.owned[id as usize] = Ownership::Atomic;
        }
        id
    }

    pub fn leaf(&mut self, key: &'static str, scalar: Scalar) -> NodeId {
        if let Some(id) = self.leaves.get(key) {
            return *id;
        }
        let id = self.reserve();
        self.nodes[id as usize] = Shape::Scalar(scalar);
        self.leaves.insert(key, id);
        id
    }

    pub fn shape(&mut self, schema: &'a Value, owner: &str) -> Shape {
        if let Some((_, scalar)) = leaf(schema) {
            return Shape::Scalar(scalar);
        }
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            return Shape::Any;
        }
        if let Some(properties) = schema["properties"].as_object() {
            let fields = properties.iter().map(|(name, field)| self.field(owner, name, field)).collect();
            return Shape::Struct(Struct { name: owner.into(), fields, open: false });
        }
        match (schema["type"].as_str(), &schema["additionalProperties"], &schema["items"]) {
            (Some("object"), values @ Value::Object(_), _) => Shape::Map(self.node(values)),
            (Some("array"), _, items @ Value::Object(_)) => Shape::List(self.node(items)),
            // A structure without fields (`emptyDir` has some, `Overhead` has none) is told from a free-form one by
            // nothing in the source; accepting what it holds is the harmless reading.
            _ => Shape::Any,
        }
    }

    fn field(&mut self, owner: &str, name: &str, schema: &'a Value) -> Field {
        let (node, rule) = (self.node(schema), rules::rule(owner, name));
        if let Some(owned) = rule.and_then(|rule| self.ownership(rule, schema)) {
            // Lists and maps stand inline, so the node is this field's alone.
            self.owned[node as usize] = owned;
        }
        Field { name: name.into(), node, rule }
    }

    fn ownership(&self, rule: &rules::MergeRule, schema: &Value) -> Option<Ownership> {
        let reference = schema["items"]["$ref"].as_str().unwrap_or_default();
        let item_type = reference.strip_prefix(REFERENCE).unwrap_or_default();
        let item = self.definitions.get(item_type).unwrap_or(&schema["items"]);
        ownership::of_rule(rule, item_type, item)
    }
}

/// The leaf that a schema without a reference describes, with a key to share it by.
pub(super) fn leaf(schema: &Value) -> Option<(&'static str, Scalar)> {
    if schema["x-kubernetes-int-or-string"] == true {
        return Some(("int-or-string", Scalar::IntOrString));
    }
    Some(match (schema["type"].as_str()?, schema["format"].as_str()) {
        ("string", Some("byte")) => ("bytes", Scalar::Bytes),
        ("string", Some("date-time")) => ("time", Scalar::Time),
        ("string", _) => ("string", Scalar::String),
        ("integer", Some("int32")) => ("int32", Scalar::Int32),
        ("integer", _) => ("int64", Scalar::Int64),
        ("number", _) => ("number", Scalar::Number),
        ("boolean", _) => ("boolean", Scalar::Boolean),
        _ => return None,
    })
}
