//! Webhooks and admission policies by their names: how long they took, and what came of it.
//!
//! Names, labels and buckets are Kubernetes'. The names of webhooks and policies are those of stored objects, which only
//! administrators make; should there be very many, the rest is counted under `other`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::RwLock;

use super::{Counter, Histogram, Text};

/// Series of one family: a hundred webhooks with every operation and outcome fit. Each takes some 200 bytes.
const SERIES_MAX: usize = 2048;

/// Bounds for webhooks, in nanoseconds.
const WEBHOOK_NS: &[u64] = &[
    5_000_000,
    25_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    25_000_000_000,
];
/// Bounds for expressions, in nanoseconds.
const CHECK_NS: &[u64] = &[500, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Figures by labels that objects bring.
struct Family<const N: usize, F> {
    labels: [&'static str; N],
    series: RwLock<BTreeMap<[String; N], Arc<F>>>,
}

impl<const N: usize, F> Family<N, F> {
    fn new(labels: [&'static str; N]) -> Self {
        Self { labels, series: RwLock::default() }
    }

    fn with(&self, values: [&str; N], make: impl FnOnce() -> F) -> Arc<F> {
        let values = values.map(str::to_owned);
        if let Some(known) = self.series.read().get(&values) {
            return known.clone();
        }
        let mut series = self.series.write();
        let values = if series.len() < SERIES_MAX { values } else { [(); N].map(|()| "other".to_owned()) };
        series.entry(values).or_insert_with(|| Arc::new(make())).clone()
    }

    fn each(&self, mut call: impl FnMut(&[(&str, &str)], &F)) {
        for (values, figure) in &*self.series.read() {
            let labels: Vec<_> = self.labels.into_iter().zip(values.iter().map(String::as_str)).collect();
            call(&labels, figure);
        }
    }
}

impl<const N: usize> Family<N, Counter> {
    fn count(&self, values: [&str; N]) {
        self.with(values, Counter::default).inc();
    }

    fn write(&self, text: &mut Text, name: &str, help: &str) {
        text.family(name, "counter", help);
        self.each(|labels, counter| text.sample(name, labels, counter.get()));
    }
}

impl<const N: usize> Family<N, Histogram> {
    fn observe(&self, values: [&str; N], bounds: &'static [u64], took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.with(values, || Histogram::seconds(bounds)).observe(nanoseconds);
    }

    fn write(&self, text: &mut Text, name: &str, help: &str) {
        text.family(name, "histogram", help);
        self.each(|labels, histogram| text.histogram(name, labels, histogram));
    }
}

/// A webhook that was asked about a write.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it may change the object.
    pub may_change: bool,
    /// `CREATE`, `UPDATE`, `DELETE`
    pub operation: &'a str,
}

impl Asked<'_> {
    const fn kind(&self) -> &'static str {
        if self.may_change { "admit" } else { "validating" }
    }
}

/// What came of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A value.
    Fine,
    /// It does not compile.
    Uncompiled,
    /// It took too long.
    Spent,
    /// Anything else.
    Failed,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Fine => "no_error",
            Self::Uncompiled => "compile_error",
            Self::Spent => "out_of_budget",
            Self::Failed => "invalid_error",
        }
    }
}

/// All figures about admission.
pub struct Admission {
    webhooks: Family<4, Histogram>,
    requests: Family<5, Counter>,
    rejections: Family<5, Counter>,
    fail_open: Family<2, Counter>,
    validations: Family<4, Counter>,
    validation_durations: Family<4, Histogram>,
    mutations: Family<3, Counter>,
    mutation_durations: Family<3, Histogram>,
}

impl Default for Admission {
    fn default() -> Self {
        let validating = ["policy", "policy_binding", "error_type", "enforcement_action"];
        let mutating = ["policy", "policy_binding", "error_type"];
        Self {
            webhooks: Family::new(["name", "type", "operation", "rejected"]),
            requests: Family::new(["name", "type", "operation", "code", "rejected"]),
            rejections: Family::new(["name", "type", "operation", "error_type", "rejection_code"]),
            fail_open: Family::new(["name", "type"]),
            validations: Family::new(validating),
            validation_durations: Family::new(validating),
            mutations: Family::new(mutating),
            mutation_durations: Family::new(mutating),
        }
    }
}

impl Admission {
    /// Counts an answer: 200, or the code of a refusal.
    pub fn answered(&self, asked: Asked<'_>, code: u16, took: Duration) {
        self.asked(asked, code, code != 200, took);
        if code != 200 {
            self.rejected(asked, "no_error", code);
        }
    }

    /// Counts a webhook that could not be asked. `is_ignored` says whether the write goes on without it.
    pub fn failed(&self, asked: Asked<'_>, code: u16, is_ignored: bool, took: Duration) {
        self.asked(asked, code, !is_ignored, took);
        if is_ignored {
            self.fail_open.count([asked.name, asked.kind()]);
        } else {
            self.rejected(asked, "calling_webhook_error", code);
        }
    }

    /// Counts an answer that nothing could be made of.
    pub fn unusable(&self, asked: Asked<'_>) {
        self.rejected(asked, "apiserver_internal_error", 500);
    }

    fn asked(&self, asked: Asked<'_>, code: u16, is_rejected: bool, took: Duration) {
        let (kind, code, rejected) = (asked.kind(), code.to_string(), is_rejected.to_string());
        self.requests.count([asked.name, kind, asked.operation, &code, &rejected]);
        self.webhooks.observe([asked.name, kind, asked.operation, &rejected], WEBHOOK_NS, took);
    }

    fn rejected(&self, asked: Asked<'_>, why: &str, code: u16) {
        self.rejections.count([asked.name, asked.kind(), asked.operation, why, &code.to_string()]);
    }

    /// Counts what an expression of a validating policy led to: `deny`, `warn`, `audit`, or `allow`.
    pub fn validated(&self, policy: &str, binding: &str, outcome: Outcome, action: &str, took: Duration) {
        let labels = [policy, binding, outcome.name(), action];
        self.validations.count(labels);
        self.validation_durations.observe(labels, CHECK_NS, took);
    }

    /// Counts one change of a mutating policy.
    pub fn mutated(&self, policy: &str, binding: &str, outcome: Outcome, took: Duration) {
        let labels = [policy, binding, outcome.name()];
        self.mutations.count(labels);
        self.mutation_durations.observe(labels, CHECK_NS, took);
    }

    pub(super) fn write(&self, text: &mut Text) {
        let of = |family: &str| format!("apiserver_admission_webhook_{family}");
        self.webhooks.write(text, &of("admission_duration_seconds"), "How long admission webhooks took.");
        self.requests.write(text, &of("request_total"), "Requests to admission webhooks.");
        self.rejections.write(text, &of("rejection_count"), "Writes refused by admission webhooks.");
        self.fail_open.write(text, &of("fail_open_count"), "Webhooks that failed and were ignored.");
        let of = |family: &str| format!("apiserver_validating_admission_policy_{family}");
        self.validations.write(text, &of("check_total"), "What expressions of validating policies led to.");
        let help = "How long expressions of validating policies took.";
        self.validation_durations.write(text, &of("check_duration_seconds"), help);
        let of = |family: &str| format!("apiserver_mutating_admission_policy_{family}");
        self.mutations.write(text, &of("check_total"), "Changes of mutating policies.");
        let help = "How long expressions of mutating policies took.";
        self.mutation_durations.write(text, &of("check_duration_seconds"), help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(admission: &Admission) -> String {
        let mut text = Text::default();
        admission.write(&mut text);
        text.into_string()
    }

    #[test]
    fn figures_have_the_names_and_labels_of_kubernetes() {
        let admission = Admission::default();
        let asked = Asked { name: "a.b.c", may_change: true, operation: "CREATE" };
        let took = Duration::from_millis(7);
        admission.answered(asked, 200, took);
        admission.answered(Asked { may_change: false, ..asked }, 403, took);
        admission.failed(asked, 503, false, took);
        admission.failed(asked, 503, true, took);
        admission.unusable(asked);
        admission.validated("p", "b", Outcome::Fine, "deny", took);
        admission.mutated("p", "b", Outcome::Spent, took);
        let text = written(&admission);
        for line in [
            r#"apiserver_admission_webhook_admission_duration_seconds_bucket{name="a.b.c",type="admit",operation="CREATE",rejected="false",le="0.025"} 2"#,
            r#"apiserver_admission_webhook_request_total{name="a.b.c",type="admit",operation="CREATE",code="200",rejected="false"} 1"#,
            r#"apiserver_admission_webhook_rejection_count{name="a.b.c",type="validating",operation="CREATE",error_type="no_error",rejection_code="403"} 1"#,
            r#"apiserver_admission_webhook_rejection_count{name="a.b.c",type="admit",operation="CREATE",error_type="calling_webhook_error",rejection_code="503"} 1"#,
            r#"apiserver_admission_webhook_rejection_count{name="a.b.c",type="admit",operation="CREATE",error_type="apiserver_internal_error",rejection_code="500"} 1"#,
            r#"apiserver_admission_webhook_fail_open_count{name="a.b.c",type="admit"} 1"#,
            r#"apiserver_validating_admission_policy_check_total{policy="p",policy_binding="b",error_type="no_error",enforcement_action="deny"} 1"#,
            r#"apiserver_validating_admission_policy_check_duration_seconds_bucket{policy="p",policy_binding="b",error_type="no_error",enforcement_action="deny",le="0.01"} 1"#,
            r#"apiserver_mutating_admission_policy_check_total{policy="p",policy_binding="b",error_type="out_of_budget"} 1"#,
            r#"apiserver_mutating_admission_policy_check_duration_seconds_count{policy="p",policy_binding="b",error_type="out_of_budget"} 1"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
        }
    }

    #[test]
    fn there_is_an_end_to_names() {
        let admission = Admission::default();
        for at in 0..SERIES_MAX + 10 {
            admission.mutated(&format!("p{at}"), "b", Outcome::Fine, Duration::ZERO);
        }
        assert_eq!(admission.mutations.series.read().len(), SERIES_MAX + 1);
        let rest = r#"check_total{policy="other",policy_binding="other",error_type="other"} 10"#;
        assert!(written(&admission).contains(rest));
    }
}
