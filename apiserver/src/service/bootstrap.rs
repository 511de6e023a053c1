//! What a cluster cannot be without: the system namespaces, the priorities of its own pods, the class of its GPUs, and the
//! roles that everybody expects.

use claw_client::{
    ResourceRef,
    request::{View, WriteOptions},
};
use claw_schemas::{ApiError, api::CHECK_PRIORITY, gpu, status::Reason};
use serde_json::{Value, json};

use super::{
    ObjectService,
    admit::SYSTEM_NAMESPACES,
    owners::Claims,
    sealed::Sealed,
    update::{Part, Proposal},
};
use crate::auth::rbac::{self, bootstrap};

/// (name, priority, whether others make room, which pods it is for): Kubernetes' own, above all that users can give, and that of
/// looks at devices.
const SYSTEM_PRIORITIES: [(&str, i64, &str, &str); 3] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "PreemptLowerPriority",
        "Pods without which the cluster does not work.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "PreemptLowerPriority",
        "Pods without which a node does not work.",
    ),
    (CHECK_PRIORITY, -1_000_000_000, "Never", "Pods that look at devices which nobody uses."),
];

/// All devices of a type that our agents publish.
fn class_of(name: &str, type_: &str) -> Value {
    let driver = gpu::DRIVER;
    let is_it = format!("device.driver == '{driver}' && device.attributes['{driver}'].type == '{type_}'");
    class_by(name, &is_it)
}

fn class_by(name: &str, expression: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}]}})
}

impl ObjectService {
    /// Creates what a cluster cannot be without, where it is missing, and brings default roles up to date.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn ensure_bootstrap_objects(&self) -> Result<(), ApiError> {
        for name in SYSTEM_NAMESPACES {
            let namespaces = ResourceRef::collection("", "v1", "namespaces");
            self.ensure(namespaces, &json!({"metadata": {"name": name}})).await?;
        }
        for (name, value, preemption, description) in SYSTEM_PRIORITIES {
            let classes = ResourceRef::collection("scheduling.k8s.io", "v1", "priorityclasses");
            let class = json!({
                "metadata": {"name": name}, "value": value, "preemptionPolicy": preemption, "description": description,
            });
            self.ensure(classes, &class).await?;
        }
        let classes = ResourceRef::collection("resource.k8s.io", "v1", "deviceclasses");
        self.ensure(classes.clone(), &class_of(gpu::CLASS, "gpu")).await?;
        self.ensure(classes.clone(), &class_of(gpu::INSTANCE_CLASS, "mig")).await?;
        self.ensure(classes.clone(), &class_of(gpu::AMD_CLASS, gpu::AMD_TYPE)).await?;
        self.ensure(classes.clone(), &class_of(gpu::VULKAN_CLASS, gpu::VULKAN_TYPE)).await?;
        let any = format!("device.driver == '{}'", gpu::DRIVER);
        self.ensure(classes, &class_by(gpu::ANY_CLASS, &any)).await?;
        for default in bootstrap::defaults() {
            let collection = ResourceRef::collection(rbac::GROUP, "v1", default.plural);
            if !self.ensure(collection.clone(), &default.object).await? {
                self.reconcile(collection.named(&default.name), &default.object).await?;
            }
        }
        Ok(())
    }

    /// Whether the object was missing and is made. One that is there is looked up, not refused: what it has, such as an address, is
    /// not to be had twice, and a refusal would speak of that.
    pub(super) async fn ensure(&self, collection: ResourceRef, object: &Value) -> Result<bool, ApiError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let present = self.kinds.resolve(collection.clone().named(name))?;
        if self.find(&present.key()).await?.is_some() {
            return Ok(false);
        }
        let target = self.kinds.resolve(collection)?;
        let options = WriteOptions { field_manager: Some("clawbernetes".to_owned()), ..Default::default() };
        match self.create(&target, object.to_string().as_bytes(), &options, View::Object).await {
            Ok(_) => Ok(true),
            Err(error) if error.reason == Reason::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn reconcile(&self, object: ResourceRef, wanted: &Value) -> Result<(), ApiError> {
        let target = self.kinds.resolve(object)?;
        let make = |Sealed { object: present, .. }: &Sealed| {
            let object = bootstrap::reconciled(present, wanted).unwrap_or_else(|| present.clone());
            Ok(Proposal { object, claims: Claims::Kept, warnings: Vec::new() })
        };
        self.change(&target, Part::Main, &WriteOptions::default(), make).await.map(drop)
    }
}
