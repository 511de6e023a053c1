//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::Histogram;

/// A document that grows.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family of samples.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            escape(&mut self.0, value);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A family of one counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let (buckets, count) = histogram.cumulated();
        self.buckets(name, labels, buckets, count, histogram.sum());
    }

    /// The same of somebody who counts otherwise: bounds, with how many values were at or below each.
    pub fn buckets(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let bounds = buckets.into_iter().map(|(bound, below)| (bound.to_string(), below));
        for (bound, below) in bounds.chain([("+Inf".to_owned(), count)]) {
            let labels = [labels, &[("le", &*bound)]].concat();
            self.sample(&format!("{name}_bucket"), &labels, below);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// What was written.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_buckets_add_up() {
        let mut text = Text::default();
        text.gauge("up", "Whether it is.", 1);
        text.sample("odd", &[("a", "x\"y\\z\n"), ("b", "")], 2);
        let histogram = Histogram::seconds(&[500_000, 1_000_000_000]);
        [1, 500_000, 2_000_000_000].into_iter().for_each(|value| histogram.observe(value));
        text.histogram("took", &[("verb", "GET")], &histogram);
        let expected = r#"# HELP up Whether it is.
# TYPE up gauge
up 1
odd{a="x\"y\\z\n",b=""} 2
took_bucket{verb="GET",le="0.0005"} 2
took_bucket{verb="GET",le="1"} 2
took_bucket{verb="GET",le="+Inf"} 3
took_sum{verb="GET"} 2.000500001
took_count{verb="GET"} 3
"#;
        assert_eq!(text.into_string(), expected);
    }
}
