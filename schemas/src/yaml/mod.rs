//! YAML as everybody around Kubernetes reads and writes it.
//!
//! Clients and servers of Kubernetes share one reader (`sigs.k8s.io/yaml`, over version 2 of go-yaml), which is of YAML 1.1: `yes`
//! is a flag, `0644` a number, `<<` merges maps. What is written here is read alike by readers of either version.
//!
//! * [`words`] says what a plain word means, [`scalar`] what a quoted or tagged one does.
//! * [`read`] turns a text into documents, which serde visits by [`visit`].
//! * [`write`] turns JSON into text.
//!
//! Must never know: kinds and their schemas.

mod read;
mod scalar;
mod visit;
mod words;
mod write;

pub use read::{Document, Error, documents, from_str, only};
pub use write::to_string;

#[cfg(test)]
mod tests;
