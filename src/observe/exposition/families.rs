//! Families and their series, as the crate `prometheus` writes them.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricType};
pub(super) use prometheus::proto::{Metric, MetricFamily};

use crate::observe::HistogramSnapshot;

pub(super) fn counters(name: &str, help: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, series)
}

pub(super) fn gauges(name: &str, help: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, series)
}

pub(super) fn histograms(name: &str, help: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help, MetricType::HISTOGRAM, series)
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    series: impl IntoIterator<Item = Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series.into_iter().collect());
    family
}

pub(super) fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    float_counter(labels, value as f64)
}

/// A counter of seconds.
pub(super) fn float_counter(labels: &[(&str, &str)], value: f64) -> Metric {
    metric(labels, |metric| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    })
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    metric(labels, |metric| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    })
}

pub(super) fn histogram(labels: &[(&str, &str)], snapshot: &HistogramSnapshot) -> Metric {
    let counts = snapshot.cumulative(&DURATION_BOUNDS_S);
    let buckets = DURATION_BOUNDS_S.iter().zip(counts).map(|(&bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    metric(labels, |metric| {
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_sum(snapshot.sum.as_secs_f64());
        histogram.set_sample_count(snapshot.count);
        metric.set_histogram(histogram);
    })
}

fn metric(labels: &[(&str, &str)], set: impl FnOnce(&mut Metric)) -> Metric {
    let mut metric = Metric::default();
    metric.set_label(labels.iter().map(|&(name, value)| label(name, value)).collect());
    set(&mut metric);
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

/// 0.5 ms to 60 s (the default `timeout` of a route) in steps of about two and a half: from an answer
/// out of a cache to a request that nobody waits for any more.
const DURATION_BOUNDS_S: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
