//! A structural schema in the form that objects are judged and completed by.
//!
//! Source of the words: `apiextensions.k8s.io/v1` `JSONSchemaProps` and the documentation "Specifying a structural schema".
//! Compiled once, when a definition is admitted and when its kind is served. What does not compile is reported with its
//! place in the definition.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Number, Value};

use super::{cel, format::Format};
use crate::validation::faults::{Faults, Path};

/// The JSON types that a schema can demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unique {
    /// They are not.
    No,
    /// By their value.
    ByValue,
    /// By these fields.
    ByKeys(Vec<String>),
}

/// One place of an object: what may stand there.
#[derive(Debug)]
pub(super) struct Node {
    /// None where anything may stand, and in the branches of `anyOf` and its kin.
    pub ty: Option<Type>,
    pub int_or_string: bool,
    pub nullable: bool,
    pub embedded: bool,
    pub properties: BTreeMap<String, Node>,
    /// The values of a map.
    pub values: Option<Box<Node>>,
    pub items: Option<Box<Node>>,
    pub unique: Unique,
    pub default: Option<Value>,
    pub demands: Demands,
    pub rules: Vec<cel::Rule>,
    /// Whether a rule here or below compares with the past, even where nothing changed.
    pub looks_back: bool,
}

/// What a value must be beyond its type.
#[derive(Debug, Default)]
pub(super) struct Demands {
    pub required: Vec<String>,
    pub allowed: Option<Vec<Value>>,
    pub pattern: Option<Regex>,
    pub format: Option<Format>,
    pub minimum: Option<Bound>,
    pub maximum: Option<Bound>,
    pub multiple_of: Option<Number>,
    pub length_min: Option<u64>,
    pub length_max: Option<u64>,
    pub items_min: Option<u64>,
    pub items_max: Option<u64>,
    pub properties_min: Option<u64>,
    pub properties_max: Option<u64>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

/// A limit of a number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    pub at: Number,
    pub exclusive: bool,
}

impl Node {
    /// Compiles a schema that is structurally sound ([`super::structural`]). Its rules in CEL, patterns and defaults may
    /// still be wrong: they are reported and left out.
    pub fn compile(schema: &Value, path: &Path<'_>, faults: &mut Faults) -> Self {
        let mut node = Self::shape(schema, path, faults);
        node.rules = cel::compile(schema, &node, path, faults);
        node.looks_back = node.rules.iter().any(cel::Rule::looks_back)
            || node.properties.values().any(|inner| inner.looks_back)
            || [&node.values, &node.items].into_iter().flatten().any(|inner| inner.looks_back);
        node
    }

    fn shape(schema: &Value, path: &Path<'_>, faults: &mut Faults) -> Self {
        let on = |key: &str| schema[key] == true;
        let properties_at = path.field("properties");
        let properties = schema["properties"].as_object().into_iter().flatten();
        let properties = properties
            .map(|(name, schema)| (name.clone(), Self::compile(schema, &properties_at.key(name), faults)));
        Self {
            properties: properties.collect(),
            ty: schema["type"].as_str().and_then(Type::of),
            int_or_string: on("x-kubernetes-int-or-string"),
            nullable: on("nullable"),
            embedded: on("x-kubernetes-embedded-resource"),
            values: Self::below(schema, "additionalProperties", path, faults),
            items: Self::below(schema, "items", path, faults),
            unique: unique(schema),
            default: schema.get("default").filter(|value| !value.is_null()).cloned(),
            demands: Demands::compile(schema, path, faults),
            rules: Vec::new(),
            looks_back: false,
        }
    }

    fn below(schema: &Value, key: &str, path: &Path<'_>, faults: &mut Faults) -> Option<Box<Self>> {
        let inner = schema.get(key).filter(|inner| inner.is_object())?;
        Some(Box::new(Self::compile(inner, &path.field(key), faults)))
    }

    /// The schema of a field, or of a map's values.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.values.as_deref())
    }

    /// Whether keys are data of the user's, not names of fields.
    pub fn is_map(&self) -> bool {
        self.values.is_some()
    }
}

impl Demands {
    fn compile(schema: &Value, path: &Path<'_>, faults: &mut Faults) -> Self {
        let count = |key: &str| schema[key].as_u64();
        let bound = |limit: &str, exclusive: &str| {
            let at = schema[limit].as_number()?.clone();
            Some(Bound { at, exclusive: schema[exclusive] == true })
        };
        let required = schema["required"].as_array().into_iter().flatten();
        Self {
            required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
            allowed: schema["enum"].as_array().cloned(),
            pattern: pattern(schema, path, faults),
            format: schema["format"].as_str().and_then(Format::of),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema["multipleOf"].as_number().cloned(),
            length_min: count("minLength"),
            length_max: count("maxLength"),
            items_min: count("minItems"),
            items_max: count("maxItems"),
            properties_min: count("minProperties"),
            properties_max: count("maxProperties"),
            all_of: branches(schema, "allOf", path, faults),
            any_of: branches(schema, "anyOf", path, faults),
            one_of: branches(schema, "oneOf", path, faults),
            not: schema["not"]
                .is_object()
                .then(|| Box::new(Node::compile(&schema["not"], &path.field("not"), faults))),
        }
    }
}

fn branches(schema: &Value, key: &str, path: &Path<'_>, faults: &mut Faults) -> Vec<Node> {
    let path = path.field(key);
    let branches = schema[key].as_array().into_iter().flatten().enumerate();
    branches.map(|(at, branch)| Node::compile(branch, &path.item(at), faults)).collect()
}

fn pattern(schema: &Value, path: &Path<'_>, faults: &mut Faults) -> Option<Regex> {
    let text = schema["pattern"].as_str().filter(|text| !text.is_empty())?;
    match Regex::new(text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let why = format!("must be a valid regular expression, but isn't: {error}");
            faults.invalid(&path.field("pattern"), &schema["pattern"], why);
            None
        }
    }
}

fn unique(schema: &Value) -> Unique {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Unique::ByValue,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            Unique::ByKeys(keys.filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => Unique::No,
    }
}
