//! Room on the disk: images that were used longest ago go when it is fuller than it should be. Source of the figures:
//! kubelet's defaults.

use std::time::{Duration, SystemTime};

use super::store::{InUse, Listed, Store};
use crate::Error;

/// When images go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Above this part of the disk, in percent, images go,
    pub high_percent: u64,
    /// until it is down to this.
    pub low_percent: u64,
    /// An image that was used more recently stays.
    pub age_min: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, age_min: Duration::from_secs(120) }
    }
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images.
    pub removed: Vec<Listed>,
    /// Bytes of layers, unpacked.
    pub bytes: u64,
}

impl Thresholds {
    /// How much has to go of a disk of which so much is used.
    pub fn excess_bytes(&self, used_bytes: u64, all_bytes: u64) -> Option<u64> {
        let part = |percent: u64| u128::from(all_bytes) * u128::from(percent) / 100;
        let used = u128::from(used_bytes);
        if used <= part(self.high_percent) {
            return None;
        }
        u64::try_from(used.saturating_sub(part(self.low_percent))).ok()
    }
}

/// Makes room if it is needed.
pub(super) fn collect(
    store: &Store,
    thresholds: &Thresholds,
    in_use: impl FnOnce() -> Result<InUse, Error>,
) -> Result<Collected, Error> {
    let (used, all) = store.disk()?;
    let Some(excess) = thresholds.excess_bytes(used, all) else { return Ok(Collected::default()) };
    let used_before = SystemTime::now().checked_sub(thresholds.age_min).unwrap_or(SystemTime::UNIX_EPOCH);
    let (removed, bytes) = store.shrink(excess, used_before, in_use)?;
    if bytes < excess {
        let percent = u128::from(used) * 100 / u128::from(all.max(1));
        tracing::warn!(
            percent,
            excess,
            freed = bytes,
            "the disk is too full, and the images that nobody uses are not enough"
        );
    }
    Ok(Collected { removed, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_below_the_upper_threshold_and_then_down_to_the_lower() {
        let thresholds = Thresholds::default();
        assert_eq!(thresholds.excess_bytes(85, 100), None);
        assert_eq!(thresholds.excess_bytes(86, 100), Some(6));
        assert_eq!(thresholds.excess_bytes(u64::MAX, u64::MAX), Some(u64::MAX / 5));
        assert_eq!(thresholds.excess_bytes(0, 0), None);
    }
}
