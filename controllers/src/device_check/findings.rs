//! What is found of a device beside what the look at it says: whether it is as quick as it must be, and as others of its model. Pure.

use std::collections::BTreeMap;

use claw_graph::{
    order::{Report, ReportDevice},
    qualification::{Check, Finding, Level, Qualification, compare},
};
use claw_schemas::{
    api::{DeviceCheck, DeviceFacts, DeviceFinding},
    quantity::Quantity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::json;

use crate::workers::clip;

/// Bytes of a finding's words that a status keeps.
const WORDS_BYTES_MAX: usize = 512;
/// Findings that a status keeps, and figures of each: more than there are.
const FINDINGS_MAX: usize = 16;
const FIGURES_MAX: usize = 32;

/// Whether the device reaches what it must, in the order of their names; `None` where it need not reach anything.
pub fn minimums(found: &Qualification, least: &BTreeMap<String, Text>) -> Option<Finding> {
    if least.is_empty() {
        return None;
    }
    let figure = |name: &str| found.findings.iter().find_map(|finding| finding.figures.get(name).copied());
    let short = |(name, text): (&String, &Text)| {
        let least = text.0.parse::<Quantity>().ok()?;
        match figure(name) {
            None => Some(format!("{name} was not measured, and must be at least {}", text.0)),
            // Thousandths of what is counted in thousands of millions.
            Some(figure) if figure < least.milli() as f64 / 1e3 => {
                Some(format!("{name} is {}, and must be at least {}", in_short(figure), text.0))
            }
            Some(_) => None,
        }
    };
    let short: Vec<String> = least.iter().filter_map(short).collect();
    let passed = short.is_empty();
    let words = if passed { "as quick as it must be".to_owned() } else { short.join(", ") };
    Some(Finding { check: Check::Minimums, passed, words, figures: BTreeMap::new() })
}

/// A figure, as quantities are written.
fn in_short(figure: f64) -> String {
    let (value, suffix) = match figure {
        1e15.. => (figure / 1e15, "P"),
        1e12.. => (figure / 1e12, "T"),
        1e9.. => (figure / 1e9, "G"),
        1e6.. => (figure / 1e6, "M"),
        1e3.. => (figure / 1e3, "k"),
        _ => (figure, ""),
    };
    format!("{value:.2}{suffix}")
}

/// How the last of these compares with the others; `None` where they are too few.
pub fn beside(fleet: &mut [Qualification]) -> Option<Finding> {
    let before = fleet.last()?.findings.len();
    compare(fleet);
    let last = fleet.last()?;
    last.findings.get(before).cloned()
}

/// What a check says, as the look itself said it: what was measured, by model. `None` for one that says nothing.
pub fn measured(check: &DeviceCheck) -> Option<Qualification> {
    let status = check.status.as_ref()?;
    let facts = status.device.as_ref()?;
    let findings: Vec<Finding> = status.findings.iter().filter_map(as_found).collect();
    let level = check.spec.level.as_deref().and_then(Level::of).unwrap_or_default();
    (status.verdict.is_some() && !findings.is_empty()).then(|| of_model(facts, level, findings))
}

/// Findings about a device of that model.
pub fn of_model(facts: &DeviceFacts, level: Level, findings: Vec<Finding>) -> Qualification {
    let model = facts.model.clone().unwrap_or_default();
    Qualification {
        device: ReportDevice { id: facts.uuid.clone(), model },
        driver: facts.driver_version.clone(),
        level,
        findings,
        seconds: 0.0,
    }
}

fn as_found(finding: &DeviceFinding) -> Option<Finding> {
    let check: Check = serde_json::from_value(json!(finding.check)).ok()?;
    let figures = finding.figures.clone();
    Some(Finding { check, passed: finding.passed, words: finding.words.clone(), figures })
}

/// As a status has them.
pub fn told(findings: &[Finding]) -> Vec<DeviceFinding> {
    let told = |finding: &Finding| DeviceFinding {
        check: finding.check.to_string(),
        passed: finding.passed,
        words: clip(finding.words.clone(), WORDS_BYTES_MAX),
        figures: finding
            .figures
            .iter()
            .take(FIGURES_MAX)
            .map(|(name, value)| (name.clone(), *value))
            .collect(),
    };
    findings.iter().take(FINDINGS_MAX).map(told).collect()
}

/// The first thing that a check has against its device.
pub fn objection(check: &DeviceCheck) -> Option<&DeviceFinding> {
    check.status.as_ref()?.findings.iter().find(|finding| !finding.passed)
}

/// A pod's report, as far as it is one.
pub fn report(message: &str) -> Option<Report> {
    serde_json::from_str(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rate: f64) -> Qualification {
        let figures = BTreeMap::from([("copyBytesPerSecond".to_owned(), rate)]);
        let copy = Finding { check: Check::Copy, passed: true, words: String::new(), figures };
        let facts = DeviceFacts { model: Some("A".to_owned()), ..DeviceFacts::default() };
        of_model(&facts, Level::Quick, vec![copy])
    }

    fn least(name: &str, text: &str) -> BTreeMap<String, Text> {
        BTreeMap::from([(name.to_owned(), Text(text.to_owned()))])
    }

    #[test]
    fn a_device_must_reach_what_is_wanted_of_it() {
        let judged = |least: &BTreeMap<String, Text>| {
            minimums(&found(1.5e12), least).map(|finding| (finding.passed, finding.words))
        };
        assert_eq!(judged(&BTreeMap::new()), None);
        for text in ["1500G", "1.5T", "1"] {
            assert!(judged(&least("copyBytesPerSecond", text)).unwrap().0, "{text}");
        }
        let words = "copyBytesPerSecond is 1.50T, and must be at least 1501G".to_owned();
        assert_eq!(judged(&least("copyBytesPerSecond", "1501G")), Some((false, words)));
        let words = "soakFlopsPerSecond was not measured, and must be at least 1".to_owned();
        assert_eq!(judged(&least("soakFlopsPerSecond", "1")), Some((false, words)));
    }

    #[test]
    fn the_last_is_compared_with_those_before_it() {
        assert_eq!(beside(&mut [found(2.0), found(1.0)]), None, "two are no fleet");
        let slow = beside(&mut [found(2.0), found(2.1), found(2.2), found(1.0)]).unwrap();
        assert_eq!((slow.check, slow.passed), (Check::Fleet, false));
        assert!(beside(&mut [found(1.0), found(2.1), found(2.2), found(2.0)]).unwrap().passed);
    }

    #[test]
    fn what_a_status_keeps_is_bounded() {
        let long =
            Finding { check: Check::Soak, passed: false, words: "ü".repeat(900), figures: BTreeMap::new() };
        let told = told(&vec![long; 40]);
        assert_eq!(told.len(), FINDINGS_MAX);
        assert!(told[0].words.len() <= WORDS_BYTES_MAX && told[0].words.ends_with('…'));
    }
}
