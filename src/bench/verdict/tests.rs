use std::collections::BTreeMap;

use super::super::turn::{Doubt, Slice};
use super::*;
use crate::balance::StrategyKind::{LatencyWeighted, LeastConnections, RoundRobin};

const OURS: Candidate = Candidate::Evener(LatencyWeighted);

/// Four servers, ten seconds of which two are not counted, and what is in `rest`.
fn scenario(rest: &str) -> Scenario {
    let text = format!("what = \"w\"\nexpected = \"e\"\nservers = 4\nduration = \"10s\"\nrate = 100\n{rest}");
    Scenario::read("made_up", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn expecting(of: &str, bound: &str) -> Scenario {
    scenario(&format!("[[expect]]\nmeasure = \"p99\"\nof = \"{of}\"\n{bound}\n"))
}

/// All of its requests took so many milliseconds.
fn turn(candidate: Candidate, millis: u64) -> Turn {
    let mut seen = Seen::none(4);
    seen.succeeded.record_n(1_000 * millis, 100).unwrap();
    Turn { candidate, seen, used: Used::default(), doubt: Doubt::default() }
}

fn turns(candidate: Candidate, millis: &[u64]) -> Vec<Turn> {
    millis.iter().map(|&millis| turn(candidate, millis)).collect()
}

/// Seconds with these answers per server.
fn with_seconds(mut turn: Turn, seconds: &[[u32; 4]]) -> Turn {
    let slice = |answers: &[u32; 4]| Slice {
        answers: answers.to_vec(),
        failures: 0,
        p50: Duration::ZERO,
        p99: Duration::ZERO,
    };
    turn.seen.slices = seconds.iter().map(slice).collect();
    turn
}

fn only(scenario: &Scenario, turns: &[Turn]) -> Verdict {
    let mut verdicts = verdicts(scenario, turns);
    assert_eq!(verdicts.len(), 1);
    verdicts.remove(0)
}

fn of(measure: Measure, turn: &Turn, scenario: &Scenario) -> Option<f64> {
    figure(measure, turn, scenario, &servers_watched(scenario))
}

fn is_about(figure: Option<f64>, expected: f64) -> bool {
    figure.is_some_and(|figure| (figure / expected - 1.0).abs() < 0.002)
}

#[test]
fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
    let figure =
        |rounds: &[f64]| Figure::over(rounds).map(|Figure { median, least, most }| [median, least, most]);
    assert_eq!(figure(&[3.0, 1.0, 2.0]), Some([2.0, 1.0, 3.0]));
    assert_eq!(figure(&[4.0, 1.0, 2.0, 3.0]), Some([2.5, 1.0, 4.0]));
    assert_eq!(figure(&[7.0]), Some([7.0, 7.0, 7.0]));
    assert_eq!(figure(&[]), None);
}

/// The ratio of the medians would be 20 / 20.
#[test]
fn a_ratio_is_taken_within_each_round() {
    let scenario = expecting("latency_weighted", "at_most = 1.25\ntimes = \"perfect\"");
    let mut all = turns(OURS, &[10, 20, 40]);
    all.extend(turns(Candidate::Perfect, &[5, 40, 20]));
    let verdict = only(&scenario, &all);
    assert_eq!(verdict.is_met, Some(false));
    let figure = verdict.figure.unwrap();
    assert!(is_about(Some(figure.median), 2.0) && is_about(Some(figure.least), 0.5), "{figure:?}");
    let words = "p99 of latency_weighted is 2.00 × that of perfect (0.50 to 2.00), at most 1.25: missed";
    assert_eq!(verdict.words, words);
}

#[test]
fn a_difference_is_shown_in_its_unit() {
    let scenario = expecting("latency_weighted", "at_most = 12\nbeyond = \"perfect\"");
    let all = [turn(OURS, 2), turn(Candidate::Perfect, 1)];
    let verdict = only(&scenario, &all);
    assert_eq!(verdict.is_met, Some(true));
    assert_eq!(
        verdict.words,
        "p99 of latency_weighted is 1.00 ms beyond that of perfect, at most 12.0 ms: met"
    );
}

#[test]
fn who_did_not_take_part_is_neither_met_nor_missed() {
    let scenario = expecting("latency_weighted", "at_most = 1.05\ntimes = \"haproxy\"");
    let verdict = only(&scenario, &[turn(OURS, 50)]);
    assert_eq!((verdict.figure, verdict.is_met), (None, None));
    let words = "p99 of latency_weighted, in relation to haproxy, at most 1.05: not measured, haproxy did not \
                 take part";
    assert_eq!(verdict.words, words);
}

/// Else the other rounds would make it look good.
#[test]
fn a_round_in_which_nothing_was_answered_misses_the_expectation() {
    let scenario = expecting("latency_weighted", "at_most = 100");
    let mut dead = turn(OURS, 1);
    dead.seen = Seen::none(4);
    dead.seen.failed.record_n(2_000_000, 5).unwrap();
    dead.seen.failures = BTreeMap::from([(Failure::Timeout, 5)]);
    let verdict = only(&scenario, &[turn(OURS, 50), dead]);
    assert_eq!(verdict.is_met, Some(false), "{}", verdict.words);
}

#[test]
fn a_dead_yardstick_says_nothing_about_us() {
    let scenario = expecting("latency_weighted", "at_most = 1.05\ntimes = \"nginx\"");
    let mut dead = turn(Candidate::Nginx, 1);
    dead.seen = Seen::none(4);
    dead.seen.failed.record_n(2_000_000, 5).unwrap();
    assert_eq!(only(&scenario, &[turn(OURS, 50), dead]).is_met, None);
}

#[test]
fn figures_of_a_turn_that_could_not_send_everything_are_not_judged() {
    let scenario = expecting("latency_weighted", "at_most = 100");
    let mut overrun = turn(OURS, 50);
    overrun.seen.failures.insert(Failure::NotSent, 1);
    let verdict = only(&scenario, &[overrun]);
    assert_eq!(verdict.is_met, None);
    assert!(verdict.words.contains("could not be sent"), "{}", verdict.words);
}

#[test]
fn rounds_that_only_one_of_two_took_part_in_are_not_compared() {
    let scenario = expecting("latency_weighted", "at_most = 1.25\ntimes = \"perfect\"");
    let mut all = turns(OURS, &[10, 20]);
    all.push(turn(Candidate::Perfect, 10));
    assert_eq!(only(&scenario, &all).is_met, None);
}

#[test]
fn errors_count_every_kind_of_failure() {
    let scenario = scenario("");
    let mut turn = turn(OURS, 10);
    turn.seen.failures = BTreeMap::from([(Failure::Status(500), 60), (Failure::Connect, 40)]);
    assert_eq!(of(Measure::Errors, &turn, &scenario), Some(0.5));
    turn.seen = Seen::none(4);
    assert_eq!(of(Measure::Errors, &turn, &scenario), None);
}

#[test]
fn patience_that_ran_out_counts_among_all_requests_only() {
    let scenario = scenario("");
    let mut turn = turn(OURS, 10);
    turn.seen.failed.record_n(2_000_000, 10).unwrap();
    assert!(is_about(of(Measure::P99, &turn, &scenario), 10.0));
    assert!(is_about(of(Measure::P99All, &turn, &scenario), 2_000.0));
}

#[test]
fn what_a_request_and_a_connection_cost() {
    let scenario = scenario("");
    let mut turn = turn(OURS, 10);
    for measure in [Measure::PerCpuSecond, Measure::ResidentMib, Measure::ConnectionKib, Measure::PeakMib] {
        assert_eq!(of(measure, &turn, &scenario), None, "nothing was used");
    }
    turn.used = Used {
        user: Duration::from_millis(150),
        system: Duration::from_millis(50),
        resident_before_kib: 1_024,
        resident_kib: 9_024,
        peak_kib: 10_240,
        idle_connections: 1_000,
    };
    assert!(is_about(of(Measure::PerCpuSecond, &turn, &scenario), 500.0));
    assert!(is_about(of(Measure::ResidentMib, &turn, &scenario), 9_024.0 / 1_024.0));
    assert!(is_about(of(Measure::ConnectionKib, &turn, &scenario), 8.0));
    assert!(is_about(of(Measure::PeakMib, &turn, &scenario), 10.0));
}

#[test]
fn servers_to_which_something_happens_are_not_compared() {
    let scenario = scenario("[[act]]\nserver = 0\nspeed = 0.2\n");
    assert_eq!(servers_watched(&scenario), [1, 2, 3]);
    let mut turn = turn(OURS, 10);
    turn.seen.answers = vec![1, 50, 100, 150];
    assert!(is_about(of(Measure::LeastShare, &turn, &scenario), 0.5));
    assert!(is_about(of(Measure::MostShare, &turn, &scenario), 1.5));
}

#[test]
fn servers_to_all_of_which_the_same_happens_are_equal() {
    let fail = scenario("[[act]]\nservers = \"all\"\nfail = { status = 500, share = 0.02 }\n");
    assert_eq!(servers_watched(&fail), [0, 1, 2, 3]);
    let pauses = scenario("[[act]]\nservers = \"all\"\npauses = { length = \"1s\", every = \"4s\" }\n");
    assert_eq!(servers_watched(&pauses), [0; 0]);
    assert_eq!(of(Measure::LeastShare, &turn(OURS, 10), &pauses), None);
}

#[test]
fn seconds_of_the_warm_up_and_thin_ones_do_not_count() {
    let scenario = scenario("");
    let wild = [400, 0, 0, 0];
    let thin = [30, 5, 5, 5];
    let turn = with_seconds(turn(OURS, 10), &[wild, wild, [100, 100, 100, 100], thin, [50, 100, 100, 150]]);
    assert!(is_about(of(Measure::LeastShareOfASecond, &turn, &scenario), 0.5));
    assert!(is_about(of(Measure::MostShareOfASecond, &turn, &scenario), 1.5));
    let turn = with_seconds(turn, &[wild, wild, thin]);
    assert_eq!(of(Measure::LeastShareOfASecond, &turn, &scenario), None);
}

#[test]
fn a_second_that_begins_after_the_turn_does_not_count() {
    let scenario = scenario("");
    let mut seconds = [[100; 4]; 11];
    seconds[10] = [400, 0, 0, 0];
    let turn = with_seconds(turn(OURS, 10), &seconds);
    assert!(is_about(of(Measure::MostShareOfASecond, &turn, &scenario), 1.0));
}

#[test]
fn a_server_is_well_again_ten_seconds_after_its_last_act() {
    let text = "what = \"w\"\nexpected = \"e\"\nservers = 4\nduration = \"14s\"\nrate = 100\n[[act]]\n\
                server = 0\nfrom = \"1s\"\nuntil = \"2s\"\ndown = true\n";
    let scenario = Scenario::read("made_up", text).unwrap();
    let mut seconds = [[0, 100, 100, 100]; 14];
    seconds[12] = [40, 120, 120, 120];
    seconds[13] = [60, 113, 113, 114];
    let turn = with_seconds(turn(OURS, 10), &seconds);
    assert!(is_about(of(Measure::ShareAfterwards, &turn, &scenario), 0.5));
}

#[test]
fn a_share_after_an_act_that_never_ends_is_not_measured() {
    let scenario = scenario("[[act]]\nserver = 0\nspeed = 0.2\n");
    let turn = with_seconds(turn(OURS, 10), &[[100; 4]; 10]);
    assert_eq!(of(Measure::ShareAfterwards, &turn, &scenario), None);
    assert_eq!(of(Measure::ShareAfterwards, &turn, &expecting("nginx", "at_most = 1")), None);
}

#[test]
fn a_bound_from_below_is_one_too() {
    let scenario = expecting("round_robin", "at_least = 1.2\ntimes = \"least_connections\"");
    let [robin, least] = [RoundRobin, LeastConnections].map(Candidate::Evener);
    assert_eq!(only(&scenario, &[turn(robin, 30), turn(least, 20)]).is_met, Some(true));
    assert_eq!(only(&scenario, &[turn(robin, 20), turn(least, 20)]).is_met, Some(false));
}

#[test]
fn errors_are_shown_in_percent() {
    let text = "[[expect]]\nmeasure = \"errors\"\nof = \"latency_weighted\"\nat_most = 0.01\n";
    let mut turn = turn(OURS, 10);
    turn.seen.failures = BTreeMap::from([(Failure::Broken, 1)]);
    let verdict = only(&scenario(text), &[turn]);
    assert_eq!(verdict.words, "share of failed requests of latency_weighted is 0.99 %, at most 1.00 %: met");
}

#[test]
fn every_measure_has_a_word_of_its_own() {
    let mut words: Vec<&str> = Measure::ALL.into_iter().map(Measure::name).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Measure::ALL.len());
}

/// Percentiles are those of successful requests: who fails the slow ones looks quick.
#[test]
fn nobody_is_quicker_by_failing_more() {
    let scenario = expecting("latency_weighted", "at_most = 1.05\ntimes = \"nginx\"");
    let with_failures = |mut turn: Turn, failed: u64| {
        turn.seen.failures = BTreeMap::from([(Failure::Timeout, failed)]);
        turn.seen.failed.record_n(2_000_000, failed).unwrap();
        turn
    };
    let quick_and_failing = [with_failures(turn(OURS, 10), 5), turn(Candidate::Nginx, 20)];
    let verdict = only(&scenario, &quick_and_failing);
    assert_eq!((verdict.figure, verdict.is_met), (None, Some(false)), "{}", verdict.words);

    let slow_beside_failing = [turn(OURS, 20), with_failures(turn(Candidate::Nginx, 10), 5)];
    let verdict = only(&scenario, &slow_beside_failing);
    assert_eq!(verdict.is_met, None, "{}", verdict.words);
    assert!(verdict.words.contains("nginx failed more"), "{}", verdict.words);

    let quick_beside_failing = [turn(OURS, 10), with_failures(turn(Candidate::Nginx, 10), 5)];
    assert_eq!(only(&scenario, &quick_beside_failing).is_met, Some(true));
}
