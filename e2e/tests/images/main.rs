//! Images: from registries that work and registries that do not, from files, into containers, and away again.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod files;
mod hostile;
mod made;
mod registry;
mod stories;
mod users;
