//! One served version of a custom kind: its descriptor, and the rules for its objects.

use std::sync::Arc;

use claw_schemas::{
    Descriptor,
    registry::{Cells, SchemaSource, Subresource},
    schema::{Compiled, Schema},
    status::Cause,
};
use serde_json::Value;

use super::{cel::Budget, check, columns, definition::Definition, fill, node::Node, path::FieldPath};
use crate::validation::faults::{Faults, Path};

const STATUS: Subresource = Subresource {
    name: std::borrow::Cow::Borrowed("status"),
    carries: None,
    verbs: &["get", "patch", "update"],
};
const SCALE: Subresource = Subresource {
    name: std::borrow::Cow::Borrowed("scale"),
    carries: Some(("autoscaling", "v1", "Scale")),
    verbs: &["get", "patch", "update"],
};

/// The rules for the objects of one version.
pub(crate) struct Version {
    api_version: String,
    node: Node,
    schema: Schema,
    scale: Option<Scale>,
    terminating: bool,
}

/// Where an object keeps what `scale` shows.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    replicas: FieldPath,
    status_replicas: FieldPath,
    selector: Option<FieldPath>,
}

impl Version {
    /// The rules of a version of a definition.
    pub fn new(definition: Definition<'_>, version: &Value) -> Self {
        let schema = &version["schema"]["openAPIV3Schema"];
        let mut faults = Faults::default();
        let node = Node::compile(schema, &Path::Root, &mut faults);
        if faults.count() > 0 {
            // It was admitted, so only an older or newer server can have stored it.
            tracing::error!(definition = definition.name(), causes = ?faults.into_causes(), "a schema compiles in part");
        }
        let name = version["name"].as_str().unwrap_or_default();
        Self {
            api_version: format!("{}/{name}", definition.group()),
            node,
            schema: Schema::compile_custom(schema),
            scale: Scale::of(&version["subresources"]["scale"]),
            terminating: definition.is_deleting(),
        }
    }

    /// `group/version`
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Whether the kind is going away, so that no new objects may come.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// What `scale` shows.
    pub fn scale(&self) -> Option<&Scale> {
        self.scale.as_ref()
    }

    /// Fills in defaults, and drops nulls that are not allowed.
    pub fn fill_in(&self, object: &mut Value) {
        fill::fill(&self.node, object);
    }

    /// Brings an object that was stored by older rules, or in another version, into today's form.
    pub fn renew(&self, object: &mut Value) {
        self.schema.normalize(object);
        self.fill_in(object);
    }

    /// What is wrong with a new object, or with one that replaces `old`.
    pub fn faults(&self, old: Option<&Value>, new: &Value) -> Vec<Cause> {
        let (mut faults, budget) = (Faults::default(), Budget::of_object());
        check::check(&self.node, old, new, &Path::Root, &budget, &mut faults);
        faults.into_causes()
    }
}

impl Scale {
    fn of(declared: &Value) -> Option<Self> {
        let path = |field: &str| FieldPath::parse(declared[field].as_str()?);
        Some(Self {
            replicas: path("specReplicasPath")?,
            status_replicas: path("statusReplicasPath")?,
            selector: path("labelSelectorPath"),
        })
    }

    /// The replicas asked for; the path where they should stand, if they do not.
    pub fn replicas(&self, object: &Value) -> Result<i64, String> {
        let found = self.replicas.get(object).and_then(Value::as_i64);
        found.ok_or_else(|| self.replicas.dotted())
    }

    pub fn set_replicas(&self, object: &mut Value, replicas: i64) -> bool {
        self.replicas.set(object, replicas.into())
    }

    pub fn status_replicas(&self, object: &Value) -> i64 {
        self.status_replicas.get(object).and_then(Value::as_i64).unwrap_or(0)
    }

    /// The selector as the object writes it, which is text.
    pub fn selector<'v>(&self, object: &'v Value) -> &'v str {
        self.selector.as_ref().and_then(|path| path.get(object)?.as_str()).unwrap_or_default()
    }
}

/// A version as a kind among others, under the names that were accepted.
pub(crate) fn descriptor(definition: Definition<'_>, names: &Value, version: &Value) -> Descriptor {
    let text = |field: &str| names[field].as_str().unwrap_or_default().to_owned();
    let texts = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|text| text.to_owned().into())
            .collect()
    };
    let (columns, cells) = columns::compile(&version["additionalPrinterColumns"]);
    let has = |sub: &str| version["subresources"][sub].is_object();
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    let selectable = selectable.filter_map(|field| FieldPath::parse(field["jsonPath"].as_str()?));
    Descriptor {
        group: definition.group().to_owned().into(),
        version: version["name"].as_str().unwrap_or_default().to_owned().into(),
        kind: text("kind").into(),
        plural: text("plural").into(),
        singular: text("singular").into(),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        scope: definition.scope(),
        subresources: [("status", STATUS), ("scale", SCALE)]
            .into_iter()
            .filter(|(name, _)| has(name))
            .map(|(_, sub)| sub)
            .collect(),
        selectable_fields: selectable.map(|path| path.dotted().into()).collect(),
        columns,
        cells: Cells::Custom(Arc::new(cells)),
        // A column may look anywhere.
        cells_read: Vec::new(),
        schema: SchemaSource::Custom(Arc::new(version["schema"]["openAPIV3Schema"].clone())),
        compiled: Compiled::default(),
        has_generation: true,
        builtin: false,
        stored_as: None,
    }
}
