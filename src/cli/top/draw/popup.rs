//! What stands in front of the board: help, a question, what went wrong.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::symbols::border;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::super::board::{Action, Board, Mode};
use super::super::picture::Row;
use super::super::verdict::Level;
use super::Look;
use crate::cli::member::Member;
use crate::cli::output::counted;

const WIDTH_MAX: u16 = 76;

const KEYS: &str = "\
j k, arrows, PgUp PgDn, g G   choose an upstream
/        filter by name, state, health, status; Esc clears
s S      order by the next, the previous column
R        reverse the order
d        drain it: no new requests, old ones finish
r        ready: it gets requests again
space    ask now
Ctrl-Z   suspend
q, Esc, Ctrl-C   quit

Rates are of the last interval; shares, p50 and p99
above of the last ten seconds. LATENCY is the estimate
that strategies go by, to the first byte.
";

pub(super) fn draw(frame: &mut Frame<'_>, board: &Board, look: Look) {
    let (title, text) = match &board.mode {
        Mode::Browse | Mode::Filter => return,
        Mode::Help => (" Keys ", help(look)),
        Mode::Confirm(action) => (" Sure? ", question(action, board)),
        Mode::Told(what) => (" It was not done ", told(what)),
    };
    let area = place(frame.area(), &text);
    let border = if look.is_unicode { border::PLAIN } else { ASCII };
    let block = Block::bordered().border_set(border).title(title);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), area);
}

const ASCII: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// In the middle, as large as the text or the screen.
fn place(screen: Rect, text: &Text<'_>) -> Rect {
    let longest = u16::try_from(text.width()).unwrap_or(u16::MAX).saturating_add(2);
    let width = longest.min(WIDTH_MAX).min(screen.width);
    let inner = usize::from(width.saturating_sub(2)).max(1);
    let lines: usize = text.lines.iter().map(|line| lines_for(line.width(), inner)).sum();
    let height = u16::try_from(lines).unwrap_or(u16::MAX).saturating_add(2).min(screen.height);
    let (x, y) = ((screen.width - width) / 2, (screen.height - height) / 2);
    Rect { x: screen.x + x, y: screen.y + y, width, height }
}

/// Broken between words, a line ends before its room does: a fifth is added for that.
fn lines_for(width: usize, room: usize) -> usize {
    if width <= room { 1 } else { (width + width / 5).div_ceil(room) }
}

fn help(look: Look) -> Text<'static> {
    let mut text = Text::raw(KEYS);
    let symbols = [(Level::Bad, "sick"), (Level::Odd, "in doubt, slow or full"), (Level::Off, "wanted so")];
    for (level, meaning) in symbols {
        text.push_line(Line::styled(format!("{}  {meaning}", look.symbol(level)), look.style(level)));
    }
    text
}

fn told(what: &str) -> Text<'static> {
    let mut text = Text::raw(what.trim_end().to_owned());
    text.push_line("");
    text.push_line("any key goes on");
    text
}

fn question(action: &Action, board: &Board) -> Text<'static> {
    let mut lines = match action {
        Action::Drain(member) => {
            let in_flight = row_of(board, member).map_or(0, |row| row.in_flight);
            let finish = match in_flight {
                0 => "Nothing is in flight there.".to_owned(),
                some => format!("{} in flight may finish.", counted(some, "request")),
            };
            let mut lines = vec![
                format!("Drain {member}?"),
                String::new(),
                "It gets no new requests.".to_owned(),
                finish,
            ];
            if is_last(board, member) {
                lines.push(format!("It is the last of {} that gets any: they will be refused.", member.pool));
            }
            lines
        }
        Action::Ready(member) => {
            vec![
                format!("Make {member} ready?"),
                String::new(),
                "It gets requests again, if it is well.".to_owned(),
            ]
        }
    };
    lines.extend([String::new(), "y yes   n no".to_owned()]);
    lines.into_iter().map(Line::raw).collect()
}

fn row_of<'a>(board: &'a Board, member: &Member) -> Option<&'a Row> {
    board.rows().iter().find(|row| row.member == *member)
}

fn is_last(board: &Board, member: &Member) -> bool {
    let mut eligible = board.rows().iter().filter(|row| row.member.pool == member.pool && row.is_eligible);
    eligible.next().is_some_and(|first| first.member == *member) && eligible.next().is_none()
}
