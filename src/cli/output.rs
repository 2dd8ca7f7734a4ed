//! What commands print: tables, figures for people, colour where somebody sees it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write as _};

use super::failure::Failure;

/// Writes to standard output. Whoever reads may stop when they have seen enough (`| head`).
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Refused(format!(
            "error: cannot write the answer: {error}\n  = help: what was asked for is done; check where standard output goes"
        ))),
        _ => Ok(()),
    }
}

/// Writes to standard error; if that fails there is nobody left to tell.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// One line that says how a thing under way stands: in place of the one before where somebody sees it.
#[derive(Default)]
pub(super) struct Progress {
    last: String,
}

impl Progress {
    pub(super) fn tell(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        let mut err = io::stderr().lock();
        let _ = if err.is_terminal() {
            write!(err, "\r\x1b[K{text}").and_then(|()| err.flush())
        } else {
            writeln!(err, "{text}")
        };
    }

    /// What comes next begins a line of its own.
    pub(super) fn end(&self) {
        let mut err = io::stderr().lock();
        if !self.last.is_empty() && err.is_terminal() {
            let _ = writeln!(err);
        }
    }
}

/// How a word is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Odd,
    Bad,
    Heading,
}

/// Colours for a terminal, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// On a terminal that can, and with an operator who wants it (<https://no-color.org>).
    pub(super) fn for_stdout() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self(io::stdout().is_terminal() && wants_colour(&variable("NO_COLOR"), &variable("TERM")))
    }

    pub(super) const fn none() -> Self {
        Self(false)
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> Cow<'_, str> {
        let code = match tone {
            Tone::Good => "32",
            Tone::Odd => "33",
            Tone::Bad => "31",
            Tone::Heading => "1",
            Tone::Plain => return text.into(),
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m").into() } else { text.into() }
    }
}

fn wants_colour(no_color: &str, term: &str) -> bool {
    no_color.is_empty() && term != "dumb"
}

/// Rows under headings, columns two blanks apart.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

struct Column {
    heading: &'static str,
    is_number: bool,
}

/// One word of a table.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl Table {
    /// Columns by their headings; those that begin with `#` hold numbers and stand to the right.
    pub(super) fn new(headings: &[&'static str]) -> Self {
        let column = |heading: &&'static str| match heading.strip_prefix('#') {
            Some(heading) => Column { heading, is_number: true },
            None => Column { heading, is_number: false },
        };
        Self { columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, each line behind `indent`.
    pub(super) fn render(&self, indent: &str, paint: Paint) -> String {
        let heading = |column: &Column| Cell::toned(column.heading, Tone::Heading);
        let headings: Vec<Cell> = self.columns.iter().map(heading).collect();
        let lines: Vec<&Vec<Cell>> = std::iter::once(&headings).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len()).map(|index| width_of(&lines, index)).collect();
        let mut text = String::new();
        for line in lines {
            let mut shown = String::from(indent);
            for ((cell, column), &width) in line.iter().zip(&self.columns).zip(&widths) {
                cell.write(&mut shown, column.is_number, width, paint);
            }
            let _ = writeln!(text, "{}", shown.trim_end());
        }
        text
    }
}

fn width_of(lines: &[&Vec<Cell>], index: usize) -> usize {
    lines.iter().filter_map(|line| line.get(index)).map(|cell| cell.text.chars().count()).max().unwrap_or(0)
}

impl Cell {
    /// Colours take no room, so the blanks are counted without them.
    fn write(&self, line: &mut String, is_number: bool, width: usize, paint: Paint) {
        let blanks = " ".repeat(width.saturating_sub(self.text.chars().count()));
        let text = if self.text.is_empty() { "".into() } else { paint.paint(self.tone, &self.text) };
        let _ = if is_number { write!(line, "{blanks}{text}  ") } else { write!(line, "{text}{blanks}  ") };
    }
}

/// Lines of a list that are shown; all of them are in `--json`.
const LISTED_MAX: usize = 50;

/// The first items, and how many more there are.
pub(super) fn listed(items: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = items.len().saturating_sub(LISTED_MAX);
    let mut lines: Vec<String> = items.take(LISTED_MAX).collect();
    if more > 0 {
        lines.push(format!("… and {more} more (--json has all)"));
    }
    lines
}

/// `1 pool`, `2 pools`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// 0.0033 as `0.33%`.
pub(super) fn percent(ratio: f64) -> String {
    format!("{}%", rounded(ratio * 100.0, 2))
}

/// `1.25 ms`, `340 ms`; `-` where nothing was measured.
pub(super) fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(
        || "-".to_owned(),
        |value| format!("{} ms", rounded(value, if value < 10.0 { 2 } else { 0 })),
    )
}

fn rounded(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `3d 4h`, `2h 3m`, `5m`, `12s`: the two largest units, zeros left out.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` stops at 0 and the largest"
)]
pub(super) fn time_span(seconds: f64) -> String {
    let seconds = seconds as u64;
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let largest = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts
        .iter()
        .enumerate()
        .skip(largest)
        .take(2)
        .filter(|(index, part)| *index == largest || part.0 > 0);
    shown.map(|(_, (count, unit))| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_those_who_want_it() {
        assert!(wants_colour("", "xterm") && wants_colour("", ""));
        assert!(!wants_colour("1", "xterm") && !wants_colour("", "dumb"));
        assert_eq!(Paint(false).paint(Tone::Bad, "down"), "down");
        assert_eq!(Paint(true).paint(Tone::Bad, "down"), "\x1b[31mdown\x1b[0m");
    }

    #[test]
    fn columns_stand_under_their_headings_whatever_the_colour() {
        let mut table = Table::new(&["NAME", "#COUNT", "NOTE"]);
        table.row(["a".into(), "1".into(), Cell::toned("fine", Tone::Good)]);
        table.row(["long-name".into(), "12345678".into(), "".into()]);
        insta::assert_snapshot!(table.render("", Paint(false)), @r"
        NAME          COUNT  NOTE
        a                 1  fine
        long-name  12345678
        ");
        let coloured = table.render("", Paint(true));
        assert_eq!(coloured.lines().nth(1), Some("a                 1  \x1b[32mfine\x1b[0m"));
    }

    #[test]
    fn figures_are_as_long_as_they_need_to_be() {
        assert_eq!([0.0, 0.0033, 0.5, 1.0].map(percent), ["0%", "0.33%", "50%", "100%"]);
        let times = [None, Some(0.25), Some(1.0), Some(12.34), Some(1200.0)].map(milliseconds);
        assert_eq!(times, ["-", "0.25 ms", "1 ms", "12 ms", "1200 ms"]);
        let spans = [0.4, 192.0, 300.0, 7_380.0, 273_600.0].map(time_span);
        assert_eq!(spans, ["0s", "3m 12s", "5m", "2h 3m", "3d 4h"]);
    }

    #[test]
    fn long_lists_are_cut_short() {
        let lines = listed((0..60).map(|number| number.to_string()).collect::<Vec<_>>().into_iter());
        assert_eq!(lines.len(), 51);
        assert_eq!(lines.last().unwrap(), "… and 10 more (--json has all)");
    }
}
