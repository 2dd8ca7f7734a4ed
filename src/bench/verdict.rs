//! What was expected against what was measured.
//!
//! ```text
//!   turns, round by round ──figure()──► a figure of each ──÷ or − within the round──► Figure ──► Verdict
//!                                                                          median, least, most
//! ```
//!
//! The n-th turn of a candidate belongs to round n, and all turns of a round had the same schedule. So what is
//! common to a round (chance, a machine that was busy) falls out of a ratio, and the median of ratios is
//! judged, not the ratio of medians.
//!
//! **To add a measure**: a variant of [`Measure`], its name in [`Measure::name`], its figure in [`figure`], its
//! row in `benches/README.md`, section Scenarios.

use std::fmt;
use std::time::Duration;

use super::name::Candidate;
use super::scenario::{Act, Against, Bound, Expectation, Fate, Measure, Scenario};
use super::turn::{Failure, SLICE, Seen, Turn, Used};

/// One figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The middle one; of an even number, the mean of the two in the middle.
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
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let is_even = sorted.len().is_multiple_of(2);
        let lower = if is_even { *sorted.get(middle.checked_sub(1)?)? } else { upper };
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
    /// `None`: it cannot be said. Who it is about did not take part, or the figures are worthless.
    pub is_met: Option<bool>,
    /// One sentence for people.
    pub words: String,
}

/// Every expectation of a scenario, in the order of the file. `turns` are those of all rounds.
pub fn verdicts(scenario: &Scenario, turns: &[Turn]) -> Vec<Verdict> {
    scenario.expectations.iter().map(|expectation| verdict(expectation, scenario, turns)).collect()
}

fn verdict(expectation: &Expectation, scenario: &Scenario, turns: &[Turn]) -> Verdict {
    let judged = judge(expectation, scenario, turns);
    let subject = Subject(expectation);
    let (figure, is_met, words) = match judged {
        Ok(figure) => {
            let is_met = expectation.bound.holds(figure.median);
            let verdict = if is_met { "met" } else { "missed" };
            (Some(figure), Some(is_met), format!("{}: {verdict}", subject.with(&figure)))
        }
        Err(Why::NobodyServed(who)) => {
            let words = format!("{subject}: missed, {who} answered no request in one of the rounds");
            (None, Some(false), words)
        }
        Err(why @ Why::FailedMore(_)) => (None, Some(false), format!("{subject}: {why}")),
        Err(why) => (None, None, format!("{subject}: {why}")),
    };
    Verdict { expectation: expectation.clone(), figure, is_met, words }
}

/// Why there is no figure.
enum Why {
    Absent(Candidate),
    NotSent(Candidate),
    NothingToCount(Candidate),
    /// It took part, was asked, and no request succeeded: that is no excuse.
    NobodyServed(Candidate),
    UnequalRounds,
    /// Its slow requests failed, and are missing among the slow ones.
    FailedMore(Candidate),
    /// The same of who is compared with: its figure is better than what its clients saw.
    YardstickFailed(Candidate),
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(who) => write!(formatter, "not measured, {who} did not take part"),
            Self::NotSent(who) => write!(formatter, "not judged, requests to {who} could not be sent"),
            Self::NothingToCount(who) | Self::NobodyServed(who) => {
                write!(formatter, "not measured, {who} gave too little to count")
            }
            Self::FailedMore(who) => write!(formatter, "missed, {who} failed more requests"),
            Self::YardstickFailed(who) => {
                write!(
                    formatter,
                    "not comparable, {who} failed more requests, and the slow ones among them do not count"
                )
            }
            Self::UnequalRounds => formatter.write_str("not judged, not both took part in every round"),
        }
    }
}

fn judge(expectation: &Expectation, scenario: &Scenario, turns: &[Turn]) -> Result<Figure, Why> {
    let Expectation { measure, of, against, .. } = *expectation;
    let ours = rounds_of(of, measure, scenario, turns)?;
    let rounds = match against {
        Against::Nothing => ours,
        Against::Times(other) | Against::Beyond(other) => {
            // Who is compared with serves as a yardstick: where it has no figure, nobody failed but it.
            let theirs = rounds_of(other, measure, scenario, turns).map_err(|why| match why {
                Why::NobodyServed(who) => Why::NothingToCount(who),
                why => why,
            })?;
            if ours.len() != theirs.len() {
                return Err(Why::UnequalRounds);
            }
            let pairs = ours.into_iter().zip(theirs);
            let counted = pairs.map(|(our, their)| compared(our, their, against));
            counted.collect::<Option<Vec<f64>>>().ok_or(Why::NothingToCount(other))?
        }
    };
    let figure = Figure::over(&rounds).ok_or(Why::Absent(of))?;
    mind_failures(expectation, &figure, scenario, turns)?;
    Ok(figure)
}

/// Percentiles of successful requests flatter whoever fails the slow ones. So nobody is better than another
/// whose clients lost fewer requests, and nobody is worse than another whose clients lost more.
fn mind_failures(
    expectation: &Expectation,
    figure: &Figure,
    scenario: &Scenario,
    turns: &[Turn],
) -> Result<(), Why> {
    let Expectation { measure, of, against, bound, .. } = *expectation;
    let is_latency = matches!(measure, Measure::P50 | Measure::P99 | Measure::P999);
    let (Against::Times(other) | Against::Beyond(other)) = against else { return Ok(()) };
    // `at_least` asks how much worse one is: for that, its failures only count against it.
    if !is_latency || matches!(bound, Bound::AtLeast(_)) {
        return Ok(());
    }
    let failed = |who| {
        let rounds = rounds_of(who, Measure::Errors, scenario, turns)?;
        Figure::over(&rounds).map(|figure| figure.median).ok_or(Why::Absent(who))
    };
    let (ours, theirs) = (failed(of)?, failed(other)?);
    if ours > theirs + ERRORS_ALIKE {
        Err(Why::FailedMore(of))
    } else if theirs > ours + ERRORS_ALIKE && !bound.holds(figure.median) {
        Err(Why::YardstickFailed(other))
    } else {
        Ok(())
    }
}

/// Shares of failed requests that differ by less are alike: the 99th percentile leaves out as many.
const ERRORS_ALIKE: f64 = 0.01;

/// `None`: nothing can be divided by zero.
fn compared(our: f64, their: f64, against: Against) -> Option<f64> {
    match against {
        Against::Nothing => Some(our),
        Against::Beyond(_) => Some(our - their),
        Against::Times(_) => (their > 0.0).then(|| our / their),
    }
}

/// One figure per round. A round without a figure is never passed over: the rounds that are left would
/// look better than they were together.
fn rounds_of(who: Candidate, measure: Measure, scenario: &Scenario, turns: &[Turn]) -> Result<Vec<f64>, Why> {
    let watched = servers_watched(scenario);
    let figure_of = |turn: &Turn| {
        if turn.seen.failures.contains_key(&Failure::NotSent) {
            return Err(Why::NotSent(who));
        }
        figure(measure, turn, scenario, &watched).ok_or_else(|| {
            let was_asked = turn.seen.succeeded.len() + turn.seen.failed.len() > 0;
            let nobody_served = was_asked && turn.seen.succeeded.is_empty();
            if nobody_served { Why::NobodyServed(who) } else { Why::NothingToCount(who) }
        })
    };
    let rounds: Vec<f64> =
        turns.iter().filter(|turn| turn.candidate == who).map(figure_of).collect::<Result<_, _>>()?;
    if rounds.is_empty() { Err(Why::Absent(who)) } else { Ok(rounds) }
}

/// The servers whose shares are compared: those to which nothing happens in the whole turn. Where the same
/// happens to every server at the same time, all are equal, and all count.
pub fn servers_watched(scenario: &Scenario) -> Vec<usize> {
    let untouched = |server: &usize| scenario.script.iter().all(|act| act.server != *server);
    let watched: Vec<usize> = (0..scenario.servers).filter(untouched).collect();
    if watched.is_empty() && is_all_alike(scenario) { (0..scenario.servers).collect() } else { watched }
}

fn is_all_alike(scenario: &Scenario) -> bool {
    // Pauses come to each server at moments of its own.
    let acts_of = |server: usize| -> Vec<(Duration, Duration, Fate)> {
        let of_it = scenario.script.iter().filter(|act| act.server == server);
        of_it.map(|act| (act.from, act.until, act.fate)).collect()
    };
    let draws_moments = |act: &Act| matches!(act.fate, Fate::Pauses { .. });
    let first = acts_of(0);
    !scenario.script.iter().any(draws_moments) && (1..scenario.servers).all(|server| acts_of(server) == first)
}

/// One figure of one turn, in the unit of its [`Measure`]; `servers_watched` is what [`servers_watched`] says.
/// `None` when there is too little to count: no answer, no process, no server to watch.
pub fn figure(measure: Measure, turn: &Turn, scenario: &Scenario, servers_watched: &[usize]) -> Option<f64> {
    let (seen, used) = (&turn.seen, &turn.used);
    let percentile =
        |quantile| (!seen.succeeded.is_empty()).then(|| millis(seen.succeeded.value_at_quantile(quantile)));
    match measure {
        Measure::P50 => percentile(0.5),
        Measure::P99 => percentile(0.99),
        Measure::P999 => percentile(0.999),
        Measure::P99All => p99_of_all(seen),
        Measure::Errors => errors(seen),
        Measure::LeastShare => shares(seen, servers_watched).map(|[least, _]| least),
        Measure::MostShare => shares(seen, servers_watched).map(|[_, most]| most),
        Measure::LeastShareOfASecond => swing(seen, scenario, servers_watched).map(|[least, _]| least),
        Measure::MostShareOfASecond => swing(seen, scenario, servers_watched).map(|[_, most]| most),
        Measure::ShareAfterwards => share_afterwards(seen, scenario),
        Measure::PerCpuSecond => per_cpu_second(seen, used),
        Measure::ResidentMib => (used.resident_kib > 0).then(|| used.resident_kib as f64 / 1_024.0),
        Measure::ConnectionKib => connection_kib(used),
        Measure::PeakMib => (used.peak_kib > 0).then(|| used.peak_kib as f64 / 1_024.0),
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

fn p99_of_all(seen: &Seen) -> Option<f64> {
    let mut all = seen.succeeded.clone();
    // Both have the same bounds, so that adding cannot fail; if it did, there would be no figure.
    all.add(&seen.failed).ok()?;
    (!all.is_empty()).then(|| millis(all.value_at_quantile(0.99)))
}

/// Failed ones that were never timed count, too.
fn errors(seen: &Seen) -> Option<f64> {
    let failed: u64 = seen.failures.values().sum();
    let all = failed + seen.succeeded.len();
    (all > 0).then(|| failed as f64 / all as f64)
}

fn per_cpu_second(seen: &Seen, used: &Used) -> Option<f64> {
    let seconds = (used.user + used.system).as_secs_f64();
    (seconds > 0.0 && !seen.succeeded.is_empty()).then(|| seen.succeeded.len() as f64 / seconds)
}

fn connection_kib(used: &Used) -> Option<f64> {
    let grown = used.resident_kib as f64 - used.resident_before_kib as f64;
    (used.idle_connections > 0).then(|| grown / used.idle_connections as f64)
}

/// The smallest and the largest count of these servers, in relation to their mean.
fn spread(counts: &[f64]) -> Option<[f64; 2]> {
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let of_mean = || counts.iter().map(|count| count / mean);
    let least = of_mean().reduce(f64::min)?;
    (mean > 0.0).then_some([least, of_mean().reduce(f64::max)?])
}

fn shares(seen: &Seen, watched: &[usize]) -> Option<[f64; 2]> {
    spread(&counts_of(watched, |server| seen.answers.get(server).map(|&count| count as f64)))
}

fn counts_of(servers: &[usize], count: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
    servers.iter().map(|&server| count(server).unwrap_or(0.0)).collect()
}

/// Answers that a server must have had to expect in a second for that second to count. If 50 are expected
/// and chance alone deals them out, one server in thirty thousand has less than half and none more than
/// twice its share; with fewer, chance would look like swinging.
pub const ANSWERS_OF_A_SECOND_MIN: f64 = 50.0;

/// The extremes over all seconds that lie wholly within what is measured and have enough answers.
fn swing(seen: &Seen, scenario: &Scenario, watched: &[usize]) -> Option<[f64; 2]> {
    let measured = seen.slices.iter().enumerate().filter(|(index, _)| {
        let [begins, ends] = seconds_of(*index);
        begins >= scenario.warmup && ends <= scenario.duration
    });
    let spreads = measured.filter_map(|(_, slice)| {
        let counts = counts_of(watched, |server| slice.answers.get(server).map(|&count| f64::from(count)));
        let is_enough = counts.iter().sum::<f64>() >= ANSWERS_OF_A_SECOND_MIN * counts.len() as f64;
        if is_enough { spread(&counts) } else { None }
    });
    spreads.reduce(|[least, most], [low, high]| [least.min(low), most.max(high)])
}

fn seconds_of(slice: usize) -> [Duration; 2] {
    let begins = SLICE.saturating_mul(u32::try_from(slice).unwrap_or(u32::MAX));
    [begins, begins.saturating_add(SLICE)]
}

/// How long a server that is well again may take to get its share back (`ALGORITHMS.md` §8: ten seconds).
pub const RECOVERY: Duration = Duration::from_secs(10);

/// The smallest share, in relation to the mean of all servers, of one to which something happened, in the
/// seconds that begin [`RECOVERY`] after the end of it.
fn share_afterwards(seen: &Seen, scenario: &Scenario) -> Option<f64> {
    let last_ends = scenario.script.iter().map(|act| act.until).max()?;
    let again = last_ends.checked_add(RECOVERY)?;
    let afterwards = || {
        seen.slices.iter().enumerate().filter(|(index, _)| {
            let [begins, ends] = seconds_of(*index);
            begins >= again.max(scenario.warmup) && ends <= scenario.duration
        })
    };
    let count = |server: usize| -> f64 {
        afterwards().map(|(_, slice)| f64::from(slice.answers.get(server).copied().unwrap_or(0))).sum()
    };
    let mean = (0..scenario.servers).map(count).sum::<f64>() / scenario.servers as f64;
    let touched =
        (0..scenario.servers).filter(|&server| scenario.script.iter().any(|act| act.server == server));
    let least = touched.map(count).reduce(f64::min)?;
    (mean > 0.0).then(|| least / mean)
}

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl Measure {
    /// All there are, in the order of the documentation.
    pub const ALL: [Self; 14] = [
        Self::P50,
        Self::P99,
        Self::P999,
        Self::P99All,
        Self::Errors,
        Self::LeastShare,
        Self::MostShare,
        Self::LeastShareOfASecond,
        Self::MostShareOfASecond,
        Self::ShareAfterwards,
        Self::PerCpuSecond,
        Self::ResidentMib,
        Self::ConnectionKib,
        Self::PeakMib,
    ];

    /// The word in scenario files.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// What it is called in a sentence.
    pub const fn phrase(self) -> &'static str {
        self.row().1
    }

    /// Name, phrase, unit, and what a figure is multiplied with to be shown in that unit.
    const fn row(self) -> (&'static str, &'static str, &'static str, f64) {
        match self {
            Self::P50 => ("p50", "p50", " ms", 1.0),
            Self::P99 => ("p99", "p99", " ms", 1.0),
            Self::P999 => ("p999", "p99.9", " ms", 1.0),
            Self::P99All => ("p99_all", "p99 with failed requests", " ms", 1.0),
            Self::Errors => ("errors", "share of failed requests", " %", 100.0),
            Self::LeastShare => ("least_share", "least share of an equal server", " of its fair share", 1.0),
            Self::MostShare => ("most_share", "largest share of an equal server", " of its fair share", 1.0),
            Self::LeastShareOfASecond => (
                "least_share_of_a_second",
                "least share of an equal server in any second",
                " of its fair share",
                1.0,
            ),
            Self::MostShareOfASecond => (
                "most_share_of_a_second",
                "largest share of an equal server in any second",
                " of its fair share",
                1.0,
            ),
            Self::ShareAfterwards => {
                ("share_afterwards", "share of a server that is well again", " of its fair share", 1.0)
            }
            Self::PerCpuSecond => ("per_cpu_second", "requests per CPU-second", "", 1.0),
            Self::ResidentMib => ("resident_mib", "resident memory", " MiB", 1.0),
            Self::ConnectionKib => ("connection_kib", "memory per idle connection", " KiB", 1.0),
            Self::PeakMib => ("peak_mib", "most memory ever resident", " MiB", 1.0),
        }
    }
}

/// An expectation in words: "p99 of `latency_weighted` is 1.12 × that of perfect (1.08 to 1.15), at most 1.25".
struct Subject<'a>(&'a Expectation);

impl Subject<'_> {
    fn with(&self, figure: &Figure) -> String {
        let Expectation { measure, of, against, .. } = self.0;
        let shown = |value: f64| self.shown(value);
        let Figure { median, least, most } = *figure;
        let spread =
            if least < most { format!(" ({} to {})", shown(least), shown(most)) } else { String::new() };
        let measured = match against {
            Against::Nothing => format!("{}{}", shown(median), self.unit()),
            Against::Times(other) => format!("{} × that of {other}", shown(median)),
            Against::Beyond(other) => format!("{}{} beyond that of {other}", shown(median), self.unit()),
        };
        format!("{} of {of} is {measured}{spread}, {}", measure.phrase(), self.bound())
    }

    fn bound(&self) -> String {
        let (word, bound) = match self.0.bound {
            Bound::AtMost(most) => ("at most", most),
            Bound::AtLeast(least) => ("at least", least),
        };
        format!("{word} {}{}", self.shown(bound), self.unit())
    }

    /// Three figures or so, none of them after a large number: 0.083, 1.12, 48.2, 30215.
    fn shown(&self, value: f64) -> String {
        let value = value * self.factor();
        let digits = match value.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            size if size >= 0.1 || size == 0.0 => 2,
            _ => 3,
        };
        format!("{value:.digits$}")
    }

    fn unit(&self) -> &'static str {
        if self.is_ratio() { "" } else { self.0.measure.row().2 }
    }

    fn factor(&self) -> f64 {
        if self.is_ratio() { 1.0 } else { self.0.measure.row().3 }
    }

    const fn is_ratio(&self) -> bool {
        matches!(self.0.against, Against::Times(_))
    }
}

/// Without a figure: "p99 of `latency_weighted`, in relation to haproxy, at most 1.05".
impl fmt::Display for Subject<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Expectation { measure, of, against, .. } = self.0;
        write!(formatter, "{} of {of}", measure.phrase())?;
        match against {
            Against::Nothing => {}
            Against::Times(other) => write!(formatter, ", in relation to {other}")?,
            Against::Beyond(other) => write!(formatter, ", beyond that of {other}")?,
        }
        write!(formatter, ", {}", self.bound())
    }
}

#[cfg(test)]
mod tests;
