//! The columns of the upstreams: as many as there is room for.

use std::fmt::Write as _;

use ratatui::text::Span;

use super::super::board::{Board, Sort};
use super::super::picture::Row;
use super::Look;
use crate::cli::output::milliseconds;

/// Cursor, symbol, blank.
const PREFIX: usize = 3;
const NAME_MIN: usize = 12;
/// Of a name at its full length, before other columns are given up for it.
const NAME_WANTED: usize = 21;
const NAME_MAX: usize = 48;
const WHY_MIN: usize = 24;

/// What stands in a column, in the order of the screen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Status,
    State,
    Health,
    InFlight,
    Rate,
    Errors,
    Latency,
    P99,
    Share,
    Weight,
}

/// In the order in which they get room.
const BY_WORTH: [Kind; 6] =
    [Kind::Status, Kind::Rate, Kind::Errors, Kind::InFlight, Kind::Latency, Kind::Share];

/// These only when the reason has room, too.
const LUXURIES: [Kind; 4] = [Kind::Health, Kind::State, Kind::P99, Kind::Weight];

/// What there is room for.
pub(super) struct Columns {
    name: usize,
    kinds: Vec<Kind>,
    /// 0: the reason is told of the chosen one only.
    why: usize,
}

impl Kind {
    const fn width(self) -> usize {
        match self {
            Self::Status | Self::State | Self::Share => 11,
            Self::Latency | Self::P99 => 8,
            Self::InFlight | Self::Health | Self::Weight => 7,
            Self::Rate | Self::Errors => 6,
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::Status => "STATUS",
            Self::State => "STATE",
            Self::Health => "HEALTH",
            Self::InFlight => "FLIGHT",
            Self::Rate => "REQ/S",
            Self::Errors => "ERR/S",
            Self::Latency => "LATENCY",
            Self::P99 => "P99",
            Self::Share => "SHARE/FAIR",
            Self::Weight => "WEIGHT",
        }
    }

    const fn is_text(self) -> bool {
        matches!(self, Self::Status | Self::State | Self::Health)
    }

    const fn sort(self) -> Option<Sort> {
        Some(match self {
            Self::Status => Sort::Trouble,
            Self::InFlight => Sort::InFlight,
            Self::Rate => Sort::Rate,
            Self::Errors => Sort::Errors,
            Self::Latency => Sort::Latency,
            Self::Share => Sort::Share,
            Self::State | Self::Health | Self::P99 | Self::Weight => return None,
        })
    }

    fn text(self, row: &Row) -> String {
        match self {
            Self::Status => row.verdict.word().to_owned(),
            Self::State => row.state.clone(),
            Self::Health => row.health.clone(),
            Self::InFlight => row.in_flight.to_string(),
            Self::Rate => per_second(row.rate.requests),
            Self::Errors => per_second(row.rate.errors),
            Self::Latency => milliseconds(row.latency_ms),
            Self::P99 => milliseconds(row.p99_ms),
            Self::Share => format!("{}/{}", whole_percent(row.share), whole_percent(Some(row.fair))),
            Self::Weight => row.weight.to_string(),
        }
    }
}

impl Columns {
    pub(super) fn for_width(width: usize, board: &Board) -> Self {
        let names = board.rows().iter().map(|row| row.member.to_string().chars().count());
        let wanted = names.max().unwrap_or(0).clamp(NAME_MIN, NAME_MAX);
        let room = width.saturating_sub(PREFIX);
        let needed = |kinds: &[Kind]| kinds.iter().map(|kind| kind.width() + 1).sum::<usize>();
        let mut kinds = Vec::new();
        for kind in BY_WORTH {
            kinds.push(kind);
            if needed(&kinds) + wanted.min(NAME_WANTED) > room {
                kinds.pop();
            }
        }
        let fits_with = |kinds: &[Kind]| needed(kinds) + wanted + 1 + WHY_MIN <= room;
        for kind in LUXURIES {
            kinds.push(kind);
            if !fits_with(&kinds) {
                kinds.pop();
            }
        }
        kinds.sort_unstable();
        let left = room.saturating_sub(needed(&kinds));
        let name = wanted.min(left);
        let why = if fits_with(&kinds) { left.saturating_sub(name + 1) } else { 0 };
        Self { name, kinds, why }
    }

    pub(super) fn heading(&self, board: &Board, look: Look) -> String {
        let mark = match (board.is_reversed, look.is_unicode) {
            (false, true) => "▼",
            (true, true) => "▲",
            (false, false) => "v",
            (true, false) => "^",
        };
        let marked = |heading: &str, sort: Option<Sort>| {
            let mark = if sort == Some(board.sort) { mark } else { "" };
            format!("{heading}{mark}")
        };
        let mut text = format!("   {}", fitted(&marked("UPSTREAM", Some(Sort::Name)), self.name, look));
        for kind in &self.kinds {
            kind.write(&mut text, &marked(kind.heading(), kind.sort()), look);
        }
        if self.why > 0 {
            text.push_str(" WHY");
        }
        text
    }

    pub(super) fn line(&self, row: &Row, is_chosen: bool, look: Look) -> String {
        let cursor = if is_chosen { ">" } else { " " };
        let symbol = look.symbol(row.verdict.level());
        let mut text = format!("{cursor}{symbol} {}", middle_out(&row.member.to_string(), self.name, look));
        for kind in &self.kinds {
            kind.write(&mut text, &kind.text(row), look);
        }
        if self.why > 0 {
            let _ = write!(text, " {}", fitted(&row.why, self.why, look));
        }
        text
    }
}

impl Kind {
    fn write(self, line: &mut String, text: &str, look: Look) {
        let width = self.width();
        if self.is_text() {
            let _ = write!(line, " {}", fitted(text, width, look));
        } else {
            let blanks = width.saturating_sub(width_of(text));
            let _ = write!(line, " {}{text}", " ".repeat(blanks));
        }
    }
}

/// Columns of a terminal.
fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// As wide as that: cut at its end, or filled with blanks.
pub(super) fn fitted(text: &str, width: usize, look: Look) -> String {
    let own = width_of(text);
    if own <= width {
        return format!("{text}{}", " ".repeat(width - own));
    }
    let start = beginning(text, width.saturating_sub(1));
    let end = if width == 0 { "" } else { look.ellipsis() };
    let blanks = width.saturating_sub(width_of(&start) + 1);
    format!("{start}{end}{}", " ".repeat(blanks))
}

/// As [`fitted`], but both ends stay: a port is what neighbours differ in.
pub(super) fn middle_out(text: &str, width: usize, look: Look) -> String {
    if width_of(text) <= width || width < NAME_MIN {
        return fitted(text, width, look);
    }
    let behind = (width - 1) / 2;
    let backwards: String = text.chars().rev().collect();
    let end: String = beginning(&backwards, behind).chars().rev().collect();
    let start = beginning(text, width - 1 - width_of(&end));
    fitted(&format!("{start}{}{end}", look.ellipsis()), width, look)
}

/// As much as fits.
fn beginning(text: &str, width: usize) -> String {
    let mut start = String::new();
    for letter in text.chars() {
        start.push(letter);
        if width_of(&start) > width {
            start.pop();
            break;
        }
    }
    start
}

/// `0.5`, `12`, `1234`, `12.3k`; `-` where nothing is known.
pub(super) fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) if rate < 9_999.5 => format!("{rate:.0}"),
        Some(rate) if rate < 999_950.0 => format!("{:.1}k", rate / 1e3),
        Some(rate) => format!("{:.1}M", rate / 1e6),
    }
}

fn whole_percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(share) if share > 0.0 && share < 0.01 => "<1%".to_owned(),
        Some(share) => format!("{:.0}%", share * 100.0),
    }
}
