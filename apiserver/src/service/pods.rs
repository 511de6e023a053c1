//! What is special about pods: binding to a node, and how their deletions are asked for.

use claw_client::{
    Response,
    request::{DeleteOptions, Propagation, WriteOptions},
};
use claw_schemas::{ApiError, schema::time_text, status::Cause};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ObjectService, body, decode,
    delete::success,
    kinds::Target,
    object::{is_deleting, metadata_mut, text},
    owners::Claims,
    sealed::Sealed,
    update::{Part, Proposal},
};

impl ObjectService {
    /// Assigns a pod to a node, once.
    pub(super) async fn bind(
        &self,
        target: &Target,
        sent: &[u8],
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        let mut binding = body::document(sent, "v1", "Binding")?;
        expect_name(target, &binding)?;
        self.ask_about(target, &mut binding, options).await?;
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        let node_kind = binding["target"]["kind"].as_str().unwrap_or_default();
        let mut causes = Vec::new();
        if node.is_empty() {
            causes.push(Cause::required("target.name", "name the node"));
        }
        if !matches!(node_kind, "" | "Node") {
            let why = "supported values: \"Node\", \"\"";
            causes.push(Cause::invalid("target.kind", format!("\"{node_kind}\""), why));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid("", "Binding", &target.name, causes));
        }
        let make = |pod: &Sealed| {
            let object = bound(target, &pod.object, &binding, node)?;
            Ok(Proposal { object, claims: Claims::Kept, warnings: Vec::new() })
        };
        self.change(target, Part::Internal, options, make).await?;
        Ok(Response { code: 201, body: success(target, ""), warnings: Vec::new() })
    }
}

fn expect_name(target: &Target, document: &Value) -> Result<(), ApiError> {
    match text(document, "name") {
        "" => Ok(()),
        _ => super::object::check_name(target, document),
    }
}

/// The pod on its node.
fn bound(target: &Target, pod: &Value, binding: &Value, node: &str) -> Result<Value, ApiError> {
    let conflict = |why: &str| Err(target.kind.conflict(&target.name, why));
    let current = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if is_deleting(pod) {
        return conflict(&format!("pod {} is being deleted, cannot be assigned to a host", target.name));
    }
    if !current.is_empty() {
        return conflict(&format!("pod {} is already assigned to node \"{current}\"", target.name));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(&format!("pod {} has non-empty .spec.schedulingGates", target.name));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = node.into();
    let metadata = metadata_mut(&mut new);
    for field in ["uid", "resourceVersion"] {
        metadata.insert(field.to_owned(), text(binding, field).into());
    }
    annotate(&mut new, &binding["metadata"]["annotations"]);
    set_scheduled(&mut new);
    // The preconditions are looked at before anything is stored; the real uid must be in what is.
    if text(binding, "uid").is_empty() {
        new["metadata"]["uid"] = pod["metadata"]["uid"].clone();
    }
    Ok(new)
}

/// What whoever binds says beside the node.
fn annotate(pod: &mut Value, annotations: &Value) {
    for (name, value) in annotations.as_object().into_iter().flatten().filter(|(_, value)| value.is_string())
    {
        pod["metadata"]["annotations"][name] = value.clone();
    }
}

fn set_scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": time_text(Timestamp::now()),
    });
    let conditions = &mut pod["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => {
            list.retain(|condition| condition["type"] != "PodScheduled");
            list.push(condition);
        }
        None => *conditions = json!([condition]),
    }
}

/// Decodes the `DeleteOptions` that a delete may carry as its body.
///
/// # Errors
/// Names the field that is not what it should be.
pub fn decode_delete_options(body: &[u8]) -> Result<DeleteOptions, ApiError> {
    delete_options(&decode::document(body)?.value)
}

pub(super) fn delete_options(options: &Value) -> Result<DeleteOptions, ApiError> {
    let bad = |field: &str, value: &Value| {
        ApiError::invalid(
            "meta.k8s.io",
            "DeleteOptions",
            "",
            vec![Cause::invalid(field, value, "not understood")],
        )
    };
    if !options.is_null() && !options.is_object() {
        return Err(bad("deleteOptions", options));
    }
    let optional = |field: &str| Some(&options[field]).filter(|value| !value.is_null());
    let grace = optional("gracePeriodSeconds")
        .map(|value| value.as_i64().ok_or_else(|| bad("gracePeriodSeconds", value)))
        .transpose()?;
    let policy = optional("propagationPolicy")
        .map(|value| {
            propagation(value.as_str().unwrap_or_default()).ok_or_else(|| bad("propagationPolicy", value))
        })
        .transpose()?;
    let orphan = match optional("orphanDependents") {
        None => None,
        Some(Value::Bool(true)) => Some(Propagation::Orphan),
        Some(Value::Bool(false)) => Some(Propagation::Background),
        Some(other) => return Err(bad("orphanDependents", other)),
    };
    // One that is not understood must not count as none: what it protects would be deleted.
    let preconditions = optional("preconditions");
    if let Some(other) = preconditions.filter(|value| !value.is_object()) {
        return Err(bad("preconditions", other));
    }
    let precondition = |field: &str| match preconditions.map_or(&Value::Null, |those| &those[field]) {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        other => Err(bad(&format!("preconditions.{field}"), other)),
    };
    let dry_run = match optional("dryRun") {
        None => false,
        Some(Value::Array(stages)) if stages.iter().all(|stage| stage == "All") => !stages.is_empty(),
        Some(other) => return Err(bad("dryRun", other)),
    };
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        propagation: policy.or(orphan),
        precondition_uid: precondition("uid")?,
        precondition_resource_version: precondition("resourceVersion")?,
        dry_run,
    })
}

/// A propagation policy by its name.
pub fn propagation(name: &str) -> Option<Propagation> {
    Some(match name {
        "Background" => Propagation::Background,
        "Foreground" => Propagation::Foreground,
        "Orphan" => Propagation::Orphan,
        _ => return None,
    })
}
