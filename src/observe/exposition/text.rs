//! The text format: families, their series, and what of a name has to be escaped.
//!
//! Written straight into strings: a scrape of a thousand upstreams is some 37 000 lines, and an object for each of
//! them and for each of their labels cost more than all the figures.

use std::fmt::{self, Write as _};

use crate::observe::HistogramSnapshot;

/// One family with its series; empty when it has none.
#[derive(Debug)]
pub(super) struct MetricFamily(String);

impl MetricFamily {
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// One series, or the several of a histogram.
#[derive(Debug)]
pub(super) struct Metric {
    /// Escaped, with commas between them and none at the end.
    labels: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Count(u64),
    Number(f64),
    /// Cumulative, one for each of [`DURATION_BOUNDS_S`].
    Histogram {
        buckets: Vec<u64>,
        sum: f64,
        count: u64,
    },
}

pub(super) fn counters(name: &str, help: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, "counter", series)
}

pub(super) fn gauges(name: &str, help: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, "gauge", series)
}

pub(super) fn histograms(name: &str, help: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, "histogram", series)
}

pub(super) fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    Metric { labels: written(labels), value: Value::Count(value) }
}

/// A counter of seconds.
pub(super) fn float_counter(labels: &[(&str, &str)], value: f64) -> Metric {
    gauge(labels, value)
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    Metric { labels: written(labels), value: Value::Number(value) }
}

pub(super) fn histogram(labels: &[(&str, &str)], snapshot: &HistogramSnapshot) -> Metric {
    let buckets = snapshot.cumulative(&DURATION_BOUNDS_S);
    let (sum, count) = (snapshot.sum.as_secs_f64(), snapshot.count);
    Metric { labels: written(labels), value: Value::Histogram { buckets, sum, count } }
}

fn family(name: &str, help: &str, kind: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    let mut text = String::new();
    for metric in series {
        if text.is_empty() {
            text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        // Cannot fail: a `String` takes whatever is written.
        let _ = metric.write(name, &mut text);
    }
    MetricFamily(text)
}

impl Metric {
    fn write(&self, name: &str, text: &mut String) -> fmt::Result {
        match &self.value {
            Value::Count(count) => self.line(text, name, "", "", count),
            Value::Number(number) => self.line(text, name, "", "", number),
            Value::Histogram { buckets, sum, count } => {
                for (bound, within) in BOUND_LABELS.iter().zip(buckets) {
                    self.line(text, name, "_bucket", bound, within)?;
                }
                self.line(text, name, "_bucket", "le=\"+Inf\"", count)?;
                self.line(text, name, "_sum", "", sum)?;
                self.line(text, name, "_count", "", count)
            }
        }
    }

    /// Piece by piece: a format string for each line took half as long again.
    fn line(
        &self,
        text: &mut String,
        name: &str,
        part: &str,
        more: &str,
        value: &dyn fmt::Display,
    ) -> fmt::Result {
        let labels = self.labels.as_str();
        text.push_str(name);
        text.push_str(part);
        if !labels.is_empty() || !more.is_empty() {
            text.push('{');
            text.push_str(labels);
            text.push_str(if labels.is_empty() || more.is_empty() { "" } else { "," });
            text.push_str(more);
            text.push('}');
        }
        writeln!(text, " {value}")
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    let mut text =
        String::with_capacity(labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        escape(value, &mut text);
        text.push('"');
    }
    text
}

/// As the format wants it: a backslash before backslashes and quotes, and no line break.
fn escape(value: &str, text: &mut String) {
    if !value.contains(['\\', '"', '\n']) {
        return text.push_str(value);
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// 0.5 ms to 60 s (the default `timeout` of a route) in steps of about two and a half: from an answer
/// out of a cache to a request that nobody waits for any more.
const DURATION_BOUNDS_S: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The same, as labels.
const BOUND_LABELS: [&str; 16] = [
    "le=\"0.0005\"",
    "le=\"0.001\"",
    "le=\"0.0025\"",
    "le=\"0.005\"",
    "le=\"0.01\"",
    "le=\"0.025\"",
    "le=\"0.05\"",
    "le=\"0.1\"",
    "le=\"0.25\"",
    "le=\"0.5\"",
    "le=\"1\"",
    "le=\"2.5\"",
    "le=\"5\"",
    "le=\"10\"",
    "le=\"30\"",
    "le=\"60\"",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_their_labels_are_the_same() {
        let labels = DURATION_BOUNDS_S.map(|bound| format!("le=\"{bound}\""));
        assert_eq!(labels, BOUND_LABELS);
    }
}
