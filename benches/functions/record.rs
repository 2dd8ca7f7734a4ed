//! What it costs to record one outcome: the load that strategies go by, the counters, the histograms, and all of
//! them together as one request takes them; on one thread, on two at the same upstream, and on two apart.
//!
//! The rings of the last five minutes are not on the path of a request: every ten seconds they take down how
//! far the counters are. What that costs stands apart.

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evener::balance::{Candidate, Load, StrategyKind, Tuner};
use evener::config::{self, Config, Report, Source};
use evener::observe::{Histogram, PoolMetrics, Recent, RouteMetrics, SAMPLE, UpstreamMetrics};
use evener::route::RequestHead;
use evener::runtime::{Snapshot, Tiers};
use http::{HeaderMap, Method};

use crate::meter::{Meter, Row};

/// # Errors
///
/// When the configuration that it measures with is refused.
pub(crate) fn measure(meter: &mut Meter) -> Result<(), Report> {
    let config = one_of_each()?;
    let rows = [
        row(meter, "load", Lone::new, load),
        row(meter, "histogram", Histogram::default, histogram),
        row(meter, "upstream's counters", UpstreamMetrics::default, upstream),
        row(meter, "pool's counters", PoolMetrics::default, pool),
        row(meter, "route's counters", || RouteMetrics::new(1), route),
        row(meter, "attempt", || World::new(&config), attempt),
        row(meter, "request", || World::new(&config), request),
    ];
    meter.table("record", &["one thread", "two, shared", "two, apart"], &rows);
    let sampled = meter.time("record/ring", || {
        let (recent, mut number) = (Recent::default(), 0);
        move || {
            number += 1;
            recent.sample(number, SAMPLE * u32::try_from(number % 1_000_000).unwrap_or(0));
        }
    });
    let row = Row { name: "one counter taken down".to_owned(), times: vec![sampled] };
    meter.table("record, every ten seconds", &["one thread"], &[row]);
    Ok(())
}

/// `work` gets the number of the call, counted from one; two threads share none.
fn row<T: Send + Sync>(meter: &mut Meter, name: &str, world: impl Fn() -> T, work: fn(&T, u64)) -> Row {
    let id = |threads: &str| format!("record/{}/{threads}", name.replace(' ', "_"));
    let calls = |world: Arc<T>, first: u64| {
        let mut number = first;
        move || {
            number += 1;
            work(black_box(&world), number);
        }
    };
    let times = vec![
        meter.time(&id("one_thread"), || calls(Arc::new(world()), 0)),
        meter.time_of_two(&id("two_threads_shared"), || {
            let shared = Arc::new(world());
            [calls(shared.clone(), 0), calls(shared, 0)]
        }),
        meter.time_of_two(&id("two_threads_apart"), || [0, 0].map(|first| calls(Arc::new(world()), first))),
    ];
    Row { name: name.to_owned(), times }
}

/// An upstream of which nothing but the load is kept.
struct Lone {
    load: Load,
    tuner: Mutex<Tuner>,
}

impl Lone {
    fn new() -> Self {
        Self { load: Load::new(Duration::ZERO), tuner: Mutex::default() }
    }

    fn tick(&self, now: Duration) {
        if let Ok(mut tuner) = self.tuner.lock() {
            tuner.tick(std::slice::from_ref(self), &[1], StrategyKind::default(), Duration::ZERO, now);
        }
    }
}

impl Candidate for Lone {
    fn load(&self) -> &Load {
        &self.load
    }

    fn is_eligible(&self, _: Duration) -> bool {
        true
    }
}

/// A request begins at the upstream, is answered and ends.
fn load(upstream: &Lone, number: u64) {
    if number.is_multiple_of(ANSWERS_PER_TICK) {
        upstream.tick(at(number));
    }
    let load = &upstream.load;
    let in_flight = load.begin(at(number));
    load.succeeded(at(number), latency(number), in_flight);
    load.end();
}

fn histogram(histogram: &Histogram, number: u64) {
    histogram.record(latency(number));
}

/// An answered attempt without body.
fn upstream(metrics: &UpstreamMetrics, number: u64) {
    metrics.reused();
    metrics.attempt_finished(Some(200));
    metrics.response_time(latency(number));
    metrics.transferred(0, ANSWER_BYTES);
}

fn pool(metrics: &PoolMetrics, _: u64) {
    metrics.finished(200, 1);
}

fn route(metrics: &RouteMetrics, number: u64) {
    metrics.begin();
    metrics.end();
    metrics.finished(0, 200, latency(number), 0, ANSWER_BYTES);
}

/// One route to one pool of one upstream, as it runs.
struct World {
    snapshot: Snapshot,
    headers: HeaderMap,
}

impl World {
    fn new(config: &Config) -> Self {
        let snapshot = Snapshot::build(config.clone(), 1, None, Duration::ZERO, 7);
        Self { snapshot, headers: HeaderMap::new() }
    }
}

fn one_of_each() -> Result<Config, Report> {
    let text = "[listeners.http]\naddress = \"127.0.0.1:8080\"\n[pools.app]\nhealth_check = { enabled = false }\n\
                upstreams = [\"127.0.0.1:9001\"]\n[routes.all]\npool = \"app\"\n";
    let source = Source { name: "evener.toml".to_owned(), text: text.to_owned(), folder: ".".into() };
    config::parse_with_warnings(&source, &|_| None).map(|(config, _)| config)
}

/// What the pool has to do with an attempt: pick, lease, outcome, and the lease given back.
fn attempt(world: &World, number: u64) {
    let pool = world.snapshot.pool(0);
    assert!(pool.is_some_and(|pool| is_picked_and_answered(pool, number)));
}

/// All that a request writes down: the route's, the pool's and the upstream's figures, and the attempt.
fn request(world: &World, number: u64) {
    let head = RequestHead { host: "example.com", method: &Method::GET, path: "/", headers: &world.headers };
    let snapshot = &world.snapshot;
    let route = snapshot.find_route(&head).and_then(|route| snapshot.route(route));
    let answered = route.is_some_and(|route| {
        self::route(&route.metrics, number);
        route.pool_for(number).and_then(|pool| snapshot.pool(pool)).is_some_and(|pool| {
            pool.state.budget.earn(route.config.retry.budget);
            pool.state.metrics.finished(200, snapshot.generation);
            pool.upstreams().iter().for_each(|member| upstream(&member.state.metrics, number));
            is_picked_and_answered(pool, number)
        })
    });
    assert!(answered);
}

fn is_picked_and_answered(pool: &evener::runtime::Pool, number: u64) -> bool {
    if number.is_multiple_of(ANSWERS_PER_TICK) {
        pool.tick(at(number));
    }
    let Ok(mut chosen) = pool.pick(at(number), 0, number, &mut Tiers::default()) else { return false };
    let Some(upstream) = pool.upstreams().get(chosen.index) else { return false };
    pool.record_success(upstream, &mut chosen.lease, Some(latency(number)), at(number));
    true
}

/// Ten million requests a second.
fn at(number: u64) -> Duration {
    Duration::from_nanos(100 * number)
}

/// 1 to 2 ms, so that a few buckets of a histogram are in use.
fn latency(number: u64) -> Duration {
    Duration::from_micros(1_000 + number % 1_024)
}

const ANSWER_BYTES: u64 = 1_024;

/// Between two ticks, which empty the sums: a quarter of what an upstream can add up. Ticks come so seldom that
/// they cost nothing here.
const ANSWERS_PER_TICK: u64 = 16_384;
