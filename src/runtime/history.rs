//! Reads the counters every ten seconds, and takes down how much they grew.
//!
//! A pool's figures are those of its upstreams together, the total is that of all routes and of what found none;
//! as in `GET /v1/stats`.

use std::collections::HashSet;
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

    /// Requests that began before a change of the configuration count for what they went to, though it may be gone.
    fn read_counters(&self, round: &mut Round<'_>) {
        let (snapshots, mut seen) = (self.snapshots(), HashSet::new());
        let mut total = unrouted(round, &self.metrics);
        let mut by_listener = vec![Growth::default(); self.listeners.len()];
        for route in snapshots.iter().flat_map(|it| it.routes()).filter(|it| seen.insert(place(&*it.metrics)))
        {
            total.merge(&read_route(round, route));
            for (listener, growth) in self.listeners.iter().zip(&mut by_listener) {
                growth.merge(&part_of(round, route, listener));
            }
        }
        for (listener, growth) in self.listeners.iter().zip(&by_listener) {
            round.take_down(|| Subject::Listener(listener.name.clone()), growth, 0);
        }
        round.take_down(|| Subject::Total, &total, self.metrics.peak.take());
        for pool in snapshots.iter().flat_map(|it| it.pools()) {
            if !seen.insert(place(pool)) {
                continue;
            }
            let mut all = Growth::default();
            for upstream in pool.upstreams().iter().filter(|it| seen.insert(place(&*it.state))) {
                all.merge(&read_upstream(round, pool, upstream));
            }
            let peak = pool.state.metrics.peak.take();
            round.take_down(|| Subject::Pool(pool.config.name.clone()), &all, peak);
        }
    }
}

/// Where it is, so that what several snapshots have is read once.
fn place<T>(of: &T) -> usize {
    std::ptr::from_ref(of).addr()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Source, parse};
    use crate::observe::history::{HOUR, STEP, Window};
    use crate::runtime::Snapshot;

    fn runtime(upstreams: usize) -> Runtime {
        Runtime::new(config(upstreams), 1, 0, None)
    }

    fn config(upstreams: usize) -> Config {
        let members: Vec<String> =
            (0..upstreams).map(|it| format!("\"10.0.{}.{}:80\"", it / 250, it % 250 + 1)).collect();
        let text = format!(
            "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [{}]\n",
            members.join(", ")
        );
        let source = Source { name: String::new(), text, folder: ".".into() };
        parse(&source, &|_| None).unwrap()
    }

    fn serve(runtime: &Runtime, requests: usize) {
        let snapshot = runtime.snapshot();
        for upstream in snapshot.pools().flat_map(Pool::upstreams) {
            for request in 0..requests {
                upstream.state.metrics.attempt_finished(Some(if request % 10 == 0 { 500 } else { 200 }));
                upstream.state.metrics.response_time(Duration::from_micros(1_000 + 977 * request as u64));
            }
        }
        for route in snapshot.routes() {
            (0..requests).for_each(|_| route.metrics.finished(0, 200, Duration::from_millis(5), 10, 20));
        }
    }

    fn total(runtime: &Runtime, subject: &Subject) -> (u64, u64) {
        let window = Window::ending(runtime.history.taken_down_until(), HOUR, STEP);
        let total = runtime.history.total(subject, &window);
        (total.requests, total.errors)
    }

    #[test]
    fn every_part_has_what_was_counted_of_it() {
        let runtime = runtime(3);
        serve(&runtime, 20);
        runtime.metrics.refused(Reason::NoRoute);
        runtime.metrics.refused(Reason::Draining);
        runtime.take_down_history(SystemTime::now());
        let upstream = Subject::Upstream { pool: "app".to_owned(), address: "10.0.0.2:80".to_owned() };
        assert_eq!(total(&runtime, &upstream), (20, 2));
        assert_eq!(total(&runtime, &Subject::Pool("app".to_owned())), (60, 6));
        assert_eq!(total(&runtime, &Subject::Route("default".to_owned())), (20, 0));
        assert_eq!(total(&runtime, &Subject::Listener("http".to_owned())), (20, 0));
        assert_eq!(total(&runtime, &Subject::Total), (22, 1));
    }

    #[test]
    fn what_leaves_is_taken_down_before_it_goes() {
        let runtime = runtime(2);
        serve(&runtime, 10);
        runtime.publish(Snapshot::build(config(1), 2, Some(&runtime.snapshot()), runtime.now(), 0));
        runtime.take_down_history(SystemTime::now());
        assert_eq!(total(&runtime, &Subject::Pool("app".to_owned())), (20, 2));
        let gone = Subject::Upstream { pool: "app".to_owned(), address: "10.0.0.2:80".to_owned() };
        assert_eq!(total(&runtime, &gone), (10, 1));
    }

    #[test]
    fn what_ends_after_the_change_is_taken_down_when_the_last_request_is_over() {
        let runtime = runtime(2);
        let held = runtime.snapshot();
        serve(&runtime, 10);
        runtime.publish(Snapshot::build(config(1), 2, Some(&held), runtime.now(), 0));
        // A request on what was before, that is over at last; and one that goes on for longer.
        let upstreams = |snapshot: &Snapshot| snapshot.pools().flat_map(Pool::upstreams).count();
        assert_eq!((upstreams(&held), upstreams(&runtime.snapshot())), (2, 1));
        let end = || {
            held.pools()
                .flat_map(Pool::upstreams)
                .for_each(|it| it.state.metrics.attempt_finished(Some(200)));
        };
        end();
        runtime.take_down_history(SystemTime::now());
        runtime.free_retired();
        assert_eq!(total(&runtime, &Subject::Pool("app".to_owned())), (22, 2));
        end();
        drop(held);
        runtime.free_retired();
        assert_eq!(runtime.snapshots().len(), 1, "it is free");
        assert_eq!(total(&runtime, &Subject::Pool("app".to_owned())), (24, 2));
        let gone = Subject::Upstream { pool: "app".to_owned(), address: "10.0.0.2:80".to_owned() };
        assert_eq!(total(&runtime, &gone), (12, 1));
        runtime.take_down_history(SystemTime::now());
        assert_eq!(total(&runtime, &Subject::Pool("app".to_owned())), (24, 2), "and not again");
    }

    #[test]
    fn what_a_predecessor_counted_is_not_counted_again() {
        let (old, new) = (runtime(2), runtime(2));
        serve(&old, 10);
        let (legacy, history) = old.legacy_with_history();
        new.inherit(legacy, &history);
        new.take_down_history(SystemTime::now());
        assert_eq!(total(&new, &Subject::Pool("app".to_owned())), (20, 2));
        serve(&new, 10);
        new.take_down_history(SystemTime::now());
        assert_eq!(total(&new, &Subject::Pool("app".to_owned())), (40, 4));
    }
}
