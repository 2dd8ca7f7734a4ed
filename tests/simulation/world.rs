//! The world: requests arrive at proxies, proxies pick, servers answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use evener::balance::{Candidate, Pick, Strategy, StrategyKind, TICK, Tried, Tuner, hash};

use crate::server::{Plan, Seconds, Server, exponential};
use crate::upstream::{Member, Upstream};

/// What arrives, for how long, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub servers: Vec<Plan>,
    pub rate: f64,
    pub seconds: Seconds,
    /// Not looked at in the results.
    pub warmup: Seconds,
    pub proxies: usize,
    pub work: Work,
    pub timeout: Seconds,
    pub slow_start: Duration,
    pub attempts: usize,
}

/// How long requests take at nominal speed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Exponential(Seconds),
    /// With a sigma of 0.5.
    LogNormal(Seconds),
    Constant(Seconds),
    /// 95 % of 2 ms and 5 % of 200 ms.
    Mixed,
}

/// One request, as its client saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub at: Seconds,
    pub latency: Seconds,
    pub ok: bool,
    pub server: usize,
}

/// A load balancer with its own view of the servers.
pub(crate) struct Proxy {
    pub pool: Vec<Member>,
    pub strategy: Strategy,
    pub tuner: Tuner,
    /// All that ever were in the pool, for the books.
    pub known: Vec<Rc<Upstream>>,
}

/// Everything, at one moment.
pub(crate) struct World {
    pub scenario: Scenario,
    pub kind: StrategyKind,
    pub now: Seconds,
    pub proxies: Vec<Proxy>,
    pub random: fastrand::Rng,
    pub seen: Vec<Seen>,
    servers: Vec<Server>,
    /// Random numbers of the servers' own, so that every strategy meets the same fate.
    fate: fastrand::Rng,
    answers: BinaryHeap<Reverse<Answer>>,
    joins: Vec<(Seconds, usize)>,
    next_tick: Seconds,
    next_number: u64,
}

/// An attempt under way, in the order of its end.
#[derive(Clone)]
struct Answer {
    at: Seconds,
    number: u64,
    ok: bool,
    sent: Seconds,
    in_flight_at_begin: u32,
    upstream: Rc<Upstream>,
    request: Request,
}

#[derive(Clone, Copy)]
struct Request {
    proxy: usize,
    arrived: Seconds,
    work: Seconds,
    key: u64,
    tried: Tried,
}

impl Scenario {
    /// Ten equal servers, as in `sim/scenarios.py`.
    pub(crate) fn of(servers: Vec<Plan>) -> Self {
        Self {
            servers,
            rate: 2_200.0,
            seconds: 15.0,
            warmup: 3.0,
            proxies: 1,
            work: Work::LogNormal(0.010),
            timeout: 2.0,
            slow_start: Duration::ZERO,
            attempts: 1,
        }
    }

    pub(crate) fn run(&self, kind: StrategyKind, seed: u64) -> Results {
        let mut world = World::new(self.clone(), kind, seed);
        let mut arrivals = fastrand::Rng::with_seed(seed);
        let mut at = 0.0;
        loop {
            at += exponential(&mut arrivals, 1.0 / self.rate);
            if at > self.seconds {
                break;
            }
            let proxy = arrivals.usize(..self.proxies);
            let work = self.work.draw(&mut arrivals);
            let key = zipf(&mut arrivals);
            world.advance(at);
            world.arrive(proxy, work, key);
        }
        world.finish();
        Results { seen: world.seen, warmup: self.warmup, timeout: self.timeout, servers: self.servers.len() }
    }
}

impl World {
    pub(crate) fn new(scenario: Scenario, kind: StrategyKind, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5EED);
        let here: Vec<usize> =
            (0..scenario.servers.len()).filter(|&at| scenario.servers[at].joins <= 0.0).collect();
        let mut joins: Vec<(Seconds, usize)> = scenario
            .servers
            .iter()
            .enumerate()
            .map(|(at, plan)| (plan.joins, at))
            .filter(|join| join.0 > 0.0)
            .collect();
        joins.sort_by(|a, b| b.0.total_cmp(&a.0));
        let proxies =
            (0..scenario.proxies).map(|_| Proxy::new(kind, &here, &scenario, random.u64(..))).collect();
        Self {
            servers: scenario.servers.iter().cloned().map(Server::new).collect(),
            fate: fastrand::Rng::with_seed(seed ^ 0xFA7E),
            next_tick: TICK.as_secs_f64(),
            scenario,
            kind,
            now: 0.0,
            proxies,
            random,
            seen: Vec::new(),
            answers: BinaryHeap::new(),
            joins,
            next_number: 0,
        }
    }

    /// Lets time pass until `until`: answers, ticks and new servers in their order.
    pub(crate) fn advance(&mut self, until: Seconds) {
        loop {
            let answer = self.answers.peek().map_or(f64::INFINITY, |Reverse(answer)| answer.at);
            let join = self.joins.last().map_or(f64::INFINITY, |&(at, _)| at);
            let next = answer.min(join).min(self.next_tick);
            if next > until {
                break;
            }
            self.now = next;
            if next >= answer {
                self.answer();
            } else if next >= join {
                self.join();
            } else {
                self.tick();
            }
        }
        self.now = until;
    }

    pub(crate) fn arrive(&mut self, proxy: usize, work: Seconds, key: u64) {
        let request = Request { proxy, arrived: self.now, work, key, tried: Tried::new() };
        self.attempt(request);
    }

    /// Waits for all answers, then checks that nothing is left over.
    pub(crate) fn finish(&mut self) {
        while let Some(Reverse(last)) = self.answers.peek() {
            let until = last.at;
            self.advance(until);
        }
        for upstream in self.proxies.iter().flat_map(|proxy| &proxy.known) {
            assert_eq!(upstream.load.in_flight(), 0, "requests are left in flight");
            assert_eq!(upstream.load.waiting(), 0, "requests are left waiting");
        }
    }

    /// Replaces a proxy's pool, as a reload does: known upstreams keep their load.
    pub(crate) fn rebuild(&mut self, proxy: usize, pool: Vec<Member>) {
        let start = self.random.u64(..);
        let proxy = &mut self.proxies[proxy];
        let strategy = strategy(self.kind, &pool, start);
        strategy.carry_over(&proxy.strategy);
        (proxy.strategy, proxy.pool) = (strategy, pool);
    }

    fn attempt(&mut self, mut request: Request) {
        let Some(index) = self.pick(&request) else {
            self.see(&request, SERVER_NONE, false);
            return;
        };
        request.tried.insert(index);
        let upstream = Rc::clone(&self.proxies[request.proxy].pool[index].0);
        let in_flight_at_begin = upstream.begin(clock(self.now));
        let (mut at, mut ok) =
            self.servers[upstream.server].take(self.now + NET, request.work, &mut self.fate);
        at += NET;
        if at - self.now > self.scenario.timeout {
            (at, ok) = (self.now + self.scenario.timeout, false);
        }
        self.next_number += 1;
        let number = self.next_number;
        self.answers.push(Reverse(Answer {
            at,
            number,
            ok,
            sent: self.now,
            in_flight_at_begin,
            upstream,
            request,
        }));
    }

    /// Picks, and checks what must hold for every pick.
    fn pick(&mut self, request: &Request) -> Option<usize> {
        let proxy = &self.proxies[request.proxy];
        let now = clock(self.now);
        let random = self.random.u64(..);
        let tried = &request.tried;
        let chosen = proxy.strategy.pick(&proxy.pool, Pick { now, hash: request.key, random, tried });
        let may = |index: usize| {
            let member = &proxy.pool[index];
            member.0.weight > 0 && !tried.contains(index) && member.is_eligible(now)
        };
        match chosen {
            Some(index) => assert!(may(index), "{index} may not serve"),
            None => assert!(!(0..proxy.pool.len()).any(may), "somebody could have served"),
        }
        chosen
    }

    fn answer(&mut self) {
        let Some(Reverse(answer)) = self.answers.pop() else { return };
        let now = clock(self.now);
        let upstream = &answer.upstream;
        if answer.ok {
            let latency = clock(self.now - answer.sent);
            upstream.succeeded(now, latency, answer.in_flight_at_begin);
        } else {
            upstream.failed(now, self.proxies[answer.request.proxy].may_eject());
        }
        upstream.end();
        let in_flight = u64::from(upstream.load.in_flight());
        assert_eq!(upstream.begun.get(), upstream.ended.get() + in_flight, "the books do not balance");
        let timed_out = self.now - answer.sent >= self.scenario.timeout - 1e-9;
        if !answer.ok && !timed_out && answer.request.tried.len() < self.scenario.attempts {
            self.attempt(answer.request);
        } else {
            self.see(&answer.request, upstream.server, answer.ok);
        }
    }

    fn see(&mut self, request: &Request, server: usize, ok: bool) {
        self.seen.push(Seen { at: request.arrived, latency: self.now - request.arrived, ok, server });
    }

    fn join(&mut self) {
        let Some((_, server)) = self.joins.pop() else { return };
        for proxy in 0..self.proxies.len() {
            let upstream =
                Rc::new(Upstream::new(server, self.scenario.servers[server].weight, clock(self.now)));
            upstream.load.warm_up(clock(self.now));
            self.proxies[proxy].known.push(Rc::clone(&upstream));
            let mut pool = self.proxies[proxy].pool.clone();
            pool.push(Member(upstream));
            self.rebuild(proxy, pool);
        }
    }

    fn tick(&mut self) {
        self.next_tick += TICK.as_secs_f64();
        for proxy in &mut self.proxies {
            let weights = weights(&proxy.pool);
            proxy.tuner.tick(&proxy.pool, &weights, self.kind, self.scenario.slow_start, clock(self.now));
            for member in &proxy.pool {
                let multiplier = member.0.load.multiplier();
                assert!(multiplier.is_finite() && multiplier > 0.0, "a multiplier of {multiplier}");
            }
        }
    }
}

impl Proxy {
    fn new(kind: StrategyKind, servers: &[usize], scenario: &Scenario, start: u64) -> Self {
        let known: Vec<Rc<Upstream>> = servers
            .iter()
            .map(|&server| Rc::new(Upstream::new(server, scenario.servers[server].weight, Duration::ZERO)))
            .collect();
        let pool: Vec<Member> = known.iter().cloned().map(Member).collect();
        Self { strategy: strategy(kind, &pool, start), pool, tuner: Tuner::default(), known }
    }

    /// At most 30 % of the pool is out, but always one may be.
    fn may_eject(&self) -> bool {
        let suspect = self.pool.iter().filter(|member| member.0.is_suspect()).count();
        suspect < (self.pool.len() * 3 / 10).max(1)
    }
}

impl Work {
    fn draw(self, random: &mut fastrand::Rng) -> Seconds {
        match self {
            Self::Exponential(mean) => exponential(random, mean),
            Self::LogNormal(mean) => mean * (0.5 * normal(random) - 0.125).exp(),
            Self::Constant(work) => work,
            Self::Mixed => {
                let base = if random.f64() < 0.05 { 0.200 } else { 0.002 };
                base * (0.3 * normal(random) - 0.045).exp()
            }
        }
    }
}

/// What a run showed.
pub(crate) struct Results {
    pub seen: Vec<Seen>,
    warmup: Seconds,
    timeout: Seconds,
    servers: usize,
}

impl Results {
    fn counted(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.at >= self.warmup)
    }

    /// Latency in milliseconds below which this part of the requests was answered; those that timed out count.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let mut latencies: Vec<f64> = self
            .counted()
            .filter(|seen| seen.ok || seen.latency >= self.timeout - 1e-6)
            .map(|seen| seen.latency * 1e3)
            .collect();
        latencies.sort_by(f64::total_cmp);
        let last = latencies.len().saturating_sub(1);
        latencies.get(position(part, last)).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(0.99)
    }

    pub(crate) fn errors(&self) -> f64 {
        let failed = self.counted().filter(|seen| !seen.ok).count();
        failed as f64 / self.counted().count().max(1) as f64
    }

    /// Share of one server of the requests that arrived in this time.
    pub(crate) fn share(&self, server: usize, from: Seconds, until: Seconds) -> f64 {
        let counts = self.counts(from, until);
        counts[server] as f64 / counts.iter().sum::<usize>().max(1) as f64
    }

    pub(crate) fn counts(&self, from: Seconds, until: Seconds) -> Vec<usize> {
        let mut counts = vec![0; self.servers];
        for seen in self.seen.iter().filter(|seen| (from..until).contains(&seen.at)) {
            if let Some(count) = counts.get_mut(seen.server) {
                *count += 1;
            }
        }
        counts
    }
}

/// Virtual seconds as the room under test counts time.
pub(crate) fn clock(time: Seconds) -> Duration {
    Duration::from_secs_f64(time)
}

fn strategy(kind: StrategyKind, pool: &[Member], start: u64) -> Strategy {
    let identities: Vec<u64> =
        pool.iter().map(|member| hash(format!("10.0.0.{}:80", member.0.server).as_bytes())).collect();
    Strategy::identified(kind, &weights(pool), &identities, start)
}

fn weights(pool: &[Member]) -> Vec<u16> {
    pool.iter().map(|member| member.0.weight).collect()
}

/// A key out of 10 000, the most popular ones far ahead (Zipf's law, exponent about 1).
fn zipf(random: &mut fastrand::Rng) -> u64 {
    let rank = 10_000_f64.powf(random.f64()).floor();
    hash(&rank.to_le_bytes())
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small number")]
fn position(part: f64, last: usize) -> usize {
    (part * last as f64).round() as usize
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Answer {}

impl PartialOrd for Answer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Answer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

/// Seconds from a proxy to a server, one way.
const NET: Seconds = 0.000_25;

/// Nobody served the request.
pub(crate) const SERVER_NONE: usize = usize::MAX;
