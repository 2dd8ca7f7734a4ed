//! When the bench itself was in the way: figures of such turns must not be trusted.

use std::time::Duration;

use super::group::{Group, latency_at};
use super::words::{counted, percent, short};
use super::{Outcome, groups};
use crate::bench::name::Candidate;
use crate::bench::scenario::{Against, Expectation, Load, Measure};
use crate::bench::turn::{Failure, Turn};
use crate::bench::verdict::Verdict;

/// What is later than this is late: a millisecond is what people compare balancers by.
const LATE_MAX: Duration = Duration::from_millis(1);
/// And so is what is later than this share of the median latency, where that is short.
const LATE_SHARE_MAX: f64 = 0.1;
/// But not what no clock can better: a timer of the kernel wakes a thread that much late.
const LATE_MIN: Duration = Duration::from_micros(50);
/// A thread that is busier has a queue of its own (at 0.85 a random arrival waits for several others).
const BUSY_MAX: f64 = 0.85;
/// A machine whose cores are busier makes everybody wait for a core.
const MACHINE_BUSY_MAX: f64 = 0.9;

/// Why the figures of a candidate are not to be trusted.
#[derive(Debug, PartialEq)]
pub(super) struct Doubtful {
    pub(super) candidate: Candidate,
    /// "requests began up to 3.2 ms late (99th percentile; 1 ms is the limit)".
    pub(super) words: String,
}

/// All reasons, candidate by candidate; none: the bench was not in the way.
pub(super) fn doubts(outcome: &Outcome) -> Vec<Doubtful> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    doubts_on(outcome, cores)
}

/// Whether a verdict rests on figures that are not to be trusted. Cost and memory are read from the kernel,
/// whoever was late.
pub(super) fn is_in_doubt(outcome: &Outcome, verdict: &Verdict) -> bool {
    let Expectation { measure, of, against, .. } = verdict.expectation;
    let other = match against {
        Against::Nothing => None,
        Against::Times(other) | Against::Beyond(other) => Some(other),
    };
    let is_latency = matches!(measure, Measure::P50 | Measure::P99 | Measure::P999 | Measure::P99All);
    let concerns = |doubtful: &Doubtful| doubtful.candidate == of || Some(doubtful.candidate) == other;
    is_latency && doubts(outcome).iter().any(concerns)
}

fn doubts_on(outcome: &Outcome, cores: usize) -> Vec<Doubtful> {
    groups(outcome).iter().flat_map(|group| doubts_of(group, &outcome.scenario.load, cores)).collect()
}

fn doubts_of(group: &Group<'_>, load: &Load, cores: usize) -> Vec<Doubtful> {
    let reasons = [
        not_sent(group),
        late(group, "requests began", |turn| turn.doubt.sent_late),
        late(group, "servers answered", |turn| turn.doubt.answered_late),
        busy(group, "the clients' thread", |turn| turn.doubt.load_busy),
        busy(group, "the servers' thread", |turn| turn.doubt.servers_busy),
        // A closed loop fills the machine on purpose.
        matches!(load, Load::Rate { .. }).then(|| full(group, cores)).flatten(),
    ];
    let candidate = group.candidate;
    reasons.into_iter().flatten().map(|words| Doubtful { candidate, words }).collect()
}

fn not_sent(group: &Group<'_>) -> Option<String> {
    let count = |turn: &&Turn| turn.seen.failures.get(&Failure::NotSent).copied().unwrap_or(0);
    let all: u64 = group.turns.iter().map(count).sum();
    (all > 0).then(|| format!("{all} requests could not be sent: too many were under way"))
}

fn late(group: &Group<'_>, who: &str, lateness: impl Fn(&Turn) -> Duration) -> Option<String> {
    let beyond: Vec<&&Turn> = group.turns.iter().filter(|turn| lateness(turn) > late_max(turn)).collect();
    let worst = beyond.iter().max_by_key(|turn| lateness(turn))?;
    let words = format!(
        "{who} up to {} ms late (99th percentile; {} ms is the limit)",
        millis(lateness(worst)),
        millis(late_max(worst)),
    );
    Some(words + &rounds(beyond.len(), group))
}

fn late_max(turn: &Turn) -> Duration {
    let share = latency_at(turn, 0.5).map(|p50| Duration::from_secs_f64(p50 / 1_000.0 * LATE_SHARE_MAX));
    share.map_or(LATE_MAX, |share| share.clamp(LATE_MIN, LATE_MAX))
}

fn millis(time: Duration) -> String {
    short(time.as_secs_f64() * 1_000.0)
}

fn busy(group: &Group<'_>, who: &str, busyness: impl Fn(&Turn) -> f64) -> Option<String> {
    let beyond: Vec<f64> =
        group.turns.iter().map(|turn| busyness(turn)).filter(|&busy| busy > BUSY_MAX).collect();
    let worst = beyond.iter().copied().reduce(f64::max)?;
    let words = format!(
        "{who} was busy {} % of the time ({} % is the limit)",
        percent(worst),
        short(BUSY_MAX * 100.0)
    );
    Some(words + &rounds(beyond.len(), group))
}

fn full(group: &Group<'_>, cores: usize) -> Option<String> {
    let limit = cores as f64 * MACHINE_BUSY_MAX;
    let beyond: Vec<f64> =
        group.turns.iter().filter_map(|turn| cores_used(turn)).filter(|&used| used > limit).collect();
    let worst = beyond.iter().copied().reduce(f64::max)?;
    let words = format!(
        "clients, servers and balancer used {worst:.2} of {} ({limit:.2} is the limit)",
        counted(cores, "core")
    );
    Some(words + &rounds(beyond.len(), group))
}

fn cores_used(turn: &Turn) -> Option<f64> {
    let measured = turn.seen.time.as_secs_f64();
    let balancer = (turn.used.user + turn.used.system).as_secs_f64();
    (measured > 0.0).then(|| turn.doubt.load_busy + turn.doubt.servers_busy + balancer / measured)
}

fn rounds(count: usize, group: &Group<'_>) -> String {
    let all = group.turns.len();
    if all > 1 { format!(", in {count} of {all} rounds") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::outcome;
    use super::*;
    use crate::bench::turn::Doubt;

    /// Words for the first candidate when its turns are changed like this.
    fn words(change: impl Fn(&mut Turn)) -> Vec<String> {
        let mut outcome = outcome();
        let first = outcome.turns[0].candidate;
        outcome.turns.iter_mut().filter(|turn| turn.candidate == first).for_each(change);
        let doubts = doubts_on(&outcome, 2);
        assert!(doubts.iter().all(|doubtful| doubtful.candidate == first), "{doubts:?}");
        doubts.into_iter().map(|doubtful| doubtful.words).collect()
    }

    #[test]
    fn a_bench_that_kept_out_of_the_way_is_trusted() {
        assert_eq!(words(|_| {}), [""; 0]);
        let calm = Doubt {
            sent_late: Duration::from_micros(50),
            answered_late: Duration::from_micros(50),
            load_busy: 0.3,
            servers_busy: 0.3,
        };
        assert_eq!(words(|turn| turn.doubt = calm), [""; 0]);
    }

    #[test]
    fn every_way_to_be_in_the_way_is_said() {
        let late = words(|turn| {
            turn.seen.succeeded.record_n(20_000, 100_000).expect("within bounds");
            turn.doubt.sent_late = Duration::from_micros(3_200);
        });
        assert_eq!(
            late,
            ["requests began up to 3.2 ms late (99th percentile; 1 ms is the limit), in 3 of 3 rounds"]
        );
        let answered = words(|turn| turn.doubt.answered_late = Duration::from_millis(2));
        assert!(answered[0].starts_with("servers answered up to 2 ms late"), "{answered:?}");
        let busy = words(|turn| turn.doubt.servers_busy = 0.93);
        assert_eq!(
            busy,
            ["the servers' thread was busy 93.0 % of the time (85 % is the limit), in 3 of 3 rounds"]
        );
        let not_sent = words(|turn| {
            turn.seen.failures.insert(Failure::NotSent, 4);
        });
        assert_eq!(not_sent, ["12 requests could not be sent: too many were under way"]);
        let full = words(|turn| turn.used.user = turn.seen.time * 2);
        assert!(full[0].contains("of 2 cores (1.80 is the limit)"), "{full:?}");
    }

    #[test]
    fn a_tenth_of_a_short_latency_is_late() {
        let short = |turn: &mut Turn| {
            turn.seen.succeeded.reset();
            turn.seen.succeeded.record_n(1_000, 100).expect("within bounds");
            turn.doubt.sent_late = Duration::from_micros(150);
        };
        let words = words(short);
        assert!(words[0].contains("0.15 ms late (99th percentile; 0.1 ms is the limit)"), "{words:?}");
    }
}
