//! What one pick costs: every strategy, from 10 to 10 000 upstreams. Fails when a pick allocates.
//!
//! Three tables, in nanoseconds, on one thread, the best of nine runs (the others met a busy machine):
//! *pick* alone; *request*, which is pick, begin, answer with latency, and end, with four requests in flight
//! (`ALGORITHMS.md` §7); and pick with nine of ten upstreams down, where luck and turns run out.

use std::hint::black_box;
use std::time::{Duration, Instant};

use evener::balance::{Candidate, Load, Pick, Strategy, StrategyKind, TICK, Tried, Tuner, hash};

fn main() {
    table("pick", |upstreams| Bench::new(upstreams, |_| true), Bench::pick);
    table("request", |upstreams| Bench::new(upstreams, |_| true), Bench::request);
    table("pick, 9 of 10 down", |upstreams| Bench::new(upstreams, |index| index % 10 == 7), Bench::pick);
}

fn table(title: &str, world: impl Fn(usize) -> Bench, work: fn(&mut Bench, &Strategy)) {
    print!("{title:20}");
    for size in SIZES {
        print!("{size:>9}");
    }
    println!();
    for kind in StrategyKind::ALL {
        print!("{:20}", kind.name());
        for size in SIZES {
            print!("{:9.1}", nanoseconds(kind, world(size), work));
        }
        println!();
    }
    println!();
}

/// Time for one `work`, after a warm-up that also shows that it does not allocate.
fn nanoseconds(kind: StrategyKind, mut bench: Bench, work: fn(&mut Bench, &Strategy)) -> f64 {
    let strategy = bench.strategy(kind);
    let allocations = allocation_counter::measure(|| (0..1_000).for_each(|_| work(&mut bench, &strategy)));
    assert_eq!(allocations.count_total, 0, "{} allocates on the request path", kind.name());
    bench.learn(kind);

    (0..9)
        .map(|_| {
            let started = Instant::now();
            (0..ROUNDS).for_each(|_| work(&mut bench, &strategy));
            started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        })
        .fold(f64::INFINITY, f64::min)
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
    tried: Tried,
    number: u64,
    now: Duration,
    /// Requests in flight: upstream, and in-flight count at begin.
    under_way: [(usize, u32); 4],
}

impl Bench {
    fn new(upstreams: usize, eligible: impl Fn(usize) -> bool) -> Self {
        let upstream = |index| Upstream { load: Load::new(Duration::ZERO), eligible: eligible(index) };
        let mut bench = Self {
            pool: (0..upstreams).map(upstream).collect(),
            weights: vec![1; upstreams],
            tried: Tried::default(),
            number: 0,
            now: Duration::ZERO,
            under_way: [(0, 1); 4],
        };
        bench.under_way = [1, 3, 5, 7].map(|index| (index, bench.pool[index].load.begin(bench.now)));
        bench
    }

    fn strategy(&self, kind: StrategyKind) -> Strategy {
        let identities: Vec<u64> =
            (0..self.pool.len()).map(|index| hash(format!("10.0.0.1:{index}").as_bytes())).collect();
        Strategy::identified(kind, &self.weights, &identities, 7)
    }

    /// A second of ticks with an answer from everybody, so that estimates are in place.
    fn learn(&mut self, kind: StrategyKind) {
        let mut tuner = Tuner::default();
        for _ in 0..10 {
            for upstream in &self.pool {
                let in_flight = upstream.load.begin(self.now);
                upstream.load.succeeded(self.now, Duration::from_millis(10), in_flight);
                upstream.load.end();
            }
            self.now += TICK;
            tuner.tick(&self.pool, &self.weights, kind, Duration::ZERO, self.now);
        }
    }

    fn pick(&mut self, strategy: &Strategy) {
        let chosen = self.choose(strategy);
        assert!(self.pool.get(black_box(chosen)).is_some_and(|upstream| upstream.eligible));
    }

    /// One request begins, and the oldest of four ends.
    fn request(&mut self, strategy: &Strategy) {
        let chosen = self.choose(strategy);
        let begun = (chosen, self.pool[chosen].load.begin(self.now));
        let slot = usize::try_from(self.number % 4).unwrap_or(0);
        let (upstream, in_flight) = std::mem::replace(&mut self.under_way[slot], begun);
        let load = &self.pool[upstream].load;
        load.succeeded(self.now, Duration::from_micros(1_000 + self.number % 1_024), in_flight);
        load.end();
    }

    fn choose(&mut self, strategy: &Strategy) -> usize {
        self.number += 1;
        self.now += Duration::from_nanos(100);
        // Bits that no two picks share, from a multiplication, so that they cost next to nothing.
        let random = self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        let hash = random.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let pick = Pick { now: self.now, hash, random, tried: &self.tried };
        strategy.pick(black_box(&self.pool), pick).unwrap_or(usize::MAX)
    }
}

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

const ROUNDS: u32 = 100_000;
