//! What is on the screen besides the figures: order, filter, selection, and what a key does to them. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::super::member::Member;
use super::picture::{Picture, Row};

/// What somebody looks at.
pub(super) struct Board {
    pub(super) picture: Option<Picture>,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    pub(super) mode: Mode,
    pub(super) link: Link,
    /// What came of the last action, until the next key.
    pub(super) note: Option<String>,
    /// Rows of the picture that pass the filter, in order.
    pub(super) order: Vec<usize>,
    /// First row in sight.
    pub(super) offset: usize,
    /// `None`: the first row, whoever that is. Else the row stays chosen wherever it moves.
    chosen: Option<Member>,
    /// Rows of upstreams that were in sight when the board was drawn last.
    pub(super) page: usize,
}

/// How the keys are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    /// They go into the filter.
    Filter,
    Help,
    /// Nothing happens before a `y`.
    Confirm(Action),
    /// Something went wrong; any key goes on.
    Told(String),
}

/// What changes the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Drain(Member),
    Ready(Member),
}

/// How it is with the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing has come yet.
    Waiting,
    Fine,
    /// Why the last attempt failed.
    Lost(String),
}

/// What a key asks the program for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    Suspend,
    Do(Action),
    /// The figures, now.
    Refresh,
}

/// What upstreams are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// The sickest first, then as configured
    #[default]
    Trouble,
    /// Pool and address
    Name,
    /// Requests in flight
    InFlight,
    /// Requests per second
    Rate,
    /// Errors per second
    Errors,
    /// Time to the first byte
    Latency,
    /// Share of the pool's requests
    Share,
}

impl Board {
    pub(super) fn new(sort: Sort, is_reversed: bool, filter: String) -> Self {
        Self {
            picture: None,
            sort,
            is_reversed,
            filter,
            mode: Mode::Browse,
            link: Link::Waiting,
            note: None,
            order: Vec::new(),
            offset: 0,
            chosen: None,
            page: 1,
        }
    }

    /// New figures.
    pub(super) fn show(&mut self, picture: Picture) {
        self.picture = Some(picture);
        self.link = Link::Fine;
        self.arrange();
    }

    /// Follows a change of figures, order or filter.
    fn arrange(&mut self) {
        let rows = self.rows();
        let is_wanted = |row: &Row| row.passes(&self.filter);
        let mut order: Vec<usize> =
            rows.iter().enumerate().filter(|(_, row)| is_wanted(row)).map(|(index, _)| index).collect();
        let compare = |one: &usize, other: &usize| match (rows.get(*one), rows.get(*other)) {
            (Some(one), Some(other)) => self.sort.compare(one, other),
            _ => Ordering::Equal,
        };
        order.sort_by(compare);
        if self.is_reversed {
            order.reverse();
        }
        self.order = order;
    }

    pub(super) fn rows(&self) -> &[Row] {
        self.picture.as_ref().map(|picture| picture.rows.as_slice()).unwrap_or_default()
    }

    /// Where in the order the chosen row stands; the first when it is not there.
    pub(super) fn cursor(&self) -> usize {
        let Some(chosen) = &self.chosen else { return 0 };
        let is_chosen = |index: &usize| self.rows().get(*index).is_some_and(|row| row.member == *chosen);
        self.order.iter().position(is_chosen).unwrap_or(0)
    }

    /// The upstream that a key would act on.
    pub(super) fn selected(&self) -> Option<&Row> {
        self.rows().get(*self.order.get(self.cursor())?)
    }

    /// Makes room for so many rows, and brings the chosen one into sight.
    pub(super) fn scroll(&mut self, page: usize) {
        self.page = page.max(1);
        let (cursor, last) = (self.cursor(), self.order.len().saturating_sub(self.page));
        self.offset = self.offset.clamp((cursor + 1).saturating_sub(self.page), cursor).min(last);
    }

    fn choose(&mut self, place: usize) {
        let index = self.order.get(place.min(self.order.len().saturating_sub(1)));
        self.chosen = index.and_then(|index| self.rows().get(*index)).map(|row| row.member.clone());
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.note = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return self.press_with_control(key.code);
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key.code),
            Mode::Filter => {
                self.type_filter(key.code);
                None
            }
            Mode::Help | Mode::Told(_) => None,
            Mode::Confirm(action) => match key.code {
                KeyCode::Char('y' | 'Y') => Some(Wish::Do(action)),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => None,
                // Whatever else was pressed was not meant for the question.
                _ => {
                    self.mode = Mode::Confirm(action);
                    None
                }
            },
        }
    }

    fn press_with_control(&mut self, code: KeyCode) -> Option<Wish> {
        match code {
            KeyCode::Char('c') => return Some(Wish::Quit),
            KeyCode::Char('z') => return Some(Wish::Suspend),
            KeyCode::Char('l') => return Some(Wish::Refresh),
            KeyCode::Char('u') if self.mode == Mode::Filter => {
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Char('d') if self.mode == Mode::Browse => self.browse_to(Step::PageDown),
            KeyCode::Char('u') if self.mode == Mode::Browse => self.browse_to(Step::PageUp),
            _ => {}
        }
        None
    }

    fn browse(&mut self, code: KeyCode) -> Option<Wish> {
        match code {
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Esc if self.filter.is_empty() => return Some(Wish::Quit),
            KeyCode::Esc => {
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('s' | '>') => self.order_by(self.sort.next()),
            KeyCode::Char('S' | '<') => self.order_by(self.sort.previous()),
            KeyCode::Char('R' | 'i') => {
                self.is_reversed = !self.is_reversed;
                self.arrange();
            }
            KeyCode::Char('d') => self.ask_for(Action::Drain),
            KeyCode::Char('r') => self.ask_for(Action::Ready),
            KeyCode::Char(' ') => return Some(Wish::Refresh),
            code => {
                if let Some(step) = Step::of(code) {
                    self.browse_to(step);
                }
            }
        }
        None
    }

    fn order_by(&mut self, sort: Sort) {
        (self.sort, self.is_reversed) = (sort, false);
        self.arrange();
    }

    fn ask_for(&mut self, action: fn(Member) -> Action) {
        if let Some(member) = self.selected().map(|row| row.member.clone()) {
            // From here on it stays with this one, whatever moves.
            self.chosen = Some(member.clone());
            self.mode = Mode::Confirm(action(member));
        }
    }

    fn browse_to(&mut self, step: Step) {
        let (cursor, page) = (self.cursor(), self.page);
        match step {
            // Back to the top is back to "whoever is first".
            Step::Home => self.chosen = None,
            Step::End => self.choose(usize::MAX),
            Step::Up => self.choose(cursor.saturating_sub(1)),
            Step::Down => self.choose(cursor + 1),
            Step::PageUp => self.choose(cursor.saturating_sub(page)),
            Step::PageDown => self.choose(cursor + page),
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        self.mode = Mode::Filter;
        match code {
            KeyCode::Enter => self.mode = Mode::Browse,
            KeyCode::Esc => {
                self.mode = Mode::Browse;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.add_to_filter(letter),
            code => {
                if let Some(step) = Step::of(code) {
                    self.browse_to(step);
                }
            }
        }
        self.arrange();
    }

    fn add_to_filter(&mut self, letter: char) {
        if self.filter.chars().count() < FILTER_CHARACTERS_MAX && !letter.is_control() {
            self.filter.push(letter);
        }
    }

    /// Text that was pasted is no row of keys: it goes into the filter, or nowhere.
    pub(super) fn paste(&mut self, text: &str) {
        if self.mode == Mode::Filter {
            text.chars().for_each(|letter| self.add_to_filter(letter));
            self.arrange();
        }
    }

    /// How old the figures are.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        self.picture.as_ref().map(|picture| now.saturating_sub(picture.at))
    }
}

/// More than any name and address together.
const FILTER_CHARACTERS_MAX: usize = 256;

/// A step through the rows.
#[derive(Clone, Copy)]
enum Step {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

impl Step {
    fn of(code: KeyCode) -> Option<Self> {
        Some(match code {
            KeyCode::Up | KeyCode::Char('k') => Self::Up,
            KeyCode::Down | KeyCode::Char('j') => Self::Down,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown => Self::PageDown,
            KeyCode::Home | KeyCode::Char('g') => Self::Home,
            KeyCode::End | KeyCode::Char('G') => Self::End,
            _ => return None,
        })
    }
}

impl Row {
    /// Whether each word of the filter is in its name, or in how it is.
    pub(super) fn passes(&self, filter: &str) -> bool {
        if filter.trim().is_empty() {
            return true;
        }
        let Self { member, state, health, verdict, .. } = self;
        let text = format!("{member} {state} {health} {}", verdict.word()).to_lowercase();
        filter.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

impl Sort {
    pub(super) const ALL: [Self; 7] =
        [Self::Trouble, Self::Name, Self::InFlight, Self::Rate, Self::Errors, Self::Latency, Self::Share];

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL.into_iter().cycle().nth(place + 1).unwrap_or_default()
    }

    fn previous(self) -> Self {
        let place = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL.into_iter().cycle().nth(place + Self::ALL.len() - 1).unwrap_or_default()
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Name => "name",
            Self::InFlight => "in flight",
            Self::Rate => "requests",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Share => "share",
        }
    }

    /// The most, or the worst, first; what is not known comes last.
    pub(super) fn compare(self, one: &Row, other: &Row) -> Ordering {
        let most = |of: fn(&Row) -> Option<f64>| {
            let (one, other) = (of(one).unwrap_or(-1.0), of(other).unwrap_or(-1.0));
            other.total_cmp(&one)
        };
        match self {
            Self::Trouble => one.verdict.cmp(&other.verdict),
            Self::Name => {
                let name = |row: &Row| (row.member.pool.clone(), in_numbers(&row.member.address));
                name(one).cmp(&name(other))
            }
            Self::InFlight => other.in_flight.cmp(&one.in_flight),
            Self::Rate => most(|row| row.rate.requests),
            Self::Errors => most(|row| row.rate.errors),
            Self::Latency => most(|row| row.latency_ms),
            Self::Share => most(|row| row.share),
        }
    }
}

/// Digits together are a number, so that `10.0.0.9` comes before `10.0.0.10`.
fn in_numbers(address: &str) -> Vec<(u64, char)> {
    let mut parts = Vec::new();
    let mut number: Option<u64> = None;
    for letter in address.chars() {
        if let Some(digit) = letter.to_digit(10) {
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit.into()));
        } else {
            parts.extend(number.take().map(|number| (number, '0')));
            parts.push((u64::MAX, letter));
        }
    }
    parts.extend(number.map(|number| (number, '0')));
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::picture::Meter;
    use super::super::testing::{pool, sample, sick, status, upstream};
    use super::*;

    fn picture(upstreams: &[Value]) -> Picture {
        Meter::default().read(sample(1, status(0, 0, &json!({})), &[pool("app", upstreams)]))
    }

    fn three() -> Vec<Value> {
        vec![
            upstream("10.0.0.10:80", 0, &json!({"in_flight": 1})),
            upstream("10.0.0.9:80", 0, &json!({"in_flight": 9})),
            sick("10.0.0.11:80", 0, "down", "its health checks fail"),
        ]
    }

    fn board() -> Board {
        let mut board = Board::new(Sort::Trouble, false, String::new());
        board.show(picture(&three()));
        board.scroll(10);
        board
    }

    fn press(board: &mut Board, keys: &str) -> Option<Wish> {
        keys.chars().map(|key| board.press(KeyCode::Char(key).into())).last().flatten()
    }

    fn addresses(board: &Board) -> Vec<&str> {
        board.order.iter().map(|index| board.rows()[*index].member.address.as_str()).collect()
    }

    fn selected(board: &Board) -> &str {
        &board.selected().unwrap().member.address
    }

    #[test]
    fn the_sick_come_first_and_each_key_has_its_order_and_its_reverse() {
        let mut board = board();
        assert_eq!(addresses(&board), ["10.0.0.11:80", "10.0.0.10:80", "10.0.0.9:80"]);
        press(&mut board, "s");
        assert_eq!(board.sort, Sort::Name);
        assert_eq!(
            addresses(&board),
            ["10.0.0.9:80", "10.0.0.10:80", "10.0.0.11:80"],
            "by number, not by letter"
        );
        press(&mut board, "R");
        assert_eq!(addresses(&board), ["10.0.0.11:80", "10.0.0.10:80", "10.0.0.9:80"]);
        press(&mut board, "s");
        assert_eq!((board.sort, board.is_reversed), (Sort::InFlight, false));
        assert_eq!(addresses(&board)[0], "10.0.0.9:80");
        press(&mut board, "SSS");
        assert_eq!(board.sort, Sort::Share, "round and round");
    }

    #[test]
    fn a_filter_is_typed_kept_and_cleared() {
        let mut board = board();
        press(&mut board, "/DOWN");
        assert_eq!(addresses(&board), ["10.0.0.11:80"]);
        board.press(KeyCode::Enter.into());
        assert_eq!(board.mode, Mode::Browse);
        assert_eq!(board.press(KeyCode::Esc.into()), None, "clears it first");
        assert_eq!(addresses(&board).len(), 3);
        press(&mut board, "/q");
        assert_eq!(board.mode, Mode::Filter, "a letter is a letter here");
        board.press(KeyCode::Backspace.into());
        board.paste("0.9:\n");
        assert_eq!((board.filter.as_str(), addresses(&board)), ("0.9:", vec!["10.0.0.9:80"]));
        board.press(KeyCode::Esc.into());
        assert_eq!(board.press(KeyCode::Esc.into()), Some(Wish::Quit));
    }

    #[test]
    fn what_is_chosen_stays_chosen_wherever_it_moves() {
        let mut board = board();
        assert_eq!(selected(&board), "10.0.0.11:80");
        press(&mut board, "j");
        assert_eq!(selected(&board), "10.0.0.10:80");
        let mut upstreams = three();
        upstreams[0] = sick("10.0.0.10:80", 0, "draining", "it is being drained");
        board.show(picture(&upstreams));
        assert_eq!((selected(&board), board.cursor()), ("10.0.0.10:80", 1));
        upstreams[0] = sick("10.0.0.10:80", 0, "down", "");
        board.show(picture(&upstreams));
        assert_eq!((selected(&board), board.cursor()), ("10.0.0.10:80", 0));
        press(&mut board, "Gkg");
        assert_eq!(board.cursor(), 0);
        board.show(picture(&[]));
        assert!(board.selected().is_none());
        press(&mut board, "jkGgdr");
        assert_eq!(board.mode, Mode::Browse, "nobody to drain");
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let mut board = board();
        let member = Member { pool: "app".to_owned(), address: "10.0.0.11:80".to_owned() };
        assert_eq!(press(&mut board, "d"), None);
        assert_eq!(board.mode, Mode::Confirm(Action::Drain(member.clone())));
        assert_eq!(press(&mut board, "dxj"), None, "not an answer");
        board.press(KeyCode::Enter.into());
        board.paste("y");
        assert_eq!(board.mode, Mode::Confirm(Action::Drain(member.clone())));
        assert_eq!(press(&mut board, "n"), None);
        assert_eq!(board.mode, Mode::Browse);
        assert_eq!(press(&mut board, "dy"), Some(Wish::Do(Action::Drain(member.clone()))));
        assert_eq!(press(&mut board, "ry"), Some(Wish::Do(Action::Ready(member))));
        assert_eq!(press(&mut board, "y"), None, "once");
    }

    #[test]
    fn every_way_to_leave_leaves() {
        for key in [KeyEvent::from(KeyCode::Char('q')), KeyCode::Esc.into()] {
            assert_eq!(board().press(key), Some(Wish::Quit));
        }
        for begin in ["", "/", "?", "d"] {
            let mut board = board();
            press(&mut board, begin);
            let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(board.press(interrupt), Some(Wish::Quit), "behind `{begin}`");
        }
    }

    #[test]
    fn a_thousand_rows_scroll_with_the_chosen_one_in_sight() {
        let upstreams: Vec<Value> =
            (0..1000).map(|port| upstream(&format!("a:{port}"), 0, &json!({}))).collect();
        let mut board = Board::new(Sort::Name, false, String::new());
        board.show(picture(&upstreams));
        let mut look = |key: KeyCode| {
            board.press(key.into());
            board.scroll(10);
            assert!(
                (board.offset..board.offset + 10).contains(&board.cursor()),
                "{} {}",
                board.offset,
                board.cursor()
            );
            (board.offset, board.cursor())
        };
        assert_eq!(look(KeyCode::Down), (0, 1));
        assert_eq!(look(KeyCode::PageDown), (2, 11));
        assert_eq!(look(KeyCode::End), (990, 999));
        assert_eq!(look(KeyCode::Down), (990, 999));
        assert_eq!(look(KeyCode::Up), (990, 998));
        assert_eq!(look(KeyCode::PageUp), (988, 988));
        assert_eq!(look(KeyCode::Home), (0, 0));
    }
}
