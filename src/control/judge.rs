//! Is a changed configuration worse than the one before? Watches pools, and says when it has seen enough.
//!
//! ```text
//!   before the change: errors of five minutes, p99 of as many ──┐
//!   since the change: requests that began after it ─────────────┴─► Watch::look ──► Breach, or nothing
//! ```
//!
//! Errors are what clients saw: answers of 500 or more, whoever gave them, also when nobody was there to
//! answer. The p99 is that of the upstreams' times to the first byte.
//!
//! Nothing here asks for the time or changes anything.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, RouteConfig};
use crate::observe::{HistogramSnapshot, WINDOW};
use crate::runtime::{Pool, PoolState, Snapshot, UpstreamState};

/// Requests below which an error ratio says nothing: with a bound of 5 %, two failures are expected among
/// so many, and below that one failure would be beyond it.
pub(super) const REQUESTS_MIN: u64 = 40;

/// Answers below which a p99 says nothing: it is the third slowest of so many, so that one pause for
/// breath is no verdict.
pub(super) const ANSWERS_MIN: u64 = 200;

/// How much slower the p99 may become: pools differ by less from hour to hour.
pub(super) const SLOWDOWN_MAX: f64 = 2.0;

/// And beyond that: fresh connections and cold caches cost so much at first, and nobody minds it.
pub(super) const SLACK: Duration = Duration::from_millis(100);

/// A disaster late in a long watch must not drown in the good time before it, so the last seconds are
/// judged by themselves, too.
pub(super) const LATELY: Duration = Duration::from_secs(10);

/// Adding up the histograms of ten thousand upstreams takes some milliseconds.
const TIMES_EVERY: Duration = Duration::from_secs(1);

/// What was seen in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How long the time was.
    pub seconds: f64,
    /// Requests that ended in it.
    pub requests: u64,
    /// Those of them that ended with a status of 500 or more, or none.
    pub errors: u64,
    /// Errors among the requests, 0 to 1; `None` without a request.
    pub error_ratio: Option<f64>,
    /// Milliseconds to the first byte that 99 of 100 answers did not exceed; `None` without an answer.
    pub p99_ms: Option<f64>,
}

/// Why a change is worse than what was before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Breach {
    /// More errors than allowed.
    Errors { ratio: f64, allowed: f64 },
    /// Slower than allowed.
    Latency { p99: Duration, allowed: Duration },
}

/// One change under watch.
pub(super) struct Watch {
    began: Duration,
    /// By name.
    names: Vec<String>,
    pools: Vec<Arc<PoolState>>,
    before: Figures,
    error_ratio_allowed: f64,
    /// `None`: what was before is not known well enough.
    p99_allowed: Option<Duration>,
    readings: VecDeque<Reading>,
    times: Times,
    p99: Option<(u64, Duration)>,
    times_read: Duration,
}

#[derive(Clone, Copy)]
struct Reading {
    at: Duration,
    requests: u64,
    errors: u64,
}

/// The response times of upstreams since each of them was first seen here; one that leaves stays counted.
struct Times {
    seen: Vec<Arc<UpstreamState>>,
    at_first: HistogramSnapshot,
}

impl Watch {
    /// Begins to watch what has just become of `before`. Both are asked for counters as of `now`.
    pub(super) fn begin(before: &Snapshot, after: &Snapshot, max_error_ratio: f64, now: Duration) -> Self {
        let names = pools_to_watch(before, after);
        let watched: Vec<&Pool> = names.iter().filter_map(|name| after.pool_named(name)).collect();
        let known = names.iter().filter_map(|name| before.pool_named(name));
        let (figures, times) = figures_before(known, now);
        let pools: Vec<Arc<PoolState>> = watched.iter().map(|pool| pool.state.clone()).collect();
        for pool in &pools {
            pool.metrics.watch_from(after.generation);
        }
        let p99_allowed = (times.count >= ANSWERS_MIN).then(|| p99_allowed(times.quantile(0.99)));
        let mut watch = Self {
            began: now,
            pools,
            before: figures,
            error_ratio_allowed: error_ratio_allowed(max_error_ratio, &figures),
            p99_allowed,
            readings: VecDeque::new(),
            times: Times { seen: Vec::new(), at_first: HistogramSnapshot::merged([]) },
            p99: None,
            times_read: now,
            names,
        };
        watch.times.notice(watched.into_iter());
        watch.readings.push_back(watch.read(now));
        watch
    }

    /// Names of the pools that are watched.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// What was seen of them before the change.
    pub(super) fn before(&self) -> Figures {
        self.before
    }

    /// Looks at the counters, and at the response times if that is due or the `last` look: what was seen
    /// since the change, and whether that is too much.
    pub(super) fn look(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        last: bool,
    ) -> (Figures, Option<Breach>) {
        if last || now.saturating_sub(self.times_read) >= TIMES_EVERY {
            self.times_read = now;
            self.times.notice(self.names.iter().filter_map(|name| snapshot.pool_named(name)));
            self.p99 = self.times.p99();
        }
        let reading = self.read(now);
        let breach = self.errors_breach(&reading).or_else(|| self.latency_breach());
        let figures = self.figures(&reading);
        self.remember(reading);
        (figures, breach)
    }

    fn figures(&self, now: &Reading) -> Figures {
        let (requests, errors) = self.first().map_or((0, 0), |first| now.since(first));
        Figures {
            seconds: seconds(now.at.saturating_sub(self.began)),
            requests,
            errors,
            error_ratio: ratio(requests, errors),
            p99_ms: self.p99.map(|(_, p99)| milliseconds(p99)),
        }
    }

    fn errors_breach(&self, now: &Reading) -> Option<Breach> {
        let lately = self.readings.iter().rev().find(|then| now.at.saturating_sub(then.at) >= LATELY);
        let windows = self.first().into_iter().chain(lately);
        windows.map(|then| now.since(then)).find_map(|(requests, errors)| {
            let ratio = ratio(requests, errors).filter(|_| requests >= REQUESTS_MIN)?;
            let allowed = self.error_ratio_allowed;
            (ratio > allowed).then_some(Breach::Errors { ratio, allowed })
        })
    }

    fn latency_breach(&self) -> Option<Breach> {
        let (answers, p99) = self.p99?;
        let allowed = self.p99_allowed?;
        (answers >= ANSWERS_MIN && p99 > allowed).then_some(Breach::Latency { p99, allowed })
    }

    fn read(&self, at: Duration) -> Reading {
        let counts = self.pools.iter().map(|pool| pool.metrics.watched());
        let (requests, errors) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Reading { at, requests, errors }
    }

    fn first(&self) -> Option<&Reading> {
        self.readings.front()
    }

    /// Keeps the first reading, and those of the last seconds.
    fn remember(&mut self, reading: Reading) {
        self.readings.push_back(reading);
        let is_old = |then: &Reading| reading.at.saturating_sub(then.at) >= LATELY;
        while self.readings.get(2).is_some_and(is_old) {
            self.readings.remove(1);
        }
    }
}

impl Reading {
    /// Requests and errors since another reading.
    const fn since(&self, then: &Self) -> (u64, u64) {
        (self.requests.saturating_sub(then.requests), self.errors.saturating_sub(then.errors))
    }
}

impl Times {
    /// Counts upstreams that were not there before from now on.
    fn notice<'a>(&mut self, pools: impl Iterator<Item = &'a Pool>) {
        let known: HashSet<*const UpstreamState> = self.seen.iter().map(Arc::as_ptr).collect();
        let new: Vec<Arc<UpstreamState>> = pools
            .flat_map(Pool::upstreams)
            .map(|upstream| &upstream.state)
            .filter(|state| !known.contains(&Arc::as_ptr(state)))
            .cloned()
            .collect();
        if new.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.at_first, HistogramSnapshot::merged([]));
        self.at_first = HistogramSnapshot::merged(std::iter::once(before).chain(times_of(&new)));
        self.seen.extend(new);
    }

    /// Answers since then, and their p99; `None` without one.
    fn p99(&self) -> Option<(u64, Duration)> {
        let times = HistogramSnapshot::merged(times_of(&self.seen)).since(&self.at_first)?;
        (times.count > 0).then(|| (times.count, times.quantile(0.99)))
    }
}

fn times_of(upstreams: &[Arc<UpstreamState>]) -> impl Iterator<Item = HistogramSnapshot> {
    upstreams.iter().map(|upstream| upstream.metrics.response_times())
}

/// Pools that are new or differ, and those that a new or differing route leads to. When neither is (a
/// listener changed, for one), all of them.
fn pools_to_watch(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut watched: HashSet<&str> = after
        .pools()
        .filter(|pool| pool.since == after.generation)
        .filter(|pool| before.pool_named(&pool.config.name).is_none_or(|old| old.config != pool.config))
        .map(|pool| pool.config.name.as_str())
        .collect();
    for route in &after.config.routes {
        let old = before.config.routes.iter().find(|old| old.name == route.name);
        let targets = targets(route, &after.config);
        if old.is_none_or(|old| old != route || self::targets(old, &before.config) != targets) {
            watched.extend(targets);
        }
    }
    let names = after.pools().map(|pool| pool.config.name.as_str());
    names.filter(|name| watched.is_empty() || watched.contains(name)).map(str::to_owned).collect()
}

/// Names of the pools that a route leads to.
fn targets<'a>(route: &RouteConfig, config: &'a Config) -> Vec<&'a str> {
    let pool = |index: usize| config.pools.get(index).map(|pool| pool.name.as_str());
    route.split.iter().filter_map(|part| pool(part.pool)).collect()
}

fn figures_before<'a>(pools: impl Iterator<Item = &'a Pool>, now: Duration) -> (Figures, HistogramSnapshot) {
    let (mut requests, mut errors, mut times) = (0, 0, Vec::new());
    for pool in pools {
        let metrics = &pool.state.metrics;
        let recent = metrics.recent_unwatched(now);
        (requests, errors) = (requests + recent.0, errors + recent.1);
        times.extend(metrics.recent_times.growth(&pool.response_times()));
    }
    let times = HistogramSnapshot::merged(times);
    let figures = Figures {
        seconds: seconds(now.min(WINDOW)),
        requests,
        errors,
        error_ratio: ratio(requests, errors),
        p99_ms: (times.count > 0).then(|| milliseconds(times.quantile(0.99))),
    };
    (figures, times)
}

/// The bound; or, for pools that were beyond it already, as much again on top of what they had: going back
/// would not make them well, as long as the change does not make them worse.
fn error_ratio_allowed(bound: f64, before: &Figures) -> f64 {
    let known = before.error_ratio.filter(|_| before.requests >= REQUESTS_MIN);
    known.filter(|&ratio| ratio > bound).map_or(bound, |ratio| ratio + bound)
}

fn p99_allowed(before: Duration) -> Duration {
    before.mul_f64(SLOWDOWN_MAX) + SLACK
}

fn ratio(requests: u64, errors: u64) -> Option<f64> {
    (requests > 0).then(|| (errors as f64 / requests as f64 * 10_000.0).round() / 10_000.0)
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{self, Source};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn config(pools: &str) -> Config {
        let text = format!("[listeners.http]\naddress = \"127.0.0.1:8080\"\n{pools}");
        let source = Source { name: String::new(), text, folder: ".".into() };
        config::parse(&source, &|_| None).unwrap()
    }

    const OLD: &str = "[pools.app]\nupstreams = [\"127.0.0.1:9001\"]";
    const NEW: &str = "[pools.app]\nupstreams = [\"127.0.0.1:9002\"]";

    /// A process after five minutes, and after a change.
    struct World {
        before: Snapshot,
        after: Snapshot,
    }

    impl World {
        fn changed(old: &str, new: &str) -> Self {
            let before = Snapshot::build(config(old), 1, None, Duration::ZERO, 0);
            let after = Snapshot::build(config(new), 2, Some(&before), seconds(300), 0);
            Self { before, after }
        }

        fn watch(&self, bound: f64) -> Watch {
            Watch::begin(&self.before, &self.after, bound, seconds(300))
        }

        /// Requests to the pool that ended, of those that began in this generation.
        fn requests(&self, generation: u64, fine: u64, failed: u64) {
            let pool = self.after.pool_named("app").unwrap();
            (0..fine).for_each(|_| pool.state.metrics.finished(200, generation));
            (0..failed).for_each(|_| pool.state.metrics.finished(502, generation));
        }

        fn answers(snapshot: &Snapshot, count: u64, millis: u64) {
            let upstream = &snapshot.pool_named("app").unwrap().upstreams()[0];
            let time = Duration::from_millis(millis);
            (0..count).for_each(|_| upstream.state.metrics.response_time(time));
        }
    }

    #[test]
    fn a_few_failures_among_a_few_requests_are_no_verdict() {
        let world = World::changed(OLD, NEW);
        let mut watch = world.watch(0.05);
        world.requests(2, 0, REQUESTS_MIN - 1);
        assert_eq!(watch.look(&world.after, seconds(301), false).1, None);
        world.requests(2, 0, 1);
        let (figures, breach) = watch.look(&world.after, seconds(302), false);
        assert_eq!(breach, Some(Breach::Errors { ratio: 1.0, allowed: 0.05 }));
        assert_eq!((figures.requests, figures.errors, figures.seconds), (40, 40, 2.0));
    }

    #[test]
    fn what_is_within_the_bound_is_fine() {
        let world = World::changed(OLD, NEW);
        let mut watch = world.watch(0.05);
        world.requests(2, 95, 5);
        assert_eq!(watch.look(&world.after, seconds(301), false).1, None);
        world.requests(2, 0, 1);
        assert!(watch.look(&world.after, seconds(302), false).1.is_some());
    }

    /// Requests that hung at the upstream that the change takes out fail long after it.
    #[test]
    fn what_began_before_the_change_is_not_its_fault() {
        let world = World::changed(OLD, NEW);
        let mut watch = world.watch(0.05);
        world.requests(1, 0, 500);
        assert_eq!(watch.look(&world.after, seconds(301), true).1, None);
    }

    #[test]
    fn a_pool_that_failed_already_may_go_on_but_not_get_worse() {
        let world = World::changed(OLD, NEW);
        world.requests(1, 50, 50);
        let mut watch = world.watch(0.05);
        assert_eq!(watch.before().error_ratio, Some(0.5));
        world.requests(2, 50, 52);
        assert_eq!(watch.look(&world.after, seconds(301), false).1, None);
        world.requests(2, 0, 30);
        assert!(watch.look(&world.after, seconds(302), false).1.is_some());
    }

    #[test]
    fn a_trial_that_went_wrong_is_no_measure_for_the_next_one() {
        let world = World::changed(OLD, NEW);
        world.requests(1, 100, 0);
        drop(world.watch(0.05));
        world.requests(2, 0, 1_000);
        for pool in world.after.pools() {
            pool.state.metrics.watch_until(3);
        }
        world.requests(2, 0, 50);
        assert_eq!(world.watch(0.05).before().error_ratio, Some(0.0));
    }

    #[test]
    fn a_disaster_late_in_a_long_watch_is_seen_at_once() {
        let world = World::changed(OLD, NEW);
        let mut watch = world.watch(0.05);
        for second in 301..800 {
            world.requests(2, 100, 0);
            assert_eq!(watch.look(&world.after, seconds(second), false).1, None);
        }
        assert!(watch.readings.len() < 20);
        world.requests(2, 0, 100);
        let breach = watch.look(&world.after, seconds(800), false).1;
        assert!(matches!(breach, Some(Breach::Errors { ratio, .. }) if ratio > 0.05), "{breach:?}");
    }

    #[test]
    fn a_p99_beyond_twice_the_old_one_is_seen() {
        let world = World::changed(OLD, NEW);
        World::answers(&world.before, 1_000, 100);
        let mut watch = world.watch(0.05);
        World::answers(&world.after, 1_000, 250);
        let (figures, breach) = watch.look(&world.after, seconds(302), false);
        assert_eq!(breach, None, "{figures:?}");
        World::answers(&world.after, 20, 900);
        let (figures, breach) = watch.look(&world.after, seconds(304), false);
        assert!(matches!(breach, Some(Breach::Latency { .. })), "{figures:?}");
    }

    #[test]
    fn without_enough_answers_before_or_since_speed_is_not_judged() {
        for (before, since) in [(ANSWERS_MIN - 1, 1_000), (1_000, ANSWERS_MIN - 1)] {
            let world = World::changed(OLD, NEW);
            World::answers(&world.before, before, 1);
            let mut watch = world.watch(0.05);
            World::answers(&world.after, since, 5_000);
            let (figures, breach) = watch.look(&world.after, seconds(302), true);
            assert_eq!(breach, None);
            assert!(figures.p99_ms > Some(4_000.0));
        }
    }

    #[test]
    fn a_process_without_traffic_is_not_judged() {
        let world = World::changed(OLD, NEW);
        let (figures, breach) = world.watch(0.0).look(&world.after, seconds(360), true);
        assert_eq!((figures.error_ratio, figures.p99_ms, breach), (None, None, None));
    }

    #[test]
    fn pools_that_differ_and_those_of_routes_that_differ_are_watched() {
        let other = "[pools.other]\nupstreams = [\"127.0.0.1:9003\"]\n[pools.third]\nupstreams = []\n";
        let route =
            |name: &str, to: &str| format!("[routes.{name}]\npath_prefix = \"/{name}\"\npool = \"{to}\"\n");
        let text = |app: &str, to: &str| {
            format!("{}{}{}{app}\n{other}", route("a", "app"), route("b", to), route("c", "third"))
        };
        let watched = |old: &str, new: &str| World::changed(old, new).watch(0.05).names().to_vec();
        assert_eq!(watched(&text(OLD, "other"), &text(NEW, "other")), ["app"]);
        assert_eq!(watched(&text(OLD, "third"), &text(OLD, "other")), ["other"]);
        assert_eq!(watched(&text(OLD, "other"), &text(OLD, "other")), ["app", "other", "third"]);
    }
}
