//! Whether the figures agree with each other.
//!
//! ```text
//!   live counters, /metrics ──► one function per check ──► Check { ok, figures, failures }
//! ```
//!
//! Each check compares two figures that are counted at different places of the code, so that a request that is
//! forgotten on some path is noticed. Requests go on meanwhile, and one that is between its two counters at the
//! moment of the look is no mistake: wrong is only what is wrong at the same place in every one of several looks.
//! What was forgotten stays so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
use crate::observe::{Class, Reason, RouteMetrics};
use crate::runtime::{Pool, PoolState, Runtime, Snapshot, UpstreamState};

/// How often everything is looked at before a disagreement is told. With [`PAUSE`] that is more than a second: as
/// long as a thread may wait for a processor between two counters, and as a predecessor takes to tell what it still
/// counted.
const TRIES_MAX: u32 = 8;

/// Between the first two looks; twice as long each time after that.
const PAUSE: Duration = Duration::from_millis(10);

/// Failures that are listed per check: the first ones tell what is wrong.
const FAILURES_MAX: usize = 20;

/// `GET /v1/self-check` — 200 in any case; `ok` says whether all is well.
pub(super) async fn run(
    State(control): State<Arc<Control>>,
    parameters: Parameters,
) -> Result<Json<SelfCheck>, Problem> {
    parameters.finish()?;
    let (mut tries, mut standing) = (1, None::<Wrong>);
    loop {
        let mut checks = check(&control);
        let wrong = wrong_still(&checks, standing.as_ref());
        if wrong.is_empty() || tries == TRIES_MAX {
            for check in &mut checks {
                check.keep(&wrong);
            }
            return Ok(Json(SelfCheck { ok: wrong.is_empty(), at: now_utc(), tries, checks }));
        }
        standing = Some(wrong);
        tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await;
        tries += 1;
    }
}

/// What is wrong, by check and place.
type Wrong = BTreeSet<(&'static str, String)>;

/// What is wrong, and was in all looks before; `None`: there were none.
fn wrong_still(checks: &[Check], before: Option<&Wrong>) -> Wrong {
    let all = checks.iter().flat_map(|check| check.failed.keys().map(|place| (check.name, place.clone())));
    all.filter(|wrong| before.is_none_or(|before| before.contains(wrong))).collect()
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
    /// The same, by place.
    #[serde(skip)]
    failed: BTreeMap<String, String>,
}

impl Check {
    fn new(name: &'static str, what: &'static str) -> Self {
        let (figures, failures, failed) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { name, ok: true, what, figures, failures, failed }
    }

    fn add(&mut self, name: &'static str, figure: u64) {
        *self.figures.entry(name).or_default() += figure;
    }

    /// `otherwise`: at which place it does not hold, and what is to be seen there.
    fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> (String, String)) {
        if !holds {
            let (place, seen) = otherwise();
            self.failed.insert(place, seen);
        }
    }

    /// Tells of what is wrong, and of nothing else.
    fn keep(&mut self, wrong: &Wrong) {
        let failed = std::mem::take(&mut self.failed).into_iter();
        let still = failed.filter(|(place, _)| wrong.contains(&(self.name, place.clone())));
        self.failures = still.map(|(place, seen)| format!("{place}: {seen}")).take(FAILURES_MAX).collect();
        self.ok = self.failures.is_empty();
    }
}

fn check(control: &Control) -> Vec<Check> {
    let runtime = control.runtime();
    // One for all: what a change brings is then in the configuration and in the series, or in none of them.
    let snapshot = runtime.snapshot();
    let text = metrics::text_of(control, &snapshot);
    vec![
        picks(runtime, &snapshot),
        requests(&snapshot),
        flights(runtime),
        sums(runtime, &snapshot),
        gauges(runtime, &snapshot, &text),
        series(&snapshot.config, &text),
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

/// Picks are counted when an attempt begins; what comes of it where it ends. Upstreams that were removed, and finish
/// what they have, are looked at, too.
fn picks(runtime: &Runtime, snapshot: &Snapshot) -> Check {
    let mut check = Check::new(
        "picks",
        "at each upstream: picks = attempts that finished + attempts that were given up + attempts that wait for an answer",
    );
    let leaving = runtime.all_leaving();
    for state in states(snapshot).chain(leaving.iter().map(AsRef::as_ref)) {
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
            let seen = format!("{picked} picks, {finished} finished, {given_up} given up, {waiting} waiting");
            (place_of(state), seen)
        });
    }
    check
}

/// Who is in flight at an upstream, or waits for one, is a request under way: a lease that is not given back, for
/// which an upstream would be taken for busy for ever, has none. Of all configurations that requests still run on.
fn flights(runtime: &Runtime) -> Check {
    let mut check = Check::new(
        "flights",
        "requests in flight at upstreams + requests that wait for one <= requests under way at routes",
    );
    let snapshots = runtime.snapshots();
    let (mut routes, mut upstreams, mut pools) = (HashMap::new(), HashMap::new(), HashMap::new());
    for snapshot in &snapshots {
        routes.extend(
            snapshot.routes().map(|it| (std::ptr::from_ref::<RouteMetrics>(&it.metrics), &*it.metrics)),
        );
        upstreams.extend(states(snapshot).map(|it| (std::ptr::from_ref::<UpstreamState>(it), it)));
        pools.extend(snapshot.pools().map(|it| (std::ptr::from_ref::<PoolState>(&it.state), &*it.state)));
    }
    // Whoever was under way at any moment in between is among those who began before its end and had not ended at
    // its beginning.
    let ended: u64 = routes.values().map(|route| route.ended()).sum();
    let at_upstreams: u64 = upstreams.values().map(|state| u64::from(state.load.in_flight())).sum();
    let queued: u64 = pools.values().map(|pool| pool.queue.len() as u64).sum();
    let begun: u64 = routes.values().map(|route| route.begun()).sum();
    let under_way = begun.saturating_sub(ended);
    check.add("at_upstreams", at_upstreams);
    check.add("queued", queued);
    check.add("at_routes", under_way);
    check.must(at_upstreams + queued <= under_way, || {
        let seen = format!("{at_upstreams} at upstreams, {queued} queued, {under_way} under way");
        ("all routes".to_owned(), seen)
    });
    check
}

fn place_of(state: &UpstreamState) -> String {
    format!("{} {}", state.pool, state.address)
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
            (name.clone(), format!("{ended} ended, {counted} counted"))
        });
        let refusals: u64 = Reason::ALL.iter().map(|&reason| metrics.refusals(reason)).sum();
        // A predecessor's refusals do not say at which of its listeners they were.
        let counted = metrics.finished_requests() + metrics.foreign_requests();
        check.must(refusals <= counted, || {
            (format!("refusals of {name}"), format!("{refusals} refusals of {counted} requests"))
        });
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
            (name.clone(), format!("{after} requests, {by_listener} of them on known listeners"))
        });
    }
    for state in states(snapshot) {
        let answered = || Class::ALL.map(|class| state.metrics.requests(class)).iter().sum::<u64>();
        let before = answered();
        let timed = state.metrics.response_times().count;
        let after = answered();
        check.add("answers", after);
        check.add("response_times", timed);
        check.must(before <= timed && timed <= after, || {
            (place_of(state), format!("{after} answers, {timed} response times"))
        });
    }
    check
}

fn gauges(runtime: &Runtime, snapshot: &Snapshot, text: &str) -> Check {
    let mut check = Check::new("gauges", "nothing ended more often than it began, and no figure is negative");
    for listener in runtime.listeners() {
        check.add("gauges", 2);
        check.must(!listener.metrics.is_negative(), || (format!("listener {}", listener.name), negative()));
    }
    for route in snapshot.routes() {
        check.add("gauges", 1);
        check.must(!route.metrics.is_negative(), || (format!("route {}", route.config.name), negative()));
    }
    for state in states(snapshot) {
        check.add("gauges", 2);
        check.must(!state.metrics.is_negative(), || (place_of(state), negative()));
    }
    for (name, value) in text.lines().filter_map(sample) {
        check.add("figures", 1);
        check.must(value.parse::<f64>().is_ok_and(|value| value >= 0.0), || {
            (name.to_owned(), format!("it is {value}"))
        });
    }
    check
}

fn negative() -> String {
    "more ended than ever began".to_owned()
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
        let wrong = |what: &str| (name.to_owned(), what.to_owned());
        check.must(seen.insert(name), || wrong("it comes twice"));
        check.must(alive.knows(&labels(name)), || wrong("it belongs to nothing"));
        upstreams += u64::from(name.starts_with("evener_upstream_up{"));
    }
    let known = alive.upstreams.len() as u64;
    check.add("upstreams", known);
    check.must(upstreams == known, || {
        ("upstreams".to_owned(), format!("{known} upstreams, {upstreams} of them with series"))
    });
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
            assert_eq!(check.failed.is_empty(), ok, "{more}: {:?}", check.failed);
        }
        assert!(!series(&config(), "process_open_fds 9\n").failed.is_empty(), "an upstream without");
    }

    fn runtime() -> Runtime {
        Runtime::new(config(), 1, 0, None)
    }

    #[test]
    fn a_lease_that_nobody_gives_back_is_noticed() {
        let runtime = runtime();
        let snapshot = runtime.snapshot();
        let (route, pool) = (snapshot.route(0), snapshot.pool_named("app"));
        let (Some(route), Some(pool)) = (route, pool) else { unreachable!() };
        assert!(pool.upstreams().iter().all(|it| it.state.verdict.observe(true, 1, 1).is_some()));
        route.metrics.begin();
        let lease = pool.pick(runtime.now(), 0, 0, &mut Default::default());
        let wrong = || wrong_still(&[flights(&runtime), picks(&runtime, &snapshot)], None);
        assert_eq!(wrong(), Wrong::new(), "it is under way");
        std::mem::forget(lease);
        route.metrics.end();
        assert_eq!(wrong(), [("flights", "all routes".to_owned())].into());
        pool.upstreams().iter().for_each(|it| it.state.load.abandoned());
        assert_eq!(wrong().len(), 2, "and nobody told what became of the pick");
    }

    /// A change must not hide from a request that runs on what was before.
    #[test]
    fn requests_of_a_route_that_is_gone_are_under_way() {
        let runtime = runtime();
        let before = runtime.snapshot();
        let (Some(route), Some(pool)) = (before.route(0), before.pool_named("app")) else { unreachable!() };
        assert!(pool.upstreams().iter().all(|it| it.state.verdict.observe(true, 1, 1).is_some()));
        route.metrics.begin();
        let lease = pool.pick(runtime.now(), 0, 0, &mut Default::default());
        let text = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[routes.new]\npool = \"app\"\n[pools.app]\nupstreams = [\"127.0.0.1:9001\"]\n";
        let source = Source { name: String::new(), text: text.to_owned(), folder: ".".into() };
        let next = parse(&source, &|_| None).unwrap_or_else(|_| unreachable!());
        runtime.publish(Snapshot::build(next, 2, Some(&before), runtime.now(), 0));
        runtime.free_retired();
        let check = flights(&runtime);
        assert!(check.failed.is_empty(), "{:?}", check.failed);
        assert_eq!(check.figures.get("at_upstreams"), Some(&1));
        drop(lease);
    }

    #[test]
    fn wrong_is_what_is_wrong_in_every_look() {
        let look = |places: &[&str]| {
            let mut check = Check::new("picks", "");
            for place in places {
                check.must(false, || ((*place).to_owned(), String::new()));
            }
            check
        };
        let first = wrong_still(&[look(&["a", "b"])], None);
        assert_eq!(first.len(), 2);
        let second = wrong_still(&[look(&["b", "c"])], Some(&first));
        assert_eq!(second, [("picks", "b".to_owned())].into(), "`c` was right before");
        let mut last = look(&["b", "c"]);
        last.keep(&second);
        assert_eq!((last.ok, last.failures), (false, vec!["b: ".to_owned()]));
        assert!(wrong_still(&[look(&["a"])], Some(&second)).is_empty());
    }
}
