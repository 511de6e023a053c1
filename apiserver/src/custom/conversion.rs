//! From one version of a custom kind to another.

use claw_schemas::ApiError;
use serde_json::Value;

use super::{definition::Definition, webhook::Webhook};

/// How a definition converts its objects.
pub(crate) enum Converter {
    /// Versions differ in their name alone.
    Rename,
    /// A program of the user's knows.
    Webhook(Box<Webhook>),
}

impl Converter {
    /// As the definition says.
    pub fn of(definition: Definition<'_>) -> Self {
        let conversion = &definition.0["spec"]["conversion"];
        if conversion["strategy"] == "Webhook" {
            Self::Webhook(Box::new(Webhook::new(&conversion["webhook"], definition.kind())))
        } else {
            Self::Rename
        }
    }

    /// Objects in the wished version, in the same order. Those that are in it already stay as they are.
    ///
    /// # Errors
    /// When the webhook fails, or answers with something else than the objects it was given.
    pub async fn convert(&self, mut objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, ApiError> {
        let differs = |object: &Value| object["apiVersion"] != api_version;
        match self {
            Self::Rename => {
                objects.iter_mut().for_each(|object| object["apiVersion"] = api_version.into());
                Ok(objects)
            }
            Self::Webhook(webhook) => {
                let places: Vec<usize> = (0..objects.len()).filter(|at| differs(&objects[*at])).collect();
                if places.is_empty() {
                    return Ok(objects);
                }
                let asked = places.iter().map(|at| objects[*at].clone()).collect();
                for (at, converted) in places.into_iter().zip(webhook.convert(asked, api_version).await?) {
                    objects[at] = converted;
                }
                Ok(objects)
            }
        }
    }
}
