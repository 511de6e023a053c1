//! Pools of devices, as ResourceSlices tell: what slices of an older generation say of their pool is over.
//!
//! Must never know: who asks.

use claw_client::Snapshot;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};

/// A device of a pool, as the pool is now.
pub fn device<'a>(
    slices: &'a Snapshot<ResourceSlice>,
    driver: &str,
    pool: &str,
    name: &str,
) -> Option<&'a Device> {
    let newest = newest(slices, driver, pool)?;
    let current =
        slices.iter().filter(|slice| is_of(slice, driver, pool) && slice.spec.pool.generation == newest);
    current.flat_map(|slice| slice.spec.devices.iter().flatten()).find(|device| device.name == name)
}

/// Whether a slice says how its pool is now.
pub fn is_current(slices: &Snapshot<ResourceSlice>, slice: &ResourceSlice) -> bool {
    newest(slices, &slice.spec.driver, &slice.spec.pool.name) == Some(slice.spec.pool.generation)
}

fn newest(slices: &Snapshot<ResourceSlice>, driver: &str, pool: &str) -> Option<i64> {
    slices.iter().filter(|slice| is_of(slice, driver, pool)).map(|slice| slice.spec.pool.generation).max()
}

fn is_of(slice: &ResourceSlice, driver: &str, pool: &str) -> bool {
    slice.spec.driver == driver && slice.spec.pool.name == pool
}
