//! Runs that never were, but might have been.

use std::time::{Duration, SystemTime};

use super::{Outcome, Run};
use crate::balance::StrategyKind;
use crate::bench::name::Candidate;
use crate::bench::scenario::{
    Act, Against, Arrivals, Bound, Expectation, Fate, Load, Measure, Request, Scenario, Work,
};
use crate::bench::schedule::exponential;
use crate::bench::turn::{Doubt, Failure, Seen, Slice, Turn, Used};
use crate::bench::verdict::{Figure, Verdict};

const SECONDS: u32 = 20;

/// Ten servers, the first is five times slower for a while.
fn one_slow() -> Scenario {
    Scenario {
        name: "one_slow".to_owned(),
        what: "One of ten servers is five times slower for a while.".to_owned(),
        expected:
            "latency_weighted before least_connections before round_robin: who knows how fast a server \
                   is sends it what it can do."
                .to_owned(),
        is_short: true,
        servers: 10,
        workers: 4,
        balancers: 1,
        threads: 1,
        load: Load::Rate {
            per_second: 1_000.0,
            arrivals: Arrivals::Poisson,
            work: Work::LogNormal { mean: Duration::from_millis(10), sigma: 0.5 },
        },
        request: Request { answer: 128, ..Request::default() },
        script: vec![act(0, 6, 12, Fate::Speed(0.2))],
        reload_every: None,
        duration: Duration::from_secs(u64::from(SECONDS)),
        warmup: Duration::from_secs(3),
        timeout: Duration::from_secs(2),
        candidates: Vec::new(),
        expectations: Vec::new(),
    }
}

fn act(server: usize, from: u64, until: u64, fate: Fate) -> Act {
    let until = if until == 0 { Duration::MAX } else { Duration::from_secs(until) };
    Act { server, from: Duration::from_secs(from), until, fate }
}

const OURS: [Candidate; 5] = [
    Candidate::Evener(StrategyKind::RoundRobin),
    Candidate::Evener(StrategyKind::LeastConnections),
    Candidate::Evener(StrategyKind::LatencyWeighted),
    Candidate::Perfect,
    Candidate::Haproxy,
];

const EIGHT: [Candidate; 8] = [
    Candidate::Evener(StrategyKind::RoundRobin),
    Candidate::Evener(StrategyKind::LeastConnections),
    Candidate::Evener(StrategyKind::LatencyWeighted),
    Candidate::Evener(StrategyKind::RandomTwo),
    Candidate::Perfect,
    Candidate::Nginx,
    Candidate::Haproxy,
    Candidate::Caddy,
];

/// How blind to trouble: 0 sees all.
fn blindness(candidate: Candidate) -> f64 {
    match candidate {
        Candidate::Evener(StrategyKind::RoundRobin | StrategyKind::ConsistentHash) => 1.0,
        Candidate::Evener(StrategyKind::LeastConnections) => 0.25,
        Candidate::Evener(StrategyKind::LatencyWeighted) => 0.03,
        Candidate::Evener(StrategyKind::RandomTwo) => 0.4,
        Candidate::Haproxy => 0.27,
        Candidate::Nginx => 0.31,
        Candidate::Caddy => 0.36,
        _ => 0.0,
    }
}

fn cpu_us(candidate: Candidate) -> u64 {
    match candidate {
        Candidate::Direct => 0,
        Candidate::Bare => 36,
        Candidate::Nginx => 21,
        Candidate::Haproxy => 19,
        Candidate::Caddy => 96,
        _ => 38,
    }
}

/// A turn that this candidate might have had.
fn turn(scenario: &Scenario, candidate: Candidate, round: u64, per_second: u32) -> Turn {
    let mut random = fastrand::Rng::with_seed(round * 100 + cpu_us(candidate));
    let mut seen = Seen::none(scenario.servers);
    seen.time = scenario.duration.saturating_sub(scenario.warmup);
    let blind = blindness(candidate);
    let seconds = u32::try_from(scenario.duration.as_secs()).unwrap();
    for second in 0..seconds {
        let at = Duration::from_secs(u64::from(second));
        let is_counted = at >= scenario.warmup;
        let is_ill = |server: usize| {
            let now = |act: &&Act| act.server == server && act.from <= at && at < act.until;
            scenario.script.iter().any(|act| now(&act))
        };
        let mut slice = Slice {
            answers: vec![0; scenario.servers],
            failures: 0,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
        };
        let mut latencies = crate::bench::turn::latencies();
        for _ in 0..per_second {
            let mut server = random.usize(..scenario.servers);
            if is_ill(server) && random.f64() > 0.2 + 0.8 * blind {
                server = random.usize(..scenario.servers);
            }
            let slowness = if is_ill(server) { 1.0 + 60.0 * blind * f64::from(second % 5 + 1) } else { 1.0 };
            let latency = (3.0 + slowness * exponential(&mut random, 7.0)) * 1_000.0;
            if latency > 2_000_000.0 {
                slice.failures += 1;
                if is_counted {
                    seen.failed.record(2_000_000).unwrap();
                    *seen.failures.entry(Failure::Timeout).or_default() += 1;
                }
                continue;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let micros = latency as u64;
            latencies.record(micros).unwrap();
            slice.answers[server] += 1;
            if is_counted {
                seen.answers[server] += 1;
                seen.succeeded.record(micros).unwrap();
            }
        }
        slice.p50 = Duration::from_micros(latencies.value_at_quantile(0.5));
        slice.p99 = Duration::from_micros(latencies.value_at_quantile(0.99));
        seen.slices.push(slice);
    }
    let cpu = Duration::from_micros(seen.succeeded.len() * (cpu_us(candidate) + round));
    let has_process = candidate != Candidate::Direct;
    let mib = |mib: u64| if has_process { mib * 1_024 } else { 0 };
    let used = Used {
        user: cpu.mul_f64(0.6),
        system: cpu.mul_f64(0.4),
        resident_before_kib: mib(14),
        resident_kib: mib(18),
        peak_kib: mib(19 + round),
        idle_connections: 0,
    };
    let doubt = Doubt {
        sent_late: Duration::from_micros(90),
        answered_late: Duration::from_micros(70),
        load_busy: 0.21,
        servers_busy: 0.24,
    };
    Turn { candidate, seen, used, doubt }
}

fn turns(scenario: &Scenario, candidates: &[Candidate], rounds: u64, per_second: u32) -> Vec<Turn> {
    let round = |round| candidates.iter().map(move |&candidate| turn(scenario, candidate, round, per_second));
    (0..rounds).flat_map(round).collect()
}

fn p99_at_most(of: StrategyKind, most: f64, other: Candidate, is_goal: bool) -> Expectation {
    Expectation {
        measure: Measure::P99,
        of: Candidate::Evener(of),
        bound: Bound::AtMost(most),
        against: Against::Times(other),
        is_goal,
    }
}

fn verdicts() -> Vec<Verdict> {
    let figure = |median| Some(Figure { median, least: median - 0.04, most: median + 0.06 });
    vec![
        Verdict {
            expectation: p99_at_most(StrategyKind::LatencyWeighted, 1.25, Candidate::Perfect, true),
            figure: figure(1.12),
            is_met: Some(true),
            words: "p99 of latency_weighted is 1.12 × that of perfect (1.08 to 1.18), at most 1.25: met".to_owned(),
        },
        Verdict {
            expectation: p99_at_most(StrategyKind::LatencyWeighted, 0.7, Candidate::Haproxy, true),
            figure: figure(0.81),
            is_met: Some(false),
            words: "p99 of latency_weighted is 0.81 × that of haproxy (0.77 to 0.87), at most 0.70: missed".to_owned(),
        },
        Verdict {
            expectation: p99_at_most(StrategyKind::LatencyWeighted, 0.7, Candidate::Caddy, true),
            figure: None,
            is_met: None,
            words: "p99 of latency_weighted, in relation to caddy, at most 0.70: not measured, caddy did not take part"
                .to_owned(),
        },
        Verdict {
            expectation: p99_at_most(
                StrategyKind::LeastConnections,
                0.9,
                Candidate::Evener(StrategyKind::RoundRobin),
                false,
            ),
            figure: figure(0.31),
            is_met: Some(true),
            words: "p99 of least_connections is 0.31 × that of round_robin (0.27 to 0.37), at most 0.90: met".to_owned(),
        },
    ]
}

/// Five candidates, three rounds.
pub(super) fn outcome() -> Outcome {
    let scenario = one_slow();
    let turns = turns(&scenario, &OURS, 3, 300);
    Outcome { scenario, turns, verdicts: verdicts(), seed: 1, broken: Vec::new() }
}

/// Nobody was ever answered.
pub(super) fn silent_outcome() -> Outcome {
    let mut outcome = outcome();
    outcome.scenario.name = "silent".to_owned();
    for turn in &mut outcome.turns {
        let mut seen = Seen::none(outcome.scenario.servers);
        seen.failures.insert(Failure::Connect, 500);
        seen.failed.record_n(1, 500).unwrap();
        let nothing = Slice { answers: Vec::new(), failures: 25, p50: Duration::ZERO, p99: Duration::ZERO };
        seen.slices = vec![nothing; SECONDS as usize];
        turn.seen = seen;
        turn.used = Used::default();
    }
    for verdict in &mut outcome.verdicts {
        (verdict.is_met, verdict.figure) = (None, None);
    }
    outcome
}

/// A thousand servers, a tenth of them slow, eight candidates.
pub(super) fn thousand() -> Outcome {
    let mut scenario = one_slow();
    scenario.name = "thousand".to_owned();
    scenario.what = "A thousand servers at low load, a hundred of them five times slower.".to_owned();
    scenario.servers = 1_000;
    scenario.script = (0..100).map(|server| act(server, 0, 0, Fate::Speed(0.2))).collect();
    let turns = turns(&scenario, &EIGHT, 1, 1_000);
    Outcome { scenario, turns, verdicts: verdicts(), seed: 1, broken: Vec::new() }
}

pub(super) fn run() -> Run {
    of(vec![outcome()])
}

/// Of everything something.
pub(super) fn gallery() -> Run {
    let rename = |name: &str, what: &str, script: Vec<Act>| {
        let mut scenario = one_slow();
        (scenario.name, scenario.what, scenario.script) = (name.to_owned(), what.to_owned(), script);
        scenario
    };
    let all = |scenario: Scenario| {
        let turns = turns(&scenario, &EIGHT, 2, 400);
        Outcome { scenario, turns, verdicts: verdicts(), seed: 7, broken: Vec::new() }
    };
    let flaps = (1..6).map(|time| act(3, 3 * time, 3 * time + 1, Fate::Down)).collect();
    let fail = Fate::Fail { status: 500, share: 1.0, latency: Duration::from_millis(1) };
    let pauses = Fate::Pauses { length: Duration::from_millis(300), every: Duration::from_secs(4) };
    let busy = vec![
        act(0, 4, 9, fail),
        act(1, 5, 12, Fate::Speed(0.1)),
        act(2, 14, 18, Fate::Reset { share: 0.5 }),
        act(4, 17, 19, Fate::Hang),
        act(5, 18, 0, Fate::Refuse),
    ];
    let mut outcomes = vec![
        all(one_slow()),
        all(rename("equal", "Ten equal servers.", Vec::new())),
        all(rename("flapping", "A server is killed and started again every three seconds.", flaps)),
        all(rename("busy_script", "Much happens.", busy)),
        all(rename(
            "pauses",
            "Every server pauses.",
            (0..10).map(|server| act(server, 0, 0, pauses)).collect(),
        )),
        all(rename("two_servers", "Two of them, one ill.", vec![act(1, 10, 15, Fate::Speed(0.0))])),
        thousand(),
        cost("keepalive_get", Load::Clients(64)),
        cost("idle_connections", Load::Idle(10_000)),
        silent_outcome(),
    ];
    outcomes[5].scenario.servers = 2;
    for turn in &mut outcomes[1].turns {
        turn.doubt.answered_late = Duration::from_micros(1_900);
    }
    of(outcomes)
}

/// What a request or a connection costs.
fn cost(name: &str, load: Load) -> Outcome {
    let mut scenario = one_slow();
    scenario.name = name.to_owned();
    scenario.what = "What it costs.".to_owned();
    (scenario.load, scenario.servers, scenario.script) = (load, 1, Vec::new());
    let who =
        [OURS[0], Candidate::Direct, Candidate::Bare, Candidate::Nginx, Candidate::Haproxy, Candidate::Caddy];
    let mut turns = turns(&scenario, &who, 3, 400);
    if let Load::Idle(connections) = load {
        for turn in turns.iter_mut().filter(|turn| turn.candidate != Candidate::Direct) {
            turn.used.idle_connections = connections as u64;
            turn.used.resident_kib += cpu_us(turn.candidate) * 1_024;
            turn.used.peak_kib = turn.used.resident_kib + 700;
        }
    }
    Outcome { scenario, turns, verdicts: Vec::new(), seed: 1, broken: Vec::new() }
}

fn of(outcomes: Vec<Outcome>) -> Run {
    Run {
        machine: vec![
            ("processor".to_owned(), "Some CPU, 2 cores".to_owned()),
            ("kernel".to_owned(), "Linux 6.1.0".to_owned()),
            ("evener".to_owned(), "0.1.0, release".to_owned()),
        ],
        versions: vec![(Candidate::Haproxy, "HAProxy 2.6.12".to_owned())],
        outcomes,
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000),
        command: "evener bench".to_owned(),
    }
}
