//! What was found about a device before anybody's work was given to it: a JSON document.
//!
//! Who looks at a device is `claw-compute`; who compares devices of a fleet needs no device, and does it here.

use crate::order::ReportDevice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What follows the program's name where it is to look at a device and report that in the manner of workers; then the level, and the way to
/// the device (`cuda`, `vulkan`).
pub const VERB: &str = "device-check";

/// Devices of one model from which on their median says something.
pub const FLEET_MIN: usize = 3;
/// What a device must reach of the median of its model.
const OF_MEDIAN: f64 = 0.85;

/// What is measured of devices as a rate, where more is better.
pub const RATES: [&str; 7] = [
    "copyBytesPerSecond",
    "uploadBytesPerSecond",
    "downloadBytesPerSecond",
    "matmulF32FlopsPerSecond",
    "matmulF16FlopsPerSecond",
    "matmulBf16FlopsPerSecond",
    "soakFlopsPerSecond",
];

/// How thoroughly a device is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Half a minute: a part of its memory, a short load.
    #[default]
    Quick,
    /// Under three minutes: all of its memory, a minute of load.
    Full,
}

impl Level {
    /// The quickest first.
    pub const ALL: [Self; 2] = [Self::Quick, Self::Full];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "Quick",
            Self::Full => "Full",
        }
    }

    /// That of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// All that was found about a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Qualification {
    /// Which.
    pub device: ReportDevice,
    /// Its driver, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// How thoroughly it was looked at.
    pub level: Level,
    /// One for each check, in order. A check after which the device is no longer usable is the last.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub seconds: f64,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// Whether the device may be used as far as this is concerned.
    pub passed: bool,
    /// What was found, in words.
    pub words: String,
    /// What was measured: names end with their unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Check {
    /// Whether it can be opened, and multiplies numbers.
    Open,
    /// Whether its memory keeps what is written.
    Memory,
    /// How quickly it copies within its memory.
    Copy,
    /// How quickly it exchanges data with the machine.
    Transfer,
    /// How quickly it multiplies matrices, in each of its types, and whether rightly.
    Matrix,
    /// Whether the same work gives the same results.
    Determinism,
    /// Whether it keeps its speed, and its results, under load.
    Soak,
    /// Whether it is as quick as it must be.
    Minimums,
    /// Whether it and another of the machine reach each other's memory, how quickly, and whether bytes arrive.
    Peer,
    /// Whether it keeps up with others of its model.
    Fleet,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Qualification {
    /// Whether the device may be used.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.passed)
    }

    /// The first thing that speaks against the device.
    #[must_use]
    pub fn objection(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| !finding.passed)
    }

    /// What was measured as a rate, where more is better. Not between two: some pairs have a link, and others a bus.
    fn rates(&self) -> impl Iterator<Item = (&str, f64)> {
        let figures = self.findings.iter().flat_map(|finding| &finding.figures);
        figures
            .filter(|(name, _)| RATES.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), *value))
    }
}

/// Compares devices with the median of their model, and adds what it finds to each. Models of which there are fewer than
/// [`FLEET_MIN`] are left as they are.
pub fn compare(fleet: &mut [Qualification]) {
    let mut rates: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for one in fleet.iter() {
        for (name, rate) in one.rates() {
            rates.entry((one.device.model.clone(), name.to_owned())).or_default().push(rate);
        }
    }
    let medians: BTreeMap<(String, String), f64> = rates
        .into_iter()
        .filter(|(_, rates)| rates.len() >= FLEET_MIN)
        .map(|(key, rates)| (key, median(rates)))
        .collect();
    for one in fleet {
        let beside = |(name, rate): (&str, f64)| {
            let median = *medians.get(&(one.device.model.clone(), name.to_owned()))?;
            Some((name.to_owned(), rate / median))
        };
        let shares: BTreeMap<String, f64> = one.rates().filter_map(beside).collect();
        if shares.is_empty() {
            continue;
        }
        let slow = shares.iter().filter(|(_, share)| **share < OF_MEDIAN);
        let slow: Vec<String> =
            slow.map(|(name, share)| format!("{name} is {:.0} % of the median", 100.0 * share)).collect();
        let passed = slow.is_empty();
        let words = if passed { "keeps up with its model".to_owned() } else { slow.join(", ") };
        let figures = shares.into_iter().map(|(name, share)| (format!("{name}OfMedian"), share)).collect();
        one.findings.push(Finding { check: Check::Fleet, passed, words, figures });
    }
}

/// The one in the middle; the lower of two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: usize, model: &str, rate: f64) -> Qualification {
        let figures =
            BTreeMap::from([("copyBytesPerSecond".to_owned(), rate), ("memoryBytes".to_owned(), 1.0)]);
        let finding = Finding { check: Check::Copy, passed: true, words: String::new(), figures };
        Qualification {
            device: ReportDevice { id: format!("cuda:{number}"), model: model.to_owned() },
            driver: None,
            level: Level::Quick,
            findings: vec![finding],
            seconds: 1.0,
        }
    }

    #[test]
    fn a_pair_without_a_link_of_its_own_is_not_slow() {
        let mut fleet: Vec<_> = (0..4).map(|number| device(number, "A", 3.0)).collect();
        for (at, rate) in [(0, 200.0), (1, 200.0), (2, 20.0), (3, 200.0)] {
            let figures = BTreeMap::from([("peerBytesPerSecond".to_owned(), rate)]);
            fleet[at].findings.push(Finding {
                check: Check::Peer,
                passed: true,
                words: String::new(),
                figures,
            });
        }
        compare(&mut fleet);
        assert!(fleet.iter().all(Qualification::passed), "{fleet:#?}");
    }

    #[test]
    fn a_device_slower_than_its_model_is_found_and_others_are_not_compared_with_it() {
        let mut fleet: Vec<_> =
            [3.0, 3.1, 2.0, 2.9].iter().enumerate().map(|(n, rate)| device(n, "A", *rate)).collect();
        fleet.push(device(4, "B", 0.1));
        compare(&mut fleet);
        let passed: Vec<bool> = fleet.iter().map(Qualification::passed).collect();
        assert_eq!(passed, [true, true, false, true, true]);
        let objection = fleet[2].objection().unwrap();
        assert_eq!(
            (objection.check, objection.words.as_str()),
            (Check::Fleet, "copyBytesPerSecond is 69 % of the median")
        );
        assert_eq!(fleet[4].findings.len(), 1, "one of a model has nobody to be compared with");
    }
}
