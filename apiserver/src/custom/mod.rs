//! Kinds that users define: what a `CustomResourceDefinition` says, and what follows from it for its objects.
//!
//! [`validation`] judges definitions, [`plan`] gives them their names, [`version`] turns each of their versions into a kind
//! that is served by the same code as the built-in ones. The schema of a version is compiled once ([`node`]); objects are
//! then completed ([`fill`]), judged ([`check`]) and held against rules in CEL ([`cel`]). [`conversion`] leads from one
//! version to another.
//!
//! Must never know: how objects are stored, and who asks for them.

pub(crate) mod cel;
mod check;
mod columns;
mod conversion;
mod definition;
mod fill;
mod format;
mod node;
mod path;
mod plan;
mod structural;
mod validation;
mod version;
mod webhook;

pub(crate) use self::{
    conversion::Converter,
    definition::{CLEANUP_FINALIZER, Definition, defaults, terminate},
    plan::{Planned, plan},
    validation::{judge, judge_status},
    version::{Version, descriptor},
};

/// The group of definitions.
pub(crate) const GROUP: &str = "apiextensions.k8s.io";
/// The plural of definitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions";
