//! What `ALGORITHMS.md` §2 and §8 promise, in order and within bounds.

use std::time::Duration;

use evener::balance::StrategyKind::{
    self, ConsistentHash, LatencyWeighted, LeastConnections, RandomTwo, RoundRobin,
};

use crate::seed;
use crate::server::Plan;
use crate::world::{Results, Scenario, Work};

fn equal(count: usize) -> Vec<Plan> {
    vec![Plan::usual(4); count]
}

/// Ten servers, the first ones changed.
fn ten(changed: impl IntoIterator<Item = Plan>) -> Vec<Plan> {
    let mut servers = equal(10);
    for (server, plan) in servers.iter_mut().zip(changed) {
        *server = plan;
    }
    servers
}

fn homogeneous(rate: f64) -> Scenario {
    Scenario { rate, work: Work::Exponential(0.010), ..Scenario::of(equal(10)) }
}

fn one_slow() -> Scenario {
    Scenario::of(ten([Plan::usual(4).slower(5.0)]))
}

fn pauses(seed: u64) -> Scenario {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x9A05E);
    let servers = (0..10).map(|_| Plan::usual(4).pausing(0.3, 4.0, 25.0, &mut random)).collect();
    Scenario { rate: 2_000.0, seconds: 20.0, ..Scenario::of(servers) }
}

fn black_holes(count: usize) -> Scenario {
    let holes = (0..count).map(|_| Plan::usual(4).failing(6.0, 12.0, 1.0));
    Scenario { rate: 2_400.0, seconds: 16.0, ..Scenario::of(ten(holes)) }
}

fn degraded() -> Scenario {
    let plan = Plan { speeds: vec![(0.0, 1.0), (6.0, 0.1), (16.0, 1.0)], ..Plan::usual(4) };
    Scenario { rate: 2_400.0, seconds: 32.0, ..Scenario::of(ten([plan])) }
}

fn cold_joiner(slow_start: Duration) -> Scenario {
    let cold = Plan { speeds: vec![(0.0, 0.2), (20.0, 1.0)], joins: 10.0, ..Plan::usual(4) };
    let mut servers = equal(5);
    servers[0] = cold;
    Scenario { rate: 1_100.0, seconds: 40.0, slow_start, ..Scenario::of(servers) }
}

fn four_proxies() -> Scenario {
    Scenario { proxies: 4, rate: 2_800.0, ..Scenario::of(equal(10)) }
}

fn weights() -> Scenario {
    let heavy = Plan { weight: 4, ..Plan::usual(16) };
    Scenario {
        rate: 4_800.0,
        seconds: 10.0,
        work: Work::Exponential(0.010),
        ..Scenario::of(ten([heavy.clone(), heavy]))
    }
}

fn thousand() -> Scenario {
    let servers = (0..1_000)
        .map(|index| if index < 100 { Plan::usual(1).slower(5.0) } else { Plan::usual(1) })
        .collect();
    Scenario { rate: 28_000.0, seconds: 5.0, warmup: 2.5, ..Scenario::of(servers) }
}

fn three_servers() -> Scenario {
    let servers = vec![Plan::usual(8).slower(5.0), Plan::usual(8), Plan::usual(8)];
    Scenario { rate: 1_050.0, seconds: 30.0, ..Scenario::of(servers) }
}

fn remote_half() -> Scenario {
    let far = Plan { distance: 0.010, ..Plan::usual(4) };
    Scenario { rate: 1_200.0, seconds: 20.0, ..Scenario::of(ten(vec![far; 5])) }
}

fn half_slow() -> Scenario {
    Scenario { rate: 2_250.0, seconds: 20.0, ..Scenario::of(ten(vec![Plan::usual(4).slower(2.0); 5])) }
}

fn mixed() -> Scenario {
    Scenario { rate: 2_000.0, work: Work::Mixed, ..Scenario::of(equal(10)) }
}

fn sparse() -> Scenario {
    let mut servers = equal(5);
    servers[0] = Plan::usual(4).slower(5.0);
    Scenario { rate: 20.0, seconds: 600.0, warmup: 30.0, ..Scenario::of(servers) }
}

fn background_errors() -> Scenario {
    let failing = Plan::usual(4).failing(0.0, 1e9, 0.02);
    Scenario { rate: 2_400.0, ..Scenario::of(vec![failing; 10]) }
}

fn p99(scenario: &Scenario, kind: StrategyKind) -> f64 {
    scenario.run(kind, seed()).p99()
}

fn p99_of<const N: usize>(scenario: &Scenario, kinds: [StrategyKind; N]) -> [f64; N] {
    kinds.map(|kind| p99(scenario, kind))
}

/// The smallest and the largest share, relative to a fair one, that any of these servers has in any second.
fn swing(results: &Results, from: u32, until: u32, fair: f64) -> (f64, f64) {
    let shares = (from..until).flat_map(|second| {
        let counts = results.counts(f64::from(second), f64::from(second + 1));
        let total = counts.iter().sum::<usize>() as f64;
        counts.into_iter().map(move |count| count as f64 / total / fair)
    });
    shares.fold((f64::INFINITY, 0.0), |(low, high), share| (share.min(low), share.max(high)))
}

#[test]
fn equal_servers_are_served_alike_and_round_robin_is_worse_at_high_load() {
    let loaded = [LeastConnections, LatencyWeighted, RandomTwo];
    for p99 in p99_of(&homogeneous(2_800.0), loaded) {
        assert!((40.0..52.0).contains(&p99), "{p99}");
    }
    let high = p99_of(&homogeneous(3_600.0), loaded);
    assert!(high.iter().all(|p99| (42.0..56.0).contains(p99)), "{high:?}");
    assert!(p99(&homogeneous(3_600.0), RoundRobin) > 1.2 * high[0]);
}

#[test]
fn one_slow_of_ten_is_left_out_by_latency_and_spared_by_load() {
    let [latency, least, two, robin] =
        p99_of(&one_slow(), [LatencyWeighted, LeastConnections, RandomTwo, RoundRobin]);
    assert!(latency < 32.0, "{latency}");
    assert!(1.4 * latency < least && least < two && two < robin, "{latency} {least} {two} {robin}");
}

#[test]
fn one_slow_of_three_is_left_out_too() {
    let [latency, least] = p99_of(&three_servers(), [LatencyWeighted, LeastConnections]);
    assert!(latency < 35.0 && least > 2.0 * latency, "{latency} {least}");
}

/// With one proxy the p99 of two choices lies between 35 and 230 ms, as luck has it; with four it is clear.
#[test]
fn pauses_hurt_far_less_than_with_two_choices() {
    let scenario = pauses(seed());
    let [least, latency, robin] = p99_of(&scenario, [LeastConnections, LatencyWeighted, RoundRobin]);
    assert!(least < 45.0 && latency < 45.0 && robin > 200.0, "{least} {latency} {robin}");

    let shared = Scenario { proxies: 4, ..scenario };
    let [least, latency, two] = p99_of(&shared, [LeastConnections, LatencyWeighted, RandomTwo]);
    assert!(two > 2.0 * least && two > 2.0 * latency, "{least} {latency} {two}");
}

/// ingress-nginx#9882, envoy#39737.
#[test]
fn failing_fast_does_not_attract_traffic() {
    let scenario = black_holes(1);
    for kind in [LeastConnections, LatencyWeighted] {
        let results = scenario.run(kind, seed());
        assert!(results.errors() < 0.01, "{kind:?}: {}", results.errors());
        assert!(results.share(0, 7.0, 12.0) < 0.01, "{kind:?}");
        assert!(results.p99() < 33.0, "{kind:?}: {}", results.p99());
    }
}

#[test]
fn three_black_holes_of_ten_are_avoided() {
    for kind in [LeastConnections, LatencyWeighted] {
        let errors = black_holes(3).run(kind, seed()).errors();
        assert!(errors < 0.01, "{kind:?}: {errors}");
    }
}

/// Without ejection: five in a row never come, since every second request is answered.
#[test]
fn a_half_failing_upstream_is_avoided_before_it_is_ejected() {
    let scenario = Scenario { rate: 2_400.0, ..Scenario::of(ten([Plan::usual(4).failing(3.0, 1e9, 0.3)])) };
    for kind in [LeastConnections, LatencyWeighted] {
        let errors = scenario.run(kind, seed()).errors();
        assert!(errors < 0.003, "{kind:?}: {errors}, round robin has 0.03");
    }
}

/// An application's own errors tell nobody apart.
#[test]
fn errors_that_all_have_cost_nobody_traffic() {
    for kind in StrategyKind::ALL.into_iter().filter(|&kind| kind != ConsistentHash) {
        let results = background_errors().run(kind, seed());
        assert!((0.015..0.025).contains(&results.errors()), "{kind:?}: {}", results.errors());
        let (low, high) = swing(&results, 3, 15, 0.1);
        assert!(low > 0.5 && high < 2.0, "{kind:?}: {low} to {high}");
        assert!(results.p99() < 40.0, "{kind:?}");
    }
}

/// brpc#3340.
#[test]
fn two_slow_of_four_are_avoided() {
    let slow = Plan::usual(8).slower(10.0);
    let servers = vec![slow.clone(), slow, Plan::usual(8), Plan::usual(8)];
    let scenario = Scenario { rate: 0.6 * 2.2 * 800.0, seconds: 20.0, ..Scenario::of(servers) };
    let alone = Scenario { servers: vec![Plan::usual(8); 2], ..scenario.clone() };
    let [both, fast] = [&scenario, &alone].map(|scenario| p99(scenario, LatencyWeighted));
    assert!(both <= 1.25 * fast, "{both}, and {fast} without the slow ones");
}

/// traefik#12306.
#[test]
fn one_bad_sample_does_not_starve_an_upstream() {
    for rate in [100.0, 200.0, 400.0] {
        let mut servers = vec![Plan::usual(8); 5];
        servers[0].first_takes = 0.495;
        let seconds = 1_500.0 / rate;
        let scenario = Scenario { rate, seconds, work: Work::Constant(0.005), ..Scenario::of(servers) };
        let results = scenario.run(LatencyWeighted, seed());
        let counts = results.counts(seconds * 2.0 / 3.0, seconds);
        let total: usize = counts.iter().sum();
        assert!(counts.iter().all(|&count| 10 * count >= total), "{rate}/s: {counts:?}");
    }
}

/// The pool that was measured on real sockets (`ALGORITHMS.md` §8), then its slow server recovers.
#[test]
fn a_recovered_server_is_found_again_in_little_traffic() {
    let mut servers = vec![Plan::usual(8); 4];
    servers[0].speeds = vec![(0.0, 0.1), (15.0, 1.0)];
    let results =
        Scenario { rate: 200.0, seconds: 30.0, ..Scenario::of(servers) }.run(LatencyWeighted, seed());
    assert!(results.share(0, 5.0, 15.0) < 0.02, "{}", results.share(0, 5.0, 15.0));
    assert!(results.share(0, 25.0, 30.0) > 0.15, "{}", results.share(0, 25.0, 30.0));
}

#[test]
fn a_recovered_server_is_back_to_a_fair_share_within_ten_seconds() {
    let results = degraded().run(LatencyWeighted, seed());
    assert!(results.p99() < 33.0, "{}", results.p99());
    assert!(results.share(0, 8.0, 16.0) < 0.02, "while it is ten times slower");
    assert!(results.share(0, 26.0, 30.0) > 0.08, "{}", results.share(0, 26.0, 30.0));
}

#[test]
fn a_cold_joiner_makes_no_spike() {
    for slow_start in [Duration::ZERO, Duration::from_secs(10)] {
        let results = cold_joiner(slow_start).run(LatencyWeighted, seed());
        assert!(results.p99() < 33.0, "{}", results.p99());
        assert!(results.share(0, 36.0, 40.0) > 0.15, "{}", results.share(0, 36.0, 40.0));
    }
}

/// caddy#7966, haproxy#1994.
#[test]
fn a_cold_upstream_is_not_hammered_first() {
    let scenario = cold_joiner(Duration::from_secs(10));
    for kind in StrategyKind::ALL {
        let share = scenario.run(kind, seed()).share(0, 10.0, 11.0);
        assert!(share < 0.2 * 0.2, "{kind:?}: {share} in the first second");
    }
}

#[test]
fn four_proxies_do_not_swing() {
    for kind in [LeastConnections, LatencyWeighted] {
        let results = four_proxies().run(kind, seed());
        let (low, high) = swing(&results, 3, 15, 0.1);
        assert!(low > 0.5 && high < 2.0, "{kind:?}: {low} to {high}");
        assert!(results.p99() < 40.0, "{kind:?}: {}", results.p99());
    }
}

#[test]
fn four_proxies_leave_a_slow_server_out() {
    let scenario = Scenario { proxies: 4, ..one_slow() };
    let [latency, least] = p99_of(&scenario, [LatencyWeighted, LeastConnections]);
    assert!(latency < 34.0 && latency < least, "{latency} {least}");
}

#[test]
fn big_servers_carry_what_their_weight_says() {
    for kind in [LeastConnections, LatencyWeighted] {
        let results = weights().run(kind, seed());
        let heavy = results.share(0, 3.0, 10.0) + results.share(1, 3.0, 10.0);
        assert!((0.42..0.55).contains(&heavy), "{kind:?}: {heavy}");
        assert!(results.p99() < 52.0, "{kind:?}: {}", results.p99());
    }
}

#[test]
fn a_hundred_slow_of_a_thousand_are_left_out() {
    let [latency, least, two] = p99_of(&thousand(), [LatencyWeighted, LeastConnections, RandomTwo]);
    assert!(latency < 34.0 && latency < least && least < two, "{latency} {least} {two}");
}

#[test]
fn the_far_half_is_used_less_by_latency() {
    let [near, any] = [LatencyWeighted, LeastConnections].map(|kind| {
        let results = remote_half().run(kind, seed());
        (0..5).map(|server| results.share(server, 10.0, 20.0)).sum::<f64>()
    });
    assert!(near < 0.2 && any > 0.3, "{near} {any}");
}

#[test]
fn a_slow_server_is_left_out_of_sparse_traffic() {
    let [latency, least] = p99_of(&sparse(), [LatencyWeighted, LeastConnections]);
    assert!(latency < 40.0 && least > 2.0 * latency, "{latency} {least}");
}

#[test]
fn half_slow_costs_little_at_high_load() {
    let [latency, least] = p99_of(&half_slow(), [LatencyWeighted, LeastConnections]);
    assert!(latency < 48.0 && latency < least, "{latency} {least}");
}

#[test]
fn bounded_hashing_survives_popular_keys() {
    let results = Scenario { rate: 2_400.0, ..Scenario::of(equal(10)) }.run(ConsistentHash, seed());
    assert!(results.p99() < 34.0, "{}", results.p99());
    assert!(results.errors() == 0.0);
}

/// Every figure beside the reference's.
#[test]
#[ignore = "a table to read, not a check"]
fn table() {
    let seeds = [1, 2, 3];
    let scenarios = [
        ("a_homog", homogeneous(2_800.0)),
        ("a_homog_hi", homogeneous(3_600.0)),
        ("b_slow5", one_slow()),
        ("b_half2", half_slow()),
        ("c_degrade", degraded()),
        ("d_gc", pauses(1)),
        ("d_gc, 2nd", pauses(2)),
        ("d_gc, 3rd", pauses(3)),
        ("e_blackhole", black_holes(1)),
        ("e_third", black_holes(3)),
        ("e_background", background_errors()),
        ("f_cold", cold_joiner(Duration::from_secs(10))),
        ("g_mixed", mixed()),
        ("h_prox_slow", Scenario { proxies: 4, ..one_slow() }),
        ("h_prox_gc", Scenario { proxies: 4, ..pauses(1) }),
        ("i_n1000_slow", thousand()),
        ("j_weights", weights()),
        ("l_sparse", sparse()),
        ("m_remote", remote_half()),
        ("n3_slow", three_servers()),
    ];
    println!("p50 / p99 / p99.9 in ms, errors; mean of {} seeds", seeds.len());
    for (name, scenario) in scenarios {
        print!("{name:13}");
        for kind in StrategyKind::ALL {
            let runs = seeds.map(|seed| scenario.run(kind, seed));
            let mean = |figure: &dyn Fn(&Results) -> f64| runs.iter().map(figure).sum::<f64>() / 3.0;
            print!(
                " | {:5.1} {:6.1} {:6.1} {:5.2}%",
                mean(&|run| run.percentile(0.5)),
                mean(&Results::p99),
                mean(&|run| run.percentile(0.999)),
                100.0 * mean(&Results::errors),
            );
        }
        println!();
    }
}
