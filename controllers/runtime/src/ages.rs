//! How long ago something was, by a clock that nobody sets.
//!
//! The stamps in objects are read off clocks on walls. One is compared with the wall when it is first asked about; what passes
//! from then on is measured. So setting the wall's clock moves no deadline that is known. A process that begins believes the wall,
//! since nothing remembers more.
//!
//! Must never know: what stamps are about.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;

/// How many stamps are remembered, a hundred bytes each: 1.6 MiB. Of more, the earliest are compared anew.
const STAMPS_MAX: usize = 16_384;

/// The ages of stamps.
#[derive(Default)]
pub(crate) struct Ages {
    first: Mutex<BTreeMap<Timestamp, First>>,
}

/// When a stamp was asked about first.
#[derive(Clone, Copy)]
struct First {
    age: Duration,
    uptime: Duration,
}

impl Ages {
    /// How long ago `stamp` was, at so much uptime and with this on the wall. What is yet to come is of age zero, and ages from here.
    pub fn age(&self, stamp: Timestamp, wall: Timestamp, uptime: Duration) -> Duration {
        let mut all = self.first.lock();
        if all.len() >= STAMPS_MAX && !all.contains_key(&stamp) {
            all.pop_first();
        }
        let first = *all.entry(stamp).or_insert_with(|| First { age: between(stamp, wall), uptime });
        first.age.saturating_add(uptime.saturating_sub(first.uptime))
    }
}

/// From one time on the wall to a later one.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stamp_ages_by_what_passes_however_the_wall_is_set() {
        let ages = Ages::default();
        assert_eq!(ages.age(at(1_000), at(1_010), seconds(5)), seconds(10));
        for wall in [0, 1_000, 1_000_000] {
            assert_eq!(ages.age(at(1_000), at(wall), seconds(8)), seconds(13), "{wall}");
        }
        assert_eq!(ages.age(at(1_000_001), at(1_000_000), seconds(8)), seconds(0), "it is yet to come");
        assert_eq!(ages.age(at(1_000_001), at(0), seconds(9)), seconds(1));
    }

    #[test]
    fn of_too_many_stamps_the_earliest_is_compared_anew() {
        let ages = Ages::default();
        let count = i64::try_from(STAMPS_MAX).unwrap();
        for stamp in 0..=count {
            assert_eq!(ages.age(at(stamp), at(stamp), seconds(0)), seconds(0));
        }
        assert_eq!(ages.first.lock().len(), STAMPS_MAX);
        assert_eq!(ages.age(at(1), at(0), seconds(7)), seconds(7), "it is remembered");
        assert_eq!(ages.age(at(0), at(3), seconds(7)), seconds(3), "it is not");
    }
}
