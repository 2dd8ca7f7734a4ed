//! Samples for tests: as the side port says them, cut short.

use std::time::Duration;

use serde_json::{Value, json};

use super::sample::{Pool, Sample, Status};
use crate::observe::{Histogram, HistogramSnapshot};

/// A process that has answered so many requests.
pub(super) fn status(requests: u64, errors: u64, more: &Value) -> Value {
    let mut status = json!({
        "version": "0.1.0", "status": "ok", "uptime_seconds": 7380.0, "generation": 7, "pid": 1,
        "listeners": [{"connections": 3}, {"connections": 4}],
        "totals": {"requests": requests, "errors": errors, "in_flight": 5, "latency_ms": {"p50": 1.25, "p99": 34.0}},
    });
    merge(&mut status, more);
    status
}

pub(super) fn pool(name: &str, upstreams: &[Value]) -> Value {
    let eligible = upstreams.iter().filter(|one| one["why_not"].is_null()).count();
    json!({
        "name": name, "strategy": "round_robin", "eligible": eligible, "in_flight": 5, "queue": {"waiting": 0},
        "upstreams": upstreams,
    })
}

/// An upstream that is well, but for what is said.
pub(super) fn upstream(address: &str, requests: u64, more: &Value) -> Value {
    let mut upstream = json!({
        "address": address, "weight": 1, "state": "ready", "health": "up", "why_not": null, "in_flight": 2,
        "requests": requests, "errors": 0, "latency_ms": {"ewma": 2.0, "p50": 1.5, "p99": 9.0}, "source": "file",
    });
    merge(&mut upstream, more);
    upstream
}

pub(super) fn sick(address: &str, requests: u64, why_not: &str, detail: &str) -> Value {
    upstream(address, requests, &json!({"why_not": why_not, "why_not_detail": detail}))
}

fn merge(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        into[name] = value.clone();
    }
}

pub(super) fn sample(seconds: u64, status: Value, pools: &[Value]) -> Sample {
    let status: Status = serde_json::from_value(status).unwrap();
    let pools = pools.iter().map(|pool| serde_json::from_value::<Pool>(pool.clone()).unwrap()).collect();
    Sample { at: Duration::from_secs(seconds), status, pools, durations: None }
}

/// So many requests that took so many milliseconds.
pub(super) fn durations(all: &[(u64, u64)]) -> HistogramSnapshot {
    let histogram = Histogram::default();
    for (count, milliseconds) in all {
        (0..*count).for_each(|_| histogram.record(Duration::from_millis(*milliseconds)));
    }
    histogram.snapshot()
}
