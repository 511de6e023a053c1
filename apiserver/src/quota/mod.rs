//! What objects use of the quotas of their namespace, and what is left: pure arithmetic.
//!
//! Source of the names and of what counts: "Resource Quotas" in the Kubernetes documentation, and the evaluators of
//! `kube-apiserver`.
//!
//! Must never know: where quotas and objects are stored.

mod amounts;
pub mod ledger;
mod scopes;
pub mod usage;

pub use amounts::{Amount, Amounts};
