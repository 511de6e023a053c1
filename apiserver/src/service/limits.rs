//! Every limit of the object service, with its arithmetic.

use std::time::Duration;

/// Largest request body. Kubernetes takes 3 MiB: twice an object of the largest size, as a patch may replace every
/// byte of one and name it too.
pub const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Largest stored object: the 1.5 MB that etcd, and so every Kubernetes, allows. Ten of them fit into one journal
/// batch and one is still read in under 10 ms.
pub const OBJECT_BYTES_MAX: usize = 1_572_864;

/// Deepest nesting of a document. `serde_json` stops at 128; the deepest served schema (a pod template's
/// affinity terms in a workload) is under 20.
pub const DOCUMENT_DEPTH_MAX: usize = 100;

/// Keys that are reported to occur twice: as many as Kubernetes reports of one body.
pub const DUPLICATES_MAX: usize = 100;

/// Bytes of their paths after which no more are noted. A path may be as long as the body, so that a body of 3 MiB could
/// otherwise ask for 100,000 texts of 1 MiB.
pub const DUPLICATES_BYTES_MAX: usize = 64 * 1024;

/// Bytes of all warnings of one answer, and of one of them: they travel as headers, of which clients take a few KiB.
/// Kubernetes' own figures.
pub const WARNINGS_BYTES_MAX: usize = 4 * 1024;
/// See [`WARNINGS_BYTES_MAX`].
pub const WARNING_BYTES_MAX: usize = 256;

/// What a decoded document may weigh, in bytes of keys and values with a separator each. No body within the request limit
/// weighs more unless it uses YAML's aliases; as a tree in memory this is 270 MiB in the worst case: objects of one field,
/// of 8 bytes as text and some 680 in a tree.
pub const DOCUMENT_WEIGHT_MAX: usize = REQUEST_BYTES_MAX;

/// How often a patch, or an update without a `resourceVersion`, is computed again after losing a race. Each loss means
/// that another writer won, so 64 concurrent writers on one object all finish within 64 rounds.
pub const CONFLICT_RETRIES_MAX: usize = 64;

/// How often a clash of a generated name is retried. Five letters of 27 make 14 million names: with 10,000 objects of
/// one prefix a clash has a chance of 7 in 10,000, and eight in a row one of 10⁻²⁵.
pub const NAME_RETRIES_MAX: usize = 8;

/// Watches open at one time. Each holds a cursor, two timers and its stream: about 4 KiB, so 40 MiB at the limit.
pub const WATCHES_OPEN_MAX: usize = 10_000;

/// Of these, for one user: a quarter.
pub const WATCHES_A_USER_MAX: usize = WATCHES_OPEN_MAX / 4;

/// Of these, for the control plane alone: each controller has a watch for each of a few dozen kinds.
pub const WATCHES_RESERVED: usize = WATCHES_OPEN_MAX / 10;

/// What a client refused a watch should wait.
pub const WATCH_RETRY_AFTER_S: u32 = 5;

/// How long a watch lives when the client does not say: at least so long, at most twice it, spread so that clients that
/// connected together do not come back together. Kubernetes' own figure.
pub const WATCH_LIFE_MIN: Duration = Duration::from_secs(1800);

/// Longest life of a watch that a client may ask for: one day, after which a lost client is certain to be noticed.
pub const WATCH_LIFE_MAX: Duration = Duration::from_secs(86_400);

/// Distance between bookmarks; with 75 s of history in the store a client that loses its connection just before one can
/// still resume from the last.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long before its end a watch sends a last bookmark.
pub const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// Records taken from the store at a time while a selector looks for matches, and between two yields to other tasks
/// while an answer is rendered or a watch looks for changes to tell: 500 records of 1 KiB are about 1 ms of work.
pub const LIST_CHUNK: usize = 500;

/// Object states whose labels, fields and rows are remembered for the next watcher. Watchers read within milliseconds
/// of each other, so at 20,000 writes/s 1,024 states are 50 ms of events.
pub const MEMO_SLOTS: usize = 1024;

/// A rendering above this size is made again for each watcher instead of remembered: 1,024 slots × 16 KiB bound the
/// memory of the memo to 16 MiB a view.
pub const MEMO_BYTES_MAX: usize = 16 * 1024;

/// How often every quota is counted anew. Accounts are right by themselves; this mends what nobody thought of. 1,000 quotas
/// over 100 pods each are 100,000 documents read, about a second of one core.
pub const QUOTA_COUNT_INTERVAL: Duration = Duration::from_secs(300);

/// How long after its making a quota is counted a second time, for the writes that were under way then: they take
/// milliseconds.
pub const QUOTA_SECOND_COUNT: Duration = Duration::from_secs(1);
