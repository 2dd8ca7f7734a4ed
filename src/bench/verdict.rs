//! What was expected against what was measured. A stand-in with the agreed shapes; the branch with the real
//! one replaces this file whole.

use super::scenario::{Expectation, Measure, Scenario};
use super::turn::Turn;

/// One figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Figure {
    /// Of one figure per round; none of none.
    pub fn over(rounds: &[f64]) -> Option<Self> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }
}

/// An expectation, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was expected.
    pub expectation: Expectation,
    /// What was measured, counted as the expectation counts it.
    pub figure: Option<Figure>,
    /// `None`: it cannot be said.
    pub is_met: Option<bool>,
    /// One sentence for people.
    pub words: String,
}

/// The servers to which nothing happens.
pub fn servers_watched(scenario: &Scenario) -> Vec<usize> {
    let untouched = |server: &usize| scenario.script.iter().all(|act| act.server != *server);
    (0..scenario.servers).filter(untouched).collect()
}

/// One figure of one turn, in the unit of its [`Measure`].
pub fn figure(
    measure: Measure,
    turn: &Turn,
    _scenario: &Scenario,
    _servers_watched: &[usize],
) -> Option<f64> {
    let (seen, used) = (&turn.seen, &turn.used);
    let served = (!seen.succeeded.is_empty()).then_some(&seen.succeeded);
    let at = |quantile| served.map(|latency| latency.value_at_quantile(quantile) as f64 / 1_000.0);
    match measure {
        Measure::P50 => at(0.5),
        Measure::P99 => at(0.99),
        Measure::P999 => at(0.999),
        Measure::Errors => {
            let failed: u64 = seen.failures.values().sum();
            let all = failed + seen.succeeded.len();
            (all > 0).then(|| failed as f64 / all as f64)
        }
        Measure::PerCpuSecond => {
            let seconds = (used.user + used.system).as_secs_f64();
            (seconds > 0.0).then_some(served?.len() as f64 / seconds)
        }
        Measure::ResidentMib => (used.resident_kib > 0).then(|| used.resident_kib as f64 / 1_024.0),
        Measure::ConnectionKib => {
            let grown = used.resident_kib as f64 - used.resident_before_kib as f64;
            (used.idle_connections > 0).then(|| grown / used.idle_connections as f64)
        }
        _ => None,
    }
}

impl Measure {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::P50,
        Self::P99,
        Self::P999,
        Self::P99All,
        Self::Errors,
        Self::LeastShare,
        Self::MostShare,
        Self::LeastShareOfASecond,
        Self::MostShareOfASecond,
        Self::PerCpuSecond,
        Self::ResidentMib,
        Self::ConnectionKib,
    ];

    /// The word in scenario files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p999",
            Self::P99All => "p99_all",
            Self::Errors => "errors",
            Self::LeastShare => "least_share",
            Self::MostShare => "most_share",
            Self::LeastShareOfASecond => "least_share_of_a_second",
            Self::MostShareOfASecond => "most_share_of_a_second",
            Self::PerCpuSecond => "per_cpu_second",
            Self::ResidentMib => "resident_mib",
            Self::ConnectionKib => "connection_kib",
        }
    }
}
