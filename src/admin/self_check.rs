//! Whether the figures agree with each other.
//!
//! ```text
//!   live counters, /metrics ──► one function per check ──► Check { ok, figures, failures }
//! ```
//!
//! Each check compares two figures that are counted at different places of the code, so that a request that is
//! forgotten on some path is noticed. Requests go on meanwhile: a check looks again a few times before it says
//! that something is wrong.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;

use super::answer::Json;
use super::extract::Parameters;
use super::metrics;
use super::problem::Problem;
use super::views::now_utc;
use crate::config::Config;
use crate::control::Control;
use crate::observe::{Class, Reason};
use crate::runtime::{Pool, Runtime, Snapshot, UpstreamState};

/// How often everything is looked at before a disagreement is told. A request that ends between two looks at
/// its two counters is seen once, and hardly ever twice.
const TRIES_MAX: u32 = 10;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Failures that are listed per check: the first ones tell what is wrong.
const FAILURES_MAX: usize = 20;

/// `GET /v1/self-check` — 200 in any case; `ok` says whether all is well.
pub(super) async fn run(
    State(control): State<Arc<Control>>,
    parameters: Parameters,
) -> Result<Json<SelfCheck>, Problem> {
    parameters.finish()?;
    let mut tries = 1;
    loop {
        let checks = check(&control);
        let ok = checks.iter().all(|check| check.ok);
        if ok || tries == TRIES_MAX {
            return Ok(Json(SelfCheck { ok, at: now_utc(), tries, checks }));
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

#[derive(Serialize)]
pub(super) struct SelfCheck {
    ok: bool,
    at: String,
    /// How often it was looked.
    tries: u32,
    checks: Vec<Check>,
}

/// One thing that must hold.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What must hold, for people.
    what: &'static str,
    figures: BTreeMap<&'static str, u64>,
    /// Where it does not.
    failures: Vec<String>,
}

impl Check {
    fn new(name: &'static str, what: &'static str) -> Self {
        Self { name, ok: true, what, figures: BTreeMap::new(), failures: Vec::new() }
    }

    fn add(&mut self, name: &'static str, figure: u64) {
        *self.figures.entry(name).or_default() += figure;
    }

    fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if holds {
            return;
        }
        self.ok = false;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(otherwise());
        }
    }
}

fn check(control: &Control) -> Vec<Check> {
    let runtime = control.runtime();
    let snapshot = runtime.snapshot();
    let text = metrics::text(control);
    vec![
        picks(&snapshot),
        requests(&snapshot),
        sums(runtime, &snapshot),
        gauges(runtime, &snapshot, &text),
        series(&runtime.snapshot().config, &text),
    ]
}

/// What is over or under way at one upstream, as it is counted when it ends.
struct Ended {
    finished: u64,
    given_up: u64,
}

impl Ended {
    fn of(state: &UpstreamState) -> Self {
        let (finished, given_up) = (state.metrics.finished_attempts(), state.metrics.given_up_attempts());
        Self { finished, given_up }
    }

    const fn sum(&self) -> u64 {
        self.finished + self.given_up
    }
}

/// Picks are counted when an attempt begins; what comes of it where it ends.
fn picks(snapshot: &Snapshot) -> Check {
    let mut check = Check::new(
        "picks",
        "at each upstream: picks = attempts that finished + attempts that were given up + attempts that wait for an answer",
    );
    for state in states(snapshot) {
        // Whatever happens between these looks, makes the first three too small and the last two too large.
        let (picked_before, ended_before) = (state.load.begun(), Ended::of(state));
        let waiting = u64::from(state.load.waiting());
        let (ended, picked) = (Ended::of(state), state.load.begun());
        check.add("picks", picked);
        check.add("finished", ended.finished);
        check.add("given_up", ended.given_up);
        check.add("waiting", waiting);
        let is_none_lost = picked_before <= ended.sum() + waiting;
        let is_none_twice = ended_before.sum() + waiting <= picked;
        check.must(is_none_lost && is_none_twice, || {
            let Ended { finished, given_up } = ended;
            let (pool, address) = (&state.pool, &state.address);
            format!("{pool} {address}: {picked} picks, {finished} finished, {given_up} given up, {waiting} waiting")
        });
    }
    check
}

/// The same of requests, at their routes.
fn requests(snapshot: &Snapshot) -> Check {
    let mut check =
        Check::new("requests", "at each route: requests that ended = requests that were counted by status");
    for route in snapshot.routes() {
        let metrics = &route.metrics;
        let ended_before = metrics.ended();
        let counted = metrics.finished_requests();
        // Ended first, counted next: one may be between the two at any time, on each of the threads.
        let ended = metrics.ended();
        check.add("ended", ended);
        check.add("counted", counted);
        check.add("in_flight", metrics.in_flight());
        let name = &route.config.name;
        check.must(ended_before <= counted && counted <= ended, || {
            format!("{name}: {ended} ended, {counted} counted")
        });
        let refusals: u64 = Reason::ALL.iter().map(|&reason| metrics.refusals(reason)).sum();
        let counted = metrics.finished_requests();
        check.must(refusals <= counted, || format!("{name}: {refusals} refusals of {counted} requests"));
    }
    check
}

/// What is told of listeners is summed up from routes, and what is told of response times beside attempts.
fn sums(runtime: &Runtime, snapshot: &Snapshot) -> Check {
    let mut check = Check::new(
        "sums",
        "requests of all routes = requests of all listeners; response times = attempts with an answer",
    );
    for route in snapshot.routes() {
        let of = |listener, class| route.metrics.requests(listener, class);
        let before = route.metrics.finished_requests();
        let listeners = runtime.listeners().iter();
        let by_listener: u64 = listeners.flat_map(|it| Class::ALL.map(|class| of(it.index, class))).sum();
        let after = route.metrics.finished_requests();
        check.add("requests_of_routes", after);
        check.add("requests_of_listeners", by_listener);
        let name = &route.config.name;
        check.must(before <= by_listener && by_listener <= after, || {
            format!("{name}: {after} requests, {by_listener} of them on known listeners")
        });
    }
    for state in states(snapshot) {
        let answered = || Class::ALL.map(|class| state.metrics.requests(class)).iter().sum::<u64>();
        let before = answered();
        let timed = state.metrics.response_times().count;
        let after = answered();
        check.add("answers", after);
        check.add("response_times", timed);
        let (pool, address) = (&state.pool, &state.address);
        check.must(before <= timed && timed <= after, || {
            format!("{pool} {address}: {after} answers, {timed} response times")
        });
    }
    check
}

fn gauges(runtime: &Runtime, snapshot: &Snapshot, text: &str) -> Check {
    let mut check = Check::new("gauges", "nothing ended more often than it began, and no figure is negative");
    for listener in runtime.listeners() {
        check.add("gauges", 2);
        check.must(!listener.metrics.is_negative(), || format!("listener {}", listener.name));
    }
    for route in snapshot.routes() {
        check.add("gauges", 1);
        check.must(!route.metrics.is_negative(), || format!("route {}", route.config.name));
    }
    for state in states(snapshot) {
        check.add("gauges", 2);
        check.must(!state.metrics.is_negative(), || format!("{} {}", state.pool, state.address));
    }
    for (name, value) in text.lines().filter_map(sample) {
        check.add("figures", 1);
        check.must(value.parse::<f64>().is_ok_and(|value| value >= 0.0), || format!("{name} is {value}"));
    }
    check
}

/// Whatever `/metrics` names must be in the configuration, once, and the other way round.
fn series(config: &Config, text: &str) -> Check {
    let mut check = Check::new(
        "series",
        "every series belongs to something in the running configuration, none comes twice, no upstream is without",
    );
    let (alive, mut seen, mut upstreams) = (Alive::of(config), HashSet::new(), 0);
    for (name, _) in text.lines().filter_map(sample) {
        check.add("series", 1);
        check.must(seen.insert(name), || format!("{name} comes twice"));
        check.must(alive.knows(&labels(name)), || format!("{name} belongs to nothing"));
        upstreams += u64::from(name.starts_with("evener_upstream_up{"));
    }
    let known = alive.upstreams.len() as u64;
    check.add("upstreams", known);
    check.must(upstreams == known, || format!("{known} upstreams, {upstreams} of them with series"));
    check
}

/// Name and labels of a line of the exposition, and its value.
fn sample(line: &str) -> Option<(&str, &str)> {
    if line.starts_with('#') { None } else { line.rsplit_once(' ') }
}

/// The labels of a series, as they are escaped there.
fn labels(series: &str) -> Vec<(&str, &str)> {
    let mut labels = Vec::new();
    let Some((_, mut rest)) = series.split_once('{') else { return labels };
    while let Some((name, more)) = rest.split_once("=\"") {
        let mut is_escaped = false;
        let end = more.find(|character| {
            let is_end = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            is_end
        });
        let Some((value, after)) = end.and_then(|end| more.split_at_checked(end)) else { break };
        labels.push((name.trim_start_matches(','), value));
        rest = after.trim_start_matches('"');
    }
    labels
}

/// As it stands between quotation marks.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Everything in a configuration that has series, by name.
struct Alive {
    listeners: HashSet<String>,
    routes: HashSet<String>,
    pools: HashSet<String>,
    /// Pool and address.
    upstreams: HashSet<(String, String)>,
}

impl Alive {
    fn of(config: &Config) -> Self {
        let unrouted = [metrics::UNROUTED.to_owned()];
        let upstreams = config.pools.iter().flat_map(|pool| {
            let of_pool = |address: String| (escaped(&pool.name), escaped(&address));
            pool.upstreams.iter().map(move |upstream| of_pool(upstream.address.to_string()))
        });
        Self {
            listeners: config.listeners.iter().map(|listener| escaped(&listener.name)).collect(),
            routes: config.routes.iter().map(|route| escaped(&route.name)).chain(unrouted).collect(),
            pools: config.pools.iter().map(|pool| escaped(&pool.name)).collect(),
            upstreams: upstreams.collect(),
        }
    }

    fn knows(&self, labels: &[(&str, &str)]) -> bool {
        let value = |wanted| labels.iter().find(|(name, _)| *name == wanted).map(|&(_, value)| value);
        let is_in = |names: &HashSet<String>, label| value(label).is_none_or(|name| names.contains(name));
        let upstream = value("upstream").is_none_or(|address| {
            let pool = value("pool").unwrap_or_default();
            self.upstreams.contains(&(pool.to_owned(), address.to_owned()))
        });
        upstream
            && is_in(&self.listeners, "listener")
            && is_in(&self.routes, "route")
            && is_in(&self.pools, "pool")
    }
}

fn states(snapshot: &Snapshot) -> impl Iterator<Item = &UpstreamState> {
    snapshot.pools().flat_map(Pool::upstreams).map(|upstream| &*upstream.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, parse};

    #[test]
    fn labels_are_read_with_whatever_stands_in_them() {
        assert_eq!(labels("evener_up"), []);
        assert_eq!(
            labels(r#"m{pool="a",upstream="unix:/run/\"a\\",le="+Inf"}"#),
            [("pool", "a"), ("upstream", r#"unix:/run/\"a\\"#), ("le", "+Inf")]
        );
        assert_eq!(labels(r#"m{pool="a"#), []);
    }

    fn config() -> Config {
        let text =
            "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\"]\n";
        let source = Source { name: String::new(), text: text.to_owned(), folder: ".".into() };
        parse(&source, &|_| None).unwrap_or_else(|_| unreachable!())
    }

    #[test]
    fn a_series_of_something_that_is_gone_is_noticed() {
        let up = "evener_upstream_up{pool=\"app\",upstream=\"127.0.0.1:9001\"} 1\n";
        for (more, ok) in [
            ("evener_connections{listener=\"http\"} 1\n", true),
            ("process_open_fds 9\n", true),
            ("evener_refusals_total{route=\"none\",reason=\"no_route\"} 0\n", true),
            ("evener_connections{listener=\"https\"} 1\n", false),
            ("evener_retries_total{pool=\"old\",reason=\"reset\"} 1\n", false),
            ("evener_upstream_in_flight{pool=\"app\",upstream=\"127.0.0.1:9002\"} 0\n", false),
            (up, false),
        ] {
            let check = series(&config(), &format!("# HELP a b\n{up}{more}"));
            assert_eq!(check.ok, ok, "{more}: {:?}", check.failures);
        }
        assert!(!series(&config(), "process_open_fds 9\n").ok, "an upstream without");
    }
}
