//! Defaults of volumes, claims and classes.

use super::{Object, child, existing, text, value};

pub(super) fn volume(object: &mut Object) {
    let spec = child(object, "spec");
    text(spec, "persistentVolumeReclaimPolicy", "Retain");
    text(spec, "volumeMode", "Filesystem");
    if let Some(path) = existing(spec, "hostPath") {
        value(path, "type", "");
    }
    text(child(object, "status"), "phase", "Pending");
}

pub(super) fn claim(object: &mut Object) {
    text(child(object, "spec"), "volumeMode", "Filesystem");
    text(child(object, "status"), "phase", "Pending");
}

pub(super) fn class(object: &mut Object) {
    text(object, "reclaimPolicy", "Delete");
    text(object, "volumeBindingMode", "Immediate");
}
