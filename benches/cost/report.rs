//! The figures as a person reads them: a table per question, then every goal with its verdict.

use std::fmt::{self, Formatter};

use super::candidate::Candidate;
use super::memory::{Growth, Memory};
use super::throughput::{Round, Throughput};

/// Requests per CPU-second in relation to bare Pingora: what routing, balancing, metrics and forwarding
/// headers may cost. The goals are those of the issue that ordered this benchmark.
const RATIO_GOAL: f64 = 0.95;
const START_GOAL_MIB: f64 = 30.0;
const CONNECTION_GOAL_KIB: f64 = 8.0;
const GROWTH_GOAL: f64 = 1.2;

/// All that was measured.
pub(crate) struct Report {
    pub machine: Vec<String>,
    pub throughput: Vec<Throughput>,
    pub memory: Vec<Memory>,
    pub growth: Growth,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter)?;
        for fact in &self.machine {
            writeln!(formatter, "{fact}")?;
        }
        self.write_throughput(formatter)?;
        self.write_memory(formatter)?;
        self.write_goals(formatter)
    }
}

impl Report {
    fn write_throughput(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "\n{:<14}{:>12}{:>17}{:>8}{:>12}{:>10}{:>10}",
            "", "req/CPU-s", "spread", "system", "req/s", "p50 ms", "p99 ms"
        )?;
        for one in &self.throughput {
            let per_cpu_s = Spread::of(one.each(Round::per_cpu_s));
            let median = |figure: fn(&Round) -> f64| Spread::of(one.each(figure)).median;
            writeln!(
                formatter,
                "{:<14}{:>12.0}{:>17}{:>7.0}%{:>12.0}{:>10.2}{:>10.2}",
                one.candidate.name(),
                per_cpu_s.median,
                format!("{:.0}-{:.0}", per_cpu_s.least, per_cpu_s.most),
                100.0 * median(|round| round.cpu.system_s / round.cpu.total_s()),
                median(Round::per_s),
                1_000.0 * median(|round| round.turn.p50.as_secs_f64()),
                1_000.0 * median(|round| round.turn.p99.as_secs_f64()),
            )?;
        }
        Ok(())
    }

    fn write_memory(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\n{:<14}{:>14}{:>26}", "", "at start, MiB", "per idle connection, KiB")?;
        for one in &self.memory {
            let (name, start) = (one.candidate.name(), one.at_start_kib / 1024.0);
            writeln!(formatter, "{name:<14}{start:>14.1}{:>26.1}", one.per_connection_kib)?;
        }
        Ok(())
    }

    fn write_goals(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\n{:<46}{:>18}{:>12}", "", "measured", "goal")?;
        let found = |candidate| self.throughput.iter().find(|one| one.candidate == candidate);
        if let (Some(evener), Some(bare)) = (found(Candidate::Evener), found(Candidate::Bare)) {
            let ratio = Spread::of(evener.ratios_to(bare));
            let measured = format!("{:.3} ({:.3}-{:.3})", ratio.median, ratio.least, ratio.most);
            let goal = Goal::AtLeast(RATIO_GOAL);
            line(formatter, "requests per CPU-second, Evener : bare Pingora", &measured, ratio.median, goal)?;
        }
        if let Some(memory) = self.memory.iter().find(|one| one.candidate == Candidate::Evener) {
            let (start, each) = (memory.at_start_kib / 1024.0, memory.per_connection_kib);
            line(formatter, "MiB at start", &format!("{start:.1}"), start, Goal::AtMost(START_GOAL_MIB))?;
            line(
                formatter,
                "KiB per idle connection",
                &format!("{each:.1}"),
                each,
                Goal::AtMost(CONNECTION_GOAL_KIB),
            )?;
        }
        let [first, last] = self.growth.resident_kib.map(|kib| kib / 1024.0);
        let what =
            format!("memory after {} requests : after {}", self.growth.requests[1], self.growth.requests[0]);
        let (ratio, measured) = (self.growth.ratio(), format!("{last:.1} : {first:.1} MiB"));
        line(formatter, &what, &measured, ratio, Goal::AtMost(GROWTH_GOAL))
    }
}

/// What a figure should be.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

fn line(formatter: &mut Formatter<'_>, what: &str, measured: &str, figure: f64, goal: Goal) -> fmt::Result {
    let (is_met, goal) = match goal {
        Goal::AtLeast(least) => (figure >= least, format!(">= {least}")),
        Goal::AtMost(most) => (figure <= most, format!("<= {most}")),
    };
    let verdict = if is_met { "met" } else { "MISSED" };
    writeln!(formatter, "{what:<50}{measured:>21}{goal:>9}  {verdict}")
}

/// The middle and both ends of a few figures.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let last = figures.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { median, least: at(0), most: at(last) }
    }
}
