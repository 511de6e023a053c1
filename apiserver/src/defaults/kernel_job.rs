//! Defaults of kernel jobs.

use super::{Object, child, items, pod, value};

pub(super) fn kernel_job(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "runs", 1);
    value(spec, "warmups", 0);
    value(spec, "backoffLimit", 2);
    value(spec, "runTimeoutSeconds", 600);
    items(spec, "volumes").for_each(pod::volume);
    child(object, "status");
}
