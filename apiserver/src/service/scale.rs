//! The `scale` subresource: the replica count of a workload as an `autoscaling/v1` Scale.

use claw_client::{
    Response,
    request::{PatchKind, WriteOptions},
};
use claw_schemas::{ApiError, selector::LabelSelector, status::Cause};
use serde_json::{Value, json};

use super::{
    ObjectService,
    apply::{self, applier},
    body, decode, encode,
    kinds::Target,
    list::ok,
    object::text,
    owners::{self, Claims},
    sealed::Sealed,
    update::{Part, Proposal},
};
use crate::patch;

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";
/// The name of the path, as managers carry it.
const NAME: &str = "scale";

impl ObjectService {
    pub(super) async fn get_scale(&self, target: &Target) -> Result<Response, ApiError> {
        let record = target.kind.shown_one(self.record(target).await?).await?;
        Ok(ok(scale_of(target, &encode::value_of(&record)?)?.to_string().into()))
    }

    pub(super) async fn replace_scale(
        &self,
        target: &Target,
        sent: &[u8],
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        let scale = body::document(sent, API_VERSION, KIND)?;
        let claims = owners::written(target, NAME, options, "UpdateOptions")?;
        self.write_scale(target, options, |old| Ok((scaled(target, old, &scale)?, claims.clone()))).await
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
        let claims = owners::written(target, NAME, options, "PatchOptions")?;
        let make = |old: &Value| {
            let scale = patch::apply(kind, &scale_of(target, old)?, sent, None)?;
            Ok((scaled(target, old, &scale)?, claims.clone()))
        };
        self.write_scale(target, options, make).await
    }

    /// Applies a Scale: its count of replicas is owned in the workload.
    pub(super) async fn apply_scale(
        &self,
        target: &Target,
        sent: &[u8],
        options: &WriteOptions,
        force: bool,
    ) -> Result<Response, ApiError> {
        let manager = applier(target, NAME, options)?;
        let scale = decode::document(sent)?.value;
        apply::expect_type(&scale, API_VERSION, KIND)?;
        let make = |_: &Value| {
            let config = scaled(target, &json!({}), &scale)?;
            Ok((config, Claims::Wanted { manager: manager.clone(), force }))
        };
        self.write_scale(target, options, make).await
    }

    async fn write_scale(
        &self,
        target: &Target,
        options: &WriteOptions,
        make: impl Fn(&Value) -> Result<(Value, Claims), ApiError>,
    ) -> Result<Response, ApiError> {
        let make = |old: &Sealed| {
            let (object, claims) = make(&old.object)?;
            Ok(Proposal { object, claims, warnings: Vec::new() })
        };
        let changed = self.change(target, Part::Main, options, make).await?;
        let object: Value = serde_json::from_slice(&changed.stored)
            .map_err(|error| ApiError::internal(format!("the scaled object does not parse: {error}")))?;
        Ok(ok(scale_of(target, &object)?.to_string().into()))
    }
}

/// The workload with the replica count of a Scale.
pub(super) fn scaled(target: &Target, old: &Value, scale: &Value) -> Result<Value, ApiError> {
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
    match target.kind.custom.as_ref().and_then(|custom| custom.scale()) {
        Some(scale) if !scale.set_replicas(&mut new, replicas) => {
            return Err(invalid(Cause::invalid("spec.replicas", replicas, "the object has no place for it")));
        }
        Some(_) => {}
        None => new["spec"]["replicas"] = replicas.into(),
    }
    for field in ["uid", "resourceVersion"] {
        new["metadata"][field] = text(scale, field).into();
    }
    Ok(new)
}

pub(super) fn scale_of(target: &Target, object: &Value) -> Result<Value, ApiError> {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let (replicas, current, selector) = match target.kind.custom.as_ref().and_then(|custom| custom.scale()) {
        Some(scale) => {
            let missing = |path: String| {
                ApiError::internal(format!("the spec replicas field \".{path}\" does not exist"))
            };
            let replicas = scale.replicas(object).map_err(missing)?;
            (replicas, scale.status_replicas(object), scale.selector(object).to_owned())
        }
        None => {
            let count = |part: &str| object[part]["replicas"].as_i64().unwrap_or(0);
            (count("spec"), count("status"), selector_of(&object["spec"]["selector"]))
        }
    };
    Ok(json!({
        "kind": KIND,
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "spec": {"replicas": replicas},
        "status": {"replicas": current, "selector": selector},
    }))
}

/// A selector as text; that of a ReplicationController is a plain map of labels.
fn selector_of(selector: &Value) -> String {
    let labels = selector.as_object().into_iter().flatten();
    let plain: Option<Vec<String>> =
        labels.map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    match plain {
        Some(labels) => labels.join(","),
        None => serde_json::from_value(selector.clone())
            .ok()
            .and_then(|selector| LabelSelector::from_meta(&selector).ok())
            .unwrap_or_default()
            .to_string(),
    }
}
