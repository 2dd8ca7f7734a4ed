//! What was counted, figure by name, so that another process can count on from there.
//!
//! ```text
//!   old process: tally() ──► Tally ──► another one later, since() the first ──► new process: add()
//! ```
//!
//! **To add a counter**: its line in `counters` of what it belongs to. What goes up and down is not handed
//! over: requests and connections stay where they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    AdminRefusal, ChangeOrigin, ChangeResult, Class, ConnectResult, Counter, Counters, HandshakeResult,
    ListenerMetrics, PoolMetrics, ProcessMetrics, RetryReason, RouteMetrics, UpstreamMetrics,
};
use crate::observe::{Histogram, HistogramSnapshot, Reason, Recent, RecentMemory};

/// The figures of one thing that is counted for. Names that are not known, as those of another version may
/// not be, count for nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    counts: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    times: BTreeMap<String, HistogramSnapshot>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    recent: BTreeMap<String, RecentMemory>,
}

impl Tally {
    /// What was counted after `earlier`, an earlier tally of the same.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().filter_map(|(name, &count)| {
            let before = earlier.counts.get(name).copied().unwrap_or(0);
            count.checked_sub(before).filter(|&grown| grown > 0).map(|grown| (name.clone(), grown))
        });
        let times = self.times.iter().filter_map(|(name, times)| {
            let grown = match earlier.times.get(name) {
                Some(before) => times.since(before)?,
                None => times.clone(),
            };
            (grown.count > 0).then(|| (name.clone(), grown))
        });
        Self { counts: counts.collect(), times: times.collect(), recent: BTreeMap::new() }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.times.is_empty()
    }

    /// All counters whose names begin so.
    fn sum(&self, prefix: &str) -> u64 {
        self.counts.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn of<'a>(
        counters: impl IntoIterator<Item = Named<'a, Counter>>,
        times: &[(&'static str, &Histogram)],
        recent: &[(&'static str, &Recent)],
    ) -> Self {
        // First, so that a counter is never behind what was sampled of it.
        let recent = recent.iter().map(|(name, recent)| ((*name).to_owned(), recent.memory())).collect();
        let counts = counters.into_iter().map(|(name, counter)| (name.into_owned(), counter.get()));
        let times = times.iter().map(|(name, times)| ((*name).to_owned(), times.snapshot()));
        Self {
            counts: counts.filter(|&(_, count)| count > 0).collect(),
            times: times.filter(|(_, times)| times.count > 0).collect(),
            recent,
        }
    }

    fn add_to<'a>(
        &self,
        counters: impl IntoIterator<Item = Named<'a, Counter>>,
        times: &[(&'static str, &Histogram)],
        recent: &[(&'static str, &Recent)],
    ) {
        for (name, recent) in recent {
            if let Some(memory) = self.recent.get(*name) {
                recent.go_on(memory);
            }
        }
        for (name, counter) in counters {
            counter.add(self.counts.get(&*name).copied().unwrap_or(0));
        }
        for (name, histogram) in times {
            if let Some(times) = self.times.get(*name) {
                histogram.add(times);
            }
        }
    }
}

type Named<'a, T> = (Cow<'static, str>, &'a T);

/// One name per label of a group of counters.
fn each<'a, const N: usize>(
    name: &'a str,
    counters: &'a Counters<N>,
    labels: impl IntoIterator<Item = &'static str> + 'a,
) -> impl Iterator<Item = Named<'a, Counter>> + 'a {
    labels
        .into_iter()
        .zip(&counters.0)
        .map(move |(label, counter)| (format!("{name} {label}").into(), counter))
}

const fn one<'a>(name: &'static str, counter: &'a Counter) -> [Named<'a, Counter>; 1] {
    [(Cow::Borrowed(name), counter)]
}

/// What the names of the counters of gRPC's codes begin with.
const GRPC: &str = "grpc ";

/// The same of the counters of requests, by class and listener.
const REQUESTS: &str = "requests ";

/// The same of the counters of attempts that were answered, by class.
const ATTEMPTS: &str = "attempts";

/// The histogram that has a time for each of them.
const RESPONSE: &str = "response";

/// How often a tally is begun anew because an answer came in between.
const LOOKS_MAX: usize = 8;

impl ListenerMetrics {
    /// Connections that were accepted, and how they began.
    pub fn tally(&self) -> Tally {
        Tally::of(self.counters(), &[], &[])
    }

    /// Counts what another process accepted. None of that is open here.
    pub fn add(&self, tally: &Tally) {
        // Opened first: nobody is to see more of them closed than opened.
        tally.add_to(self.counters(), &[], &[]);
        tally.add_to(one("accepted", &self.connections.downs), &[], &[]);
    }

    fn counters(&self) -> impl Iterator<Item = Named<'_, Counter>> {
        one("accepted", &self.connections.ups)
            .into_iter()
            .chain(each("handshakes", &self.handshakes, HandshakeResult::ALL.map(HandshakeResult::label)))
            .chain(one("proxy_header_failures", &self.proxy_header_failures))
    }
}

impl RouteMetrics {
    /// What was counted for the route; `listeners` are their names, in the order of their indexes.
    pub fn tally(&self, listeners: &[&str]) -> Tally {
        Tally::of(self.counters(listeners), &self.times(), &self.recents())
    }

    /// Counts what another process did for the route.
    pub fn add(&self, tally: &Tally, listeners: &[&str]) {
        if tally.counts.keys().any(|name| name.starts_with(GRPC)) {
            self.grpc.get_or_init(Box::default);
        }
        tally.add_to(self.counters(listeners), &self.times(), &self.recents());
        let finished: u64 = self.request_counters(listeners).map(|(name, _)| tally.count(&name)).sum();
        self.foreign.add(tally.sum(REQUESTS).saturating_sub(finished));
        self.in_flight.ups.add(finished);
        self.in_flight.downs.add(finished);
    }

    fn counters<'a>(&'a self, listeners: &'a [&'a str]) -> impl Iterator<Item = Named<'a, Counter>> {
        // Refusals first: a request is counted before why it was refused, and a tally is to have no refusal without
        // its request.
        each("refusals", &self.refusals, Reason::ALL.map(Reason::word))
            .chain(self.request_counters(listeners))
            .chain(one("foreign", &self.foreign))
            .chain(one("request_bytes", &self.request_bytes))
            .chain(one("response_bytes", &self.response_bytes))
            .chain(self.grpc_counters())
    }

    fn request_counters<'a>(&'a self, listeners: &'a [&'a str]) -> impl Iterator<Item = Named<'a, Counter>> {
        listeners.iter().enumerate().flat_map(|(index, listener)| {
            let classes = self.by_listener.classes(index);
            let named = Class::ALL.into_iter().zip(&classes.0);
            named.map(move |(class, counter)| {
                (format!("{REQUESTS}{} {listener}", class.label()).into(), counter)
            })
        })
    }

    fn grpc_counters(&self) -> impl Iterator<Item = Named<'_, Counter>> {
        let codes = self.grpc.get().into_iter().flat_map(|codes| codes.0.iter().enumerate());
        codes.map(|(code, counter)| (format!("{GRPC}{code}").into(), counter))
    }

    const fn times(&self) -> [(&'static str, &Histogram); 1] {
        [("duration", &self.duration)]
    }

    const fn recents(&self) -> [(&'static str, &Recent); 1] {
        [("requests", &self.recent)]
    }
}

impl UpstreamMetrics {
    /// What was counted for the upstream; of each answer both that it came and how long it took, unless answers
    /// come faster than one can look.
    pub fn tally(&self) -> Tally {
        let look = || Tally::of(self.counters(), &self.times(), &self.recents());
        let is_whole = |tally: &Tally| {
            let timed = tally.times.get(RESPONSE).map_or(0, |times| times.count);
            timed == tally.sum(ATTEMPTS)
        };
        (1..LOOKS_MAX).map(|_| look()).find(is_whole).unwrap_or_else(look)
    }

    /// Counts what another process did with the upstream. Answers how many attempts that were.
    pub fn add(&self, tally: &Tally) -> u64 {
        tally.add_to(self.counters(), &self.times(), &self.recents());
        self.attempt_counters().map(|(name, _)| tally.count(&name)).sum()
    }

    /// Each attempt that is over is counted in one of them.
    fn attempt_counters(&self) -> impl Iterator<Item = Named<'_, Counter>> {
        each(ATTEMPTS, &self.attempts, Class::ALL.map(Class::label))
            .chain(one("failed_attempts", &self.failed_attempts))
            .chain(one("given_up", &self.given_up))
    }

    fn counters(&self) -> impl Iterator<Item = Named<'_, Counter>> {
        self.attempt_counters()
            .chain(each("connects", &self.connects, ConnectResult::ALL.map(ConnectResult::label)))
            .chain(one("reused_connections", &self.reused_connections))
            .chain(one("ejections", &self.ejections))
            .chain(each("health_checks", &self.health_checks, ["failed", "passed"]))
            .chain(one("sent_bytes", &self.sent_bytes))
            .chain(one("received_bytes", &self.received_bytes))
    }

    const fn times(&self) -> [(&'static str, &Histogram); 1] {
        [(RESPONSE, &self.response_time)]
    }

    const fn recents(&self) -> [(&'static str, &Recent); 1] {
        [("attempts", &self.recent)]
    }
}

impl PoolMetrics {
    /// What was counted for the pool.
    pub fn tally(&self) -> Tally {
        Tally::of(self.counters(), &[], &self.recents())
    }

    /// Counts what another process did for the pool.
    pub fn add(&self, tally: &Tally) {
        tally.add_to(self.counters(), &[], &self.recents());
    }

    fn counters(&self) -> impl Iterator<Item = Named<'_, Counter>> {
        each("finished", &self.finished, ["fine", "failed"])
            .chain(each("watched", &self.watched, ["fine", "failed"]))
            .chain(each("retries", &self.retries, RetryReason::ALL.map(RetryReason::label)))
            .chain(one("budget_exhausted", &self.budget_exhausted))
    }

    const fn recents(&self) -> [(&'static str, &Recent); 3] {
        [
            ("requests", &self.recent_requests),
            ("unwatched", &self.recent_unwatched),
            ("errors", &self.recent_errors),
        ]
    }
}

impl ProcessMetrics {
    /// What was counted for the process as a whole.
    pub fn tally(&self) -> Tally {
        Tally::of(self.counters(), &[], &[])
    }

    /// Counts what another process did.
    pub fn add(&self, tally: &Tally) {
        tally.add_to(self.counters(), &[], &[]);
    }

    fn counters(&self) -> impl Iterator<Item = Named<'_, Counter>> {
        let changes = ChangeOrigin::ALL.into_iter().zip(&self.changes).flat_map(|(origin, results)| {
            let named = ChangeResult::ALL.into_iter().zip(&results.0);
            named.map(move |(result, counter)| {
                (format!("changes {} {}", origin.label(), result.label()).into(), counter)
            })
        });
        each("refusals", &self.refusals, Reason::ALL.map(Reason::word))
            .chain(each("admin_refusals", &self.admin_refusals, AdminRefusal::ALL.map(AdminRefusal::word)))
            .chain(changes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// As it travels.
    fn sent(tally: &Tally) -> Tally {
        serde_json::from_str(&serde_json::to_string(tally).unwrap_or_default()).unwrap_or_default()
    }

    #[test]
    fn another_process_counts_on_by_the_names_of_listeners() {
        let (old, new) = (RouteMetrics::new(2), RouteMetrics::new(2));
        old.finished(0, 200, Duration::from_millis(5), 10, 1_000);
        old.finished(1, 502, Duration::from_millis(9), 0, 0);
        old.refused(Reason::QueueFull);
        old.grpc_finished(14);
        new.finished(0, 200, Duration::from_millis(1), 1, 1);

        new.add(&sent(&old.tally(&["http", "https"])), &["https", "http"]);

        assert_eq!((new.requests(0, Class::Success), new.requests(0, Class::ServerError)), (1, 1));
        assert_eq!((new.requests(1, Class::Success), new.finished_requests()), (1, 3));
        assert_eq!((new.request_bytes(), new.refusals(Reason::QueueFull)), (11, 1));
        assert_eq!((new.grpc_calls(14), new.grpc_calls(0)), (1, 0));
        let duration = new.duration();
        assert_eq!((duration.count, duration.sum), (3, Duration::from_millis(15)));
        assert_eq!((duration.min, duration.max), (Duration::from_millis(1), Duration::from_millis(9)));
    }

    /// The self-check holds refusals against requests, and both go on to whoever comes next.
    #[test]
    fn requests_at_a_listener_that_is_gone_are_known_to_be_missing() {
        let [old, new, next] = [(); 3].map(|()| RouteMetrics::new(2));
        old.finished(0, 404, Duration::from_millis(5), 0, 0);
        old.finished(1, 502, Duration::from_millis(9), 0, 0);
        old.refused(Reason::QueueFull);
        new.add(&sent(&old.tally(&["http", "https"])), &["http"]);
        next.add(&sent(&new.tally(&["http"])), &["http", "new"]);
        for metrics in [&new, &next] {
            let refusals = metrics.refusals(Reason::QueueFull);
            assert_eq!((metrics.finished_requests(), metrics.foreign_requests(), refusals), (1, 1, 1));
            assert_eq!((metrics.ended(), metrics.in_flight()), (1, 0));
        }
    }

    #[test]
    fn what_is_counted_later_is_added_once() {
        let (old, new) = (UpstreamMetrics::default(), UpstreamMetrics::default());
        old.attempt_finished(Some(200));
        old.response_time(Duration::from_millis(3));
        let first = old.tally();
        new.add(&sent(&first));
        assert!(old.tally().since(&first).is_empty());

        old.attempt_finished(None);
        old.response_time(Duration::from_millis(4));
        new.add(&sent(&old.tally().since(&first)));

        assert_eq!((new.requests(Class::Success), new.failed_attempts()), (1, 1));
        assert_eq!(new.response_times(), old.response_times());
    }

    #[test]
    fn connections_of_another_process_are_not_open_here() {
        let (old, new) = (ListenerMetrics::default(), ListenerMetrics::default());
        (0..3).for_each(|_| old.connection_opened());
        old.handshake(HandshakeResult::Resumed);
        old.proxy_header_failed();
        new.connection_opened();
        new.add(&sent(&old.tally()));
        assert_eq!((new.open_connections(), new.accepted()), (1, 4));
        assert_eq!((new.handshakes(HandshakeResult::Resumed), new.proxy_header_failures()), (1, 1));
    }

    #[test]
    fn the_last_minutes_go_on_where_they_were() {
        let (old, new) = (PoolMetrics::default(), PoolMetrics::default());
        let seconds = Duration::from_secs;
        (0..7).for_each(|_| old.finished(200, 1));
        old.sample(seconds(20));
        (0..3).for_each(|_| old.finished(502, 1));

        new.add(&sent(&old.tally()));
        new.sample(seconds(330));
        assert_eq!((new.requests(), new.errors()), (10, 3));
        // What was sampled more than five minutes ago is forgotten, and what was not sampled yet is new.
        assert_eq!(new.recent_requests(seconds(330)), 3);
        assert_eq!(new.recent_unwatched(seconds(335)), (3, 3));
    }

    #[test]
    fn every_name_is_another() {
        let route = RouteMetrics::new(2);
        route.grpc_finished(0);
        let (listener, upstream) = (ListenerMetrics::default(), UpstreamMetrics::default());
        let (pool, process) = (PoolMetrics::default(), ProcessMetrics::default());
        let names = |counters: &mut dyn Iterator<Item = Named<'_, Counter>>| -> Vec<String> {
            counters.map(|(name, _)| name.into_owned()).collect()
        };
        for mut names in [
            names(&mut listener.counters()),
            names(&mut route.counters(&["http", "https"])),
            names(&mut upstream.counters()),
            names(&mut pool.counters()),
            names(&mut process.counters()),
        ] {
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{names:?}");
        }
    }
}
