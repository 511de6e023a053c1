//! The `scale` subresource: the replica count of a workload as an `autoscaling/v1` Scale.

use claw_client::{
    Response,
    request::{PatchKind, WriteOptions},
};
use claw_schemas::{ApiError, selector::LabelSelector, status::Cause};
use serde_json::{Value, json};

use super::{
    ObjectService, body, decode, encode,
    kinds::Target,
    list::ok,
    object::text,
    update::{Part, Proposal},
};
use crate::patch;

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";

impl ObjectService {
    pub(super) async fn get_scale(&self, target: &Target) -> Result<Response, ApiError> {
        let object = encode::value_of(&self.record(target).await?)?;
        Ok(ok(scale_of(&object).to_string().into()))
    }

    pub(super) async fn replace_scale(
        &self,
        target: &Target,
        sent: &[u8],
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        let scale = body::document(sent, API_VERSION, KIND)?;
        self.write_scale(target, options, |_| Ok(scale.clone())).await
    }

    pub(super) async fn patch_scale(
        &self,
        target: &Target,
        (kind, sent): (PatchKind, &[u8]),
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        decode::check_size(sent)?;
        // A Scale has no lists, so a strategic merge of it is a plain one.
        let kind = if kind == PatchKind::Strategic { PatchKind::Merge } else { kind };
        self.write_scale(target, options, |old| patch::apply(kind, &scale_of(old), sent, None)).await
    }

    async fn write_scale(
        &self,
        target: &Target,
        options: &WriteOptions,
        make: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Response, ApiError> {
        let make = |_: &_, old: &Value| {
            let scale = make(old)?;
            Ok(Proposal { object: scaled(target, old, &scale)?, warnings: Vec::new() })
        };
        let changed = self.change(target, Part::Main, options.dry_run, make).await?;
        let object: Value = serde_json::from_slice(&changed.stored)
            .map_err(|error| ApiError::internal(format!("the scaled object does not parse: {error}")))?;
        Ok(ok(scale_of(&object).to_string().into()))
    }
}

/// The workload with the replica count of a Scale.
fn scaled(target: &Target, old: &Value, scale: &Value) -> Result<Value, ApiError> {
    super::object::check_name(target, scale)?;
    let invalid = |cause| ApiError::invalid("autoscaling", KIND, &target.name, vec![cause]);
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        value => value.as_i64().filter(|count| i32::try_from(*count).is_ok()).ok_or_else(|| {
            invalid(Cause::invalid("spec.replicas", value, "must be a whole number of 32 bits"))
        })?,
    };
    if replicas < 0 {
        let why = "must be greater than or equal to 0";
        return Err(invalid(Cause::invalid("spec.replicas", replicas, why)));
    }
    let mut new = old.clone();
    new["spec"]["replicas"] = replicas.into();
    for field in ["uid", "resourceVersion"] {
        new["metadata"][field] = text(scale, field).into();
    }
    Ok(new)
}

fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let selector = serde_json::from_value(object["spec"]["selector"].clone())
        .ok()
        .and_then(|selector| LabelSelector::from_meta(&selector).ok())
        .unwrap_or_default();
    json!({
        "kind": KIND,
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": selector.to_string(),
        },
    })
}
