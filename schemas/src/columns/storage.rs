//! Columns of volumes, of claims on them, and of where they come from.

use jiff::Timestamp;
use serde_json::Value;

use super::{UNSET, age_column, choice, column, created, items, name, or, text, wide};
use crate::registry::Column;

/// The older way to name a class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// Annotations that make a class the one for claims which name none.
const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// In the order that they are shown in.
const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

/// NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE
pub fn volume() -> Vec<Column> {
    vec![
        name(),
        column("Capacity", "string", "How much fits in."),
        column("Access Modes", "string", "Who may mount it."),
        column("Reclaim Policy", "string", "What becomes of it after its claim."),
        column("Status", "string", "Whether it is free, bound or done with."),
        column("Claim", "string", "Whose it is."),
        column("StorageClass", "string", "Where it comes from."),
        column("VolumeAttributesClass", "string", "How it performs."),
        column("Reason", "string", "Why it is in trouble, as one word."),
        age_column(),
        wide("VolumeMode", "Whether it holds files or raw blocks."),
    ]
}

/// Cells for [`volume`].
pub fn volume_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, claim) = (&object["spec"], &object["spec"]["claimRef"]);
    let claim = match claim.is_object() {
        true => format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])),
        false => String::new(),
    };
    vec![
        object["metadata"]["name"].clone(),
        or(&spec["capacity"]["storage"], "0").into(),
        access_modes(&spec["accessModes"]).into(),
        text(&spec["persistentVolumeReclaimPolicy"]).into(),
        phase(object).into(),
        claim.into(),
        class_of(object).into(),
        or(&spec["volumeAttributesClassName"], UNSET).into(),
        text(&object["status"]["reason"]).into(),
        created(object, now),
        or(&spec["volumeMode"], UNSET).into(),
    ]
}

/// NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE
pub fn claim() -> Vec<Column> {
    vec![
        name(),
        column("Status", "string", "Whether there is a volume for it."),
        column("Volume", "string", "Its volume."),
        column("Capacity", "string", "How much fits in."),
        column("Access Modes", "string", "Who may mount it."),
        column("StorageClass", "string", "Where the volume is to come from."),
        column("VolumeAttributesClass", "string", "How it is to perform."),
        age_column(),
        wide("VolumeMode", "Whether it holds files or raw blocks."),
    ]
}

/// Cells for [`claim`].
pub fn claim_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let volume = text(&spec["volumeName"]);
    let (capacity, modes) = match volume {
        "" => (String::new(), String::new()),
        _ => (or(&status["capacity"]["storage"], "0").to_owned(), access_modes(&status["accessModes"])),
    };
    vec![
        object["metadata"]["name"].clone(),
        phase(object).into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class_of(object).into(),
        or(&spec["volumeAttributesClassName"], UNSET).into(),
        created(object, now),
        or(&spec["volumeMode"], UNSET).into(),
    ]
}

/// NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE
pub fn class() -> Vec<Column> {
    vec![
        name(),
        column("Provisioner", "string", "Who makes the volumes."),
        column("ReclaimPolicy", "string", "What becomes of a volume after its claim."),
        column("VolumeBindingMode", "string", "When a volume is made and bound."),
        column("AllowVolumeExpansion", "boolean", "Whether volumes may grow."),
        age_column(),
    ]
}

/// Cells for [`class`].
pub fn class_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (name, annotations) = (text(&object["metadata"]["name"]), &object["metadata"]["annotations"]);
    let is_default = DEFAULT_ANNOTATIONS.iter().any(|name| annotations[*name] == "true");
    vec![
        if is_default { format!("{name} (default)").into() } else { name.into() },
        text(&object["provisioner"]).into(),
        or(&object["reclaimPolicy"], "Delete").into(),
        or(&object["volumeBindingMode"], "Immediate").into(),
        (choice(&object["allowVolumeExpansion"]) == "True").into(),
        created(object, now),
    ]
}

fn phase(object: &Value) -> &str {
    if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else {
        text(&object["status"]["phase"])
    }
}

fn class_of(object: &Value) -> &str {
    let annotated = text(&object["metadata"]["annotations"][CLASS_ANNOTATION]);
    if annotated.is_empty() { text(&object["spec"]["storageClassName"]) } else { annotated }
}

/// `RWO,ROX`
fn access_modes(modes: &Value) -> String {
    let has = |mode: &str| items(modes).any(|other| other == mode);
    let shown: Vec<&str> =
        ACCESS_MODES.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect();
    shown.join(",")
}
