//! What may be asked of the API, independent of the wire it travels on.

use bytes::Bytes;

/// Names a collection, an object, or a subresource of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceRef {
    /// Empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// Lower-case plural: `pods`.
    pub plural: String,
    /// `None` for cluster-scoped kinds and for "all namespaces".
    pub namespace: Option<String>,
    /// `None` names the collection.
    pub name: Option<String>,
    /// `status`, `scale`, `log`, ...
    pub subresource: Option<String>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is about.
    pub resource: ResourceRef,
    /// What to do.
    pub verb: Verb,
    /// How the answer should look.
    pub view: View,
}

/// How objects are rendered in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// The objects themselves.
    #[default]
    Object,
    /// A `meta.k8s.io/v1` Table; rows carry what the policy says.
    Table(IncludeObject),
    /// `PartialObjectMetadata`, or a list of it.
    Metadata,
}

/// What a Table row carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// The verbs of the API.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads a collection.
    List(ListOptions),
    /// Adds an object.
    Create {
        /// JSON or YAML of the object.
        body: Bytes,
        /// Options.
        options: WriteOptions,
    },
    /// Replaces an object.
    Update {
        /// JSON or YAML of the object.
        body: Bytes,
        /// Options.
        options: WriteOptions,
    },
    /// Changes part of an object.
    Patch {
        /// How to read `body`.
        kind: PatchKind,
        /// The patch.
        body: Bytes,
        /// Options.
        options: WriteOptions,
        /// Server-side apply only: take fields that others own.
        force: bool,
    },
    /// Removes an object.
    Delete(DeleteOptions),
    /// Removes the selected objects of a collection.
    DeleteCollection {
        /// Which.
        list: ListOptions,
        /// How.
        delete: DeleteOptions,
    },
}

/// Options of list and watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Text form; empty selects everything.
    pub label_selector: String,
    /// Text form; empty selects everything.
    pub field_selector: String,
    /// At most so many items; 0 means all.
    pub limit: u64,
    /// From the `continue` of the page before.
    pub continue_token: Option<String>,
    /// `None`: most recent. `Some("0")`: any cached state. Else see `resource_version_match`.
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<String>,
}

/// Options of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Text form; empty selects everything.
    pub label_selector: String,
    /// Text form; empty selects everything.
    pub field_selector: String,
    /// Start after this revision. `None` or `"0"`: begin with synthetic `Added` events for what exists.
    pub resource_version: Option<String>,
    /// Whether the client understands bookmarks.
    pub allow_bookmarks: bool,
    /// Begin with what exists, then one bookmark annotated `k8s.io/initial-events-end`.
    pub send_initial_events: bool,
    /// End the watch cleanly after so many seconds; `None` leaves it to the server.
    pub timeout_seconds: Option<u64>,
}

/// Options that every write takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Who writes, for `metadata.managedFields`.
    pub field_manager: Option<String>,
    /// The program that asks: who writes when `field_manager` does not say. Wires set it, clients need not.
    pub user_agent: Option<String>,
    /// What to do about unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Validate and answer as usual, store nothing.
    pub dry_run: bool,
}

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Patch formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`: server-side apply.
    Apply,
}

/// Options of a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds to let it stop; `None` is the kind's default.
    pub grace_period_seconds: Option<i64>,
    /// What happens to dependents; `None` is the kind's default.
    pub propagation: Option<Propagation>,
    /// Delete only this incarnation.
    pub precondition_uid: Option<String>,
    /// Delete only this revision.
    pub precondition_resource_version: Option<String>,
    /// Answer as usual, delete nothing.
    pub dry_run: bool,
}

/// What happens to dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The owner goes at once, dependents are collected after it.
    Background,
    /// Dependents first.
    Foreground,
    /// Dependents stay, without the owner.
    Orphan,
}

/// The answer to a request that succeeded.
#[derive(Clone, Debug)]
pub struct Response {
    /// 200, 201 (created) or 202 (deletion under way).
    pub code: u16,
    /// JSON of the object, list, table or Status.
    pub body: Bytes,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl ResourceRef {
    /// A collection of a kind, in all namespaces.
    pub fn collection(group: &str, version: &str, plural: &str) -> Self {
        Self { group: group.into(), version: version.into(), plural: plural.into(), ..Self::default() }
    }

    /// The same, in one namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// One object of it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// A subresource of it.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "nobody subtracts from the name of a resource")]
    pub fn sub(mut self, subresource: &str) -> Self {
        self.subresource = Some(subresource.to_owned());
        self
    }
}
