//! The turns of one candidate, and what they come to over the rounds.

use std::time::Duration;

use super::Outcome;
use crate::bench::name::Candidate;
use crate::bench::scenario::{Measure, Scenario};
use crate::bench::turn::Turn;
use crate::bench::verdict::{Figure, figure, servers_watched};

/// All turns of one candidate in one scenario, at least one.
pub(super) struct Group<'a> {
    pub(super) candidate: Candidate,
    pub(super) turns: Vec<&'a Turn>,
    scenario: &'a Scenario,
    watched: Vec<usize>,
}

/// Those who took part, in the order of reports.
pub(super) fn groups(outcome: &Outcome) -> Vec<Group<'_>> {
    let watched = servers_watched(&outcome.scenario);
    let of = |candidate| {
        let turns: Vec<&Turn> = outcome.turns.iter().filter(|turn| turn.candidate == candidate).collect();
        let scenario = &outcome.scenario;
        (!turns.is_empty()).then(|| Group { candidate, turns, scenario, watched: watched.clone() })
    };
    Candidate::all().filter_map(of).collect()
}

/// A percentile that fewer requests of a round lie beyond is the luck of those few.
const BEYOND_MIN: f64 = 5.0;

impl Group<'_> {
    /// A measure over the rounds; none unless every round has it, since those that are left would look
    /// better than all of them were.
    pub(super) fn figure(&self, measure: Measure) -> Option<Figure> {
        self.over(|turn| self.figure_of(measure, turn))
    }

    pub(super) fn figure_of(&self, measure: Measure, turn: &Turn) -> Option<f64> {
        figure(measure, turn, self.scenario, &self.watched).filter(|value| value.is_finite())
    }

    /// CPU time of one request in µs.
    pub(super) fn cpu_us_per_request(&self) -> Option<Figure> {
        self.over(|turn| self.cpu_us_of(turn))
    }

    pub(super) fn cpu_us_of(&self, turn: &Turn) -> Option<f64> {
        let per_second = self.figure_of(Measure::PerCpuSecond, turn)?;
        (per_second > 0.0).then(|| 1_000_000.0 / per_second)
    }

    /// The most memory in MiB.
    pub(super) fn peak_mib(&self) -> Option<Figure> {
        self.over(|turn| some_mib(turn.used.peak_kib))
    }

    /// Memory before the load in MiB.
    pub(super) fn before_mib(&self) -> Option<Figure> {
        self.over(|turn| some_mib(turn.used.resident_before_kib))
    }

    pub(super) fn idle_connections(&self) -> u64 {
        self.turns.iter().map(|turn| turn.used.idle_connections).max().unwrap_or(0)
    }

    /// Requests of all rounds, failed ones included.
    pub(super) fn requests(&self) -> u64 {
        self.turns.iter().map(|turn| requests_of(turn)).sum()
    }

    pub(super) fn over(&self, of_turn: impl Fn(&Turn) -> Option<f64>) -> Option<Figure> {
        let rounds: Vec<f64> = self.turns.iter().map(|turn| of_turn(turn)).collect::<Option<_>>()?;
        Figure::over(&rounds)
    }

    /// Latency in ms by quantile, each the median over the rounds, up to where there are requests enough.
    pub(super) fn curve(&self, quantiles: &[f64]) -> Vec<(f64, f64)> {
        let fewest = self.turns.iter().map(|turn| turn.seen.succeeded.len()).min().unwrap_or(0) as f64;
        let is_known = |quantile: f64| fewest * (1.0 - quantile) >= BEYOND_MIN;
        let point = |&quantile: &f64| {
            let latency = self.over(|turn| latency_at(turn, quantile))?;
            Some((quantile, latency.median))
        };
        quantiles.iter().filter(|&&quantile| is_known(quantile)).filter_map(point).collect()
    }

    /// p99 in ms second by second, the median over the rounds; none in a second without an answer.
    pub(super) fn p99_by_second(&self) -> Vec<Option<f64>> {
        let in_second = |second: usize| {
            let slices = self.turns.iter().filter_map(|turn| turn.seen.slices.get(second));
            let p99s: Vec<f64> =
                slices.map(|slice| millis(slice.p99)).filter(|&latency| latency > 0.0).collect();
            Figure::over(&p99s).map(|figure| figure.median)
        };
        (0..self.seconds()).map(in_second).collect()
    }

    /// Answers by server, second by second, all rounds together.
    pub(super) fn answers_by_second(&self) -> Vec<Vec<f64>> {
        let in_second = |second: usize| {
            let mut answers = vec![0.0; self.scenario.servers];
            for slice in self.turns.iter().filter_map(|turn| turn.seen.slices.get(second)) {
                for (sum, &count) in answers.iter_mut().zip(&slice.answers) {
                    *sum += f64::from(count);
                }
            }
            answers
        };
        (0..self.seconds()).map(in_second).collect()
    }

    fn seconds(&self) -> usize {
        self.turns.iter().map(|turn| turn.seen.slices.len()).max().unwrap_or(0)
    }
}

/// Requests of a turn, failed ones included.
pub(super) fn requests_of(turn: &Turn) -> u64 {
    turn.seen.succeeded.len() + failed_of(turn)
}

pub(super) fn failed_of(turn: &Turn) -> u64 {
    turn.seen.failures.values().sum()
}

/// Latency of successful requests in ms.
pub(super) fn latency_at(turn: &Turn, quantile: f64) -> Option<f64> {
    let succeeded = &turn.seen.succeeded;
    (!succeeded.is_empty()).then(|| succeeded.value_at_quantile(quantile) as f64 / 1_000.0)
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// None where nothing was read: there is no process, or no accounting.
pub(super) fn some_mib(kib: u64) -> Option<f64> {
    (kib > 0).then(|| kib as f64 / 1_024.0)
}

/// `steps` quantiles from the median to 99.99 %, evenly spaced on a scale of nines.
pub(super) fn quantiles(steps: u32) -> Vec<f64> {
    let step = |index: u32| {
        let nines = NINES_LEAST + (NINES_MOST - NINES_LEAST) * f64::from(index) / f64::from(steps);
        1.0 - 10_f64.powf(-nines)
    };
    (0..=steps).map(step).collect()
}

/// The median, in nines: -log10(1 - 0.5).
pub(super) const NINES_LEAST: f64 = std::f64::consts::LOG10_2;
/// 99.99 %.
pub(super) const NINES_MOST: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::super::testing::{outcome, silent_outcome};
    use super::*;
    use crate::balance::StrategyKind;

    #[test]
    fn figures_are_medians_over_the_rounds() {
        let outcome = outcome();
        let groups = groups(&outcome);
        let names: Vec<&str> = groups.iter().map(|group| group.candidate.name()).collect();
        assert_eq!(names, ["round_robin", "least_connections", "latency_weighted", "perfect", "haproxy"]);
        for group in &groups {
            let p99 = group.figure(Measure::P99).expect("requests succeeded");
            assert!(p99.least <= p99.median && p99.median <= p99.most, "{p99:?}");
            let cpu = group.cpu_us_per_request().expect("CPU time was taken");
            assert!(cpu.median > 1.0, "{cpu:?}");
        }
    }

    #[test]
    fn a_curve_rises_and_ends_where_requests_are_few() {
        let outcome = outcome();
        let group = &groups(&outcome)[2];
        assert_eq!(group.candidate, Candidate::Evener(StrategyKind::LatencyWeighted));
        let curve = group.curve(&quantiles(40));
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
        let fewest = group.turns.iter().map(|turn| turn.seen.succeeded.len()).min().unwrap();
        let last = curve.last().unwrap().0;
        assert!(last < 0.9999 && fewest as f64 * (1.0 - last) >= BEYOND_MIN, "{last} of {fewest}");
    }

    #[test]
    fn where_nothing_succeeded_there_are_no_figures() {
        let outcome = silent_outcome();
        for group in groups(&outcome) {
            assert_eq!(group.figure(Measure::P99), None);
            assert_eq!(group.cpu_us_per_request(), None);
            assert!(group.curve(&quantiles(10)).is_empty());
            assert!(group.p99_by_second().iter().all(Option::is_none));
        }
    }
}
