//! For the terminal: a hundred columns at most, colour where somebody sees it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use comfy_table::presets::{NOTHING, UTF8_HORIZONTAL_ONLY};
use comfy_table::{
    Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, LineStyle, Table, Width,
};

use super::doubts::is_in_doubt;
use super::words::{counted, median, median_percent, sentence, spread, verdict};
use super::{Group, Outcome, Run, doubts, groups};
use crate::bench::scenario::{Load, Measure, Scenario};
use crate::bench::verdict::Verdict;

/// Columns of a terminal that are used, however wide it is.
const WIDTH: u16 = 100;

/// One scenario: the figures of each candidate, the verdicts, and why figures are not to be trusted.
pub fn table(outcome: &Outcome) -> String {
    table_in(outcome, Look::of_stdout())
}

/// Every goal with what became of it, and how many orders were right.
pub fn summary(run: &Run) -> String {
    summary_in(run, Look::of_stdout())
}

/// Whether there are colours.
#[derive(Clone, Copy)]
enum Look {
    Coloured,
    Plain,
}

impl Look {
    /// Colour on a terminal that can, for an operator who wants it (<https://no-color.org>).
    fn of_stdout() -> Self {
        let is = |name, value| std::env::var(name).is_ok_and(|found| found == value);
        let is_unwanted = !std::env::var("NO_COLOR").unwrap_or_default().is_empty() || is("TERM", "dumb");
        if io::stdout().is_terminal() && !is_unwanted { Self::Coloured } else { Self::Plain }
    }

    fn table(self) -> Table {
        let mut table = Table::new();
        match self {
            Self::Coloured => table.enforce_styling(),
            Self::Plain => table.force_no_tty(),
        };
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        table
    }
}

fn table_in(outcome: &Outcome, look: Look) -> String {
    let scenario = &outcome.scenario;
    let mut text = paragraph(&format!("{}: {}", scenario.name, scenario.what), look);
    let groups = groups(outcome);
    if groups.is_empty() {
        text.push_str("nobody took part\n");
        return text;
    }
    text.push_str(&figures(scenario, &groups, look));
    text.push_str(&list(outcome.verdicts.iter().map(|verdict| (tag(verdict), &*verdict.words)), look));
    text.push_str(&distrust(outcome, look));
    text
}

/// The two views of figures: what requests took, or what idle connections take.
fn figures(scenario: &Scenario, groups: &[Group<'_>], look: Look) -> String {
    let columns: &[Column] = if matches!(scenario.load, Load::Idle(_)) { &IDLE } else { &REQUESTS };
    let mut table = look.table();
    table.load_style(UTF8_HORIZONTAL_ONLY.header_separator(LineStyle::none().fill('─').junction('─')));
    table.style_mut().row_separator = LineStyle::none();
    let headings = columns.iter().map(|column| column.heading);
    table.set_header(std::iter::once("candidate").chain(headings));
    for group in groups {
        let cells = columns.iter().map(|column| (column.cell)(group));
        table.add_row(std::iter::once(group.candidate.name().to_owned()).chain(cells));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let is_name = index == 0;
        column.set_cell_alignment(if is_name { CellAlignment::Left } else { CellAlignment::Right });
        column.set_padding((0, 1));
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.trim_fmt() + "\n"
}

/// One column of figures.
pub(super) struct Column {
    /// What, and on a line of its own in which unit.
    pub(super) heading: &'static str,
    pub(super) cell: fn(&Group<'_>) -> String,
}

/// Where requests were counted.
pub(super) const REQUESTS: [Column; 9] = [
    Column { heading: "p50\nms", cell: |group| median(group.figure(Measure::P50)) },
    Column { heading: "p99\nms", cell: |group| median(group.figure(Measure::P99)) },
    Column { heading: "p99.9\nms", cell: |group| median(group.figure(Measure::P999)) },
    Column { heading: "p99 spread\nms", cell: |group| spread(group.figure(Measure::P99)) },
    Column { heading: "errors\n%", cell: |group| median_percent(group.figure(Measure::Errors)) },
    Column { heading: "requests\nn", cell: |group| group.requests().to_string() },
    Column { heading: "requests\n/CPU-s", cell: |group| median(group.figure(Measure::PerCpuSecond)) },
    Column { heading: "CPU/req\nµs", cell: |group| median(group.cpu_us_per_request()) },
    Column { heading: "peak\nMiB", cell: |group| median(group.peak_mib()) },
];

/// Where connections were held.
pub(super) const IDLE: [Column; 6] = [
    Column { heading: "connections\nn", cell: |group| group.idle_connections().to_string() },
    Column { heading: "before\nMiB", cell: |group| median(group.before_mib()) },
    Column { heading: "at the end\nMiB", cell: |group| median(group.figure(Measure::ResidentMib)) },
    Column { heading: "peak\nMiB", cell: |group| median(group.peak_mib()) },
    Column { heading: "/connection\nKiB", cell: |group| median(group.figure(Measure::ConnectionKib)) },
    Column { heading: "errors\n%", cell: |group| median_percent(group.figure(Measure::Errors)) },
];

fn paragraph(text: &str, look: Look) -> String {
    let mut table = look.table();
    table.load_style(NOTHING).add_row([text]);
    no_padding(&mut table);
    table.trim_fmt() + "\n"
}

/// A word each, and beside it the sentence, in as many lines as it needs.
fn list<'a>(items: impl Iterator<Item = (Cell, &'a str)>, look: Look) -> String {
    let mut table = look.table();
    table.load_style(NOTHING);
    for (word, words) in items {
        table.add_row([word, Cell::new(sentence(words))]);
    }
    if table.is_empty() {
        return String::new();
    }
    no_padding(&mut table);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 2)).set_constraint(ColumnConstraint::Absolute(Width::Fixed(TAG_WIDTH)));
    }
    table.trim_fmt() + "\n"
}

/// "not measured" and two blanks.
const TAG_WIDTH: u16 = 14;

fn no_padding(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
    }
}

fn tag(of: &Verdict) -> Cell {
    let colour = match of.is_met {
        Some(true) => Color::Green,
        Some(false) => Color::Red,
        None => Color::Yellow,
    };
    Cell::new(verdict(of.is_met)).fg(colour)
}

fn distrust(outcome: &Outcome, look: Look) -> String {
    let broken = outcome.broken.iter().map(|(who, what)| paragraph(&format!("broke: {who}: {what}"), look));
    let lines = doubts(outcome).into_iter().map(|doubtful| {
        let words =
            format!("these figures are not to be trusted: {}: {}", doubtful.candidate, doubtful.words);
        paragraph(&words, look)
    });
    broken.chain(lines).collect()
}

fn summary_in(run: &Run, look: Look) -> String {
    let goals: Vec<(&Outcome, &Verdict)> = of_run(run).filter(|(_, verdict)| is_goal(verdict)).collect();
    let lines: Vec<String> = goals
        .iter()
        .map(|(outcome, verdict)| format!("{}: {}", outcome.scenario.name, verdict.words))
        .collect();
    let mut text = list(goals.iter().zip(&lines).map(|((_, verdict), words)| (tag(verdict), &**words)), look);
    let orders = of_run(run).filter(|(_, verdict)| !is_goal(verdict)).map(|(_, verdict)| verdict);
    let _ = writeln!(text, "{}", Tally::of(goals.iter().map(|(_, verdict)| *verdict)).words("goal", "met"));
    let _ = writeln!(text, "{}", Tally::of(orders).words("ordering", "right"));
    let in_doubt = goals
        .iter()
        .filter(|(outcome, verdict)| verdict.is_met == Some(true) && is_in_doubt(outcome, verdict))
        .count();
    if in_doubt > 0 {
        let _ = writeln!(text, "{in_doubt} of the goals met rest on figures that are not to be trusted");
    }
    let doubtful = run.outcomes.iter().filter(|outcome| !doubts(outcome).is_empty());
    let names: Vec<&str> = doubtful.map(|outcome| outcome.scenario.name.as_str()).collect();
    if !names.is_empty() {
        text.push_str(&paragraph(&format!("not to be trusted, see above: {}", names.join(", ")), look));
    }
    text
}

pub(super) fn of_run(run: &Run) -> impl Iterator<Item = (&Outcome, &Verdict)> {
    run.outcomes.iter().flat_map(|outcome| outcome.verdicts.iter().map(move |verdict| (outcome, verdict)))
}

pub(super) fn is_goal(verdict: &Verdict) -> bool {
    verdict.expectation.is_goal
}

/// How many were met.
pub(super) struct Tally {
    all: usize,
    met: usize,
    open: usize,
}

impl Tally {
    pub(super) fn of<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Self {
        let mut tally = Self { all: 0, met: 0, open: 0 };
        for verdict in verdicts {
            tally.all += 1;
            tally.met += usize::from(verdict.is_met == Some(true));
            tally.open += usize::from(verdict.is_met.is_none());
        }
        tally
    }

    /// "3 of 4 goals met, 1 not measured".
    pub(super) fn words(&self, noun: &str, word: &str) -> String {
        let open = if self.open == 0 { String::new() } else { format!(", {} not measured", self.open) };
        format!("{} of {} {word}{open}", self.met, counted(self.all, noun))
    }

    /// "3 of 4 met"; nothing where nothing was expected.
    pub(super) fn in_short(&self) -> String {
        if self.all == 0 { String::new() } else { format!("{} of {} met", self.met, self.all) }
    }

    pub(super) const fn is_all_met(&self) -> bool {
        self.met + self.open == self.all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{gallery, outcome, run, silent_outcome};
    use super::*;

    #[test]
    fn a_scenario_in_a_hundred_columns() {
        insta::assert_snapshot!(table_in(&outcome(), Look::Plain), @r"
        one_slow: One of ten servers is five times slower for a while.
        ────────────────────────────────────────────────────────────────────────────────────────────
        candidate           p50   p99  p99.9  p99 spread  errors  requests  requests  CPU/req  peak
                             ms    ms     ms          ms       %         n    /CPU-s       µs   MiB
        ────────────────────────────────────────────────────────────────────────────────────────────
        round_robin        8.03   785   1650     704–794   0.647     15300     25641     39.0  20.0
        least_connections  7.94   129    968     113–145       0     15300     25641     39.0  20.0
        latency_weighted   7.92  37.8    105   37.2–39.1       0     15300     25641     39.0  20.0
        perfect            7.86  35.1   49.7   33.9–35.3       0     15300     25641     39.0  20.0
        haproxy            8.00   125    959     103–214       0     15300     50000     20.0  20.0
        ────────────────────────────────────────────────────────────────────────────────────────────
        met           p99 of latency_weighted is 1.12 × that of perfect (1.08 to 1.18), at most 1.25
        MISSED        p99 of latency_weighted is 0.81 × that of haproxy (0.77 to 0.87), at most 0.70
        not measured  p99 of latency_weighted, in relation to caddy, at most 0.70: not measured, caddy did
                      not take part
        met           p99 of least_connections is 0.31 × that of round_robin (0.27 to 0.37), at most 0.90
        ");
    }

    #[test]
    fn no_line_is_longer_and_none_ends_in_blanks() {
        let run = gallery();
        let tables: String = run.outcomes.iter().map(|outcome| table_in(outcome, Look::Plain)).collect();
        for line in (tables + &summary_in(&run, Look::Plain)).lines() {
            assert!(line.chars().count() <= usize::from(WIDTH), "{line}");
            assert!(!line.contains('\x1b') && line == line.trim_end(), "{line:?}");
        }
    }

    #[test]
    fn verdicts_are_coloured_where_somebody_sees_it() {
        let table = table_in(&outcome(), Look::Coloured);
        let line = |word: &str| table.lines().find(|line| line.contains(word)).expect("its line").to_owned();
        assert!(line("MISSED").contains("\x1b[") && line("not measured").contains("\x1b["), "{table}");
        assert!(!line("candidate").contains("\x1b["), "{table}");
    }

    #[test]
    fn what_cannot_be_trusted_is_said_below_the_figures() {
        let mut outcome = outcome();
        outcome.turns[0].doubt.sent_late = Duration::from_millis(7);
        let table = table_in(&outcome, Look::Plain);
        assert!(
            table.ends_with(
                "these figures are not to be trusted: round_robin: requests began up to 7 ms late (99th percentile;\n\
                 0.808 ms is the limit), in 1 of 3 rounds\n"
            ),
            "{table}"
        );
    }

    #[test]
    fn without_a_success_or_a_turn_there_are_dashes_or_words() {
        let mut silent = silent_outcome();
        insta::assert_snapshot!(table_in(&silent, Look::Plain), @r"
        silent: One of ten servers is five times slower for a while.
        ──────────────────────────────────────────────────────────────────────────────────────────
        candidate          p50  p99  p99.9  p99 spread  errors  requests  requests  CPU/req  peak
                            ms   ms     ms          ms       %         n    /CPU-s       µs   MiB
        ──────────────────────────────────────────────────────────────────────────────────────────
        round_robin          –    –      –           –     100      1500         –        –     –
        least_connections    –    –      –           –     100      1500         –        –     –
        latency_weighted     –    –      –           –     100      1500         –        –     –
        perfect              –    –      –           –     100      1500         –        –     –
        haproxy              –    –      –           –     100      1500         –        –     –
        ──────────────────────────────────────────────────────────────────────────────────────────
        not measured  p99 of latency_weighted is 1.12 × that of perfect (1.08 to 1.18), at most 1.25
        not measured  p99 of latency_weighted is 0.81 × that of haproxy (0.77 to 0.87), at most 0.70
        not measured  p99 of latency_weighted, in relation to caddy, at most 0.70: not measured, caddy did
                      not take part
        not measured  p99 of least_connections is 0.31 × that of round_robin (0.27 to 0.37), at most 0.90
        ");
        silent.turns.clear();
        assert!(table_in(&silent, Look::Plain).ends_with("nobody took part\n"));
    }

    #[test]
    fn the_summary_has_every_goal_and_counts_orderings() {
        insta::assert_snapshot!(summary_in(&run(), Look::Plain), @r"
        met           one_slow: p99 of latency_weighted is 1.12 × that of perfect (1.08 to 1.18), at most
                      1.25
        MISSED        one_slow: p99 of latency_weighted is 0.81 × that of haproxy (0.77 to 0.87), at most
                      0.70
        not measured  one_slow: p99 of latency_weighted, in relation to caddy, at most 0.70: not measured,
                      caddy did not take part
        1 of 3 goals met, 1 not measured
        1 of 1 ordering right
        ");
    }
}
