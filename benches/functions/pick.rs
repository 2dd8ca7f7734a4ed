//! What one pick costs: every strategy, from 10 to 10 000 upstreams.
//!
//! *pick* alone; *request*, which is pick, begin, answer with latency, and end, with four requests in flight;
//! and pick with nine of ten upstreams down, where luck and turns run out. The goals (`ALGORITHMS.md` §7) are
//! held against both of the first.

use std::hint::black_box;
use std::time::Duration;

use evener::balance::{Candidate, Load, Pick, Strategy, StrategyKind, TICK, Tried, Tuner, hash};

use crate::meter::{Meter, Row};

pub(crate) fn measure(meter: &mut Meter) {
    for (title, work) in [("pick", Bench::pick as fn(&mut Bench)), ("request", Bench::request)] {
        let rows = table(meter, title, |size, kind| Bench::new(size, kind, |_| true), work);
        for goal in &GOALS {
            judge(meter, title, goal, &rows);
        }
    }
    let mostly_down = |size, kind| Bench::new(size, kind, |index| index % 10 == 7);
    table(meter, "pick, 9 of 10 down", mostly_down, Bench::pick);
}

fn table(
    meter: &mut Meter,
    title: &str,
    world: impl Fn(usize, StrategyKind) -> Bench,
    work: fn(&mut Bench),
) -> Vec<Row> {
    let group = title.replace(", ", "_").replace(' ', "_");
    let row = |kind: StrategyKind| {
        let time = |&size: &usize| {
            meter.time(&format!("{group}/{}/{size}", kind.name()), || {
                let mut bench = world(size, kind);
                move || work(&mut bench)
            })
        };
        Row { name: kind.name().to_owned(), times: SIZES.iter().map(time).collect() }
    };
    let rows: Vec<Row> = StrategyKind::ALL.into_iter().map(row).collect();
    meter.table(title, &SIZES.map(|size| size.to_string()).each_ref().map(String::as_str), &rows);
    rows
}

/// What this strategy may cost, from the smallest size to the largest.
struct Goal {
    kind: StrategyKind,
    sizes: std::ops::RangeInclusive<usize>,
    nanoseconds: f64,
}

fn judge(meter: &mut Meter, title: &str, goal: &Goal, rows: &[Row]) {
    let rows = rows.iter().filter(|row| row.name == goal.kind.name());
    let times = rows.flat_map(|row| SIZES.iter().zip(&row.times));
    let worst = times
        .filter(|(size, _)| goal.sizes.contains(size))
        .filter_map(|(size, time)| time.map(|time| (time, size)))
        .max_by(|(left, _), (right, _)| left.total_cmp(right));
    if let Some((time, size)) = worst {
        let verdict = if time <= goal.nanoseconds { "reached" } else { "missed" };
        let (from, to) = (goal.sizes.start(), goal.sizes.end());
        meter.say(&format!(
            "  goal: {title} by {} at most {} ns from {from} to {to} upstreams: {verdict} ({time:.1} ns at {size})",
            goal.kind.name(),
            goal.nanoseconds
        ));
    }
}

struct Upstream {
    load: Load,
    eligible: bool,
}

impl Candidate for Upstream {
    fn load(&self) -> &Load {
        &self.load
    }

    fn is_eligible(&self, _: Duration) -> bool {
        self.eligible
    }
}

struct Bench {
    pool: Vec<Upstream>,
    weights: Vec<u16>,
    kind: StrategyKind,
    strategy: Strategy,
    tuner: Tuner,
    tried: Tried,
    number: u64,
    next_tick: u64,
    now: Duration,
    /// Requests in flight: upstream, and in-flight count at begin.
    under_way: [(usize, u32); 4],
}

impl Bench {
    fn new(upstreams: usize, kind: StrategyKind, eligible: impl Fn(usize) -> bool) -> Self {
        let upstream = |index| Upstream { load: Load::new(Duration::ZERO), eligible: eligible(index) };
        let pool: Vec<Upstream> = (0..upstreams).map(upstream).collect();
        let weights = vec![1; upstreams];
        let identities: Vec<u64> =
            (0..upstreams).map(|index| hash(format!("10.0.0.1:{index}").as_bytes())).collect();
        let mut bench = Self {
            under_way: [1, 3, 5, 7].map(|index| (index, pool[index].load.begin(Duration::ZERO))),
            strategy: Strategy::identified(kind, &weights, &identities, 7),
            pool,
            weights,
            kind,
            tuner: Tuner::default(),
            tried: Tried::default(),
            number: 0,
            next_tick: ANSWERS_PER_TICK * upstreams as u64,
            now: Duration::ZERO,
        };
        bench.learn();
        bench
    }

    /// A second of ticks with an answer from everybody, so that estimates are in place.
    fn learn(&mut self) {
        for _ in 0..10 {
            for upstream in &self.pool {
                let in_flight = upstream.load.begin(self.now);
                upstream.load.succeeded(self.now, Duration::from_millis(10), in_flight);
                upstream.load.end();
            }
            self.now += TICK;
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.tuner.tick(&self.pool, &self.weights, self.kind, Duration::ZERO, self.now);
    }

    fn pick(&mut self) {
        let chosen = self.choose();
        assert!(self.pool.get(black_box(chosen)).is_some_and(|upstream| upstream.eligible));
    }

    /// One request begins, and the oldest of four ends.
    fn request(&mut self) {
        let chosen = self.choose();
        let begun = (chosen, self.pool[chosen].load.begin(self.now));
        let slot = usize::try_from(self.number % 4).unwrap_or(0);
        let (upstream, in_flight) = std::mem::replace(&mut self.under_way[slot], begun);
        let load = &self.pool[upstream].load;
        load.succeeded(self.now, Duration::from_micros(1_000 + self.number % 1_024), in_flight);
        load.end();
        if self.number == self.next_tick {
            self.next_tick += ANSWERS_PER_TICK * self.pool.len() as u64;
            self.tick();
        }
    }

    fn choose(&mut self) -> usize {
        self.number += 1;
        self.now += Duration::from_nanos(100);
        // Bits that no two picks share, from a multiplication, so that they cost next to nothing.
        let random = self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        let hash = random.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let pick = Pick { now: self.now, hash, random, tried: &self.tried };
        self.strategy.pick(black_box(&self.pool), pick).unwrap_or(usize::MAX)
    }
}

const SIZES: [usize; 5] = [10, 33, 100, 1_000, 10_000];

/// `ALGORITHMS.md` §7.
const GOALS: [Goal; 5] = [
    Goal { kind: StrategyKind::RoundRobin, sizes: 10..=10_000, nanoseconds: 30.0 },
    Goal { kind: StrategyKind::LeastConnections, sizes: 10..=10, nanoseconds: 60.0 },
    Goal { kind: StrategyKind::LeastConnections, sizes: 33..=10_000, nanoseconds: 100.0 },
    Goal { kind: StrategyKind::LatencyWeighted, sizes: 10..=10, nanoseconds: 60.0 },
    Goal { kind: StrategyKind::LatencyWeighted, sizes: 33..=10_000, nanoseconds: 100.0 },
];

/// Of each upstream, between two ticks: a quarter of what an upstream can add up, beyond which answers would cost
/// less because they are no longer added. Ticks come so seldom that they cost nothing here.
const ANSWERS_PER_TICK: u64 = 16_384;
