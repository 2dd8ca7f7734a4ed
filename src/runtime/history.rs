//! Reads the counters every ten seconds, and takes down how much they grew.
//!
//! A pool's figures are those of its upstreams together, the total is that of all routes and of what found none;
//! as in `GET /v1/stats`.

use std::time::SystemTime;

use super::{Listener, Pool, Route, Runtime, Upstream};
use crate::observe::history::{Counting, Growth, Reading, Round, Subject};
use crate::observe::{Class, ProcessMetrics, Reason};

impl Runtime {
    /// Looks at how many requests are in flight; as often as somebody has the time. The most that was seen is
    /// what the history shows.
    pub fn look(&self) {
        let snapshot = self.peek();
        let mut total = 0;
        for route in snapshot.routes() {
            let in_flight = route.metrics.in_flight();
            route.metrics.peak.see(in_flight);
            total += in_flight;
        }
        self.metrics.peak.see(total);
        for pool in snapshot.pools() {
            let mut all = 0;
            for upstream in pool.upstreams() {
                let in_flight = u64::from(upstream.state.load.in_flight());
                upstream.state.metrics.peak.see(in_flight);
                all += in_flight;
            }
            pool.state.metrics.peak.see(all);
        }
    }

    /// Takes down what happened since the last time; `at` by the wall clock.
    pub fn take_down_history(&self, at: SystemTime) {
        self.look();
        self.read_counters(&mut self.history.round(at, self.now()));
    }

    /// Begins with what the counters say now: it is in the history already, as a predecessor left both.
    pub(super) fn begin_history(&self, at: SystemTime) {
        self.read_counters(&mut self.history.blank_round(at, self.now()));
    }

    fn read_counters(&self, round: &mut Round<'_>) {
        let snapshot = self.snapshot();
        let mut total = unrouted(round, &self.metrics);
        let mut by_listener = vec![Growth::default(); self.listeners.len()];
        for route in snapshot.routes() {
            total.merge(&read_route(round, route));
            for (listener, growth) in self.listeners.iter().zip(&mut by_listener) {
                growth.merge(&part_of(round, route, listener));
            }
        }
        for (listener, growth) in self.listeners.iter().zip(&by_listener) {
            round.take_down(|| Subject::Listener(listener.name.clone()), growth, 0);
        }
        round.take_down(|| Subject::Total, &total, self.metrics.peak.take());
        snapshot.pools().for_each(|pool| read_pool(round, pool));
    }
}

/// Requests that found no route.
fn unrouted(round: &mut Round<'_>, metrics: &ProcessMetrics) -> Growth {
    let is_error = |reason: &Reason| reason.status() >= 500;
    let errors = Reason::ALL.into_iter().filter(is_error).map(|reason| metrics.refusals(reason)).sum();
    let reading = Reading { requests: metrics.refusals_total(), errors, ..Reading::default() };
    round.grown(Counting::of(metrics), reading, || None)
}

fn read_route(round: &mut Round<'_>, route: &Route) -> Growth {
    let metrics = &*route.metrics;
    // Errors first: who ends between the two reads is then no error without a request.
    let reading = Reading {
        errors: metrics.errors(),
        requests: metrics.finished_requests(),
        request_bytes: metrics.request_bytes(),
        response_bytes: metrics.response_bytes(),
    };
    let growth = round.grown(Counting::of(metrics), reading, || Some(metrics.duration()));
    round.take_down(|| Subject::Route(route.config.name.clone()), &growth, metrics.peak.take());
    growth
}

/// What came to a route through a listener.
fn part_of(round: &mut Round<'_>, route: &Route, listener: &Listener) -> Growth {
    let metrics = &*route.metrics;
    let count = |class| metrics.requests(listener.index, class);
    let errors = count(Class::ServerError);
    let requests = Class::ALL.into_iter().map(count).sum();
    let reading = Reading { requests, errors, ..Reading::default() };
    round.grown(Counting::of(metrics).part(listener.index), reading, || None)
}

fn read_pool(round: &mut Round<'_>, pool: &Pool) {
    let mut all = Growth::default();
    for upstream in pool.upstreams() {
        all.merge(&read_upstream(round, pool, upstream));
    }
    round.take_down(|| Subject::Pool(pool.config.name.clone()), &all, pool.state.metrics.peak.take());
}

fn read_upstream(round: &mut Round<'_>, pool: &Pool, upstream: &Upstream) -> Growth {
    let metrics = &upstream.state.metrics;
    let reading = Reading {
        errors: metrics.errors(),
        requests: metrics.finished_attempts(),
        request_bytes: metrics.sent_bytes(),
        response_bytes: metrics.received_bytes(),
    };
    let growth = round.grown(Counting::of(metrics), reading, || Some(metrics.response_times()));
    let subject =
        || Subject::Upstream { pool: pool.config.name.clone(), address: upstream.config.address.to_string() };
    round.take_down(subject, &growth, metrics.peak.take());
    growth
}
