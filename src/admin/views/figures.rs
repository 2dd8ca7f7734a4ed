//! Figures since the start, read off the same counters as `/metrics`.

use serde::Serialize;

use super::milliseconds;
use crate::control::Control;
use crate::observe::{Class, HistogramSnapshot, Reason};
use crate::runtime::{Listener, Pool, Route, Snapshot, Upstream};

/// What is counted of requests, wherever they are counted.
#[derive(Clone, Debug, Serialize)]
pub(in crate::admin) struct Figures {
    /// Finished ones; at upstreams, finished attempts.
    pub(in crate::admin) requests: u64,
    /// Those with a status of 500 or more, or none at all.
    pub(in crate::admin) errors: u64,
    pub(in crate::admin) error_rate: f64,
    pub(in crate::admin) in_flight: u64,
    /// To the last byte of the response; at upstreams and pools, to the first.
    pub(in crate::admin) latency_ms: Latency,
    pub(in crate::admin) bytes: Bytes,
}

/// Null where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::admin) struct Latency {
    pub(in crate::admin) min: Option<f64>,
    pub(in crate::admin) avg: Option<f64>,
    pub(in crate::admin) p50: Option<f64>,
    pub(in crate::admin) p90: Option<f64>,
    pub(in crate::admin) p99: Option<f64>,
    pub(in crate::admin) max: Option<f64>,
    /// All added up; the platform's paths show it.
    #[serde(skip)]
    pub(in crate::admin) total: Option<f64>,
}

/// Bytes of bodies.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(in crate::admin) struct Bytes {
    request: u64,
    response: u64,
}

/// What a listener counts; how long its requests take is counted by their routes.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct ListenerFigures {
    name: String,
    requests: u64,
    errors: u64,
    error_rate: f64,
    pub(in crate::admin) connections: u64,
    connections_accepted: u64,
    /// Those among the connections that are a WebSocket.
    upgraded_connections: u64,
}

#[derive(Debug, Serialize)]
pub(in crate::admin) struct RouteFigures {
    pub(in crate::admin) name: String,
    #[serde(flatten)]
    pub(in crate::admin) figures: Figures,
}

#[derive(Debug, Serialize)]
pub(in crate::admin) struct PoolFigures {
    name: String,
    #[serde(flatten)]
    figures: Figures,
    upstreams: Vec<UpstreamFigures>,
}

#[derive(Debug, Serialize)]
pub(in crate::admin) struct UpstreamFigures {
    address: String,
    #[serde(flatten)]
    pub(in crate::admin) figures: Figures,
    ejections: u64,
    connections_reused: u64,
    upgraded_connections: u64,
}

impl Figures {
    /// All requests to the process: those of the running routes, and those refused before they had one.
    pub(in crate::admin) fn total(control: &Control, snapshot: &Snapshot) -> Self {
        let unrouted = &control.runtime().metrics;
        let is_error = |reason: &Reason| reason.status() >= 500;
        let errors: u64 =
            Reason::ALL.into_iter().filter(is_error).map(|reason| unrouted.refusals(reason)).sum();
        let routes: Vec<_> = snapshot.routes().map(RouteFigures::of).map(|route| route.figures).collect();
        let durations = snapshot.routes().map(|route| route.metrics.duration());
        let mut total = Self::sum(&routes, &HistogramSnapshot::merged(durations));
        total.requests += unrouted.refusals_total();
        total.errors += errors;
        total.error_rate = rate(total.errors, total.requests);
        total
    }

    fn sum(parts: &[Self], times: &HistogramSnapshot) -> Self {
        let sum = |of: fn(&Self) -> u64| parts.iter().map(of).sum();
        let (requests, errors) = (sum(|part| part.requests), sum(|part| part.errors));
        Self {
            requests,
            errors,
            error_rate: rate(errors, requests),
            in_flight: sum(|part| part.in_flight),
            latency_ms: Latency::of(times),
            bytes: Bytes {
                request: sum(|part| part.bytes.request),
                response: sum(|part| part.bytes.response),
            },
        }
    }
}

impl ListenerFigures {
    pub(in crate::admin) fn of(listener: &Listener, snapshot: &Snapshot) -> Self {
        let count = |class| -> u64 {
            snapshot.routes().map(|route| route.metrics.requests(listener.index, class)).sum()
        };
        let requests = Class::ALL.into_iter().map(count).sum();
        let errors = count(Class::ServerError);
        Self {
            name: listener.name.clone(),
            requests,
            errors,
            error_rate: rate(errors, requests),
            connections: listener.metrics.open_connections(),
            connections_accepted: listener.metrics.accepted(),
            upgraded_connections: listener.metrics.upgraded_connections(),
        }
    }
}

impl RouteFigures {
    pub(in crate::admin) fn of(route: &Route) -> Self {
        let metrics = &route.metrics;
        let (requests, errors) = (metrics.finished_requests(), metrics.errors());
        let figures = Figures {
            requests,
            errors,
            error_rate: rate(errors, requests),
            in_flight: metrics.in_flight(),
            latency_ms: Latency::of(&metrics.duration()),
            bytes: Bytes { request: metrics.request_bytes(), response: metrics.response_bytes() },
        };
        Self { name: route.config.name.clone(), figures }
    }
}

impl PoolFigures {
    pub(in crate::admin) fn of(pool: &Pool) -> Self {
        let upstreams: Vec<_> = pool.upstreams().iter().map(UpstreamFigures::of).collect();
        let figures: Vec<_> = upstreams.iter().map(|upstream| upstream.figures.clone()).collect();
        let times = pool.upstreams().iter().map(|upstream| upstream.state.metrics.response_times());
        let figures = Figures::sum(&figures, &HistogramSnapshot::merged(times));
        Self { name: pool.config.name.clone(), figures, upstreams }
    }
}

impl UpstreamFigures {
    pub(in crate::admin) fn of(upstream: &Upstream) -> Self {
        let (metrics, load) = (&upstream.state.metrics, &upstream.state.load);
        let (requests, errors) = (metrics.finished_attempts(), metrics.errors());
        let figures = Figures {
            requests,
            errors,
            error_rate: rate(errors, requests),
            in_flight: load.in_flight().into(),
            latency_ms: Latency::of(&metrics.response_times()),
            bytes: Bytes { request: metrics.sent_bytes(), response: metrics.received_bytes() },
        };
        Self {
            address: upstream.config.address.to_string(),
            figures,
            ejections: metrics.ejections(),
            connections_reused: metrics.reused_connections(),
            upgraded_connections: metrics.upgraded_connections(),
        }
    }
}

impl Latency {
    pub(super) fn of(times: &HistogramSnapshot) -> Self {
        if times.count == 0 {
            return Self::default();
        }
        let quantile = |share| Some(milliseconds(times.quantile(share)));
        Self {
            min: Some(milliseconds(times.min)),
            avg: Some(milliseconds(times.mean())),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: Some(milliseconds(times.max)),
            total: Some(milliseconds(times.sum)),
        }
    }
}

/// Errors among requests, 0 to 1.
pub(in crate::admin) fn rate(errors: u64, requests: u64) -> f64 {
    if requests == 0 { 0.0 } else { errors as f64 / requests as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Histogram;

    #[test]
    fn nothing_measured_is_null() {
        assert_eq!(Latency::of(&Histogram::default().snapshot()), Latency::default());
    }

    #[test]
    fn no_request_is_no_error() {
        assert!(rate(0, 0).abs() < f64::EPSILON);
        assert!((rate(1, 4) - 0.25).abs() < f64::EPSILON);
    }
}
