//! The operations of a document: which paths there are, and what they take and give.

use serde_json::{Map, Value, json};

use super::{
    Dialect,
    definitions::{carried_by, meta},
};
use crate::{
    discovery,
    registry::{Descriptor, Subresource},
};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PATCHES: [&str; 3] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A query parameter: name, type, description.
type Query = (&'static str, &'static str, &'static str);

const PRETTY: Query = ("pretty", "string", "If 'true', then the output is pretty printed.");

const WRITE: [Query; 3] = [
    (
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: - All: all stages of the request are processed.",
    ),
    ("fieldManager", "string", "Name of the actor or entity that is making these changes."),
    (
        "fieldValidation",
        "string",
        "What to do about unknown or duplicate fields. Valid values are: - Ignore: drop them silently. - Warn: drop them and send a warning for each. - Strict: refuse the request.",
    ),
];

const DELETE: [Query; 3] = [
    WRITE[0],
    ("gracePeriodSeconds", "integer", "Seconds before the object should be deleted. Zero means at once."),
    (
        "propagationPolicy",
        "string",
        "Whether and how dependents are deleted: 'Orphan', 'Background' or 'Foreground'.",
    ),
];

const LIST: [Query; 10] = [
    ("allowWatchBookmarks", "boolean", "Requests watch events with type \"BOOKMARK\"."),
    ("continue", "string", "From the metadata of the page before, to get the next one."),
    ("fieldSelector", "string", "Restricts the list by fields. Defaults to everything."),
    ("labelSelector", "string", "Restricts the list by labels. Defaults to everything."),
    ("limit", "integer", "Maximum number of objects on a page."),
    ("resourceVersion", "string", "Constraint on what resource versions a request may be served from."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied to list calls."),
    (
        "sendInitialEvents",
        "boolean",
        "Starts a watch with events for everything that exists, then a bookmark.",
    ),
    ("timeoutSeconds", "integer", "Ends the call after so many seconds, regardless of activity."),
    ("watch", "boolean", "Watch for changes and return them as a stream."),
];

/// One operation, before it is written in a dialect.
struct Operation<'a> {
    /// `get`, `put`, `post`, `delete` or `patch`.
    method: &'static str,
    /// `x-kubernetes-action`
    action: &'static str,
    /// Verb of the operation's id.
    verb: &'static str,
    query: Vec<Query>,
    /// Type of the body, if it has one.
    body: Option<String>,
    /// Type of the answer; plain text without one.
    answer: Option<String>,
    /// Type that is operated on.
    gvk: (&'a str, &'a str, &'a str),
    strategic: bool,
}

/// The paths of a kind, whose type has the name `ty`.
pub(super) fn add(paths: &mut Map<String, Value>, dialect: Dialect, kind: &Descriptor, ty: &str) {
    let base = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let collection = if kind.namespaced() {
        let everywhere = format!("{base}/{}", kind.plural);
        let everything = vec![operation(kind, "get", "list", "listForAllNamespaces", ty)];
        paths.insert(everywhere.clone(), path_item(dialect, kind, &everywhere, "", everything));
        format!("{base}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{base}/{}", kind.plural)
    };
    let object = format!("{collection}/{{name}}");
    paths.insert(collection.clone(), path_item(dialect, kind, &collection, "", of_collection(kind, ty)));
    paths.insert(object.clone(), path_item(dialect, kind, &object, "", of_object(kind, ty)));
    for sub in &kind.subresources {
        let path = format!("{object}/{}", sub.name);
        paths.insert(path.clone(), path_item(dialect, kind, &path, &sub.name, of_subresource(kind, sub, ty)));
    }
}

fn of_collection<'a>(kind: &'a Descriptor, ty: &str) -> Vec<Operation<'a>> {
    let all = [
        ("get", "list", "list"),
        ("post", "post", "create"),
        ("delete", "deletecollection", "deletecollection"),
    ];
    allowed(kind, &all, ty)
}

fn of_object<'a>(kind: &'a Descriptor, ty: &str) -> Vec<Operation<'a>> {
    let all = [
        ("get", "get", "read"),
        ("put", "put", "replace"),
        ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ];
    allowed(kind, &all, ty)
}

/// Of some operations (method, action, verb of the id) those that the kind has.
fn allowed<'a>(
    kind: &'a Descriptor,
    operations: &[(&'static str, &'static str, &'static str)],
    ty: &str,
) -> Vec<Operation<'a>> {
    let verb_of = |action: &'static str| match action {
        "post" => "create",
        "put" => "update",
        other => other,
    };
    let verbs = discovery::verbs(kind);
    let allowed = operations.iter().filter(|(_, action, _)| verbs.contains(&verb_of(action)));
    allowed.map(|(method, action, verb)| operation(kind, method, action, verb, ty)).collect()
}

fn of_subresource<'a>(kind: &'a Descriptor, sub: &Subresource, ty: &str) -> Vec<Operation<'a>> {
    let carried = carried_by(sub);
    let carried_type = carried.and_then(|carried| (carried.schema)()["title"].as_str().map(str::to_owned));
    let is_opened = matches!(&*sub.name, "attach" | "exec" | "portforward");
    let plain_text = is_opened || sub.name == "log";
    sub.verbs
        .iter()
        .filter_map(|verb| match *verb {
            "get" if is_opened => Some(("get", "connect", "connectGet")),
            "create" if is_opened => Some(("post", "connect", "connectPost")),
            "get" => Some(("get", "get", "read")),
            "update" => Some(("put", "put", "replace")),
            "patch" => Some(("patch", "patch", "patch")),
            "create" => Some(("post", "post", "create")),
            _ => None,
        })
        .map(|(method, action, verb)| {
            let mut operation = operation(kind, method, action, verb, carried_type.as_deref().unwrap_or(ty));
            if let Some(carried) = carried {
                operation.gvk = (carried.group, carried.version, carried.kind);
            } else if let Some(carried) = sub.carries {
                operation.gvk = carried;
            }
            if plain_text {
                operation.answer = None;
            }
            operation
        })
        .collect()
}

fn operation<'a>(
    kind: &'a Descriptor,
    method: &'static str,
    action: &'static str,
    verb: &'static str,
    ty: &str,
) -> Operation<'a> {
    let mut query = vec![PRETTY];
    match action {
        "list" => query.extend(LIST),
        "post" | "put" => query.extend(WRITE),
        "patch" => {
            query.extend(WRITE);
            query.push(("force", "boolean", "Server-side apply takes over fields that others own."));
        }
        "delete" => query.extend(DELETE),
        "deletecollection" => {
            query.extend(DELETE);
            query.extend(LIST.iter().filter(|(name, ..)| name.ends_with("Selector") || *name == "limit"));
        }
        _ => {}
    }
    let body = match action {
        "post" | "put" => Some(ty.to_owned()),
        "delete" | "deletecollection" => Some(meta("DeleteOptions")),
        _ => None,
    };
    let answer = match action {
        "list" => format!("{ty}List"),
        "delete" | "deletecollection" => meta("Status"),
        _ => ty.to_owned(),
    };
    Operation {
        method,
        action,
        verb,
        query,
        body,
        answer: Some(answer),
        gvk: (&kind.group, &kind.version, &kind.kind),
        strategic: kind.builtin,
    }
}

fn path_item(
    dialect: Dialect,
    kind: &Descriptor,
    path: &str,
    sub: &str,
    operations: Vec<Operation<'_>>,
) -> Value {
    let mut item = json!({});
    for operation in operations {
        let id = operation_id(kind, path, sub, operation.verb);
        item[operation.method] = match dialect {
            Dialect::V2 => operation.v2(&id),
            Dialect::V3 => operation.v3(&id),
        };
    }
    let parameters: Vec<Value> =
        [("name", "name of the object"), ("namespace", "object name and auth scope")]
            .into_iter()
            .filter(|(name, _)| path.contains(&format!("{{{name}}}")))
            .map(|(name, description)| dialect.parameter("path", (name, "string", description), true))
            .collect();
    if !parameters.is_empty() {
        item["parameters"] = parameters.into();
    }
    item
}

/// `readAppsV1NamespacedDeploymentStatus`
fn operation_id(kind: &Descriptor, path: &str, sub: &str, verb: &str) -> String {
    let (verb, tail) = match verb.strip_suffix("ForAllNamespaces") {
        Some(verb) => (verb, "ForAllNamespaces"),
        None => (verb, ""),
    };
    let group = kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    let namespaced = if path.contains("{namespace}") { "Namespaced" } else { "" };
    let (group, version, sub) = (capitalized(group), capitalized(&kind.version), capitalized(sub));
    format!("{verb}{group}{version}{namespaced}{}{sub}{tail}", kind.kind)
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

impl Dialect {
    fn parameter(self, place: &str, (name, ty, description): Query, required: bool) -> Value {
        let mut parameter = json!({"name": name, "in": place, "description": description});
        match self {
            Self::V2 => {
                parameter["type"] = ty.into();
                parameter["uniqueItems"] = true.into();
            }
            Self::V3 => parameter["schema"] = json!({"type": ty, "uniqueItems": true}),
        }
        if required {
            parameter["required"] = true.into();
        }
        parameter
    }
}

impl Operation<'_> {
    fn media_types(&self) -> Vec<&'static str> {
        match self.action {
            "patch" => PATCHES.into_iter().chain(self.strategic.then_some(STRATEGIC)).collect(),
            _ => vec![JSON, YAML],
        }
    }

    fn answer_types(&self) -> Vec<&'static str> {
        if self.answer.is_some() { vec![JSON] } else { vec!["text/plain"] }
    }

    fn gvk(&self) -> Value {
        let (group, version, kind) = self.gvk;
        json!({"group": group, "version": version, "kind": kind})
    }

    /// What both dialects write the same way.
    fn common(&self, dialect: Dialect, id: &str) -> Value {
        let parameters: Vec<Value> =
            self.query.iter().map(|query| dialect.parameter("query", *query, false)).collect();
        json!({
            "operationId": id,
            "parameters": parameters,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.gvk(),
        })
    }

    /// Codes of success, with their text.
    fn codes(&self) -> &'static [(&'static str, &'static str)] {
        match self.action {
            "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            "put" | "patch" => &[("200", "OK"), ("201", "Created")],
            "delete" => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        }
    }

    fn v3(&self, id: &str) -> Value {
        let dialect = Dialect::V3;
        let reference = |ty: &str| json!({"$ref": format!("{}{ty}", dialect.reference_prefix())});
        let content = |types: Vec<&str>, schema: &Value| -> Value {
            types
                .into_iter()
                .map(|media| (media.to_owned(), json!({"schema": schema})))
                .collect::<Map<_, _>>()
                .into()
        };
        let mut operation = self.common(dialect, id);
        let answer = self.answer.as_deref().map_or_else(|| json!({"type": "string"}), reference);
        for (code, text) in self.codes() {
            operation["responses"][*code] =
                json!({"description": text, "content": content(self.answer_types(), &answer)});
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = json!({"content": content(self.media_types(), &reference(body))});
        } else if self.action == "patch" {
            operation["requestBody"] = json!({
                "required": true,
                "content": content(self.media_types(), &json!({"type": "object"})),
            });
        }
        operation
    }

    fn v2(&self, id: &str) -> Value {
        let dialect = Dialect::V2;
        let reference = |ty: &str| json!({"$ref": format!("{}{ty}", dialect.reference_prefix())});
        let mut operation = self.common(dialect, id);
        let answer = self.answer.as_deref().map_or_else(|| json!({"type": "string"}), reference);
        for (code, text) in self.codes() {
            operation["responses"][*code] = json!({"description": text, "schema": answer});
        }
        operation["produces"] = json!(self.answer_types());
        operation["consumes"] = json!(self.media_types());
        let body = match &self.body {
            Some(body) => Some(reference(body)),
            None => (self.action == "patch").then(|| json!({"type": "object"})),
        };
        if let (Some(schema), Some(parameters)) = (body, operation["parameters"].as_array_mut()) {
            let required = !self.action.starts_with("delete");
            parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
        }
        operation
    }
}
