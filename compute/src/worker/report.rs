//! The report, in its file: at any moment a whole JSON document.
//!
//! The file is shown to containers by itself, so it cannot be replaced by another; it is written over in one call, and what is left of a longer
//! document before it is covered with spaces, which mean nothing after a document.

use claw_graph::order::{Failure, REPORT_BYTES_MAX, Report, State};
use claw_graph::qualification::RATES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a text that are kept when a report must be shorter, at least.
const TEXT_BYTES_MIN: usize = 64;

/// Keeps the report. Clones keep the same one.
#[derive(Clone)]
pub struct Reporter(Arc<Shared>);

struct Shared {
    file: File,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    report: Report,
    /// The file does not say it yet.
    is_stale: bool,
    /// Bytes in the file.
    bytes: usize,
}

impl Reporter {
    /// One that says that the work has begun.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(true).open(path)?;
        let reporter = Self(Arc::new(Shared { file, told: Mutex::default() }));
        let mut told = reporter.told();
        "starting".clone_into(&mut told.report.doing);
        reporter.write(&mut told)?;
        drop(told);
        Ok(reporter)
    }

    /// Changes what is said. The file follows when somebody calls [`Self::tell`].
    pub fn change(&self, change: impl FnOnce(&mut Report)) {
        let mut told = self.told();
        if told.report.state == State::Running {
            change(&mut told.report);
            told.is_stale = true;
        }
    }

    /// Says what is being done, in words.
    pub fn doing(&self, words: String) {
        self.change(|report| report.doing = words);
    }

    /// Brings the file up to date.
    pub fn tell(&self) {
        let mut told = self.told();
        if told.is_stale {
            // There is nobody to be told that nobody can be told.
            let _ = self.write(&mut told);
        }
    }

    /// Says how it ended. Only the first word counts; `false` to all who come later.
    pub fn end(&self, failure: Option<Failure>) -> bool {
        let mut told = self.told();
        if told.report.state != State::Running {
            return false;
        }
        told.report.state = if failure.is_some() { State::Failed } else { State::Complete };
        told.report.failure = failure;
        let _ = self.write(&mut told);
        // Spaces are of no use any more: people see this document.
        let _ = self.0.file.set_len(told.bytes as u64);
        true
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, told: &mut Told) -> io::Result<()> {
        let mut text = document(&told.report);
        let length = text.len();
        text.resize(length.max(told.bytes), b' ');
        self.0.file.write_all_at(&text, 0)?;
        // After the last word, nothing covers anything.
        told.bytes = if told.report.state == State::Running { text.len() } else { length };
        told.is_stale = false;
        Ok(())
    }
}

/// The report as JSON, without what does not fit.
fn document(report: &Report) -> Vec<u8> {
    let mut report = report.clone();
    loop {
        let text = serde_json::to_vec(&report).unwrap_or_default();
        if text.len() <= REPORT_BYTES_MAX || !shorten(&mut report) {
            return text;
        }
    }
}

/// Leaves out something, what is missed least before the rest. `false` if there is nothing left that could go.
fn shorten(report: &mut Report) -> bool {
    let model = report.device.as_mut().map(|device| &mut device.model);
    let message = report.failure.as_mut().map(|failure| &mut failure.message);
    let found = report.qualification.iter_mut().flat_map(|found| {
        let texts = [Some(&mut found.device.model), found.driver.as_mut()];
        texts.into_iter().flatten().chain(found.findings.iter_mut().map(|finding| &mut finding.words))
    });
    let texts = [Some(&mut report.doing), model, message].into_iter().flatten().chain(found);
    if let Some(text) = texts.max_by_key(|text| text.len()).filter(|text| text.len() > TEXT_BYTES_MIN) {
        text.truncate(text.floor_char_boundary(text.len() / 2));
        return true;
    }
    // Rates are what devices are compared by; words are what speaks against one.
    let mut findings = report.qualification.iter_mut().flat_map(|found| &mut found.findings);
    if let Some(finding) = findings.find(|one| one.figures.keys().any(|name| !RATES.contains(&name.as_str())))
    {
        finding.figures.retain(|name, _| RATES.contains(&name.as_str()));
        return true;
    }
    let mut findings = report.qualification.iter_mut().flat_map(|found| &mut found.findings);
    if let Some(finding) = findings.find(|one| one.passed && !one.words.is_empty()) {
        finding.words.clear();
        return true;
    }
    match report.outputs.iter_mut().rev().find(|output| !output.values.is_empty()) {
        Some(output) => output.values.clear(),
        None => return report.outputs.pop().is_some(),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use claw_graph::order::{Figures, OUTPUTS_MAX, Reason, ReportDevice, ReportOutput, VALUES_MAX};
    use claw_graph::qualification::{Check, Finding, Level, Qualification};

    fn read(path: &Path) -> Report {
        let text = std::fs::read(path).unwrap();
        assert!(text.len() <= REPORT_BYTES_MAX, "{} bytes", text.len());
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn the_file_is_a_document_at_any_moment_and_shrinks_with_what_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        let reporter = Reporter::open(&path).unwrap();
        assert_eq!(read(&path).doing, "starting");
        for words in ["x".repeat(1_000), "short".to_owned(), "a little longer".to_owned()] {
            reporter.doing(words.clone());
            reporter.tell();
            assert_eq!((read(&path).state, read(&path).doing), (State::Running, words));
        }
        assert!(reporter.end(None));
        assert_eq!(read(&path).state, State::Complete);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with('}'), "nothing covers what is gone");
    }

    #[test]
    fn only_the_first_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        let reporter = Reporter::open(&path).unwrap();
        let stopped = Failure { reason: Reason::Stopped, message: "asked to".to_owned() };
        assert!(reporter.end(Some(stopped.clone())) && !reporter.end(None));
        reporter.doing("run 7 of 9".to_owned());
        reporter.tell();
        let report = read(&path);
        assert_eq!(
            (report.state, report.failure, report.doing),
            (State::Failed, Some(stopped), "starting".to_owned())
        );
    }

    #[test]
    fn what_was_found_of_a_device_fits_and_keeps_its_rates() {
        let finding = |(number, check): (usize, Check)| Finding {
            check,
            passed: number % 2 == 0,
            words: "\u{1}".repeat(3_000),
            figures: RATES
                .iter()
                .map(|name| ((*name).to_owned(), 123_456_789_012_345.67))
                .filter(|_| number == 3)
                .chain([("other".repeat(8), 0.1)])
                .collect(),
        };
        let checks = [Check::Open, Check::Memory, Check::Copy, Check::Matrix, Check::Soak, Check::Fleet];
        let found = Qualification {
            device: ReportDevice { id: "vulkan:0".to_owned(), model: "€".repeat(500) },
            driver: Some("\"".repeat(5_000)),
            level: Level::Full,
            findings: checks.into_iter().enumerate().map(finding).collect(),
            seconds: 12.5,
        };
        let report =
            Report { state: State::Complete, qualification: Some(found.clone()), ..Report::default() };
        let text = document(&report);
        assert!(text.len() <= REPORT_BYTES_MAX, "{} bytes", text.len());
        let kept = serde_json::from_slice::<Report>(&text).unwrap().qualification.unwrap();
        assert_eq!((kept.findings.len(), kept.level), (6, Level::Full));
        let figures = &kept.findings[3].figures;
        assert!(RATES.iter().all(|name| figures.contains_key(*name)), "{figures:?}");
        assert!(!kept.findings[5].words.is_empty(), "what speaks against it stays");
    }

    #[test]
    fn whatever_there_is_to_say_fits() {
        let output = |number: usize| ReportOutput {
            value: format!("{number}{}", "n".repeat(62)),
            dtype: "bf16".to_owned(),
            shape: vec![1 << 40, 1, 1, 1, 1, 1, 1, 1],
            digest: format!("sha256:{}", "0".repeat(64)),
            values: vec!["-3.4028235e38".to_owned(); VALUES_MAX],
        };
        let mut report = Report {
            doing: "\u{1}".repeat(5_000),
            device: Some(ReportDevice { id: "vulkan:0".to_owned(), model: "€".repeat(3_000) }),
            figures: Some(Figures { seconds_max: f64::MAX, flops: u64::MAX, ..Figures::default() }),
            outputs: (0..OUTPUTS_MAX).map(output).collect(),
            ..Report::default()
        };
        let parse = |text: &[u8]| serde_json::from_slice::<Report>(text).unwrap();
        let text = document(&report);
        assert!(text.len() <= REPORT_BYTES_MAX, "{} bytes", text.len());
        assert_eq!(parse(&text).outputs.len(), OUTPUTS_MAX, "what came out goes last");
        report.failure = Some(Failure { reason: Reason::DeviceFailed, message: "\"".repeat(9_000) });
        let text = document(&report);
        assert!(text.len() <= REPORT_BYTES_MAX, "{} bytes", text.len());
        assert_eq!(parse(&text).failure.unwrap().reason, Reason::DeviceFailed);
    }
}
